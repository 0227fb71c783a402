"""Datasets of a few items and users, given as lists, and what batches make of them."""

from mmrec_tf import open_dataset
from mmrec_tf.config import UserConfig
from mmrec_tf.records import DatasetWriter
from mmrec_tf.schema import Schema

TRAIN = [[0, 1, 2, 3, 4], [5], [], [3, 0]]


VALID = [[5], [0], [1], []]


def write(folder, *, train=TRAIN, valid=VALID, ordered=False, num_items=6, **columns):
    with DatasetWriter(folder) as writer:
        for item in range(num_items):
            writer.write_item(f"i{item}")
        for user in range(len(train)):
            writer.write_user(f"u{user}")
        for split, users in (("train", train), ("valid", valid)):
            for user, items in enumerate(users):
                if items:
                    parts = {"timestamp": range(99), **columns}
                    parts = {name: value[: len(items)] for name, value in parts.items()}
                    writer.write_interactions(split, user, item=items, **parts)
        writer.finish(
            Schema(
                num_users=len(train),
                num_items=num_items,
                ordered=ordered,
                ratings="rating" in columns,
                events=("view", "buy") if "events" in columns else (),
                num_positions=9 if "position" in columns else 0,
            ),
            source={"name": "test"},
            split_rule="given",
        )
    return open_dataset(folder)


def examples(batches):
    """(user, item) -> history without its padding, which must stand behind."""
    found = {}
    for batch in batches.as_numpy_iterator():
        for user, item, history in zip(batch["user"], batch["item"], batch["history"], strict=True):
            known = history[: int((history >= 0).sum())]
            assert (known >= 0).all()
            assert (user, item) not in found
            found[int(user), int(item)] = known.tolist()
    return found


def user(length, context="auto"):
    return UserConfig(history_length=length, history_context=context)
