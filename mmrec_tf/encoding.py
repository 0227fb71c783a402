"""The catalog's raw content -> what the item tower reads, with a cache for frozen encoders."""

import dataclasses
import hashlib
import os
import pathlib
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from mmrec_tf.config import Config
from mmrec_tf.modalities import MODALITIES
from mmrec_tf.schema import ModalitySpec


def build_encoders(
    config: Config,
    specs: Mapping[str, ModalitySpec],
    values: Mapping[str, np.ndarray],
    *,
    assets: Mapping[str, Mapping[str, str]] | None = None,
) -> dict[str, Any]:
    """One encoder a modality, by the kind that the schema gives it.

    Args:
      config: Config.
      specs: by name, the form of the content.
      values: by name, the catalog's raw content, from which a text encoder learns its vocabulary.
      assets: by name, what the encoder's `assets()` returned when it was trained; None for new.

    Returns:
      dict of `mmrec_tf.modalities.*.Encoder`, built.
    """
    encoders = {}
    for name, spec in specs.items():
        settings = getattr(config, spec.kind, None)
        if name == "profile":
            # Profiles are always read frozen: users outnumber items by far.
            settings = dataclasses.replace(config.text, trainable_layers=0)
        encoder = MODALITIES[spec.kind].build_encoder(
            settings,
            spec,
            values=values[name],
            # Copies of a run may lack the empty folder of an encoder without assets.
            assets=None if assets is None else assets.get(name, {}),
        )
        shape = encoder.content_spec()
        encoder(tf.zeros([1, *shape.shape[1:]], shape.dtype))
        encoders[name] = encoder
    return encoders


def hash_values(values: np.ndarray) -> str:
    """SHA-256 of raw content: bytes with their lengths, or an array's numbers."""
    digest = hashlib.sha256()
    if values.dtype == object:
        for value in values:
            digest.update(len(value).to_bytes(8, "little"))
            digest.update(value)
    else:
        digest.update(str((values.dtype, values.shape)).encode())
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def encode(
    encoder,
    values: np.ndarray,
    *,
    name: str,
    cache: str | pathlib.Path | None = None,
    batch_size: int = 32,
) -> np.ndarray:
    """Runs a frozen encoder, or only the preprocessing of one that trains, over raw content.

    A frozen encoder's vectors are kept under `cache`, named by the hash of the content, of the
    encoder's weights and of its preprocessing, so that they are computed once.

    Args:
      encoder: an `Encoder` of `mmrec_tf.modalities`.
      values: object[n] of bytes, or <float32>[n, dim].
      name: what the progress bar and the cache file are called.
      cache: a folder; None for no cache.

    Returns:
      <float32>[n, output_dim] of a frozen encoder, else [n, ...] as `encoder.content_spec()`.
    """
    frozen = encoder.frozen
    path = None
    if frozen and cache is not None:
        key = hashlib.sha256((encoder.fingerprint() + hash_values(values)).encode()).hexdigest()
        path = pathlib.Path(cache) / f"{name}-{key[:32]}.npy"
        if path.exists():
            return np.load(path, allow_pickle=False)

    @tf.function(reduce_retracing=True)
    def step(raw):
        content = encoder.preprocess(raw)
        return encoder(content, training=False) if frozen else content

    raw = values.tolist() if values.dtype == object else values
    parts = []
    progress = tqdm(total=len(values), desc=f"encode {name}", unit="item", disable=None)
    with progress:
        for start in range(0, len(values), batch_size):
            part = tf.constant(raw[start : start + batch_size])
            parts.append(step(part).numpy())
            progress.update(len(part))
    spec = encoder.content_spec()
    empty = [0, encoder.output_dim] if frozen else [0, *spec.shape[1:]]
    dtype = np.float32 if frozen else spec.dtype.as_numpy_dtype
    result = np.concatenate(parts) if parts else np.zeros(empty, dtype)
    if path is not None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            aside = path.with_name(f".{path.stem}.{os.getpid()}.npy")
            np.save(aside, result, allow_pickle=False)
            os.replace(aside, path)
        except OSError as error:
            # A dataset may stand on a disk that only lets itself be read.
            warnings.warn(f"{path}: not cached; {error}.", stacklevel=2)
    return result
