import csv
import dataclasses
import io
import itertools
import json
import math
import pathlib
import shutil
import wave

import cv2
import numpy as np
import pytest
from scipy.sparse import csr_matrix

import mmrec_tf as mm
from data.items.shards import runner
from data.prepare import main
from data.sources import synthetic
from data.sources.synthetic import Synthetic, ceiling, knowable
from data.sources.synthetic import media as synthetic_media
from data.sources.synthetic import world as planted
from data.sources.synthetic.world import Context, Met, Truth, World
from mmrec_tf import records
from mmrec_tf.evaluation import metrics
from mmrec_tf.records.files import hold_folder

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
                assert item.content[name] == [(toy / "source" / row[name]).read_bytes()]
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
        liking, within = knowable.estimate(csr_matrix(matrix("train")), truth.cluster)
        guess = block._replace(score=liking[:, truth.cluster] * within)
        assert found["knowable"][split] == pytest.approx(ceiling.measure([guess]))
        dataset = mm.open_dataset(toy / "d")
        known = dataset.ceiling(split, knowable=True)
        assert known == {n: v for n, v in found["knowable"][split].items() if n != "users"}


def test_what_is_knowable_is_right_where_it_can_be_counted():
    """What was met equally often is equally popular, and an item that nobody met counts as an
    average one of its cluster."""
    train = np.zeros([13, 5], bool)
    train[:5, 0] = train[5:10, 1] = train[10:12, 2] = True
    cluster = np.array([0, 0, 1, 1, 2])
    liking, within = knowable.estimate(csr_matrix(train), cluster)
    # Item 3 of cluster 1 and all of cluster 2 were met by nobody.
    np.testing.assert_allclose(within, [0.5, 0.5, 0.5, 0.5, 1], rtol=1e-6)
    assert liking.sum(axis=1) == pytest.approx(np.ones(13))
    assert liking[0].argmax() == 0 and liking[11].argmax() == 1
    # Who met nothing likes what all do.
    assert liking[12, 0] > liking[12, 1] > liking[12, 2] > 0


def test_popularity_is_known_though_everyone_meets_what_is_popular():
    """Of a cluster of which each user meets half, counts say little: they differ by far less than
    popularity does. Estimated as draws without replacement, they come near it."""
    rng = np.random.default_rng(0)
    popularity = np.array([0.4, 0.25, 0.15, 0.1, 0.06, 0.04])
    with np.errstate(divide="ignore"):
        weight = np.log(np.tile(popularity, (4000, 1)))
    train = planted._draw(weight, np.full([4000], 3), rng)
    count = train.sum(axis=0)
    liking, within = knowable.estimate(csr_matrix(train), np.zeros(6, np.int64))
    assert liking == pytest.approx(np.ones([4000, 1]))
    assert np.abs(within - popularity).sum() < 0.3 * np.abs(count / count.sum() - popularity).sum()


def test_what_is_knowable_lies_between():
    """Above who counts without a thought for what nobody met, and below the truth."""
    world = World(num_users=600)
    truth = planted.draw_truth(world, np.random.default_rng(0))
    drawn = list(planted.draw_interactions(truth, np.random.default_rng(1)))
    found = planted.best(truth, drawn)
    for split in ("valid", "test"):
        for metric in ("recall@10", "ndcg@10", "recall@20", "ndcg@20"):
            best = found[split][metric]
            assert 0.85 * best < found["knowable"][split][metric] < best


# The context effect


RATED = dataclasses.replace(SMALL, num_users=200, context_effect=1.5)


@pytest.fixture(scope="module")
def rated(tmp_path_factory) -> pathlib.Path:
    """A world with ratings, with its source kept beside it."""
    folder = tmp_path_factory.mktemp("rated")
    synthetic.prepare(Synthetic(RATED, str(folder / "source")), folder / "d", run=runner(0))
    return folder


def context_of(world: World) -> Context:
    truth_seed, *_, seed = np.random.SeedSequence(world.seed).spawn(5)
    truth = planted.draw_truth(world, np.random.default_rng(truth_seed))
    return planted.draw_context(world, truth, np.random.default_rng(seed))


def test_tell_apart_is_right_where_it_can_be_counted():
    liked = np.array([True, True, False, False, True])
    probability = np.array([0.9, 0.5, 0.5, 0.2, 0.1])
    found = ceiling.tell_apart(ceiling.Outcomes(liked, probability))
    # Of 6 pairs: 0.9 wins twice, 0.5 ties and wins, 0.1 loses twice.
    assert found == {
        "auc": pytest.approx((2 + 1.5 + 0) / 6),
        "log_loss": pytest.approx(-np.log([0.9, 0.5, 0.5, 0.8, 0.1]).mean()),
    }
    one_kind = ceiling.Outcomes(np.ones(2, bool), np.array([0.5, 0.5]))
    assert ceiling.tell_apart(one_kind) == {"log_loss": pytest.approx(math.log(2))}
    assert ceiling.tell_apart(ceiling.Outcomes(np.zeros(0, bool), np.zeros(0))) == {}


