"""A planted world of motion: what a clip shows is only in the order of its frames.

A ball stands in one of four places in each frame of a clip, in each place once. Items are of four
kinds, by the order in which it goes there; users like items of one kind. The frames of any two
clips are the same but for noise, so that a mean over frames tells nothing.
"""

import pathlib

import cv2
import numpy as np

from mmrec_tf.media.video import join_frames
from mmrec_tf.records import DatasetWriter
from mmrec_tf.schema import ModalitySpec, Schema

SIDE = 32
# To the right, to the left, and two ways of jumping.
ORDERS = ((0, 1, 2, 3), (3, 2, 1, 0), (1, 3, 0, 2), (2, 0, 3, 1))
NUM_ITEMS, NUM_USERS = 120, 160
# Of each kind, items that train never meets.
NUM_COLD = 10


def frame(place: int, rng: np.random.Generator) -> bytes:
    """A ball in one of four places from left to right, under noise: JPEG bytes."""
    pixels = rng.normal(60, 8, (SIDE, SIDE, 3))
    center = (4 + 8 * place + int(rng.integers(-1, 2)), SIDE // 2 + int(rng.integers(-4, 5)))
    ball = np.zeros([SIDE, SIDE, 3])
    cv2.circle(ball, center, 4, (160, 160, 160), -1)
    return cv2.imencode(".jpg", np.clip(pixels + ball, 0, 255).astype(np.uint8))[1].tobytes()


def clip(item: int, rng: np.random.Generator) -> bytes:
    """The frames of an item in the order of its kind."""
    return join_frames([frame(place, rng) for place in ORDERS[item % len(ORDERS)]])


def write(folder: pathlib.Path, *, seed: int = 0) -> pathlib.Path:
    """Writes the dataset directory: users meet eight items of their kind in train, and cold ones
    of it in valid and test."""
    rng = np.random.default_rng(seed)
    kinds, cold = len(ORDERS), NUM_ITEMS - NUM_COLD * len(ORDERS)
    with DatasetWriter(folder) as writer:
        for item in range(NUM_ITEMS):
            writer.write_item(f"i{item}", content={"video": clip(item, rng)}, features={})
        for user in range(NUM_USERS):
            writer.write_user(f"u{user}", features={})
        for split in ("train", "valid", "test"):
            for user in range(NUM_USERS):
                first, last = (0, cold) if split == "train" else (cold, NUM_ITEMS)
                own = np.arange(first + user % kinds, last, kinds)
                some = rng.permutation(own)[: 8 if split == "train" else 2]
                writer.write_interactions(
                    split, user, item=some.tolist(), timestamp=list(range(len(some)))
                )
        writer.finish(
            Schema(
                num_users=NUM_USERS,
                num_items=NUM_ITEMS,
                modalities={"video": ModalitySpec("video", num_frames=len(ORDERS))},
            ),
            source={"name": "motion_world"},
            split_rule="given",
        )
    return folder
