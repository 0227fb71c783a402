"""Pictures: JPEG bytes on disk, square uint8 pixels in the graph, a Keras application on top."""

import difflib
import importlib
import os
import pathlib
import struct
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import tensorflow as tf

from mmrec_tf.config import ImageConfig
from mmrec_tf.errors import ConfigError, MediaError
from mmrec_tf.modalities.encoder import ModalityEncoder
from mmrec_tf.schema import ModalitySpec

MAX_BYTES = 64 * 2**20
MAX_PIXELS = 64_000_000
JPEG_QUALITY = 95

# SOF0 is baseline; the other start-of-frame markers are progressive, lossless, arithmetic, ...
_FRAMES = {0xC0 + i for i in range(16)} - {0xC4, 0xC8, 0xCC}
_STANDALONE = {0x01, *range(0xD0, 0xD9)}


def prepare(data: bytes, *, max_side: int = 320) -> bytes:
    """Makes any picture that OpenCV reads into JPEG bytes for the graph.

    A baseline gray or RGB JPEG without EXIF rotation and within `max_side` goes through
    unchanged, so that preparation and serving see the same bytes. Everything else is decoded,
    turned upright, laid over white where it is transparent, reduced to 8 bits, shrunk so that the
    longest side is at most `max_side` pixels, and written as JPEG of quality 95. Of an animation
    the first frame is taken.

    Args:
      data: the bytes of a file.
      max_side: the longest side allowed, in pixels.

    Returns:
      JPEG bytes that `tf.io.decode_image` reads.

    Raises:
      MediaError: with a short reason when the bytes are empty, too large, damaged, cut off or
        not a picture.
    """
    if not data:
        raise MediaError("empty file")
    if len(data) > MAX_BYTES:
        raise MediaError(f"too many bytes ({len(data):,}; at most {MAX_BYTES:,})")
    header = _header(data)
    if header is not None:
        width, height = header[:2]
        if width < 1 or height < 1:
            raise MediaError(f"no pixels ({width} x {height})")
        if width * height > MAX_PIXELS:
            raise MediaError(f"too many pixels ({width} x {height}; at most {MAX_PIXELS:,})")
        if header[2] and max(width, height) <= max_side:
            # OpenCV accepts some damage that the graph's decoder refuses, so that one is asked.
            if _decode_in_graph(data) is None:
                raise MediaError("damaged or cut off")
            return data
    return _encode(_shrink(_decode(data, known=header is not None), max_side))


def _opencv():
    # OpenCV reads its limit once, when it is loaded.
    os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MAX_PIXELS))
    import cv2

    return cv2


def _decode(data: bytes, *, known: bool):
    """The picture as <uint8>[height, width, 3], blue first as OpenCV has it."""
    import numpy as np

    cv2 = _opencv()
    # Only IMREAD_COLOR turns a JPEG upright; only IMREAD_UNCHANGED keeps transparency and depth.
    mode = cv2.IMREAD_COLOR if data[:2] == b"\xff\xd8" else cv2.IMREAD_UNCHANGED
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), mode)
    except cv2.error as error:
        raise MediaError(f"not decodable ({error.err or 'OpenCV refused it'})") from error
    if pixels is None and data[:4] == b"GIF8":
        # OpenCV's wheels are built without GIF.
        pixels = _decode_in_graph(data)
    if pixels is None or pixels.size == 0:
        raise MediaError("damaged or cut off" if known else "not a picture")
    if pixels.ndim == 2:
        pixels = pixels[:, :, np.newaxis]
    if pixels.shape[2] not in (1, 3, 4):
        raise MediaError(f"{pixels.shape[2]} channels; 1, 3 or 4 are known")
    if pixels.dtype == np.uint8 and pixels.shape[2] == 3:
        return pixels
    return _to_rgb8(pixels)


def _decode_in_graph(data: bytes):
    """What `tf.io.decode_image` makes of it, blue first; None where it refuses."""
    with tf.device("CPU"):
        try:
            return tf.io.decode_image(data, 3, expand_animations=False).numpy()[:, :, ::-1]
        except tf.errors.InvalidArgumentError:
            return None


def _to_rgb8(pixels):
    """Any depth, gray or transparent, to <uint8>[height, width, 3]."""
    import numpy as np

    if pixels.dtype in (np.uint8, np.uint16):
        unit = pixels.astype(np.float32) / np.iinfo(pixels.dtype).max
    elif pixels.dtype.kind == "f" and np.isfinite(pixels).all():
        unit = np.clip(pixels.astype(np.float32), 0, 1)
    else:
        raise MediaError(f"pixels of type {pixels.dtype} cannot be shown")
    if unit.shape[2] == 4:
        alpha = unit[:, :, 3:]
        unit = unit[:, :, :3] * alpha + (1 - alpha)
    rgb = np.broadcast_to(unit, (*unit.shape[:2], 3))
    return np.rint(rgb * 255).astype(np.uint8)


