"""Side features of users and items: vocabularies and scales learned from a table, then applied."""

import array
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data.tables.rows import BadRow, Row
from data.tables.scale import LARGEST, far_off
from data.tables.table import Table
from mmrec_tf.errors import ConfigError
from mmrec_tf.records.items import shard_of
from mmrec_tf.schema import FeatureSpec


@dataclass(frozen=True)
class FeatureColumns:
    """The side features of one table.

    Attributes:
      categorical: columns of one or several names each.
      numeric: columns of one number each.
      separator: what stands between several names in one cell; "" for never several.
      vocabulary_size: the most names to keep of a column, the most frequent ones.
      oov_buckets: how many numbers the others share, by their hash.
    """

    categorical: tuple[str, ...] = ()
    numeric: tuple[str, ...] = ()
    separator: str = "|"
    vocabulary_size: int = 10_000
    oov_buckets: int = 1

    def __post_init__(self) -> None:
        for name in ("vocabulary_size", "oov_buckets"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: wanted 1 or more; got {getattr(self, name)}.")

    def check(self, table: Table) -> None:
        """Checks that the table has the columns.

        Raises:
          ConfigError: when it lacks one.
        """
        for name in self.categorical + self.numeric:
            table.required_column(name, name, role="side feature")

    def names(self, row: Row, column: str) -> list[str]:
        """The distinct names in a cell, in its order."""
        cell = row.cells[column]
        parts = cell.split(self.separator) if self.separator else [cell]
        return list(dict.fromkeys(part.strip() for part in parts if part.strip()))

    def number(self, row: Row, column: str) -> float | None:
        """The number in a cell; None where it is empty.

        Raises:
          BadRow: when the cell holds something else.
        """
        cell = row.cells[column]
        if not cell:
            return None
        try:
            value = float(cell)
        except ValueError:
            value = math.nan
        # As it is stored; what no float32 holds would be infinite.
        if not abs(value) <= LARGEST:
            raise BadRow(f"{column}: wanted a number or nothing; got {cell!r}")
        return value


class FeatureLearner:
    """Learns `FeatureSpec`s from the rows that it is shown.

    Attributes:
      warnings: what to say of what `specs` learned.
    """

    def __init__(self, columns: FeatureColumns):
        self._columns = columns
        self._counts: dict[str, Counter[str]] = {name: Counter() for name in columns.categorical}
        self._width = dict.fromkeys(columns.categorical, 1)
        self._numbers = {name: array.array("d") for name in columns.numeric}
        self._farthest: dict[str, tuple[float, str]] = {}
        self.warnings: list[str] = []

    def add(self, row: Row) -> None:
        """Learns from one row.

        Raises:
          BadRow: when a numeric cell holds something else; the rest of the row is learned from.
        """
        bad = None
        for name in self._columns.categorical:
            names = self._columns.names(row, name)
            self._counts[name].update(names)
            self._width[name] = max(self._width[name], len(names))
        for name in self._columns.numeric:
            try:
                value = self._columns.number(row, name)
            except BadRow as error:
                bad = error
                continue
            if value is not None:
                self._numbers[name].append(value)
                # Where the farthest from 0 stands, in case that it is to be named.
                if abs(value) >= abs(self._farthest.get(name, (0.0, ""))[0]):
                    self._farthest[name] = value, row.where
        if bad is not None:
            raise bad

    def specs(self) -> dict[str, FeatureSpec]:
        """What was learned, by column."""
        specs = {}
        for name, counts in self._counts.items():
            # Ties by name, so that the order of rows does not matter.
            frequent = sorted(counts, key=lambda word: (-counts[word], word))
            specs[name] = FeatureSpec(
                kind="categorical",
                vocabulary=tuple(frequent[: self._columns.vocabulary_size]),
                width=self._width[name],
                oov_buckets=self._columns.oov_buckets,
            )
        for name, numbers in self._numbers.items():
            values = np.asarray(numbers, np.float64)
            far = far_off(values)
            near = values[~far]
            bounds = (float(near.min()), float(near.max())) if far.any() else (None, None)
            specs[name] = FeatureSpec(
                kind="numeric",
                mean=float(near.mean()) if len(near) else 0.0,
                std=(float(near.std()) or 1.0) if len(near) else 1.0,
                low=bounds[0],
                high=bounds[1],
            )
            if far.any():
                value, where = self._farthest[name]
                self.warnings.append(
                    f"{name}: {int(far.sum())} of {len(values)} numbers lie so far off that they "
                    f"would set the scale of all, such as {value:.10g} ({where}); numbers beyond "
                    f"{bounds[0]:g} to {bounds[1]:g} count as these. Leave the cell empty where "
                    "the number is missing."
                )
        return specs


class FeatureEncoder:
    """Turns the cells of a row into what an item or user record holds."""

    def __init__(self, columns: FeatureColumns, specs: dict[str, FeatureSpec]):
        self._columns = columns
        self.specs = specs
        self._numbers = {
            name: {
                word: 1 + specs[name].oov_buckets + i
                for i, word in enumerate(specs[name].vocabulary)
            }
            for name in columns.categorical
        }

    def missing(self) -> dict[str, Sequence[int] | float | None]:
        """The features of a user or item that no table names."""
        return {name: [] if name in self._numbers else None for name in self.specs}

    def encode(self, row: Row) -> dict[str, Sequence[int] | float | None]:
        """The features of one row; a number that cannot be read is missing."""
        found = self.missing()
        for name, numbers in self._numbers.items():
            found[name] = [
                # The hash is that of the shards: the same in every run.
                numbers.get(word) or 1 + shard_of(word, self._columns.oov_buckets)
                for word in self._columns.names(row, name)
            ]
        for name in self._columns.numeric:
            try:
                value = self._columns.number(row, name)
            except BadRow:
                continue  # counted, or raised, when the table was first read
            if value is not None:
                spec = self.specs[name]
                if spec.low is not None and spec.high is not None:
                    value = min(max(value, spec.low), spec.high)
                found[name] = (value - spec.mean) / spec.std
        return found
