"""In a planted world the cause is known: an explanation names an item of the cluster that the user
likes."""

import csv

import numpy as np
import pytest

import mmrec_tf as mm
from data.sources import synthetic
from data.sources.synthetic.world import World
from mmrec_tf.recommender.contributions import Explainer

SMALL = {
    "dim": 16,
    **{"text.weights": "random", "text.max_tokens": 24, "text.vocabulary_size": 300},
    **{"text.hidden_size": 16, "text.num_layers": 1, "text.num_heads": 2},
    **{"image.architecture": "VGG16", "image.weights": "random", "image.size": 32},
    **{"audio.trainable_layers": 0, "audio.num_mels": 16, "audio.filters": [4, 8]},
    **{"ranking.epochs": 0, "training.epochs": 8, "training.batch_size": 128},
    **{"training.learning_rate": 0.02, "user.history_length": 20},
}


@pytest.mark.slow
def test_the_named_item_is_of_the_planted_cluster(tmp_path):
    source = tmp_path / "source"
    world = World(num_users=300, num_items=120, num_clusters=4, seed=1)
    synthetic.prepare(synthetic.Synthetic(world, str(source)), tmp_path / "dataset")
    dataset = mm.open_dataset(tmp_path / "dataset")
    with (source / "truth.csv").open(newline="") as file:
        cluster = {row["item"]: row["cluster"] for row in csv.DictReader(file)}
    config = mm.Config().override(SMALL, schema=dataset.schema)
    model = mm.RetrievalModel(config, dataset, cache=None)
    mm.train(model, dataset)
    recommender = mm.Recommender(model, None, dataset, history="train")
    users = [str(user) for user in dataset.users.user_id[:100]]
    answer, explainer = recommender.recommend(users, k=3), Explainer(recommender)
    right = []
    for row, user in enumerate(users):
        for one in explainer.contributions(user, answer.item_id[row].tolist()):
            assert one.total == pytest.approx(one.score, abs=1e-4)
            cause = one.history_item
            right.append(bool(cause) and cluster[cause] == cluster[one.item_id])
    assert np.mean(right) >= 0.9
