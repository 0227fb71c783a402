"""Ready-made features: sparse matrices of interactions, and one matrix of vectors a modality."""

import argparse
import dataclasses
import pathlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from data.interactions import splits
from data.items import vectors
from data.items.shards import ItemRow, Run, write_items
from data.items.vectors import UNREADABLE, Matrix, check_matrix, check_names
from data.items.workers import Note
from data.sources.provenance import settings
from data.tables import triples
from data.tables.columns import preview, unread
from data.tables.scale import warn_far_off
from data.tables.table import Skipped, describe
from mmrec_tf.errors import DatasetError
from mmrec_tf.records import DatasetWriter, PreparedItem, Quarantined, sha256, versions
from mmrec_tf.schema import SPLITS, ModalitySpec, Schema


@dataclass(frozen=True)
class Features:
    """Where the matrices are.

    Attributes:
      train: SciPy sparse matrix `[user, item]` as `scipy.sparse.save_npz` writes it; what is not
        zero is an interaction, and its value the weight.
      valid: the same for the valid split.
      test: the same for the test split.
      vectors: by modality, a NumPy matrix `[item, dim]` as `numpy.save` writes it.
      triples: table of a knowledge graph, with the columns `head`, `relation` and `tail`; an item
        is named by its column, as "0", "1", ...
      skip_bad_rows: pass over triples that cannot be used, and count them, instead of raising.
    """

    train: str
    valid: str | None = None
    test: str | None = None
    vectors: Mapping[str, str] = dataclasses.field(default_factory=dict)
    triples: str | None = None
    skip_bad_rows: bool = False

    def __post_init__(self) -> None:
        check_names(self.vectors)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `Features` to a command."""
    parser.add_argument("--train", required=True, metavar="NPZ", help="sparse [user, item]")
    parser.add_argument("--valid", metavar="NPZ")
    parser.add_argument("--test", metavar="NPZ")
    vectors.add_argument(parser, what="a modality's matrix [item, dim] as .npy")
    triples.add_argument(parser)
    parser.add_argument(
        "--skip-bad-rows", action="store_true", help="pass over bad rows of triples, and count"
    )


def from_arguments(arguments: argparse.Namespace) -> Features:
    """What was typed for the options of `add_arguments`.

    Raises:
      ConfigError: for a name that no modality can have.
    """
    return Features(
        train=arguments.train,
        valid=arguments.valid,
        test=arguments.test,
        vectors=vectors.vectors_by_name(arguments.vectors),
        triples=arguments.triples,
        skip_bad_rows=arguments.skip_bad_rows,
    )


def prepare(
    options: Features,
    out: str | pathlib.Path,
    *,
    overwrite: bool = False,
    run: Run | None = None,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Makes a dataset directory; users and items are named "0", "1", ... by row and column.

    Args:
      options: where the matrices are.
      out: the dataset directory.
      overwrite: replace the dataset that stands there.
      run: what writes the item shards; by default processes here, one a CPU.
      dry_run: write nothing, and say what the matrices hold.

    Returns:
      The manifest; under `dry_run` the `tables`, the `matrices` with their shapes, and `warnings`.

    Raises:
      DatasetError: for a matrix or a table that is missing, cannot be read or has another shape,
        or when `out` may not be written.
    """
    paths = {split: getattr(options, split) for split in SPLITS}
    matrices = {split: _load_sparse(path) for split, path in paths.items() if path is not None}
    num_users, num_items = matrices["train"].shape
    for split, matrix in matrices.items():
        if matrix.shape != (num_users, num_items):
            raise DatasetError(
                f"{paths[split]}: wanted {num_users} users x {num_items} items, as in "
                f"{options.train}; got {matrix.shape[0]} x {matrix.shape[1]}."
            )
    dims, warnings = {}, []
    for name, path in options.vectors.items():
        dims[name], found = check_matrix(name, path, num_items=num_items)
        warnings += found
    events = _events(matrices)
    warnings += warn_far_off("weight", events.weight)
    distinct = splits.drop_duplicates(events)
    graph = triples.open_table(options.triples)
    if dry_run:
        shapes = {split: [num_users, num_items] for split in matrices}
        return {
            "tables": preview({"triples": graph}),
            "matrices": shapes | {f"vector {name}": [num_items, dim] for name, dim in dims.items()},
            "warnings": warnings,
        }
    files = {**paths, **{f"vector {name}": path for name, path in options.vectors.items()}}
    source = {
        "name": "features",
        "arguments": settings(options),
        "tables": {
            name: {"file": pathlib.Path(path).name, "sha256": sha256(pathlib.Path(path))}
            for name, path in files.items()
            if path is not None
        }
        | describe({"triples": graph}),
    }
    job = {"source": source, "versions": versions()}
    with DatasetWriter(out, overwrite=overwrite, job=job) as writer:
        write_items(
            writer,
            (ItemRow(item, str(item), None) for item in range(num_items)),
            num_items=num_items,
            make=VectorItem(
                {
                    name: Matrix(path, pathlib.Path(path).name)
                    for name, path in options.vectors.items()
                }
            ),
            run=run,
        )
        for user in range(num_users):
            writer.write_user(str(user))
        splits.write(writer, distinct)
        skipped = Skipped(options.skip_bad_rows)
        known = triples.write(
            writer,
            graph,
            items={str(item): item for item in range(num_items)},
            stays=np.ones(num_items, bool),
            skipped=skipped,
        )
        schema = Schema(
            num_users=num_users,
            num_items=num_items,
            modalities={
                name: ModalitySpec(kind="vector", dim=dim)
                for name, dim in dims.items()
                if writer.present(name)
            },
            num_entities=known.num_entities,
            num_relations=known.num_relations,
        )
        return writer.finish(
            schema,
            source=source,
            split_rule="given",
            duplicates={
                "interactions": len(events.user) - len(distinct.user),
                **known.duplicates,
            },
            dropped=known.dropped,
            skipped_rows=skipped.counts,
            not_read=unread({"triples": graph}),
            looked_for=tuple(dims),
            warnings=[*warnings, *known.warnings],
        )