def test_tell_apart_agrees_with_all_pairs():
    rng = np.random.default_rng(0)
    probability = rng.integers(1, 10, 300) / 10
    liked = rng.random(300) < probability
    above, below = probability[liked][:, None], probability[~liked][None]
    wanted = ((above > below) + 0.5 * (above == below)).mean()
    assert ceiling.tell_apart(ceiling.Outcomes(liked, probability))["auc"] == pytest.approx(wanted)


def test_the_hour_decides_by_the_formula_of_the_page():
    context = Context(np.array([1, -1]), np.array([1, -1]), 2.0)
    hours = np.array([0, 5, 6, 17, 18, 23])
    half = np.array([-1, -1, 1, 1, -1, -1])
    for day in (0, 19_000):
        seconds = (24 * day + hours) * 3600 + 3599
        for user, item in itertools.product((0, 1), (0, 1)):
            agree = context.user[user] * context.item[item] * half
            got = context.probability(user, np.full(6, item), seconds)
            np.testing.assert_allclose(got, 1 / (1 + np.exp(-2.0 * agree)))


def test_of_a_user_and_an_item_nothing_can_be_learned():
    """Over the hours of a day the chance is even, for each user with each item."""
    context = context_of(RATED)
    users, items = np.arange(RATED.num_users), np.arange(RATED.num_items)
    user, item, hour = (part.ravel() for part in np.meshgrid(users, items, np.arange(24)))
    chance = context.probability(user, item, 3600 * hour)
    shape = (len(items), len(users), 24)
    np.testing.assert_allclose(chance.reshape(shape).mean(axis=2), 0.5, atol=1e-12)
    # So it is over users or items, whatever two of the three are.
    for side in (context.user, context.item):
        assert set(np.unique(side)) == {-1, 1}
    assert abs(context.user.mean()) < 0.25
    truth = planted.draw_truth(RATED, np.random.default_rng(0))
    sides = planted.draw_context(RATED, truth, np.random.default_rng(1)).item
    by_cluster = [set(sides[truth.cluster == n].tolist()) for n in range(RATED.clusters)]
    assert sorted(map(tuple, by_cluster)) == [(-1,)] * 2 + [(1,)] * 2


def test_ratings_follow_user_item_and_hour_and_no_two_of_them(rated):
    schema = records.read_schema(rated / "d")
    assert schema.ratings and list(schema.user_features) == ["shift"]
    context = context_of(RATED)
    spec = schema.user_features["shift"]
    for number, user in enumerate(records.read_users(rated / "d", schema)):
        (category,) = user.features["shift"]
        name = spec.vocabulary[category - 1 - spec.oov_buckets]
        assert name == ("early" if context.user[number] == 1 else "late")
    data = records.read_interactions(rated / "d", schema, "train")
    assert set(data.rating.tolist()) == {1, 5}
    liked = data.rating == 5
    hour = data.timestamp // 3600 % 24
    half = np.where((hour >= 6) & (hour < 18), 1, -1)
    np.testing.assert_allclose(np.bincount(hour, minlength=24) / len(hour), 1 / 24, atol=0.015)
    leaning, side = context.user[data.user], context.item[data.item]
    chance = 1 / (1 + math.exp(-1.5))
    noise = 4 * 0.5 / math.sqrt(len(liked) / 2)
    for pair in (leaning * side, leaning * half, side * half):
        for sign in (-1, 1):
            assert liked[pair == sign].mean() == pytest.approx(0.5, abs=noise)
    for sign in (-1, 1):
        share = liked[leaning * side * half == sign].mean()
        assert share == pytest.approx(chance if sign == 1 else 1 - chance, abs=noise)


def test_the_ceiling_of_ratings_is_that_of_the_dataset(rated):
    dataset = mm.open_dataset(rated / "d")
    context = context_of(RATED)
    chance = 1 / (1 + math.exp(-1.5))
    for split in ("valid", "test"):
        data = dataset.interactions(split)
        outcomes = ceiling.Outcomes(
            data.rating == 5, context.probability(data.user, data.item, data.timestamp)
        )
        found = dataset.ceiling(split)
        assert {n: found[n] for n in ("auc", "log_loss")} == pytest.approx(
            ceiling.tell_apart(outcomes)
        )
        # Half of all agree, and those are liked with the chance that others are not: of one that
        # is liked and one that is not, both agree or neither does in 2 p (1 - p) of all cases.
        assert found["auc"] == pytest.approx(chance**2 + chance * (1 - chance), abs=0.05)
        entropy = -chance * math.log(chance) - (1 - chance) * math.log(1 - chance)
        assert found["log_loss"] == pytest.approx(entropy, abs=0.08)
        assert "recall@10" in found and "users" not in found


