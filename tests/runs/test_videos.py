"""What a clip shows is only in the order of its frames: who sees that order learns it."""

import pytest
import tensorflow as tf
from support import motion_world, tiny_pictures

import mmrec_tf as mm
from mmrec_tf.config import Config
from mmrec_tf.encoders.video import frames

# Of the 112 items that a user has not met, twenty at random; of one kind there are 22.
CHANCE, CEILING = 20 / 112, 20 / 22


@pytest.mark.slow
def test_what_sees_order_learns_motion_and_a_mean_cannot(tmp_path, monkeypatch):
    monkeypatch.setattr(frames, "pictures", tiny_pictures)
    dataset = mm.open_dataset(motion_world.write(tmp_path / "data"))
    recall = {}
    for pool in ("mean", "gru", "transformer"):
        settings = {
            "image.weights": "random",
            "video.num_frames": 4,
            "video.pool": pool,
            **({} if pool == "mean" else {"video.pool_units": 32}),
            "item.id_embedding": False,
            "user.history": "mean",
            "user.history_length": 8,
            "retrieval.popularity_bias": False,
            "training.epochs": 30,
            "training.batch_size": 128,
            "training.patience": 0,
            "ranking.epochs": 0,
        }
        config = Config(dim=16).override(settings, schema=dataset.schema)
        tf.keras.utils.set_random_seed(0)
        model = mm.RetrievalModel(config, dataset, cache=tmp_path / "cache")
        model.compile()
        model.fit(epochs=model.epochs, verbose=0)
        recall[pool] = float(model.evaluate()["recall@20"])
    # All users' items of valid are cold: nothing but their clips tells them apart.
    assert min(recall["gru"], recall["transformer"]) > 0.8 * CEILING
    assert recall["mean"] < 1.5 * CHANCE
    # Both read the same vectors of frames from a cache, or the mean of them.
    assert {path.name.partition("-")[0] for path in (tmp_path / "cache").glob("*.npy")} == {"video"}