@dataclass(frozen=True)
class VectorItem:
    """Makes an item of its rows in the matrices: the per-item function, wherever it runs.

    Attributes:
      vectors: by modality, the matrix.
    """

    vectors: Mapping[str, Matrix]

    def __call__(self, row: ItemRow, left_out: Mapping[str, str], note: Note) -> PreparedItem:
        """Prepares one item; see `data.items.shards.Maker`."""
        content, quarantined = {}, []
        for name, matrix in self.vectors.items():
            loaded = matrix.load(row.number, item_id=row.item_id, modality=name)
            if isinstance(loaded, Quarantined):
                quarantined.append(loaded)
            else:
                content[name] = loaded
        return PreparedItem(row.number, row.item_id, content, {}, tuple(quarantined))


def _events(matrices: Mapping[str, Any]) -> splits.Events:
    """The entries of all matrices, split after split, row after row."""
    user, item, weight, split = [], [], [], []
    for name, matrix in matrices.items():
        # Not CSR, which would add up entries that stand twice.
        entries = matrix.tocoo()
        kept = entries.data != 0
        order = np.argsort(entries.row[kept], kind="stable")
        user.append(entries.row[kept][order].astype(np.int32))
        item.append(entries.col[kept][order].astype(np.int32))
        weight.append(entries.data[kept][order].astype(np.float32))
        split.append(np.full(len(order), SPLITS.index(name), np.int8))
    weights = np.concatenate(weight)
    return splits.Events(
        user=np.concatenate(user),
        item=np.concatenate(item),
        timestamp=np.zeros([len(weights)], np.int64),
        rating=None,
        weight=None if (weights == 1).all() else weights,
        split=np.concatenate(split),
    )


def _load_sparse(path: str) -> Any:
    import scipy.sparse

    try:
        matrix = scipy.sparse.load_npz(path)
        entries = matrix.tocoo()
    except FileNotFoundError as error:
        raise DatasetError(f"{path}: wanted a sparse matrix; there is no such file.") from error
    except UNREADABLE as error:
        said = str(error).rstrip(".") or type(error).__name__
        raise DatasetError(
            f"{path}: wanted a sparse matrix as scipy.sparse.save_npz writes it; {said}. Was the "
            "file cut, or is it another one? Save or copy it again."
        ) from error
    values = entries.data
    if values.dtype.kind not in "biuf":
        raise DatasetError(f"{path}: wanted weights that are numbers; got {values.dtype}.")
    # As they are stored; what no float32 holds would be infinite.
    if not np.isfinite(vectors.as_stored(values)).all() or (values < 0).any():
        raise DatasetError(f"{path}: wanted weights of 0 or more; some are negative or not finite.")
    for name, numbers, size in zip(
        ("user", "item"), (entries.row, entries.col), matrix.shape, strict=True
    ):
        if len(numbers) and not 0 <= numbers.min() <= numbers.max() < size:
            raise DatasetError(
                f"{path}: wanted {name}s 0 to {size - 1}, as its shape says; got one beyond."
            )
    return matrix
