"""What the encoders of all modalities promise, whatever they look at."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf


class SharedEncoder(tf.keras.layers.Layer):
    """One set of weights that reads two kinds of content, such as CLIP's text and picture towers
    (Radford et al. 2021). Each modality gets one of its faces, see `Face`.

    A family of this form has `build_shared(config, *, assets)` in its file, under both kinds'
    `FAMILIES`. What its methods return is as of those of `ModalityEncoder`, for one kind.

    Args:
      trainable_layers: as of `ModalityEncoder`.
    """

    version = 1
    augmentation: tuple[str, ...] = ()

    def __init__(self, *, trainable_layers: int, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        self.trainable_layers = trainable_layers

    def output_dim(self, kind: str) -> int:
        """The length of a vector."""
        raise NotImplementedError

    def content_spec(self, kind: str) -> tf.TensorSpec:
        """The spec of one preprocessed batch."""
        raise NotImplementedError

    def preprocess(self, raw: tf.Tensor, kind: str) -> tf.Tensor:
        """Raw content to the tensor that `encode` takes."""
        raise NotImplementedError

    def preprocess_readable(self, raw: tf.Tensor, kind: str) -> tuple[tf.Tensor, tf.Tensor]:
        """`preprocess` for content that may be anything, and which of it cannot be read."""
        return self.preprocess(raw, kind), tf.zeros(tf.shape(raw)[:1], tf.bool)

    def encode(self, content: tf.Tensor, kind: str, *, training: bool = False) -> tf.Tensor:
        """Content to <float32>[batch, output_dim]."""
        raise NotImplementedError

    def assets(self) -> dict[str, str]:
        """Small text files, by name, from which `build_shared` makes the same architecture."""
        return {}

    def not_exported(self, kind: str) -> str:
        """As of `ModalityEncoder`, for one kind."""
        return ""

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "trainable_layers": self.trainable_layers}


class ModalityEncoder(tf.keras.layers.Layer):
    """One modality's way from raw form to a vector, in two steps.

    `preprocess` turns raw content into one tensor of fixed shape a row. The training pipeline and
    the exported graph call this same function, so the two cannot drift apart. Calling the layer
    turns that tensor into a vector. Both treat every row on its own, and both take batches of any
    size, none included.

    Called with `training=True`, an encoder that trains may change its content at random, every row
    in its own way (augmentation).

    Weights are made with the layer, so `from_config` followed by `set_weights` makes a copy.

    Args:
      trainable_layers: 0 keeps the encoder frozen, n trains the last n blocks, -1 trains all.
    """

    # Raised when the arithmetic changes without a setting, so that cached vectors go stale.
    version = 1
    # Settings that change content in training alone: no vector of a frozen encoder depends on them.
    augmentation: tuple[str, ...] = ()

    def __init__(self, *, trainable_layers: int, **kwargs: Any) -> None:
        # Content may be token ids or a waveform, which half precision must not touch.
        super().__init__(autocast=False, **kwargs)
        self.trainable_layers = trainable_layers

    @property
    def frozen(self) -> bool:
        """Whether no weight is trained, so that outputs may be cached."""
        return self.trainable_layers == 0

    @property
    def output_dim(self) -> int:
        """The length of the vector that a call returns."""
        raise NotImplementedError

    def content_spec(self) -> tf.TensorSpec:
        """The spec of one preprocessed batch, its first dimension free."""
        raise NotImplementedError

    def preprocess(self, raw: tf.Tensor) -> tf.Tensor:
        """Raw content to the tensor that the layer is called with.

        Core TensorFlow operations only.

        Args:
          raw: <string>[batch], "" where the item lacks the modality; <float32>[batch, dim] for
            ready-made vectors.

        Returns:
          As `content_spec` says.
        """
        raise NotImplementedError

    def preprocess_readable(self, raw: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """`preprocess` for content that may be anything, as a request's.

        Args:
          raw: as for `preprocess`.

        Returns:
          As of `preprocess`, and <bool>[batch]: whether content was given that cannot be read, and
          which therefore counts as absent.
        """
        return self.preprocess(raw), tf.zeros(tf.shape(raw)[:1], tf.bool)

    # What a catalog's table holds of each item, and what is left to do in each step. An encoder of
    # which a first part alone is frozen says so here: that part then runs once.

    @property
    def stores_vectors(self) -> bool:
        """Whether what is stored was made by frozen weights, so that it may be cached."""
        return self.frozen

    @property
    def stored_spec(self) -> tf.TensorSpec:
        """What is stored of one item, its first dimension free: a frozen encoder's vector, or the
        preprocessed content of one that trains."""
        if self.frozen:
            return tf.TensorSpec([None, self.output_dim], tf.float32)
        return self.content_spec()

    def to_stored(self, content: tf.Tensor) -> tf.Tensor:
        """Preprocessed content to what is stored of it."""
        return self(content, training=False) if self.frozen else content

    def from_stored(self, stored: tf.Tensor, *, training: bool = False) -> tf.Tensor:
        """What is stored to <float32>[batch, output_dim]: the rest of a call."""
        return stored if self.frozen else self(stored, training=training)

    def group_values(self, stored: np.ndarray, start: np.ndarray) -> np.ndarray:
        """What is stored of items of what is stored of their values: the mean.

        Args:
          stored: [value, ...], those of one item after the other.
          start: <int64>[item], where each item's values begin; at least one is there.

        Returns:
          [item, ...] as `stored_spec`.
        """
        if len(start) == len(stored):
            return stored
        count = np.diff(start, append=len(stored))
        return np.add.reduceat(stored, start) / count[:, None].astype(stored.dtype)

    def stored_fingerprint(self) -> str:
        """As `fingerprint`, of all that what is stored depends on; where `stores_vectors`."""
        return self.fingerprint()

    @property
    def pretrained_variables(self) -> list[tf.Variable]:
        """The weights that train, without those that always start at random."""
        return self.trainable_variables

    def assets(self) -> dict[str, str]:
        """Small text files, by name, from which `build_encoder` makes the same architecture."""
        return {}

    def facts(self) -> dict[str, Any]:
        """What was found out when it was made, such as how many words it does not know; a run's
        metrics keep it."""
        return {}

    @property
    def not_exported(self) -> str:
        """Why no export can hold it; "" where it can, as all of it is core TensorFlow."""
        return ""

    def fingerprint(self) -> str:
        """SHA-256 over class, settings but those of augmentation, and weights, in hexadecimal.

        Two encoders with one fingerprint give one vector for one content; vectors cached under it
        and the content's hash stay valid.
        """
        settings = self.get_config()
        for name in ("name", "trainable", "trainable_layers", *self.augmentation):
            settings.pop(name, None)
        head = [type(self).__module__, self.version, settings]
        digest = hashlib.sha256(json.dumps(head, sort_keys=True).encode())
        for value in self.get_weights():
            digest.update(f"{value.dtype}{value.shape}".encode())
            digest.update(value.tobytes())
        return digest.hexdigest()

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "trainable_layers": self.trainable_layers}

    def _training(self, training: bool | None) -> bool:
        """A frozen encoder never drops units, changes its content or moves batch statistics."""
        return bool(training) and not self.frozen

    def _freeze(
        self, blocks: Sequence[tf.keras.layers.Layer], below: Sequence[tf.keras.layers.Layer] = ()
    ) -> None:
        """Leaves the last `trainable_layers` of `blocks` trainable.

        Args:
          blocks: from the input upwards.
          below: layers beneath the blocks, trained only when all is.
        """
        if self.trainable_layers < 0:
            return
        kept = blocks[len(blocks) - min(self.trainable_layers, len(blocks)) :]
        for layer in (*below, *blocks):
            layer.trainable = any(layer is one for one in kept)


class Face(ModalityEncoder):
    """What a `SharedEncoder` is to one kind of content.

    Args:
      shared: SharedEncoder, whose weights are counted, saved and trained once.
      kind: of the content.
    """

    def __init__(self, shared: SharedEncoder, kind: str, **kwargs: Any) -> None:
        super().__init__(trainable_layers=shared.trainable_layers, **kwargs)
        self.shared = shared
        self.kind = kind
        self.augmentation = shared.augmentation

    @property
    def output_dim(self) -> int:
        return self.shared.output_dim(self.kind)

    def content_spec(self) -> tf.TensorSpec:
        return self.shared.content_spec(self.kind)

    def preprocess(self, raw: tf.Tensor) -> tf.Tensor:
        return self.shared.preprocess(raw, self.kind)

    def preprocess_readable(self, raw: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return self.shared.preprocess_readable(raw, self.kind)

    def call(self, content: tf.Tensor, training: bool = False) -> tf.Tensor:
        return self.shared.encode(content, self.kind, training=self._training(training))

    def assets(self) -> dict[str, str]:
        return self.shared.assets()

    @property
    def not_exported(self) -> str:
        return self.shared.not_exported(self.kind)

    def get_config(self) -> dict[str, Any]:
        # Vectors of one face must not be taken for those of the other, nor of other settings.
        shared = {k: v for k, v in self.shared.get_config().items() if k not in ("name", "dtype")}
        settings = {**super().get_config(), **shared, "kind": self.kind}
        return {**settings, "shared": type(self.shared).__module__}


def count_weights(layers: Mapping[str, tf.keras.layers.Layer]) -> dict[str, int]:
    """How many weights each layer has, those that an earlier one has too left out."""
    seen: set[int] = set()
    counts = {}
    for name, layer in layers.items():
        own = {id(weight): weight for weight in layer.weights if id(weight) not in seen}
        seen |= own.keys()
        counts[name] = sum(weight.shape.num_elements() for weight in own.values())
    return counts
