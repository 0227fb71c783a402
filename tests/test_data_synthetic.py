import csv
import io
import itertools
import json
import math
import pathlib
import wave

import cv2
import numpy as np
import pytest

import mmrec_tf as mm
from data import ceiling, planted, synthetic, synthetic_media
from data.item_shards import runner
from data.planted import Met, Truth, World
from data.synthetic import Synthetic
from mmrec_tf import metrics, records

SMALL = World(num_users=30, num_items=40, seed=3)


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> pathlib.Path:
    """A small world, with its source kept beside it."""
    folder = tmp_path_factory.mktemp("toy")
    synthetic.prepare(Synthetic(SMALL, str(folder / "source")), folder / "d", run=runner(0))
    return folder


def read_table(path: pathlib.Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def dense(drawn: list[Met], split: str) -> np.ndarray:
    return np.concatenate([met.items[split].toarray() for met in drawn])


def test_measure_is_right_where_it_can_be_counted():
    score = np.array([[0.9, 0.5, 0.8, 0.1, 0.5], [0.1, 0.2, 0.3, 0.4, 0.5], [1, 1, 1, 1, 1]])
    known = np.zeros([3, 5], bool)
    known[0, 0] = True
    relevant = np.zeros([3, 5], bool)
    relevant[0, [2, 4, 3]] = True
    relevant[1, 0] = True
    found = ceiling.measure([ceiling.Block(score, known, relevant)], ks=(1, 3))
    # User 0: item 0 is known, so 2, 1 (before 4, its tie), 4, 3: hits at ranks 1 and 3.
    # User 1: 4, 3, 2, 1, 0: none. User 2 has nothing to find and does not count.
    first = 1 + 1 / math.log2(4)
    ideal = 1 + 1 / math.log2(3) + 1 / math.log2(4)
    assert found == {
        "users": 2,
        "recall@1": pytest.approx((1 / 3 + 0) / 2),
        "ndcg@1": pytest.approx((1 + 0) / 2),
        "recall@3": pytest.approx((2 / 3 + 0) / 2),
        "ndcg@3": pytest.approx((first / ideal + 0) / 2),
    }


def test_measure_agrees_with_evaluation():
    rng = np.random.default_rng(0)
    score = rng.random([40, 30])
    known = rng.random([40, 30]) < 0.2
    relevant = (rng.random([40, 30]) < 0.1) & ~known
    halves = [ceiling.Block(score[h], known[h], relevant[h]) for h in (slice(15), slice(15, 40))]
    found = ceiling.measure(halves, ks=(5, 10))
    some = np.flatnonzero(relevant.any(axis=1))
    top = np.argsort(-np.where(known, -np.inf, score), axis=1)[some, :10].astype(np.int32)
    per_user = metrics.retrieval_metrics(
        top, [np.flatnonzero(relevant[u]) for u in some], ks=(5, 10)
    )
    means = metrics.mean_metrics(per_user)
    assert found.pop("users") == len(some)
    for name, value in found.items():
        assert value == pytest.approx(means[name]), name


def test_more_places_than_items():
    block = ceiling.Block(np.ones([1, 3]), np.zeros([1, 3], bool), np.ones([1, 3], bool))
    assert ceiling.measure([block], ks=(50,)) == {
        "users": 1,
        "recall@50": pytest.approx(1),
        "ndcg@50": pytest.approx(1),
    }


def test_probability_is_the_formula_of_the_page():
    truth = Truth(
        cluster=np.array([0, 1, 1]),
        popularity=np.array([1, 0.75, 0.25]),
        cold=np.zeros([3], bool),
        liking=np.array([[0.4, 0.6]]),
        background=0.1,
    )
    wanted = [0.9 * 0.4 + 0.1 / 3, 0.9 * 0.6 * 0.75 + 0.1 / 3, 0.9 * 0.6 * 0.25 + 0.1 / 3]
    np.testing.assert_allclose(truth.probability(slice(0, 1)), [wanted])
    assert sum(wanted) == pytest.approx(1)


def test_the_ceiling_ranks_by_truth_with_train_masked():
    import scipy.sparse

    truth = Truth(
        cluster=np.array([0, 0, 0, 1]),
        popularity=np.array([0.5, 0.3, 0.2, 1]),
        cold=np.zeros([4], bool),
        liking=np.array([[1.0, 0.0], [0.0, 1.0]]),
        background=0.1,
    )
    met = {"train": [[1, 0, 0, 0], [0, 0, 1, 0]], "valid": [[0, 1, 0, 0], [0, 0, 0, 1]]}
    met["test"] = [[0, 0, 0, 1], [1, 0, 0, 0]]
    sparse = {name: scipy.sparse.csr_matrix(np.array(rows, bool)) for name, rows in met.items()}
    found = planted.best(truth, [Met(slice(0, 2), sparse)])
    # User 0 ranks 1, 2, 3 (0 is known): valid first, test third. User 1 ranks 3, 0, 1: valid
    # first, test second, as the background is equal for 0 and 1.
    assert found["valid"]["ndcg@5"] == pytest.approx(1)
    assert found["test"]["ndcg@5"] == pytest.approx((1 / math.log2(4) + 1 / math.log2(3)) / 2)
    # Popularity: items 0 and 2 have one train interaction each, 1 and 3 none. User 0 ranks
    # 2, 1, 3, user 1 ranks 0, 1, 3.
    popular = found["popularity"]["test"]
    assert popular["ndcg@5"] == pytest.approx((1 / math.log2(4) + 1) / 2)


def test_draws_follow_the_weights():
    weight = np.array([0.5, 0.3, 0.2, 0.0])
    with np.errstate(divide="ignore"):
        log_weight = np.log(np.tile(weight, (20_000, 1)))
    rng = np.random.default_rng(0)
    one = planted._draw(log_weight, np.ones([20_000], np.int64), rng)
    np.testing.assert_allclose(one.mean(axis=0), weight, atol=0.015)
    # Of two: P(0) = 0.5 + 0.3 * 0.5 / 0.7 + 0.2 * 0.5 / 0.8 = 0.8393.
    two = planted._draw(log_weight, np.full([20_000], 2), rng)
    assert two.mean(axis=0)[0] == pytest.approx(0.8393, abs=0.015)
    assert (two.sum(axis=1) == 2).all()
    # What has no weight is never drawn, though more are asked for.
    all_of_them = planted._draw(log_weight[:5], np.full([5], 4), rng)
    assert all_of_them.tolist() == [[True, True, True, False]] * 5


@pytest.mark.parametrize("clusters", [4, 5, 9, 13, 14, 16, 30])
def test_any_two_attributes_name_the_cluster_and_none_does_alone(clusters):
    world = World(num_items=300, num_clusters=clusters)
    attributes = [world.attributes(cluster) for cluster in range(clusters)]
    for values, number in zip(zip(*attributes, strict=True), world.num_attributes, strict=True):
        assert set(values) <= set(range(number))
    assert world.num_attributes[0] <= len(synthetic_media._TOPICS)
    for one, other in itertools.combinations(range(3), 2):
        assert len({(a[one], a[other]) for a in attributes}) == clusters
    for one in range(3):
        assert len({a[one] for a in attributes}) <= (clusters / 2 if clusters > 5 else 3)


def test_the_default_world_is_worth_learning():
    """Each attribute alone beats popularity, the cluster beats each, the truth beats all."""
    world = World(num_users=600)
    truth = planted.draw_truth(world, np.random.default_rng(0))
    drawn = list(planted.draw_interactions(truth, np.random.default_rng(1)))
    found = planted.best(truth, drawn)
    train, test = dense(drawn, "train"), dense(drawn, "test")

    def recall(groups: np.ndarray) -> float:
        """Of who ranks by the user's share of a group's train items, and popularity within it."""
        member = np.eye(groups.max() + 1)[groups]
        share = train @ member / train.sum(axis=1, keepdims=True)
        count = train.sum(axis=0) + 1.0
        within = count / (member.T @ count)[groups]
        return ceiling.measure([ceiling.Block(share[:, groups] * within, train, test)])["recall@10"]

    attributes = np.array([world.attributes(c) for c in truth.cluster.tolist()])
    alone = [recall(attributes[:, i]) for i in range(3)]
    together = recall(truth.cluster)
    popularity, best = found["popularity"]["test"]["recall@10"], found["test"]["recall@10"]
    assert best > 0.4
    assert 1.7 * popularity < min(alone)
    assert 2 * max(alone) < together < best
    assert together > 0.8 * best


def test_cold_items_are_met_late_and_pairs_only_once():
    truth = planted.draw_truth(World(num_users=200), np.random.default_rng(0))
    drawn = list(planted.draw_interactions(truth, np.random.default_rng(1)))
    train, valid, test = (dense(drawn, split).astype(int) for split in ("train", "valid", "test"))
    assert truth.cold.sum() == 40
    assert train[:, truth.cold].sum() == 0
    assert valid[:, truth.cold].sum() > 0 and test[:, truth.cold].sum() > 0
    assert (train + valid + test).max() == 1
    assert set(train.sum(axis=1)) == set(range(16, 23))
    assert set(valid.sum(axis=1)) == set(test.sum(axis=1)) == {3}


def test_words_show_the_topic():
    rng = np.random.default_rng(0)
    topics = [set(words.split()) for words in synthetic_media._TOPICS]
    for topic in range(len(topics)):
        title, description = synthetic_media.words(topic, rng)
        words = f"{title} {description}".lower().replace(".", "").split()
        counts = [sum(word in topic for word in words) for topic in topics]
        assert int(np.argmax(counts)) == topic
        assert counts[topic] < len(words)


def test_topics_share_no_words():
    words = [word for topic in synthetic_media._TOPICS for word in topic.split()]
    words += synthetic_media._COMMON.split()
    assert len(words) == len(set(words))


def test_pictures_show_the_style():
    rng = np.random.default_rng(0)

    def hue(style: int) -> float:
        pixels = cv2.imdecode(np.frombuffer(synthetic_media.picture(style, 4, rng), np.uint8), 1)
        assert pixels.shape == (64, 64, 3)
        mean = pixels.reshape(-1, 3).mean(axis=0).reshape(1, 1, 3).astype(np.uint8)
        return float(cv2.cvtColor(mean, cv2.COLOR_BGR2HSV)[0, 0, 0]) / 180

    for style in range(4):
        for _ in range(3):
            distance = abs(hue(style) - style / 4)
            assert min(distance, 1 - distance) < 0.08


def test_sounds_show_the_timbre():
    rng = np.random.default_rng(0)
    for timbre in range(4):
        with wave.open(io.BytesIO(synthetic_media.sound(timbre, 4, rng))) as file:
            assert (file.getframerate(), file.getnframes(), file.getnchannels()) == (
                16000,
                16000,
                1,
            )
            samples = np.frombuffer(file.readframes(16000), "<i2") / 32768
        loudest_hz = np.argmax(np.abs(np.fft.rfft(samples)))  # one second: one bin a hertz
        assert loudest_hz / (180 * 2 ** (3 * timbre / 4)) == pytest.approx(1, abs=0.05)
        assert 0.3 < np.abs(samples).max() <= 1


def test_the_world_lies_on_disk_as_it_was_drawn(toy):
    truth = read_table(toy / "source" / "truth.csv")
    items = read_table(toy / "source" / "items.csv")
    schema = records.read_schema(toy / "d")
    assert list(schema.modalities) == ["text", "image", "audio"]
    assert schema.ordered and not schema.ratings
    found = list(records.read_items(toy / "d", schema))
    assert [item.item_id for item in found] == [row["item"] for row in truth]
    for row, item in zip(items, found, strict=True):
        assert ("text" in item.content) == bool(row["title"])
        for name in ("image", "audio"):
            assert (name in item.content) == bool(row[name])
            if row[name]:  # nothing is lost on the way
                assert item.content[name] == (toy / "source" / row[name]).read_bytes()
    users = [user.user_id for user in records.read_users(toy / "d", schema)]
    assert users == [f"u{i}" for i in range(30)]
    train = records.read_interactions(toy / "d", schema, "train")
    cold = [i for i, row in enumerate(truth) if row["cold"] == "1"]
    assert len(cold) == round(0.08 * 40) and not set(cold) & set(train.item.tolist())
    manifest = records.verify(toy / "d", full=True)
    assert manifest["source"]["name"] == "synthetic"
    assert manifest["source"]["arguments"]["seed"] == 3
    assert manifest["counts"]["duplicates"]["interactions"] == 0


def test_the_ceiling_is_that_of_the_dataset(toy):
    """Measured again from what a reader of the dataset and of the truth sees."""
    found = json.loads((toy / "d" / "ceiling.json").read_text())
    schema = records.read_schema(toy / "d")

    def matrix(split: str) -> np.ndarray:
        interactions = records.read_interactions(toy / "d", schema, split)
        met = np.zeros([schema.num_users, schema.num_items], bool)
        met[interactions.user, interactions.item] = True
        return met

    truth_seed = np.random.SeedSequence(SMALL.seed).spawn(3)[0]
    truth = planted.draw_truth(SMALL, np.random.default_rng(truth_seed))
    truth_table = read_table(toy / "source" / "truth.csv")
    assert [int(row["cluster"]) for row in truth_table] == truth.cluster.tolist()
    for split in ("valid", "test"):
        block = ceiling.Block(truth.probability(slice(None)), matrix("train"), matrix(split))
        assert found[split] == pytest.approx(ceiling.measure([block]))
        popular = block._replace(score=np.tile(block.known.sum(axis=0), (schema.num_users, 1)))
        assert found["popularity"][split] == pytest.approx(ceiling.measure([popular]))
        assert found[split]["recall@10"] > found["popularity"][split]["recall@10"]


def test_equal_seeds_make_equal_worlds(toy, tmp_path):
    again = synthetic.prepare(Synthetic(SMALL), tmp_path / "again", run=runner(0))
    other = synthetic.prepare(
        Synthetic(World(num_users=30, num_items=40, seed=4)), tmp_path / "other", run=runner(0)
    )
    assert again == records.read_manifest(toy / "d")
    assert again["sha256"] != other["sha256"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "other"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_items": 11}, "items: wanted at least 12; got 11"),
        ({"num_users": 0}, "users: wanted at least 1"),
        ({"seed": -1}, "seed: wanted 0 or more"),
        ({"num_clusters": 3}, "clusters: wanted 4 to 30; got 3"),
        ({"num_items": 30, "num_clusters": 11}, "clusters: wanted 4 to 10; got 11"),
    ],
)
def test_impossible_worlds_are_refused(settings, message):
    with pytest.raises(mm.ConfigError, match=message):
        World(**settings)


def test_the_smallest_world_stands(tmp_path):
    synthetic.prepare(Synthetic(World(num_users=1, num_items=12)), tmp_path / "d", run=runner(0))
    counts = records.verify(tmp_path / "d", full=True)["counts"]
    assert counts["interactions"] == {"train": 3, "valid": 3, "test": 3}


def test_a_source_is_not_kept_over_anything(tmp_path):
    (tmp_path / "keep").mkdir()
    (tmp_path / "keep" / "thesis.txt").write_text("ten years")
    with pytest.raises(mm.DatasetError, match="wanted a new or empty folder"):
        synthetic.prepare(Synthetic(SMALL, str(tmp_path / "keep")), tmp_path / "d", run=runner(0))
    assert not (tmp_path / "d").exists()


def test_nothing_is_drawn_where_nothing_may_be_written(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "thesis.txt").write_text("ten years")
    with pytest.raises(mm.DatasetError, match="it holds something else"):
        synthetic.prepare(Synthetic(SMALL), tmp_path / "d", run=runner(0))
    assert [path.name for path in tmp_path.iterdir()] == ["d"]
