"""A world of ready-made vectors, whose causes are known: users follow "taste", never "noise".

Items belong to clusters by both vectors, independently. Users like one cluster of taste each.
"""

import pathlib

import numpy as np

from mmrec_tf.config import Config
from mmrec_tf.records import DatasetWriter
from mmrec_tf.schema import FeatureSpec, ModalitySpec, Schema

NUM_CLUSTERS, DIM = 4, 6


def taste(item: int) -> int:
    return item % NUM_CLUSTERS


def write(
    folder: pathlib.Path,
    *,
    num_users: int = 60,
    num_items: int = 48,
    seed: int = 0,
    lacking: bool = True,
    features: bool = True,
) -> pathlib.Path:
    """Writes the dataset directory; every seventh item lacks its noise where some are `lacking`."""
    rng = np.random.default_rng(seed)
    centers = {name: 3 * np.eye(DIM)[:NUM_CLUSTERS] for name in ("taste", "noise")}
    noise = rng.integers(0, NUM_CLUSTERS, num_items)
    specs = {"taste": ModalitySpec("vector", dim=DIM), "noise": ModalitySpec("vector", dim=DIM)}
    genre = {"genre": FeatureSpec("categorical", vocabulary=("a", "b"), width=1)}
    age = {"age": FeatureSpec("numeric")}
    with DatasetWriter(folder) as writer:
        for item in range(num_items):
            content = {}
            for name, cluster in (("taste", taste(item)), ("noise", int(noise[item]))):
                content[name] = (centers[name][cluster] + rng.normal(size=DIM)).astype(np.float32)
            if lacking and item % 7 == 6:
                del content["noise"]
            more = {"genre": [2 + item % 2]} if features else {}
            writer.write_item(f"i{item}", content=content, features=more)
        for user in range(num_users):
            writer.write_user(f"u{user}", features={"age": float(user % 9)} if features else {})
        for user in range(num_users):
            own = np.arange(user % NUM_CLUSTERS, num_items, NUM_CLUSTERS)
            met = rng.permutation(own)[:7].tolist()
            for split, items in (("train", met[:5]), ("valid", met[5:6]), ("test", met[6:])):
                writer.write_interactions(
                    split, user, item=items, timestamp=list(range(len(items)))
                )
        schema = Schema(
            num_users=num_users,
            num_items=num_items,
            modalities=specs,
            item_features=genre if features else {},
            user_features=age if features else {},
        )
        writer.finish(schema, source={"name": "vector_world"}, split_rule="given")
    return folder


def config(**settings) -> Config:
    """Small, for the schema of `write`; settings as for `small_world.config`."""
    small = {
        "dim": 8,
        "modalities": ["taste", "noise"],
        "user.history_length": 4,
        "ranking.epochs": 0,
        "training.batch_size": 64,
        "training.learning_rate": 0.03,
        "training.epochs": 6,
    }
    changed = {name.replace("__", "."): value for name, value in settings.items()}
    return Config().override({**small, **changed})
