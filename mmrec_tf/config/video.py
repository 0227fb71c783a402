"""Settings of the families of encoders that read videos."""

from dataclasses import dataclass

from mmrec_tf.config.checks import at_least, one_of, require, shapes_weights

FRAME_POOLS = ("mean", "attention", "gru", "transformer")


@dataclass(frozen=True)
class FramesConfig:
    """Frames of a clip, each read as the section `image` says (its `family`, `weights`, `size` and
    so on, but with weights of its own), then pooled to one vector.

    `trainable_layers` is for the frames' network in place of `image.trainable_layers`: 0 keeps it
    frozen, n trains the last n layers, -1 trains all. `num_frames` are read of each clip; those of
    a shorter one are repeated. `pool`: their "mean"; "attention", a mean with learned weights (Ilse
    et al. 2018); or what sees their order: "gru" (Cho et al. 2014), or "transformer" of
    `num_layers` blocks with `num_heads` heads, which return `pool_units` numbers.
    """

    trainable_layers: int = 0
    num_frames: int = shapes_weights(8)
    pool: str = shapes_weights("mean")
    pool_units: int = shapes_weights(64)
    num_layers: int = shapes_weights(1)
    num_heads: int = shapes_weights(4)

    def __post_init__(self) -> None:
        one_of("video.pool", self.pool, FRAME_POOLS)
        at_least(self, "video.", dict.fromkeys(("pool_units", "num_layers", "num_heads"), 1))
        require(
            1 <= self.num_frames <= 64, f"video.num_frames: wanted 1 to 64; got {self.num_frames}."
        )
        require(
            self.pool != "transformer" or self.pool_units % self.num_heads == 0,
            f"video.pool_units: wanted a multiple of video.num_heads ({self.num_heads}); "
            f"got {self.pool_units}.",
        )
        require(
            self.trainable_layers >= -1, "video.trainable_layers: wanted -1 (all), 0 or a count."
        )