def test_whom_a_user_meets_stays_as_it_is(toy, tmp_path):
    world = dataclasses.replace(SMALL, context_effect=3.0)
    synthetic.prepare(Synthetic(world, str(tmp_path / "source")), tmp_path / "d", run=runner(0))
    schema, plain = (records.read_schema(folder / "d") for folder in (tmp_path, toy))
    assert schema.ordered == plain.ordered and schema.modalities == plain.modalities
    for split in ("train", "valid", "test"):
        one = records.read_interactions(tmp_path / "d", schema, split)
        other = records.read_interactions(toy / "d", plain, split)
        for name in ("user", "item", "timestamp"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    for name in ("items.csv", "triples.csv", "truth.csv"):
        path = pathlib.Path("source") / name
        assert (tmp_path / path).read_bytes() == (toy / path).read_bytes()
    found, wanted = (json.loads((f / "d/ceiling.json").read_text()) for f in (tmp_path, toy))
    assert found["popularity"] == wanted["popularity"]
    for split in ("valid", "test"):
        assert {n: found[split][n] for n in wanted[split]} == wanted[split]


def test_without_a_context_effect_nothing_is_said_of_it(toy):
    assert not (toy / "source" / "users.csv").exists()
    assert list(read_table(toy / "source" / "interactions.csv")[0]) == [
        "user",
        "item",
        "timestamp",
        "split",
    ]
    assert "context_effect" not in records.read_manifest(toy / "d")["source"]["arguments"]
    assert "auc" not in mm.open_dataset(toy / "d").ceiling("test")


def test_equal_seeds_make_equal_ratings(rated, tmp_path):
    again = synthetic.prepare(Synthetic(RATED), tmp_path / "again", run=runner(0))
    assert again == records.read_manifest(rated / "d")
    assert again["source"]["arguments"]["context_effect"] == 1.5
    stronger = dataclasses.replace(RATED, context_effect=3.0)
    other = synthetic.prepare(Synthetic(stronger), tmp_path / "other", run=runner(0))
    assert again["sha256"] != other["sha256"]


def test_the_command_takes_a_context_effect(tmp_path, capsys):
    out = str(tmp_path / "d")
    words = ["synthetic", "--users", "1", "--items", "12", "--workers", "0", "--out", out]
    assert main([*words, "--context-effect", "20"]) == 0
    dataset = mm.open_dataset(out)
    # Beyond doubt, and of one kind or of both.
    for split in ("valid", "test"):
        found = dataset.ceiling(split)
        assert found["log_loss"] < 1e-6 and found.get("auc", 1.0) == 1.0
    assert main([*words, "--overwrite", "--context-effect", "-1"]) == 2
    assert "context_effect: wanted 0 to 20; got -1.0" in capsys.readouterr().err


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
        ({"context_effect": -0.5}, "context_effect: wanted 0 to 20; got -0.5"),
        ({"context_effect": math.nan}, "context_effect: wanted 0 to 20; got nan"),
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


def test_a_world_is_drawn_by_one_process_at_a_time(tmp_path):
    with (
        hold_folder(tmp_path / "d.source", mm.DatasetError, "draws"),
        pytest.raises(mm.DatasetError, match="draws its"),
    ):
        synthetic.prepare(Synthetic(SMALL), tmp_path / "d", run=runner(0))
    assert not (tmp_path / "d").exists()


def test_a_source_that_a_kill_left_beside_a_finished_dataset_goes(toy, tmp_path):
    shutil.copytree(toy / "d", tmp_path / "d")
    shutil.copytree(toy / "source", tmp_path / "d.source")
    with pytest.raises(mm.DatasetError, match="stands there already"):
        synthetic.prepare(Synthetic(SMALL), tmp_path / "d", run=runner(0))
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


def test_nothing_is_drawn_where_nothing_may_be_written(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "thesis.txt").write_text("ten years")
    with pytest.raises(mm.DatasetError, match="it holds something else"):
        synthetic.prepare(Synthetic(SMALL), tmp_path / "d", run=runner(0))
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


def test_items_have_names_for_people(toy):
    names = json.loads((toy / "d" / "names.json").read_text())
    dataset = mm.open_dataset(toy / "d")
    assert list(names) == list(dataset.catalog.item_id)
    # What the model reads is not what is shown: an item without words has a title all the same.
    bare = np.flatnonzero(~dataset.catalog.present[:, 0])
    assert len(bare) and all(names[f"i{n}"]["title"] for n in bare)
    text = dataset.catalog.content["text"]
    for n in np.flatnonzero(dataset.catalog.present[:, 0]):
        assert text[n].decode().startswith(names[f"i{n}"]["title"] + ". ")
        assert names[f"i{n}"]["description"] not in text[n].decode()
