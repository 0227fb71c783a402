"""The catalog's raw content -> what the item tower reads, with a cache for frozen encoders."""

import fcntl
import functools
import hashlib
import itertools
import json
import operator
import os
import pathlib
import sys
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import IO, Any

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from mmrec_tf.config import Config, random_weights
from mmrec_tf.dataset.catalog import Content
from mmrec_tf.encoders import MODALITIES
from mmrec_tf.encoders.encoder import Face, ModalityEncoder
from mmrec_tf.encoders.several import SeveralValues
from mmrec_tf.errors import ConfigError
from mmrec_tf.records.files import write_text
from mmrec_tf.records.manifest import sha256
from mmrec_tf.records.progress import show_progress
from mmrec_tf.schema import ModalitySpec

# After so many batches, what is done is noted, so that a kill loses no more than these.
COMMIT = 32

_FORWARD: weakref.WeakKeyDictionary[Any, Callable] = weakref.WeakKeyDictionary()


def build_encoders(
    config: Config,
    specs: Mapping[str, ModalitySpec],
    values: Mapping[str, Iterable],
    *,
    train_values: Mapping[str, Iterable] | None = None,
    assets: Mapping[str, Mapping[str, str]] | None = None,
) -> dict[str, Any]:
    """One encoder a modality, by the kind that the schema gives it and the family that the config
    names. Modalities whose family is a `SharedEncoder` get faces of one and the same.

    Args:
      config: Config.
      specs: by name, the form of the content.
      values: by name, the catalog's raw content, from which a text encoder learns its vocabulary.
      train_values: the same of the items that the train split has, from which those learn that
        count words; None where nothing is to be learned.
      assets: by name, what the encoder's `assets()` returned when it was trained; None for new.

    Returns:
      dict of `mmrec_tf.encoders.*.Encoder`, built.

    Raises:
      ConfigError: for one that trains on a modality of which items have several values.
    """
    encoders, shared = {}, {}
    for name, spec in specs.items():
        settings = getattr(config, spec.kind, None)
        if name == "profile":
            # Profiles are always read frozen: users outnumber items by far.
            settings = config.text.frozen()
        # Copies of a run may lack the empty folder of an encoder without assets.
        known = None if assets is None else assets.get(name, {})
        families = getattr(MODALITIES[spec.kind], "FAMILIES", {})
        family = families.get(getattr(settings, "family", None))
        make = getattr(family, "build_shared", None)
        # Profiles are read frozen, whatever becomes of the items' encoder.
        if make is not None and name != "profile":
            if family not in shared:
                shared[family] = make(config, assets=known)
            encoder = Face(shared[family], spec.kind)
        else:
            more: dict[str, Any] = {"image": config.image} if spec.kind == "video" else {}
            if getattr(family, "READS_TRAIN", False):
                more["train_values"] = (train_values or {}).get(name, ())
            encoder = MODALITIES[spec.kind].build_encoder(
                settings, spec, values=values[name], assets=known, **more
            )
        if assets is None:
            weighed = config.image if spec.kind == "video" else settings
            where = "image" if spec.kind == "video" else spec.kind
            random = weighed is not None and random_weights(where, weighed)
            if encoder.stores_vectors and random:
                _warn_of_random(spec.kind)
            if encoder.not_exported:
                _warn_of_export(spec.kind, encoder.not_exported)
        if spec.max_values > 1 and not encoder.frozen:
            raise ConfigError(
                f"{spec.kind}.trainable_layers: wanted 0, a frozen encoder, as items have up to "
                f"{spec.max_values} values of {name} (max_values in the schema), whose vectors are "
                f"pooled before training; got {encoder.trainable_layers}. Freeze it, or prepare "
                "the dataset with one value an item."
            )
        shape = encoder.content_spec()
        encoder(tf.zeros([1, *shape.shape[1:]], shape.dtype))
        if spec.max_values > 1 and config.item.values_pooling == "attention":
            encoder = SeveralValues(encoder, spec.max_values)
        encoders[name] = encoder
    return encoders


@functools.cache
def _warn_of_random(kind: str) -> None:
    """Says once for each kind that what is read was learned from nothing."""
    where = "image" if kind == "video" else kind
    tqdm.write(
        f"encoders: {kind} is read by a frozen encoder of random weights, which has learned "
        f"nothing and will not. Name pretrained ones ({where}.weights), or train it "
        f"({kind}.trainable_layers -1; profile texts are always read frozen).",
        file=sys.stderr,
    )