def _shrink(pixels, max_side: int):
    height, width = pixels.shape[:2]
    scale = max_side / max(height, width)
    if scale >= 1:
        return pixels
    cv2 = _opencv()
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)


def _encode(pixels) -> bytes:
    cv2 = _opencv()
    written, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not written:
        raise MediaError("could not be written as JPEG")
    return data.tobytes()


def _header(data: bytes) -> tuple[int, int, bool] | None:
    """Width, height and "may go through unchanged", read without decoding.

    None for a format that this does not know, or a header that ends too early: OpenCV's own
    limit then stands alone.
    """
    try:
        if data[:2] == b"\xff\xd8":
            return _jpeg_header(data)
        if data[:8] == b"\x89PNG\r\n\x1a\n":
            return (*struct.unpack(">II", data[16:24]), False)
        if data[:4] == b"GIF8":
            return (*struct.unpack("<HH", data[6:10]), False)
        if data[:2] == b"BM":
            width, height = struct.unpack("<ii", data[18:26])
            return abs(width), abs(height), False
    except (IndexError, struct.error):
        pass
    return None


def _jpeg_header(data: bytes) -> tuple[int, int, bool] | None:
    at, upright = 2, True
    while at < len(data):
        if data[at] != 0xFF:
            return None
        marker = data[at + 1]
        at += 1 if marker == 0xFF else 2
        if marker == 0xFF or marker in _STANDALONE:
            continue
        (length,) = struct.unpack(">H", data[at : at + 2])
        if marker == 0xE1 and data[at + 2 : at + 8] == b"Exif\x00\x00":
            upright = upright and _exif_orientation(data[at + 8 : at + length]) <= 1
        if marker in _FRAMES:
            depth, height, width, channels = struct.unpack(">BHHB", data[at + 2 : at + 8])
            plain = marker == 0xC0 and depth == 8 and channels in (1, 3)
            return width, height, plain and upright
        if marker in (0xD9, 0xDA):
            return None
        at += length
    return None


def _exif_orientation(tiff: bytes) -> int:
    """Orientation, 1 to 8 (Exif 2.3, tag 0x0112); 1 where there is none or it is damaged."""
    try:
        order = {b"II": "<", b"MM": ">"}[tiff[:2]]
        (start,) = struct.unpack(order + "I", tiff[4:8])
        (count,) = struct.unpack(order + "H", tiff[start : start + 2])
        for i in range(count):
            entry = tiff[start + 2 + 12 * i : start + 14 + 12 * i]
            if struct.unpack(order + "H", entry[:2])[0] == 0x0112:
                return struct.unpack(order + "H", entry[8:10])[0]
    except (KeyError, struct.error):
        pass
    return 1


class Encoder(ModalityEncoder):
    """A network of `tf.keras.applications` without its top, averaged over space.

    The network's own `preprocess_input` is part of the call.

    Args:
      architecture: such as "ResNet50" or "MobileNetV2".
      size: side of the square that pictures are resized to, in pixels.
      trainable_layers: 0 keeps the network frozen, n trains the last n layers that have weights,
        -1 trains all. Batch normalization in a frozen layer uses its stored statistics.
      imagenet: whether the weights to be loaded are Keras' own ImageNet ones, for which some
        architectures scale their input differently.

    Raises:
      ConfigError: for an unknown architecture, or a size that it cannot take.
    """

    def __init__(
        self,
        architecture: str,
        size: int,
        *,
        trainable_layers: int = 0,
        imagenet: bool = False,
        **kwargs,
    ):
        super().__init__(trainable_layers=trainable_layers, **kwargs)
        self.architecture = architecture
        self.size = size
        self.imagenet = imagenet
        self.network = _network(architecture, size, weights=None)
        self._preprocess_input = importlib.import_module(
            _application(architecture).__module__
        ).preprocess_input
        self._freeze([layer for layer in self.network.layers if layer.weights])

    @property
    def output_dim(self) -> int:
        return self.network.output_shape[-1]

    def content_spec(self) -> tf.TensorSpec:
        """<uint8>[batch, size, size, 3]."""
        return tf.TensorSpec([None, self.size, self.size, 3], tf.uint8)

    def preprocess(self, raw: tf.Tensor) -> tf.Tensor:
        """JPEG, PNG, GIF or BMP bytes to pixels, stretched to a square (bilinear, antialiased).

        Args:
          raw: <string>[batch]; "" where the item lacks the modality.

        Returns:
          <uint8>[batch, size, size, 3], red first; zeros for "".
        """
        size = [self.size, self.size]

        def decode(data):
            pixels = tf.io.decode_image(data, channels=3, expand_animations=False)
            pixels.set_shape([None, None, 3])
            pixels = tf.image.resize(pixels, size, method="bilinear", antialias=True)
            return tf.saturate_cast(tf.round(pixels), tf.uint8)

        def decode_or_zeros(data):
            return tf.cond(
                tf.equal(tf.strings.length(data), 0),
                lambda: tf.zeros([*size, 3], tf.uint8),
                lambda: decode(data),
            )

        return tf.map_fn(
            decode_or_zeros, raw, fn_output_signature=tf.TensorSpec([*size, 3], tf.uint8)
        )

    def call(self, content: tf.Tensor, training: bool = False) -> tf.Tensor:
        """<uint8>[batch, size, size, 3] to <float32>[batch, output_dim]."""
        rows = tf.shape(content)[0]
        if not content.shape[0]:
            # TensorFlow 2.17's fused convolutions fail on no rows at all: give them one of zeros.
            spare = tf.cast(tf.equal(rows, 0), tf.int32)
            content = tf.pad(content, [[0, spare], [0, 0], [0, 0], [0, 0]])
        pixels = tf.cast(content, tf.float32)
        for layer in self.network.layers:
            # This layer copies its statistics when Keras loads weights into it directly, which a
            # checkpoint of a larger model does not do.
            if isinstance(layer, tf.keras.layers.Normalization):
                layer.finalize_state()
                if self.imagenet and self.architecture.startswith("EfficientNetB"):
                    pixels = _efficientnet_scale(pixels, layer)
        vectors = self.network(self._preprocess_input(pixels), training=self._training(training))
        return tf.cast(vectors[:rows], tf.float32)

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "architecture": self.architecture,
            "size": self.size,
            "imagenet": self.imagenet,
        }


