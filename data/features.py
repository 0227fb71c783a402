"""Ready-made features: sparse matrices of interactions, and one matrix of vectors a modality."""

import dataclasses
import pathlib
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from data import splits
from mmrec_tf.errors import ConfigError, DatasetError
from mmrec_tf.records import DatasetWriter, Quarantined, sha256
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
    """

    train: str
    valid: str | None = None
    test: str | None = None
    vectors: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        for name in self.vectors:
            if not name.isidentifier():
                raise ConfigError(f"vector: wanted a name such as image; got {name!r}.")


def prepare(
    options: Features, out: str | pathlib.Path, *, overwrite: bool = False
) -> dict[str, Any]:
    """Makes a dataset directory; users and items are named "0", "1", ... by row and column.

    Returns:
      The manifest.

    Raises:
      DatasetError: for a matrix that is missing, cannot be read or has another shape, or when
        `out` may not be written.
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
    vectors = {
        name: _load_vectors(path, num_items=num_items) for name, path in options.vectors.items()
    }
    events = _events(matrices)
    distinct = splits.drop_duplicates(events)
    with DatasetWriter(out, overwrite=overwrite) as writer:
        for item in tqdm(range(num_items), desc="items", unit="item", disable=None):
            content = {}
            for name, matrix in vectors.items():
                vector = np.asarray(matrix[item], np.float32)
                reason = _fault(vector)
                if reason:
                    file = f"{pathlib.Path(options.vectors[name]).name}[{item}]"
                    writer.quarantine(Quarantined(str(item), name, file, reason))
                else:
                    content[name] = vector
            writer.write_item(str(item), content=content)
        for user in range(num_users):
            writer.write_user(str(user))
        splits.write(writer, distinct)
        schema = Schema(
            num_users=num_users,
            num_items=num_items,
            modalities={
                name: ModalitySpec(kind="vector", dim=matrix.shape[1])
                for name, matrix in vectors.items()
                if writer.present[name]
            },
        )
        files = {**paths, **{f"vector {name}": path for name, path in options.vectors.items()}}
        return writer.finish(
            schema,
            source={
                "name": "features",
                "arguments": dataclasses.asdict(options),
                "tables": {
                    name: {"file": pathlib.Path(path).name, "sha256": sha256(pathlib.Path(path))}
                    for name, path in files.items()
                    if path is not None
                },
            },
            split_rule="given",
            duplicates={"interactions": len(events.user) - len(distinct.user)},
        )


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


def _load_sparse(path: str):
    import scipy.sparse

    try:
        matrix = scipy.sparse.load_npz(path)
    except FileNotFoundError as error:
        raise DatasetError(f"{path}: wanted a sparse matrix; there is no such file.") from error
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise DatasetError(
            f"{path}: wanted a sparse matrix as scipy.sparse.save_npz writes it; {error}."
        ) from error
    values = matrix.tocoo().data
    if not np.isfinite(values).all() or (values < 0).any():
        raise DatasetError(f"{path}: wanted weights of 0 or more; some are negative or not finite.")
    return matrix


def _load_vectors(path: str, *, num_items: int) -> np.ndarray:
    try:
        # Mapped, not read: a matrix may be larger than the memory.
        matrix = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise DatasetError(f"{path}: wanted a matrix of vectors; there is no such file.") from error
    except (OSError, ValueError, EOFError) as error:
        raise DatasetError(f"{path}: wanted a matrix as numpy.save writes it; {error}.") from error
    if not isinstance(matrix, np.ndarray) or matrix.ndim != 2 or matrix.dtype.kind not in "fiu":
        raise DatasetError(f"{path}: wanted one matrix of numbers, [item, dim].")
    if matrix.shape[0] != num_items or not matrix.shape[1]:
        raise DatasetError(
            f"{path}: wanted {num_items} rows, one an item; got the shape "
            f"{' x '.join(map(str, matrix.shape))}."
        )
    return matrix


def _fault(vector: np.ndarray) -> str:
    """Why a vector cannot be used; "" when it can."""
    if not np.isfinite(vector).all():
        return "numbers that are not finite"
    return "" if vector.any() else "all zeros"