@functools.cache
def _warn_of_export(kind: str, reason: str) -> None:
    """Says before training what would be refused after it."""
    tqdm.write(
        f"encoders: with this encoder of {kind} models train and recommend here, but cannot be "
        f"exported: {reason}.",
        file=sys.stderr,
    )


def encoded_spec(encoder: ModalityEncoder) -> tf.TensorSpec:
    """What `encode` makes of one item, its first dimension free; see `ModalityEncoder`."""
    return encoder.stored_spec


def encoded_bytes(encoder: ModalityEncoder, rows: int) -> int:
    """The size of what `encode` makes of so many items."""
    spec = encoded_spec(encoder)
    return rows * int(np.prod(spec.shape[1:])) * spec.dtype.size


def forward(encoder: ModalityEncoder) -> Callable:
    """The function from raw content to `encoded_spec`, compiled once for each encoder."""
    if encoder not in _FORWARD:
        # Held weakly, or the function would keep the encoder, and so itself, for good.
        held: Callable[[], Any] = weakref.ref(encoder)

        # An export traces what it may hold without AutoGraph, too.
        @tf.function(reduce_retracing=True, autograph=bool(encoder.not_exported))
        def step(raw: tf.Tensor) -> tf.Tensor:
            encoder = held()
            return encoder.to_stored(encoder.preprocess(raw))

        _FORWARD[encoder] = step
    return _FORWARD[encoder]


def hash_values(values: np.ndarray | Content) -> str:
    """SHA-256 of raw content: bytes with their lengths, or an array's numbers; where items may have
    several values, the hashes of each item's."""
    digest = hashlib.sha256()
    if isinstance(values, Content):
        for number, hashes in _hashes(values):
            digest.update(
                b"".join((number.to_bytes(8, "little"), len(hashes).to_bytes(8, "little"), hashes))
            )
        return digest.hexdigest()
    if values.dtype == object:
        for value in values:
            digest.update(len(value).to_bytes(8, "little"))
            digest.update(value)
    else:
        digest.update(str((values.dtype, values.shape)).encode())
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def encode(
    encoder: ModalityEncoder,
    values: np.ndarray | Content,
    *,
    name: str,
    cache: str | pathlib.Path | None = None,
    sha256: str | None = None,
    mapped: bool = False,
    batch_size: int = 32,
) -> np.ndarray:
    """Runs a frozen encoder, or only the preprocessing of one that trains, over raw content.

    A frozen encoder's vectors are kept under `cache`, named by the hash of the content, of the
    encoder's weights and of its preprocessing, so that they are computed once; preprocessed
    content only where it is to be mapped. They are written as they are made: memory holds a few
    batches, and after a kill the same call goes on where it was. Beside the file stands its hash:
    one that was cut or altered is made anew, and a line on stderr says so.

    Args:
      encoder: an `Encoder` of `mmrec_tf.encoders`.
      values: object[n] of bytes, <float32>[n, dim], or content with several values an item, or
        left on disk. What an item's values give is brought together by `group_values`.
      name: what the progress bar and the cache file are called.
      cache: a folder; None for no cache.
      sha256: hash of the content; None computes it.
      mapped: whether the result may stay on disk, to be read where it is asked for. Without a
        cache it is in memory all the same.

    Returns:
      [n, ...] as `encoder.stored_spec`: <float32>[n, output_dim] of a frozen encoder.

    Raises:
      DatasetError: when content that was left on disk cannot be read.
    """
    spec = encoded_spec(encoder)
    shape, dtype = (len(values), *spec.shape[1:]), spec.dtype.as_numpy_dtype
    if cache is not None and (encoder.stores_vectors or mapped):
        path = _cached(cache, encoder, name, sha256 or hash_values(values))
        try:
            if not _whole(path):
                _write(path, encoder, values, shape=shape, dtype=dtype, batch_size=batch_size)
            return np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
        except OSError as error:
            # A dataset may stand on a disk that only lets itself be read.
            warnings.warn(f"{path}: not cached; {error}.", stacklevel=2)
    result, done = np.zeros(shape, dtype), np.zeros([len(values)], bool)
    for _ in _fill(result, done, encoder, values, name=name, batch_size=batch_size):
        pass
    return result