def build_encoder(
    config: ImageConfig,
    spec: ModalitySpec,
    *,
    values: Iterable[Any] | None = None,
    assets: Mapping[str, str] | None = None,
) -> Encoder:
    """Makes the encoder of one picture modality.

    Args:
      config: the part `image` of a `Config`.
      spec: the modality's entry in the schema.
      values: unused; a picture network learns nothing from the catalog when it is made.
      assets: what `Encoder.assets` returned ({} too): nothing is then downloaded or read, and
        weights are to be loaded afterwards.

    Raises:
      ConfigError: for an unknown architecture, or weights that cannot be had or do not fit.
    """
    imagenet = config.weights == "imagenet"
    encoder = Encoder(
        config.architecture,
        config.size,
        trainable_layers=config.trainable_layers,
        imagenet=imagenet,
    )
    if assets is not None or not config.weights:
        return encoder
    if not imagenet and not pathlib.Path(config.weights).expanduser().is_file():
        raise ConfigError(
            f"image.weights: wanted '', 'imagenet' or the path of a weights file; there is no "
            f"file {config.weights}."
        )
    try:
        if imagenet:
            network = _network(config.architecture, config.size, weights="imagenet")
            encoder.network.set_weights(network.get_weights())
        else:
            encoder.network.load_weights(pathlib.Path(config.weights).expanduser())
    except Exception as error:  # nothing narrower: so Keras reports a failed download
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConfigError(
            f"image.weights: could not load {config.weights!r} into {config.architecture} without "
            f"its top ({reason}). Give a weights file of that architecture saved with "
            "include_top=False; 'imagenet' needs a connection once."
        ) from error
    return encoder


def _application(architecture: str) -> Callable[..., tf.keras.Model]:
    known = [name for name in dir(tf.keras.applications) if name[0].isupper()]
    if architecture not in known:
        near = difflib.get_close_matches(architecture, known, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}."
        raise ConfigError(f"image.architecture: unknown {architecture!r}; {hint}")
    return getattr(tf.keras.applications, architecture)


def _network(architecture: str, size: int, *, weights: str | None) -> tf.keras.Model:
    make = _application(architecture)
    try:
        return make(include_top=False, weights=weights, pooling="avg", input_shape=(size, size, 3))
    except ValueError as error:
        if weights:
            raise
        raise ConfigError(f"image.size: {architecture} cannot take {size}; {error}") from error


def _efficientnet_scale(
    pixels: tf.Tensor, normalization: tf.keras.layers.Normalization
) -> tf.Tensor:
    """What Keras adds inside EfficientNet B0 to B7 only when it loads ImageNet weights itself.

    It divides by the square root of the standard deviation after the normalization layer, whose
    stored variance lacks it (tensorflow/tensorflow issue 49930). The network here is always made
    without weights, so the same is done before that layer: m + (x - m) / sqrt(std).
    """
    mean = 255 * normalization.adapt_mean
    return mean + (pixels - mean) / tf.sqrt(tf.constant([0.229, 0.224, 0.225]))
