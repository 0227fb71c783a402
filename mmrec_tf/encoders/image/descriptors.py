"""Pictures: JPEG bytes on disk, square uint8 pixels in the graph, color histograms and histograms
of oriented gradients (HOG) on top: an encoder without weights."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from mmrec_tf.config import ImageConfig
from mmrec_tf.encoders.image.pictures import PictureEncoder
from mmrec_tf.schema import ModalitySpec

# For `mmrec-tf encoders`.
NEEDS = "nothing"

# Of HOG (Dalal and Triggs 2005), as OpenCV's HOGDescriptor has it by default.
CELL = 8
BLOCK = 16
ORIENTATIONS = 9
_CLIP = 0.2


class Encoder(PictureEncoder):
    """A histogram of colors beside one of edges, as OpenCV has them.

    Colors: shares of pixels by hue, saturation and value, `bins` of each, on a grid of cells of the
    picture: `cv2.calcHist` of `cv2.cvtColor(..., COLOR_RGB2HSV)` of float pixels, divided by the
    number of pixels; the square root is taken (Hellinger's kernel). Edges:
    `cv2.HOGDescriptor((size, size), (16, 16), (8, 8), (8, 8), 9).compute`, averaged over
    `grid` x `grid` parts of the picture, each part scaled to unit length. Each half has unit
    length, so that neither drowns the other.

    Nothing in it is trained: always frozen, and never augmented.

    Args:
      size: side of the square that pictures are resized to, in pixels; a multiple of 8.
      bins: of each of hue, saturation and value.
      grid: parts along each side.
    """

    augmentation: tuple[str, ...] = ()

    def __init__(self, size: int, *, bins: int = 4, grid: int = 2, **kwargs: Any) -> None:
        super().__init__(size, **kwargs)
        self.bins = bins
        self.grid = grid

    @property
    def output_dim(self) -> int:
        return self.grid**2 * (self.bins**3 + ORIENTATIONS * (BLOCK // CELL) ** 2)

    def embed(self, pixels: tf.Tensor, *, training: bool) -> tf.Tensor:
        parts = color_histograms(pixels, bins=self.bins, grid=self.grid)
        colors = tf.sqrt(parts) / self.grid
        edges = _pool_blocks(hog(pixels), self.grid)
        return tf.concat([colors, tf.math.l2_normalize(edges, axis=1, epsilon=1e-8)], axis=1)

    def get_config(self) -> dict[str, Any]:
        config = {**super().get_config(), "bins": self.bins, "grid": self.grid}
        for name in ("trainable_layers", *PictureEncoder.augmentation):
            del config[name]
        return config


def color_histograms(pixels: tf.Tensor, *, bins: int, grid: int = 1) -> tf.Tensor:
    """Shares of pixels by hue, saturation and value.

    Args:
      pixels: <float32>[batch, height, width, 3], 0 to 255, red first.
      bins: of each of the three.
      grid: parts along each side, each with a histogram of its own.

    Returns:
      <float32>[batch, grid * grid * bins ** 3], summing to 1 in each part; hue counts slowest.
    """
    batch, (height, width) = tf.shape(pixels)[0], pixels.shape[1:3]
    place = tf.minimum(tf.cast(_hue_saturation_value(pixels / 255) * bins, tf.int32), bins - 1)
    color = (place[..., 0] * bins + place[..., 1]) * bins + place[..., 2]
    rows = np.minimum(np.arange(height) * grid // height, grid - 1)
    columns = np.minimum(np.arange(width) * grid // width, grid - 1)
    part = tf.constant(rows[:, None] * grid + columns[None], tf.int32)
    count = grid * grid * bins**3
    cell = (tf.range(batch) * count)[:, None, None] + part * bins**3 + color
    sums = tf.math.unsorted_segment_sum(
        tf.ones([tf.size(cell)]), tf.reshape(cell, [-1]), batch * count
    )
    sizes = np.bincount(np.asarray(rows[:, None] * grid + columns[None]).ravel(), minlength=grid**2)
    shares = tf.reshape(sums, [batch, grid**2, bins**3]) / sizes[:, None].astype(np.float32)
    return tf.reshape(shares, [batch, count])


def _hue_saturation_value(colors: tf.Tensor) -> tf.Tensor:
    """<float32>[..., 3] in 0..1, red first, to the same, as OpenCV has it: what lies on the border
    of two bins falls to the same side."""
    epsilon = np.finfo(np.float32).eps
    red, green, blue = tf.unstack(colors, axis=-1)
    value = tf.reduce_max(colors, axis=-1)
    apart = value - tf.reduce_min(colors, axis=-1)
    unit = 60 / (apart + epsilon)
    hue = tf.where(
        tf.equal(value, red),
        (green - blue) * unit,
        tf.where(tf.equal(value, green), (blue - red) * unit + 120, (red - green) * unit + 240),
    )
    hue = tf.where(hue < 0, hue + 360, hue)
    return tf.stack([hue / 360, apart / (value + epsilon), value], axis=-1)


def hog(pixels: tf.Tensor) -> tf.Tensor:
    """Histograms of oriented gradients (Dalal and Triggs 2005), as `cv2.HOGDescriptor` computes
    them: unsigned gradients of the channel where they are largest, blocks of 2 x 2 cells under a
    Gaussian, trilinear interpolation, and L2-Hys normalization. OpenCV's arctangent is an
    approximation, which makes a difference of up to 5e-4.

    Args:
      pixels: <float32>[batch, height, width, 3], whole numbers from 0 to 255, red first; both
        sides are multiples of 8, and at least 16.

    Returns:
      <float32>[batch, block row, block column, 36]; cells of a block column by column.
    """
    height, width = pixels.shape[1:3]
    # OpenCV reflects at the border, without repeating it.
    padded = tf.pad(pixels, [[0, 0], [1, 1], [1, 1], [0, 0]], "REFLECT")
    right = padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]
    down = padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]
    strength = right**2 + down**2
    # Of channels alike the last one counts, as in OpenCV.
    choice = tf.one_hot(2 - tf.argmax(strength[..., ::-1], axis=-1), 3)
    right, down = (tf.reduce_sum(one * choice, axis=-1) for one in (right, down))
    magnitude = tf.sqrt(right**2 + down**2)
    angle = tf.math.floormod(tf.math.atan2(down, right), 2 * math.pi)
    position = angle * (ORIENTATIONS / math.pi) - 0.5
    low = tf.floor(position)
    share = position - low
    first = tf.cast(tf.math.floormod(low, ORIENTATIONS), tf.int32)
    second = tf.math.floormod(first + 1, ORIENTATIONS)
    votes = (1 - share)[..., None] * tf.one_hot(first, ORIENTATIONS)
    votes += share[..., None] * tf.one_hot(second, ORIENTATIONS)
    votes *= magnitude[..., None]
    # Each cell of a block gathers from all its pixels by one fixed set of weights.
    weights = np.zeros([BLOCK, BLOCK, 1, 4], np.float32)
    weights[:, :, 0] = _block_weights()
    kernel = tf.constant(np.repeat(weights, ORIENTATIONS, axis=2))
    blocks = tf.nn.depthwise_conv2d(votes, kernel, [1, CELL, CELL, 1], "VALID")
    down_blocks, right_blocks = (side // CELL - 1 for side in (height, width))
    # The convolution counts orientations first and cells within.
    blocks = tf.reshape(blocks, [-1, down_blocks, right_blocks, ORIENTATIONS, 4])
    blocks = tf.reshape(
        tf.transpose(blocks, [0, 1, 2, 4, 3]), [-1, down_blocks, right_blocks, 4 * ORIENTATIONS]
    )
    scale = tf.sqrt(tf.reduce_sum(blocks**2, axis=-1, keepdims=True)) + 0.1 * 4 * ORIENTATIONS
    clipped = tf.minimum(blocks / scale, _CLIP)
    return clipped / (tf.sqrt(tf.reduce_sum(clipped**2, axis=-1, keepdims=True)) + 1e-3)


def _block_weights() -> np.ndarray:
    """<float32>[16, 16, 4]: what a pixel of a block gives to each of its cells, column by column:
    a Gaussian over the block times bilinear interpolation between the centers of cells."""
    place = np.arange(BLOCK)
    # OpenCV's default standard deviation, a quarter of the block.
    gauss = np.exp(-((place - BLOCK / 2) ** 2) / (2 * (BLOCK / 4) ** 2))
    near = (place + 0.5) / CELL - 0.5
    to_cell = np.stack([np.maximum(0, 1 - np.abs(near - cell)) for cell in (0, 1)])
    cells = [
        (gauss * to_cell[row])[:, None] * (gauss * to_cell[column])[None]
        for column in (0, 1)
        for row in (0, 1)
    ]
    return np.stack(cells, axis=-1).astype(np.float32)


def _pool_blocks(blocks: tf.Tensor, grid: int) -> tf.Tensor:
    """[batch, row, column, 36] to [batch, grid * grid * 36], the mean over each part."""
    height, width = blocks.shape[1:3]
    edges = [np.linspace(0, side, grid + 1).round().astype(int) for side in (height, width)]
    parts = [
        tf.reduce_mean(
            blocks[
                :,
                edges[0][row] : max(edges[0][row + 1], edges[0][row] + 1),
                edges[1][column] : max(edges[1][column + 1], edges[1][column] + 1),
            ],
            axis=[1, 2],
        )
        for row in range(grid)
        for column in range(grid)
    ]
    return tf.concat(parts, axis=1)


def build_encoder(
    config: ImageConfig,
    spec: ModalitySpec,
    *,
    values: Iterable[Any] | None = None,
    assets: Mapping[str, str] | None = None,
) -> Encoder:
    """Makes the encoder of one picture modality; nothing is learned or loaded.

    Args:
      config: the part `image` of a `Config`.
      spec: the modality's entry in the schema.
      values: unused.
      assets: unused.
    """
    return Encoder(config.size, bins=config.bins, grid=config.grid)