def carry_encoded(
    encoder: ModalityEncoder,
    before: np.ndarray | Content,
    after: np.ndarray | Content,
    row: np.ndarray,
    *,
    name: str,
    caches: tuple[pathlib.Path, pathlib.Path],
    sha256: tuple[str, str],
) -> np.ndarray:
    """Tells which items kept their content, and puts what a frozen encoder made of it where
    `encode` finds it, as if it had been killed after these.

    Args:
      encoder: as for `encode`.
      before, after: content of two catalogs.
      row: <int>[item], the row in `before` of each item of `after`; -1 for none.
      name: as for `encode`.
      caches: of both.
      sha256: hash of the content of both.

    Returns:
      <bool>[item], of `after`.
    """
    old = dict(_hashes(before))
    new = dict(_hashes(after))
    same = np.array([r >= 0 and old.get(r) == new.get(n) for n, r in enumerate(row)], bool)
    if not encoder.stores_vectors or not same.any():
        return same
    path = _cached(caches[1], encoder, name, sha256[1])
    if path.exists() or not _cached(caches[0], encoder, name, sha256[0]).exists():
        return same
    vectors = encode(encoder, before, name=name, cache=caches[0], sha256=sha256[0], mapped=True)
    aside, state = _partial(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with aside.open("ab") as held:
        _lock(held, name)
        state.unlink(missing_ok=True)
        result = _new(aside, shape=(len(row), *vectors.shape[1:]), dtype=vectors.dtype)
        done = _new(state, shape=(len(row),), dtype=bool)
        for start in range(0, len(row), 4096):
            some = start + np.flatnonzero(same[start : start + 4096])
            result[some] = vectors[row[some]]
        result.flush()
        done[:] = same
        done.flush()
    return same


def _hashes(values: np.ndarray | Content) -> Iterator[tuple[int, bytes]]:
    """The hashes of each item's values, by its number; nothing for one without."""
    if isinstance(values, Content):
        batches = values.batches(1024)
    else:
        batches = iter([(np.arange(len(values)), values)])
    for numbers, some in batches:
        pairs = zip(numbers.tolist(), some, strict=True)
        for number, group in itertools.groupby(pairs, key=operator.itemgetter(0)):
            data = [
                value if isinstance(value, bytes) else np.ascontiguousarray(value).tobytes()
                for _, value in group
            ]
            if any(map(any, data)):
                yield number, b"".join(hashlib.sha256(value).digest() for value in data)


def _cached(
    cache: str | pathlib.Path, encoder: ModalityEncoder, name: str, sha256: str
) -> pathlib.Path:
    """The file of what `encode` makes of content of that hash."""
    identity = encoder.stored_fingerprint() if encoder.stores_vectors else _preprocessing(encoder)
    key = hashlib.sha256((identity + sha256).encode()).hexdigest()
    return pathlib.Path(cache) / f"{name}-{key[:32]}.npy"


def _hash_file(path: pathlib.Path) -> pathlib.Path:
    """Where the hash of a file of the cache stands."""
    return path.with_suffix(".sha256")


def _whole(path: pathlib.Path) -> bool:
    """Whether a file of the cache stands there as it was written; another one is removed."""
    if not path.exists():
        return False
    try:
        wanted = _hash_file(path).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        wanted = ""
    if sha256(path) == wanted:
        return True
    reason = "its content is not what was written" if wanted else "its hash is missing"
    tqdm.write(f"{path}: {reason}; it is made anew.", file=sys.stderr)
    path.unlink()
    return False


def _partial(path: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """Where rows stand until all are done, and which of them are."""
    return path.with_name(f".{path.stem}.partial.npy"), path.with_name(f".{path.stem}.done.npy")


def _write(
    path: pathlib.Path,
    encoder: ModalityEncoder,
    values: np.ndarray | Content,
    *,
    shape: tuple[int, ...],
    dtype: type,
    batch_size: int,
) -> None:
    """Encodes into a file beside `path`, going on with what a killed process left, and renames."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside, state = _partial(path)
    with aside.open("ab") as held:
        name = path.stem.rpartition("-")[0]
        _lock(held, name)
        if not path.exists():
            result = _mapped(aside, shape=shape, dtype=dtype)
            done = _mapped(state, shape=shape[:1], dtype=bool)
            if result is None or done is None:
                # First, or rows that it marks as done would be looked for in the new, empty file.
                state.unlink(missing_ok=True)
                result = _new(aside, shape=shape, dtype=dtype)
                done = _new(state, shape=shape[:1], dtype=bool)
            for rows in _fill(result, done, encoder, values, name=name, batch_size=batch_size):
                # In this order, so that nothing counts as done that a crash may undo.
                result.flush()
                done[rows] = True
                done.flush()
            # The hash first: without it the file would be made anew.
            write_text(_hash_file(path), f"{sha256(aside)}\n")
            os.replace(aside, path)
        aside.unlink(missing_ok=True)
        state.unlink(missing_ok=True)


def _lock(file: IO[bytes], name: str) -> None:
    """Keeps other processes from making the same; the lock goes with the file or the process."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        tqdm.write(f"encode {name}: another process is at it; waiting for it", file=sys.stderr)
        fcntl.flock(file, fcntl.LOCK_EX)


def _mapped(path: pathlib.Path, *, shape: tuple[int, ...], dtype: type) -> np.memmap | None:
    """An array on disk to go on with; None where none of that form is there."""
    try:
        array = np.lib.format.open_memmap(path, mode="r+")
    except (OSError, ValueError):
        return None
    return array if (array.shape, array.dtype) == (shape, np.dtype(dtype)) else None


def _new(path: pathlib.Path, *, shape: tuple[int, ...], dtype: type) -> np.memmap:
    array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    try:
        with path.open("rb+") as file:
            # The file has holes so far. On a full disk, filling them would end the process.
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    except OSError:
        path.unlink()
        raise
    return array


def _fill(
    result: np.ndarray,
    done: np.ndarray,
    encoder: ModalityEncoder,
    values: np.ndarray | Content,
    *,
    name: str,
    batch_size: int,
) -> Iterator[np.ndarray]:
    """Fills in the rows that are not done, in the same batches whatever was done before.

    Yields:
      <int64>[n], rows that have been filled in since the last time.
    """
    step = forward(encoder)
    if isinstance(values, Content):
        present = values.present
    elif values.dtype == object:
        present = np.fromiter(map(bool, values), bool, len(values))
    else:
        present = np.ones([len(values)], bool)
    left = ~done
    with show_progress(
        total=len(done), initial=int(done.sum()), desc=f"encode {name}", unit="item"
    ) as progress:
        absent = np.flatnonzero(left & ~present)
        if len(absent):
            # All the same, so it is computed once.
            nothing = step(_tensor(values[absent[:1]])).numpy()
            result[absent] = _grouped(encoder, values, absent[:1], nothing)[1]
            yield absent
            progress.update(len(absent))
        finished: list[np.ndarray] = []
        for rows, raw in _batches(values, left & present, batch_size):
            rows, vectors = _grouped(encoder, values, rows, step(_tensor(raw)).numpy())
            result[rows] = vectors
            finished.append(rows)
            progress.update(len(rows))
            if len(finished) == COMMIT:
                yield np.concatenate(finished)
                finished = []
        if finished:
            yield np.concatenate(finished)


def _grouped(
    encoder: ModalityEncoder, values: np.ndarray | Content, rows: np.ndarray, stored: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """What is stored of each item, whose values follow each other.

    Args:
      encoder: of the modality.
      values: all of the content.
      rows: <int64>[value], numbers of items.
      stored: [value, ...].

    Returns:
      <int64>[item] and [item, ...]; those given where no item can have several values.
    """
    if not isinstance(values, Content):
        return rows, stored
    start = np.flatnonzero(np.diff(rows, prepend=-1))
    return rows[start], encoder.group_values(stored, start)


def _batches(
    values: np.ndarray | Content, wanted: np.ndarray, batch_size: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    if isinstance(values, Content):
        yield from values.batches(batch_size, rows=wanted)
        return
    rows = np.flatnonzero(wanted)
    for start in range(0, len(rows), batch_size):
        some = rows[start : start + batch_size]
        yield some, values[some]


def _tensor(raw: np.ndarray) -> tf.Tensor:
    return tf.constant(raw.tolist() if raw.dtype == object else raw)


def _preprocessing(encoder: ModalityEncoder) -> str:
    """What preprocessed content depends on besides the content: everything but the weights."""
    settings = encoder.get_config()
    for name in ("name", "trainable", "trainable_layers", *encoder.augmentation):
        settings.pop(name, None)
    return json.dumps([type(encoder).__module__, encoder.version, settings], sort_keys=True)
