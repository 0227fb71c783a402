"""Videos: JPEG bytes of their frames, an encoder of pictures for each, one vector of all."""

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import tensorflow as tf

from mmrec_tf.config import ImageConfig, VideoConfig
from mmrec_tf.config.rules import TRAINING
from mmrec_tf.encoders import image as pictures
from mmrec_tf.encoders.encoder import Face, ModalityEncoder
from mmrec_tf.encoders.pooling import ORDERED, AttentionPool, OrderedPool
from mmrec_tf.errors import ConfigError
from mmrec_tf.schema import ModalitySpec

# How one JPEG ends and the next begins; see `mmrec_tf.media.video.split_frames`.
_END, _START = b"\xff\xd9", b"\xff\xd8"

# For `mmrec-tf encoders`.
NEEDS = "an encoder of pictures, as the section image says"


class Encoder(ModalityEncoder):
    """An encoder of pictures over the frames of a clip, then a pooling over frames.

    A clip of fewer or more frames than `num_frames` is stretched: the one in place n is that of
    place floor((n + 1/2) * count / num_frames) of those that there are.

    Where the pictures' encoder is frozen, its vectors are stored and only the pooling trains.

    Args:
      frames: ModalityEncoder of pictures, or what `get_config` says of one.
      num_frames: how many frames are read of each clip.
      pool: "mean"; "attention", a mean with learned weights, see `AttentionPool`; or "gru" or
        "transformer", which see the order of frames, see `OrderedPool`.
      pool_units: length of the vector that "gru" and "transformer" return.
      num_layers, num_heads: of "transformer".
      trainable_layers: those of the pictures' encoder.
    """

    def __init__(
        self,
        frames: ModalityEncoder | Mapping[str, Any],
        *,
        num_frames: int,
        pool: str = "mean",
        pool_units: int = 64,
        num_layers: int = 1,
        num_heads: int = 4,
        trainable_layers: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(trainable_layers=trainable_layers, **kwargs)
        if isinstance(frames, ModalityEncoder):
            made: ModalityEncoder = frames
        else:
            family = pictures.FAMILIES[frames["family"]]
            made = family.Encoder.from_config(
                {**frames["config"], "dtype": kwargs.get("dtype", frames["config"]["dtype"])}
            )
        self.frames = made
        self.num_frames = num_frames
        self.pool = pool
        self.pool_units = pool_units
        self.num_layers = num_layers
        self.num_heads = num_heads
        self.pooling: tf.keras.layers.Layer | None = None
        if pool == "attention":
            self.pooling = AttentionPool(made.output_dim, name="pooling", dtype="float32")
        elif pool in ORDERED:
            self.pooling = OrderedPool(
                pool,
                made.output_dim,
                num_frames,
                units=pool_units,
                num_layers=num_layers,
                num_heads=num_heads,
                name="pooling",
                dtype="float32",
            )

    @property
    def frozen(self) -> bool:
        return self.frames.frozen and self.pooling is None

    @property
    def stores_vectors(self) -> bool:
        return self.frames.frozen

    @property
    def output_dim(self) -> int:
        return self.pool_units if self.pool in ORDERED else self.frames.output_dim

    @property
    def stored_spec(self) -> tf.TensorSpec:
        """<float32>[batch, output_dim] where all is frozen, <float32>[batch, frame, dim] where the
        pooling alone trains, else as `content_spec`."""
        if self.frozen or not self.stores_vectors:
            return super().stored_spec
        return tf.TensorSpec([None, self.num_frames, self.frames.output_dim], tf.float32)

    @property
    def pretrained_variables(self) -> list[tf.Variable]:
        return self.frames.pretrained_variables

    def content_spec(self) -> tf.TensorSpec:
        """[batch, frame, ...], the rest as of the pictures' encoder."""
        spec = self.frames.content_spec()
        return tf.TensorSpec([None, self.num_frames, *spec.shape[1:]], spec.dtype)

    def preprocess(self, raw: tf.Tensor) -> tf.Tensor:
        """Clips as a dataset holds them, one JPEG after the other, to content.

        Args:
          raw: <string>[batch]; "" where the item lacks the modality.

        Returns:
          As `content_spec`; of an empty picture each for "".

        Raises:
          tf.errors.InvalidArgumentError: for frames that are no pictures.
        """
        content = self.frames.preprocess(tf.reshape(self._stretched(split_clips(raw)), [-1]))
        return self._by_clip(content)

    def preprocess_readable(self, raw: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return self._readable(split_clips(raw))

    def preprocess_frames(self, frames: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """As `preprocess_readable`, of clips that come as lists of frames, as in a request.

        Args:
          frames: <string>[batch, any], bytes of JPEG or PNG in the order of the clip; "" counts as
            none, wherever it stands.

        Returns:
          As of `preprocess_readable`: a clip with a frame that cannot be read counts as unreadable.
        """
        return self._readable(tf.ragged.boolean_mask(frames, tf.strings.length(frames) > 0))

    def call(self, content: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Content to <float32>[batch, output_dim]."""
        return self._pooled(self._encode_frames(content, training=training))

    def to_stored(self, content: tf.Tensor) -> tf.Tensor:
        if self.frozen or not self.stores_vectors:
            return super().to_stored(content)
        return self._encode_frames(content)

    def from_stored(self, stored: tf.Tensor, *, training: bool = False) -> tf.Tensor:
        if self.frozen or not self.stores_vectors:
            return super().from_stored(stored, training=training)
        return self._pooled(stored)

    def _encode_frames(self, content: tf.Tensor, *, training: bool = False) -> tf.Tensor:
        """Content to <float32>[batch, frame, dim]."""
        flat = tf.reshape(content, [-1, *content.shape[2:]])
        return self._by_clip(self.frames(flat, training=self._training(training)))

    def _pooled(self, vectors: tf.Tensor) -> tf.Tensor:
        """<float32>[batch, frame, dim] to <float32>[batch, output_dim]."""
        if self.pooling is None:
            return tf.reduce_mean(vectors, axis=1)
        if self.pool == "attention":
            return self.pooling(vectors)[0]
        return tf.ensure_shape(self.pooling(vectors), [None, self.pool_units])

    def _readable(self, frames: tf.RaggedTensor) -> tuple[tf.Tensor, tf.Tensor]:
        flat = tf.reshape(self._stretched(frames), [-1])
        content, unreadable = self.frames.preprocess_readable(flat)
        unreadable = tf.reduce_any(tf.reshape(unreadable, [-1, self.num_frames]), axis=1)
        return self._by_clip(content), unreadable

    def _stretched(self, frames: tf.RaggedTensor) -> tf.Tensor:
        """<string>[batch, num_frames]; "" for a clip without any."""
        count = frames.row_lengths(axis=1)
        place = (2 * tf.range(self.num_frames, dtype=tf.int64) + 1) * count[:, None]
        place = place // (2 * self.num_frames)
        # One more row, so that there is something to gather of no frames at all.
        flat = tf.concat([frames.flat_values, [""]], axis=0)
        found = tf.gather(flat, frames.row_starts()[:, None] + place)
        return tf.where(count[:, None] > 0, found, "")

    def _by_clip(self, rows: tf.Tensor) -> tf.Tensor:
        """[batch * frame, ...] to [batch, frame, ...]."""
        # The number of clips is named, as -1 says nothing of no rows of many numbers.
        clips = tf.shape(rows)[0] // self.num_frames
        shape = tf.concat([[clips, self.num_frames], tf.shape(rows)[1:]], axis=0)
        return tf.ensure_shape(tf.reshape(rows, shape), [None, self.num_frames, *rows.shape[1:]])

    def assets(self) -> dict[str, str]:
        return self.frames.assets()

    def stored_fingerprint(self) -> str:
        if self.frozen:
            return self.fingerprint()
        text = f"{self.frames.fingerprint()} frames {self.num_frames} {type(self).version}"
        return hashlib.sha256(text.encode()).hexdigest()

    def get_config(self) -> dict[str, Any]:
        family = type(self.frames).__module__.rpartition(".")[2]
        config = {k: v for k, v in self.frames.get_config().items() if k != "name"}
        return {
            **super().get_config(),
            "frames": {"family": family, "config": config},
            "num_frames": self.num_frames,
            "pool": self.pool,
            "pool_units": self.pool_units,
            "num_layers": self.num_layers,
            "num_heads": self.num_heads,
        }


def split_clips(raw: tf.Tensor) -> tf.RaggedTensor:
    """Clips to their frames: what `mmrec_tf.media.video.split_frames` does, in the graph.

    Args:
      raw: <string>[batch]; "" for none.

    Returns:
      <string>[batch, (frame)], ragged; no frames for "".
    """
    parts = tf.strings.split(raw, _END + _START)
    parts = tf.ragged.boolean_mask(parts, tf.strings.length(parts) > 0)
    count = tf.cast(parts.row_lengths(axis=1), tf.int64)
    place = tf.ragged.range(count)
    before = tf.where(place.flat_values > 0, _START, b"")
    last = tf.gather(count, place.value_rowids()) - 1
    after = tf.where(place.flat_values < last, _END, b"")
    return parts.with_flat_values(before + parts.flat_values + after)


def build_encoder(
    config: VideoConfig,
    spec: ModalitySpec,
    *,
    image: ImageConfig,
    values: Iterable[Any] | None = None,
    assets: Mapping[str, str] | None = None,
) -> Encoder:
    """Makes the encoder of one modality of videos.

    Args:
      config: the part `video` of a `Config`.
      spec: the modality's entry in the schema.
      image: the part `image`, of the encoder of frames. How much of it trains is for `config` to
        say, and frames are not augmented: each would be changed in its own way.
      values: unused; nothing is learned from the catalog when the encoder is made.
      assets: what `Encoder.assets` returned ({} too): nothing is then downloaded or read, and
        weights are to be loaded afterwards.

    Raises:
      ConfigError: for more frames than the dataset's clips have, or as the pictures' encoder.
    """
    if 0 < spec.num_frames < config.num_frames:
        raise ConfigError(
            f"video.num_frames: wanted at most {spec.num_frames}, as the dataset's clips have no "
            f"more; got {config.num_frames}. Lower it, or prepare the dataset with more "
            "(--video-frames)."
        )
    family = pictures.FAMILIES[image.family]
    plain = unaugmented(image, trainable_layers=config.trainable_layers)
    if hasattr(family, "build_shared"):
        frames: ModalityEncoder = Face(family.build_shared(plain, assets=assets), "image")
    else:
        frames = family.build_encoder(plain, spec, values=None, assets=assets)
    return Encoder(
        frames,
        num_frames=config.num_frames,
        pool=config.pool,
        pool_units=config.pool_units,
        num_layers=config.num_layers,
        num_heads=config.num_heads,
        trainable_layers=config.trainable_layers,
    )


def unaugmented(image: ImageConfig, *, trainable_layers: int) -> ImageConfig:
    """The same settings without those that change pictures at random."""
    names = [path.partition(".")[2] for path in TRAINING["image"]]
    defaults = {name: getattr(type(image), name) for name in names}
    return dataclasses.replace(image, trainable_layers=trainable_layers, **defaults)
