"""What a clip shows is only in the order of its frames: who sees that order learns it."""

import pytest
import tensorflow as tf
from support import motion_world

import mmrec_tf as mm
from mmrec_tf.config import Config

# Of the 112 items or so that a user has not met, ten at random.
CHANCE = 10 / 112


@pytest.mark.slow
def test_a_gru_over_frames_learns_motion_and_a_mean_cannot(tmp_path):
    dataset = mm.open_dataset(motion_world.write(tmp_path / "data"))
    recall = {}
    for pool in ("mean", "gru"):
        settings = {
            "image.architecture": "VGG16",
            "image.weights": "random",
            "image.size": 32,
            "video.num_frames": 4,
            "video.pool": pool,
            **({"video.pool_units": 32} if pool == "gru" else {}),
            "item.id_embedding": False,
            "user.history": "mean",
            "user.history_length": 8,
            "retrieval.popularity_bias": False,
            "training.epochs": 40,
            "training.batch_size": 128,
            "training.patience": 0,
            "ranking.epochs": 0,
        }
        config = Config(dim=16).override(settings, schema=dataset.schema)
        tf.keras.utils.set_random_seed(0)
        model = mm.RetrievalModel(config, dataset, cache=tmp_path / "cache")
        model.compile()
        model.fit(verbose=0)
        recall[pool] = float(model.evaluate()["recall@10"])
    # All users' items of valid are cold: nothing but their clips tells them apart.
    assert recall["gru"] > 2.5 * CHANCE
    assert recall["mean"] < 1.5 * CHANCE
    # Both read the same vectors of frames from a cache, or the mean of them.
    assert {path.name.partition("-")[0] for path in (tmp_path / "cache").glob("*.npy")} == {"video"}
