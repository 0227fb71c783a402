"""The table of the items or of the users: who is in it, by id and by number."""

from collections.abc import Iterator

from data.tables.ids import identifier
from data.tables.rows import BadRow, Row
from data.tables.side_features import FeatureColumns, FeatureEncoder, FeatureLearner
from data.tables.table import Skipped, Table, complete


class Entities:
    """The items or users of a table, by id; of rows with the same id the first one counts.

    Attributes:
      name: "items" or "users".
      table: the table.
      column: of the ids.
      ids: numbers by id.
      duplicates: how many rows repeat an id.
      warnings: what to say of the table.
    """

    def __init__(self, name: str, table: Table, column: str | None, *, default: str):
        self.name, self.table = name, table
        self.column = table.required_column(column, default)
        self.ids: dict[str, int] = {}
        self.duplicates = 0
        self.warnings: list[str] = []

    def number(self, columns: FeatureColumns, skipped: Skipped) -> FeatureEncoder:
        """Reads the table once: numbers the ids, and learns the side features.

        Raises:
          ConfigError: for a column that the table lacks.
          DatasetError: for a bad row, unless such rows are skipped; when no other is left.
        """
        columns.check(self.table)
        learner = FeatureLearner(columns)
        for row in self.table:
            try:
                known = self._id(row) in self.ids
                self.ids.setdefault(self._id(row), len(self.ids))
                self.duplicates += known
                if not known:
                    learner.add(row)
            except BadRow as error:
                skipped.add(self.name, row, str(error))
        encoder = FeatureEncoder(columns, learner.specs())
        self.warnings += learner.warnings
        if not self.ids:
            skipped.check_left(self.name, self.table)
            self.warnings.append(f"{self.table.path}: lists no {self.name}.")
        return encoder

    def rows(self) -> Iterator[tuple[str, Row]]:
        """Reads the table again, in the order of the numbers."""
        number = 0
        for row in self.table:
            try:
                name = self._id(row)
            except BadRow:
                continue  # counted, or raised, when the table was first read
            if self.ids[name] == number:
                yield name, row
                number += 1

    def _id(self, row: Row) -> str:
        complete(row, self.table.columns)
        name = identifier(row.cells[self.column])
        if not name:
            raise BadRow(f"no {self.name.removesuffix('s')} id")
        return name
