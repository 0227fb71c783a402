"""A dataset directory, opened: the catalog, and batches whose history never tells the answer."""

import functools
import itertools
import json
import shutil
import tracemalloc

import numpy as np
import pytest
import tensorflow as tf
from support import small_world
from support.tiny_dataset import TRAIN, VALID, examples, user, write

from mmrec_tf import open_dataset, records
from mmrec_tf.config import RetrievalConfig
from mmrec_tf.dataset.catalog import Content
from mmrec_tf.errors import ConfigError, DatasetError
from mmrec_tf.records import DatasetWriter
from mmrec_tf.schema import ModalitySpec, Schema

# The catalog


def test_the_catalog_holds_content_where_there_is_some(dataset):
    catalog = dataset.catalog
    assert catalog.item_id.tolist() == [f"i{n}" for n in range(small_world.NUM_ITEMS)]
    # Fifth items lack text, next ones pictures, and so on; one item has nothing.
    lacking = {n: [column] for n in range(30) if (column := n % 5) < 4}
    lacking[small_world.BARE] = [0, 1, 2, 3]
    for item in range(small_world.NUM_ITEMS):
        assert np.flatnonzero(~catalog.present[item]).tolist() == lacking.get(item, [])
        for column, name in enumerate(dataset.schema.modalities):
            value = catalog.content[name][item]
            filled = bool(len(value)) if isinstance(value, bytes) else bool(value.any())
            assert filled == catalog.present[item, column]
    assert catalog.content["text"][4] == b"gull sea harbor 4"
    assert catalog.content["image"][0][:2] == b"\xff\xd8"
    assert catalog.content["audio"][0][:4] == b"RIFF"
    assert catalog.content["vector"].shape == (30, 6)


def test_features_and_profiles(dataset):
    genre, price = dataset.catalog.features["genre"], dataset.catalog.features["price"]
    assert genre[[0, 1, 2]].tolist() == [[0, 0], [3, 0], [2, 3]]
    assert (price[:, 1] == (np.arange(30) % 6 != 5)).all() and not price[5].any()
    age = dataset.users.features["age"]
    assert (age[:, 1] == (np.arange(40) % 5 != 0)).all() and not age[0].any()
    assert dataset.users.profile[:2].tolist() == [b"", b"likes the gull sea harbor"]
    assert dataset.users.user_id[7] == "ü7"


def test_counts_frequencies_and_probabilities(tmp_path):
    catalog = write(tmp_path / "d", train=[[0, 1], [0], [0, 2]], valid=[], num_items=4).catalog
    assert catalog.train_count.tolist() == [3, 1, 1, 0]
    # An item that nobody met counts as one, so that its logarithm is finite.
    np.testing.assert_allclose(catalog.probability, [3 / 6, 1 / 6, 1 / 6, 1 / 6], rtol=1e-6)
    mean = (4 + 2 + 2 + 1) / 4
    np.testing.assert_allclose(
        catalog.log_frequency, np.log([4 / mean, 2 / mean, 2 / mean, 1 / mean]), rtol=1e-5
    )


def test_popularity_comes_from_train_alone(tmp_path):
    one = write(tmp_path / "one", valid=[[5]] * 4).catalog
    other = write(tmp_path / "other", valid=[[1], [], [], []]).catalog
    np.testing.assert_array_equal(one.train_count, other.train_count)
    np.testing.assert_array_equal(one.log_frequency, other.log_frequency)


# Content that is left on disk


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """The small world, two or three items a shard."""
    folder = tmp_path_factory.mktemp("shards") / "d"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            small_world, "DatasetWriter", functools.partial(DatasetWriter, shard_bytes=8000)
        )
        small_world.write(folder)
    assert len(list((folder / "items").iterdir())) > 9
    return folder


def left(folder):
    return open_dataset(folder, content_memory_mb=0)


def test_the_limit_decides_where_content_is(dataset):
    assert dataset.content_in_memory and isinstance(dataset.catalog.content["image"], np.ndarray)
    one = left(dataset.directory)
    assert not one.content_in_memory and isinstance(one.catalog.content["image"], Content)
    size = sum(path.stat().st_size for path in (dataset.directory / "items").iterdir())
    assert one.item_bytes == size


def test_all_but_content_is_the_same_wherever_content_is(shards):
    held, disk = open_dataset(shards).catalog, left(shards).catalog
    for name in ("item_id", "present", "train_count", "log_frequency", "probability"):
        np.testing.assert_array_equal(getattr(held, name), getattr(disk, name))
    assert held.features.keys() == disk.features.keys()
    for name, values in held.features.items():
        np.testing.assert_array_equal(values, disk.features[name])
    assert held.content_sha256 == disk.content_sha256
    assert set(held.content_sha256) == set(small_world.MODALITIES)


def test_what_is_left_on_disk_is_not_in_memory(tmp_path):
    """Sixty megabytes of pictures, of which a few at a time pass by."""
    rng = np.random.default_rng(0)
    with DatasetWriter(tmp_path / "d", shard_bytes=4 << 20) as writer:
        for item in range(200):
            writer.write_item(f"i{item}", content={"image": rng.bytes(300_000)})
        schema = Schema(num_users=0, num_items=200, modalities={"image": ModalitySpec("image")})
        writer.finish(schema, source={"name": "test"}, split_rule="given")

    def peak(act):
        tracemalloc.start()
        try:
            return act(), tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    held, most = peak(lambda: open_dataset(tmp_path / "d"))
    disk, opening = peak(lambda: left(tmp_path / "d"))
    read, reading = peak(lambda: sum(len(v) for v in disk.catalog.content["image"].batches(32)))
    assert read == 2 * 7  # batches of numbers and values
    assert most > 60e6 > 3 * opening
    assert reading < 40e6


@pytest.mark.parametrize("name", small_world.MODALITIES)
def test_content_on_disk_is_that_in_memory(shards, name):
    held, disk = (d.catalog.content[name] for d in (open_dataset(shards), left(shards)))
    present = disk.present
    assert len(disk) == len(held) == 30 and 20 < present.sum() < 30
    batches = list(disk.batches(7))
    assert [len(numbers) for numbers, _ in batches][:-1] == [7] * (len(batches) - 1)
    numbers = np.concatenate([numbers for numbers, _ in batches])
    assert sorted(numbers) == np.flatnonzero(present).tolist()
    for some, values in batches:
        assert values.dtype == held.dtype
        np.testing.assert_array_equal(values, held[some])
    np.testing.assert_array_equal(numbers, np.concatenate([n for n, _ in disk.batches(7)]))
    assert len(list(disk.present_values())) == present.sum()
    # Few rows, in any order, some twice, one without content.
    rows = [29, small_world.BARE, 3, 3, 0]
    np.testing.assert_array_equal(disk[rows], held[rows])
    assert disk[np.zeros([0], int)].shape == held[:0].shape


def test_only_shards_that_are_asked_for_are_read(shards):
    """The others are damaged after they were opened."""
    catalog = left(shards).catalog
    content = catalog.content["text"]
    rows = np.arange(30) == 12
    spoiled = [
        path
        for number, path in enumerate(sorted((shards / "items").iterdir()))
        if number != content._shard[12]
    ]
    before = {path: path.read_bytes() for path in spoiled}
    try:
        for path in spoiled:
            path.write_bytes(b"")
        ((numbers, values),) = content.batches(8, rows=rows)
        assert numbers.tolist() == [12] and values.tolist() == [b"owl night forest 12"]
        assert content[[12]].tolist() == values.tolist()
        with pytest.raises(DatasetError, match="ends early at record 1 of"):
            list(content.batches(8))
    finally:
        for path, data in before.items():
            path.write_bytes(data)


def cut(data):
    return data[:-5]


def alter(data):
    return data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :]


def repeat(data):
    return data * 2


@pytest.mark.parametrize(
    "spoil, message",
    [
        (cut, r"ends early at record (\d) of \1"),
        (alter, r"damaged at record \d of \d \(its checksum"),
        (repeat, r"holds more than the manifest's \d records"),
        (lambda data: data + b"abc", r"holds \d+ bytes; the manifest says \d+"),
        (None, "missing, though the manifest lists it"),
    ],
)
@pytest.mark.parametrize("number", [0, 4])
def test_read_side_by_side_damage_is_named_all_the_same(shards, tmp_path, spoil, message, number):
    directory = shutil.copytree(shards, tmp_path / "d")
    path = sorted((directory / "items").iterdir())[number]
    data = path.read_bytes()
    path.unlink() if spoil is None else path.write_bytes(spoil(data))
    schema = records.read_schema(directory)
    for options in ({"num_parallel": 1}, {"num_parallel": 3}):
        with pytest.raises(DatasetError, match=rf"{path}: {message}.*data.prepare"):
            list(records.read_items(directory, schema, **options))


def test_side_by_side_in_the_same_order_each_time(shards, monkeypatch):
    monkeypatch.setattr("mmrec_tf.records.reader._BATCH", 1)
    schema = records.read_schema(shards)

    def numbers(**options):
        return [item.number for item in records.read_items(shards, schema, **options)]

    # One at a time is in the order of the shards, which here is that of the numbers.
    assert numbers() == list(range(30))
    mixed = numbers(num_parallel=3)
    assert mixed == numbers(num_parallel=3) != list(range(30))
    assert sorted(mixed) == sorted(numbers(num_parallel=3, deterministic=False)) == list(range(30))
    found = {item.number: item.shard for item in records.read_items(shards, schema, only=[2, 5])}
    assert set(found.values()) == {2, 5} and 0 < len(found) < 30


@pytest.mark.slow
def test_a_model_is_the_same_wherever_content_is(shards, tmp_path):
    """Vocabulary, vectors, and what an export is checked with."""
    from mmrec_tf import RetrievalModel
    from mmrec_tf.exporting.servables import EncoderServable

    answers = []
    for dataset in (open_dataset(shards), left(shards)):
        tf.keras.utils.set_random_seed(0)
        model = RetrievalModel(small_world.config(), dataset, cache=None, initialize=False)
        servable = EncoderServable(model, dataset.catalog.item_id, k=3)
        requests = servable.examples_from(dataset.catalog.content, dataset.catalog.present)
        answers.append((model, model.embed_catalog().embedding, requests))
    (one, embedding, requests), (other, again, same) = answers
    assert one.encoders["text"].assets() == other.encoders["text"].assets()
    np.testing.assert_allclose(again, embedding, atol=1e-4)
    for request, twin in zip(requests, same, strict=True):
        for name, value in request.inputs.items():
            np.testing.assert_array_equal(value, twin.inputs[name])
        assert len(value) in (1, 4 + 4 + 2)


# The knowledge graph


def test_a_dataset_without_a_graph_has_no_triples(dataset):
    assert [len(column) for column in dataset.triples] == [0] * 5
    assert dataset.triples.head.dtype == np.int32
    assert not (dataset.directory / "graph").exists()


# Histories


def test_last_by_hand(tmp_path):
    histories = write(tmp_path / "d").histories()
    got = histories.last(np.array([0, 1, 2, 3, 0]), 3)
    assert got.dtype == np.int32
    assert got.tolist() == [[2, 3, 4], [5, -1, -1], [-1, -1, -1], [3, 0, -1], [2, 3, 4]]
    assert histories.last(np.array([0]), 9).tolist() == [[0, 1, 2, 3, 4, -1, -1, -1, -1]]


def test_pairs_by_hand(tmp_path):
    row, item = write(tmp_path / "d").histories().pairs(np.array([3, 2, 0]))
    assert row.tolist() == [0, 0, 2, 2, 2, 2, 2]
    assert item.tolist() == [3, 0, 0, 1, 2, 3, 4]
    empty = write(tmp_path / "e").histories().pairs(np.array([2]))
    assert [part.tolist() for part in empty] == [[], []]


def test_gaps_by_hand(tmp_path):
    histories = write(tmp_path / "d", timestamp=[100, 100, 107, 200, 201]).histories()
    got = histories.gaps(np.array([0, 1, 2, 3, 0]), 3)
    assert got.dtype == np.float32
    assert got.tolist() == [[94, 1, 0], [0, -1, -1], [-1, -1, -1], [0, 0, -1], [94, 1, 0]]
    assert histories.gaps(np.array([0]), 6).tolist() == [[101, 101, 94, 1, 0, -1]]
    assert histories.gaps(np.array([0]), 1).tolist() == [[0]]
    assert histories.gaps(np.zeros([0], int), 3).shape == (0, 3)
    assert histories.gaps(np.array([0, 1]), 0).shape == (2, 0)


def test_gaps_hold_over_centuries_and_before_1970(tmp_path):
    times = [-(10**10), -1, 0, 1, 10**10]
    histories = write(tmp_path / "d", timestamp=times).histories()
    want = [2e10, 1e10 + 1, 1e10, 1e10 - 1, 0, -1]
    np.testing.assert_allclose(histories.gaps(np.array([0]), 6), [want], rtol=1e-7)


def test_without_times_there_are_no_gaps(tmp_path):
    dataset = write(tmp_path / "d", timestamp=[0] * 5)
    assert dataset.histories().time is None
    assert (dataset.histories().gaps(np.arange(4), 3) == -1).all()
    for batch in dataset.batches("train", 3, user=user(3)):
        assert batch["gap"].shape == batch["history"].shape and (batch["gap"].numpy() == -1).all()


# Batches


@pytest.mark.parametrize("split", ["train", "valid", "test"])
@pytest.mark.parametrize("exact", [False, True])
def test_batches_follow_the_spec(dataset, split, exact):
    batches = dataset.batches(split, 7, user=user(4), drop_remainder=exact)
    spec = dataset.schema.batch_spec(7 if exact else None, 4)
    assert batches.element_spec == spec
    for batch in batches:
        for name, tensor in batch.items():
            assert spec[name].is_compatible_with(tensor)
    total = len(dataset.interactions(split).user)
    sizes = [len(batch["user"]) for batch in batches]
    assert sum(sizes) == (total - total % 7 if exact else total)


def test_past_context_is_strictly_before(tmp_path):
    dataset = write(tmp_path / "d", ordered=True)
    for context in ("auto", "past"):
        assert examples(dataset.batches("train", 3, user=user(3, context))) == {
            (0, 0): [],
            (0, 1): [0],
            (0, 2): [0, 1],
            (0, 3): [0, 1, 2],
            (0, 4): [1, 2, 3],
            (1, 5): [],
            (3, 3): [],
            (3, 0): [3],
        }


def test_others_context_is_all_but_itself(tmp_path):
    dataset = write(tmp_path / "d", ordered=False)
    for context, length in itertools.product(("auto", "others"), (4, 9)):
        assert examples(dataset.batches("train", 3, user=user(length, context))) == {
            (0, 0): [1, 2, 3, 4],
            (0, 1): [0, 2, 3, 4],
            (0, 2): [0, 1, 3, 4],
            (0, 3): [0, 1, 2, 4],
            (0, 4): [0, 1, 2, 3],
            (1, 5): [],
            (3, 3): [0],
            (3, 0): [3],
        }


def test_the_context_decides_and_not_the_dataset(tmp_path):
    for ordered in (False, True):
        dataset = write(tmp_path / str(ordered), ordered=ordered)
        past = examples(dataset.batches("train", 3, user=user(9, "past")))
        others = examples(dataset.batches("train", 3, user=user(9, "others")))
        assert past[0, 0] == [] and others[0, 0] == [1, 2, 3, 4]


def test_a_long_history_is_seen_in_parts_until_all_is_seen(tmp_path):
    train = [list(range(20))]
    dataset = write(tmp_path / "d", train=train, valid=[[20]], num_items=21)
    batches = dataset.batches("train", 8, user=user(4, "others"))
    seen = {item: set() for item in range(20)}
    for _ in range(60):
        for (_, item), history in examples(batches).items():
            assert item not in history
            assert len(set(history)) == 4
            seen[item].update(history)
    assert all(items == set(range(20)) - {item} for item, items in seen.items())


@pytest.mark.parametrize("context", ["past", "others"])
def test_no_example_is_in_its_own_history(dataset, context):
    for length in (1, 3, 50):
        found = examples(dataset.batches("train", 16, user=user(length, context), shuffle=True))
        assert len(found) == len(dataset.interactions("train").user)
        assert not [pair for pair, history in found.items() if pair[1] in history]
        assert max(map(len, found.values())) == min(length, 5)


@pytest.mark.parametrize("context", ["past", "others"])
def test_valid_and_test_read_the_train_split_only(dataset, context):
    histories = dataset.histories()
    for split in ("valid", "test"):
        found = examples(dataset.batches(split, 16, user=user(4, context)))
        for (person, _), history in found.items():
            assert history == [n for n in histories.last(np.array([person]), 4)[0] if n >= 0]
        assert {len(history) for history in found.values()} == {0, 4}


@pytest.mark.parametrize("split", ["train", "valid"])
@pytest.mark.parametrize("context", ["past", "others"])
@pytest.mark.parametrize("length", [1, 3, 9])
def test_gaps_of_batches_are_those_of_their_histories(tmp_path, split, context, length):
    """Counted again, item by item, from the times of the train split."""
    rng = np.random.default_rng(0)
    times = np.sort(rng.integers(10**9, 2 * 10**9, 20)).tolist()
    train = [rng.permutation(30)[:n].tolist() for n in (20, 1, 0, 7)]
    dataset = write(
        tmp_path / "d", train=train, valid=[[29], [1], [2], [3]], num_items=30, timestamp=times
    )
    known = {
        (person, item): times[place]
        for person, items in enumerate(train)
        for place, item in enumerate(items)
    }
    wraps = False
    for batch in dataset.batches(split, 4, user=user(length, context)).as_numpy_iterator():
        for person, history, gap in zip(batch["user"], batch["history"], batch["gap"], strict=True):
            when = [known[person, item] for item in history[history >= 0]]
            want = [max(when) - time for time in when] + [-1] * (length - len(when))
            np.testing.assert_allclose(gap, want, rtol=1e-6)
            wraps |= when != sorted(when)
    assert wraps == (split == "train" and context == "others" and 1 < length < 20)


def test_weights_and_ratings_go_with_their_example(tmp_path):
    columns = {"rating": [1.0, 2.0, 3.0, 4.0, 5.0], "weight": [0.1, 0.2, 0.3, 0.4, 0.5]}
    dataset = write(tmp_path / "d", **columns)
    for batch in dataset.batches("train", 4, shuffle=True).as_numpy_iterator():
        for person, item, rating, weight in zip(
            batch["user"], batch["item"], batch["rating"], batch["weight"], strict=True
        ):
            place = TRAIN[person].index(item)
            assert rating == columns["rating"][place]
            assert weight == np.float32(columns["weight"][place])


def test_shuffling_differs_from_epoch_to_epoch_and_follows_the_seed(dataset):
    def orders(seed):
        batches = dataset.batches("train", 500, shuffle=True, seed=seed)
        return [next(iter(batches))["item"].numpy().tolist() for _ in range(2)]

    one, again, other = orders(1), orders(1), orders(2)
    assert one == again
    assert one[0] != one[1] and one[0] != other[0]
    assert sorted(one[0]) == sorted(other[0])


def test_the_seed_decides_which_part_of_a_long_history_is_seen(tmp_path):
    train = [list(range(20))] * 30
    dataset = write(tmp_path / "d", train=train, valid=[], num_items=20)

    def histories(seed):
        batches = dataset.batches("train", 16, user=user(4, "others"), seed=seed)
        return [
            np.concatenate([batch["history"] for batch in batches.as_numpy_iterator()]).tolist()
            for _ in range(2)
        ]

    one, other = histories(1), histories(2)
    for _ in range(5):
        assert histories(1) == one
    assert one[0] != one[1] and one[0] != other[0]


def test_times_types_and_positions_go_with_their_example(tmp_path):
    columns = {
        "timestamp": [10**10, 2 * 10**10, 3 * 10**10, 4 * 10**10, 5 * 10**10],
        "events": [[0, 0], [1, 0], [0, 1], [1, 1], [1, 0]],
        "position": [-1, 8, 0, 3, 4],
    }
    dataset = write(tmp_path / "d", **columns)
    for split, users in (("train", TRAIN), ("valid", VALID)):
        number = 0
        for batch in dataset.batches(split, 3, shuffle=True).as_numpy_iterator():
            names = ("user", "item", "time", "events", "position")
            for person, item, time, events, position in zip(
                *(batch[name] for name in names), strict=True
            ):
                place = users[person].index(item)
                assert time == columns["timestamp"][place]
                assert position == columns["position"][place]
                assert events.tolist() == columns["events"][place]
                number += 1
        assert number == sum(map(len, users))


def test_without_times_types_and_positions_batches_say_so(tmp_path):
    dataset = write(tmp_path / "d", timestamp=[0] * 5)
    for batch in dataset.batches("train", 3).as_numpy_iterator():
        assert (batch["time"] == 0).all() and (batch["position"] == -1).all()
        assert batch["events"].shape == (len(batch["item"]), 0)


def test_the_labeled_world_is_the_small_world_with_labels(dataset, labeled):
    plain, train = dataset.interactions("train"), labeled.interactions("train")
    for one, other in zip(plain[:3], train[:3], strict=True):
        np.testing.assert_array_equal(one, other)
    assert labeled.schema.events == small_world.EVENTS and labeled.schema.ratings
    for split in ("train", "valid", "test"):
        data = labeled.interactions(split)
        own = data.item % 3 == data.user % 3
        np.testing.assert_array_equal(data.rating, np.where(own, 5, 2))
        assert 0 < own.mean() < 1 and data.events[:, 0].all()
        np.testing.assert_array_equal(data.events[:, 1], own & (data.item % 2 == 0))
        assert set(data.position.tolist()) == {0, 1, 2, 3}
    # Nobody meets an item of another cluster twice.
    low = [labeled.interactions(split) for split in ("train", "valid", "test")]
    low = np.concatenate([(data.user * 100 + data.item)[data.rating == 2] for data in low])
    assert len(np.unique(low)) == len(low) == 3 * small_world.NUM_USERS - 1
    batches = labeled.batches("train", 16, drop_remainder=True)
    assert batches.element_spec == labeled.schema.batch_spec(16, 50)


# Dislikes


RATING = [5.0, 1.0, 3.0, 2.5, 4.0]


def below(value, **settings):
    return RetrievalConfig(disliked_below=value, **settings)


def disliked(batches):
    """(user, item) -> the disliked items, whose padding must stand behind."""
    found = {}
    for batch in batches.as_numpy_iterator():
        for person, item, row in zip(batch["user"], batch["item"], batch["disliked"], strict=True):
            known = row[: int((row >= 0).sum())]
            assert (known >= 0).all() and len(set(known.tolist())) == len(known)
            found[int(person), int(item)] = known.tolist()
    return found


@pytest.mark.parametrize("exact", [False, True])
def test_what_is_disliked_is_no_example_and_in_no_history(tmp_path, exact):
    dataset = write(tmp_path / "d", ordered=True, rating=RATING)
    batches = dataset.batches("train", 5, user=user(3), retrieval=below(3.0), drop_remainder=exact)
    assert batches.element_spec == dataset.schema.batch_spec(5 if exact else None, 3, 2)
    assert batches.cardinality() == 1
    # A rating of exactly 3 is no dislike.
    assert examples(batches) == {(0, 0): [], (0, 2): [0], (0, 4): [0, 2], (1, 5): [], (3, 3): []}
    found = disliked(batches)
    assert {pair: sorted(row) for pair, row in found.items()} == {
        **dict.fromkeys([(0, 0), (0, 2), (0, 4)], [1, 3]),
        (1, 5): [],
        (3, 3): [0],
    }


def test_others_are_all_that_are_liked(tmp_path):
    dataset = write(tmp_path / "d", rating=RATING, timestamp=[10, 20, 30, 40, 50])
    batches = dataset.batches("train", 2, user=user(4, "others"), retrieval=below(3.0))
    found = {}
    for batch in batches.as_numpy_iterator():
        columns = (batch[name].tolist() for name in ("user", "item", "history", "gap"))
        for person, item, *rest in zip(*columns, strict=True):
            found[person, item] = tuple(rest)
    nothing = ([-1] * 4, [-1] * 4)
    assert found == {
        (0, 0): ([2, 4, -1, -1], [20, 0, -1, -1]),
        (0, 2): ([0, 4, -1, -1], [40, 0, -1, -1]),
        (0, 4): ([0, 2, -1, -1], [20, 0, -1, -1]),
        (1, 5): nothing,
        (3, 3): nothing,
    }


def test_other_splits_read_what_is_liked_and_keep_their_examples(tmp_path):
    dataset = write(tmp_path / "d", rating=RATING)
    batches = dataset.batches("valid", 2, user=user(4), retrieval=below(3.0))
    assert examples(batches) == {(0, 5): [0, 2, 4], (1, 0): [5], (2, 1): []}
    found = disliked(batches)
    assert {pair: sorted(row) for pair, row in found.items()} == {
        (0, 5): [1, 3],
        (1, 0): [],
        (2, 1): [],
    }
    low = write(tmp_path / "low", train=[[0, 1]], valid=[[5, 4]], rating=[4.0, 1.0])
    assert examples(low.batches("valid", 2, retrieval=below(3.0))) == {(0, 5): [0], (0, 4): [0]}


def test_histories_of_what_is_liked_beside_all_that_was_seen(tmp_path):
    dataset = write(tmp_path / "d", rating=RATING, timestamp=[10, 20, 30, 40, 50])
    liked = dataset.histories(disliked_below=3.0)
    assert liked.last(np.arange(4), 3).tolist() == [
        [0, 2, 4],
        [5, -1, -1],
        [-1, -1, -1],
        [3, -1, -1],
    ]
    assert liked.gaps(np.array([0]), 3).tolist() == [[40, 20, 0]]
    row, item = dataset.histories().pairs(np.array([0]))
    assert item.tolist() == [0, 1, 2, 3, 4]


def test_a_history_may_hold_more_than_train(tmp_path):
    dataset = write(tmp_path / "d", timestamp=[10, 20, 30, 40, 50])
    # The valid item of the first user was met when the first train item was.
    known = dataset.histories(history="train+valid")
    assert known.last(np.arange(4), 3).tolist() == [
        [2, 3, 4],
        [5, 0, -1],
        [1, -1, -1],
        [3, 0, -1],
    ]
    assert known.pairs(np.array([0]))[1].tolist() == [0, 5, 1, 2, 3, 4]
    assert known.gaps(np.array([0]), 6).tolist() == [[40, 40, 30, 20, 10, 0]]
    assert dataset.known_count("all").tolist() == [3, 2, 1, 2, 1, 2]
    assert dataset.known_count("train").tolist() == dataset.catalog.train_count.tolist()
    untimed = write(tmp_path / "untimed", timestamp=[0] * 5)
    known = untimed.histories(history="all")
    assert known.pairs(np.array([0]))[1].tolist() == [0, 1, 2, 3, 4, 5] and known.time is None
    with pytest.raises(ConfigError, match="unknown history 'training'.*'train'"):
        dataset.histories(history="training")


def test_what_is_disliked_in_any_split_is_in_no_history(tmp_path):
    dataset = write(tmp_path / "d", valid=[[5], [0, 1], [1], []], rating=[4.0, 1.0, 4.0, 1.0, 4.0])
    known = dataset.histories(disliked_below=3.0, history="all")
    assert known.pairs(np.array([0, 1]))[1].tolist() == [0, 5, 2, 4, 5, 0]


def test_without_the_setting_nothing_is_disliked(tmp_path):
    dataset = write(tmp_path / "d", ordered=True, rating=RATING)
    plain = list(dataset.batches("train", 3, user=user(3)).as_numpy_iterator())
    given = dataset.batches("train", 3, user=user(3), retrieval=RetrievalConfig())
    for one, other in zip(plain, given.as_numpy_iterator(), strict=True):
        assert one["disliked"].shape == (len(one["user"]), 0)
        for name, value in one.items():
            np.testing.assert_array_equal(value, other[name])
    # A bound below all ratings leaves every example, and nothing to dislike.
    low = dataset.batches("train", 3, user=user(3), retrieval=below(1.0))
    assert examples(low) == examples(dataset.batches("train", 3, user=user(3)))
    assert low.element_spec["disliked"].shape.as_list() == [None, 0]


@pytest.mark.parametrize("exact", [False, True])
def test_what_is_disliked_may_be_an_example_with_what_is_liked_before_it(tmp_path, exact):
    dataset = write(tmp_path / "d", ordered=True, rating=RATING)
    options = {"user": user(3), "retrieval": below(3.0), "keep_disliked": True}
    batches = dataset.batches("train", 4, drop_remainder=exact, **options)
    assert batches.element_spec == dataset.schema.batch_spec(4 if exact else None, 3, 2)
    # Items 1 and 3 of user 0 and item 0 of user 3 are rated below 3.
    assert examples(batches) == {
        (0, 0): [],
        (0, 1): [0],
        (0, 2): [0],
        (0, 3): [0, 2],
        (0, 4): [0, 2],
        (1, 5): [],
        (3, 3): [],
        (3, 0): [3],
    }
    found = disliked(batches)
    # One that is disliked is among its own row's.
    assert sorted(found[0, 1]) == sorted(found[0, 0]) == [1, 3] and found[3, 0] == [0]
    assert examples(dataset.batches("train", 4, **{**options, "user": user(1)}))[0, 3] == [2]


def test_what_is_disliked_may_be_an_example_with_all_that_is_liked(tmp_path):
    dataset = write(tmp_path / "d", rating=RATING, timestamp=[10, 20, 30, 40, 50])
    options = {"retrieval": below(3.0), "keep_disliked": True}
    for length in (3, 9):
        batches = dataset.batches("train", 4, user=user(length, "others"), **options)
        assert examples(batches) == {
            (0, 0): [2, 4],
            (0, 1): [0, 2, 4],
            (0, 2): [0, 4],
            (0, 3): [0, 2, 4],
            (0, 4): [0, 2],
            (1, 5): [],
            (3, 3): [],
            (3, 0): [3],
        }
    gaps = {}
    for batch in batches.as_numpy_iterator():
        for person, item, gap in zip(batch["user"], batch["item"], batch["gap"], strict=True):
            gaps[person, item] = gap[gap >= 0].tolist()
    assert gaps[0, 1] == [40, 20, 0] and gaps[0, 2] == [40, 0] and gaps[3, 0] == [0]


@pytest.mark.parametrize("context", ["past", "others"])
@pytest.mark.parametrize("length", [1, 3, 50])
def test_histories_of_all_examples_against_a_plain_count(tmp_path, context, length):
    """Many users, liked and disliked at random, some of them all; ties in time."""
    rng = np.random.default_rng(0)
    train = [rng.permutation(40)[: rng.integers(0, 20)].tolist() for _ in range(30)]
    times, rating = np.sort(rng.integers(0, 9, 20)), rng.integers(1, 6, 20).astype(float)
    dataset = write(
        tmp_path / "d", train=train, valid=[], num_items=40, timestamp=times, rating=rating
    )
    batches = dataset.batches(
        "train", 16, user=user(length, context), retrieval=below(3.0), keep_disliked=True
    )
    found = examples(batches)
    assert len(found) == sum(map(len, train))
    windows = 0
    for (person, item), history in found.items():
        own = train[person]
        liked = [i for place, i in enumerate(own) if rating[place] >= 3 and i != item]
        if context == "past":
            liked = [i for i in liked if own.index(i) < own.index(item)]
            assert history == liked[-length:]
        elif len(liked) <= length:
            assert history == liked
        else:
            # Any part of it that wraps around.
            start = liked.index(history[0])
            assert history == (liked[start:] + liked[:start])[:length]
            windows += start > 0
    assert bool(windows) == (context == "others" and length < 20)


def test_what_is_no_click_may_be_another_bound_than_what_no_history_holds(tmp_path):
    dataset = write(tmp_path / "d", ordered=True, rating=RATING)
    options = {"user": user(3), "keep_disliked": True}
    for bound in (None, 3.0):
        batches = dataset.batches(
            "train", 4, retrieval=below(bound), unclicked_below=3.0, **options
        )
        assert sorted(disliked(batches)[0, 0]) == [1, 3]
        held = dataset.batches("train", 4, retrieval=below(bound), **options)
        assert examples(batches) == examples(held)
    everything = dataset.batches("train", 4, user=user(3))
    assert examples(dataset.batches("train", 4, unclicked_below=3.0, **options)) == examples(
        everything
    )


def test_where_nothing_is_disliked_nothing_is_kept_by_it(tmp_path):
    dataset = write(tmp_path / "d", ordered=True, rating=RATING)
    for retrieval in (None, below(1.0)):
        options = {"user": user(3), "retrieval": retrieval}
        plain = dataset.batches("train", 3, **options)
        kept = dataset.batches("train", 3, keep_disliked=True, **options)
        for one, other in zip(plain.as_numpy_iterator(), kept.as_numpy_iterator(), strict=True):
            for name, value in one.items():
                np.testing.assert_array_equal(value, other[name])
    # Other splits keep all their examples in any case.
    valid = dataset.batches("valid", 2, retrieval=below(3.0), keep_disliked=True)
    assert examples(valid) == examples(dataset.batches("valid", 2, retrieval=below(3.0)))


def test_of_many_dislikes_all_are_seen_in_time(tmp_path):
    train = [list(range(24)), [30, 1, 2]]
    rating = [4.0, *[1.0] * 20, 4.0, 4.0, 4.0]
    dataset = write(tmp_path / "d", train=train, valid=[], num_items=31, rating=rating)
    batches = dataset.batches("train", 2, retrieval=below(3.0), seed=1)
    assert batches.element_spec["disliked"].shape.as_list() == [None, 16]
    epochs = [disliked(batches) for _ in range(12)]
    rows = [row for epoch in epochs for (person, _), row in epoch.items() if person == 0]
    assert {len(row) for row in rows} == {16}
    assert set().union(*rows) == set(range(1, 21))
    assert len({tuple(row) for row in rows}) > 6
    assert all(epoch[1, 30] == [1, 2] for epoch in epochs)
    again = dataset.batches("train", 2, retrieval=below(3.0), seed=1)
    assert [disliked(again) for _ in range(12)] == epochs


def test_dislikes_that_cannot_be_told_are_refused(tmp_path, dataset):
    for ask in (
        lambda data, value: data.batches("train", 4, retrieval=below(value)),
        lambda data, value: data.histories(disliked_below=value),
    ):
        with pytest.raises(ConfigError, match="disliked_below: wanted a dataset with ratings"):
            ask(dataset, 3.0)
    rated = write(tmp_path / "d", rating=RATING)
    with pytest.raises(ConfigError, match="rated 5.5 or higher; got none of 8. Set it lower"):
        rated.batches("train", 4, retrieval=below(5.5))
    assert len(examples(rated.batches("train", 4, retrieval=below(5.0)))) == 3


# What is refused, and damage


def test_an_empty_split_is_refused(tmp_path):
    dataset = write(tmp_path / "d")
    with pytest.raises(DatasetError, match="the test split has no interactions"):
        dataset.batches("test", 4)


def test_an_unknown_split_is_refused(dataset):
    with pytest.raises(DatasetError, match="wanted one of train, valid, test; got 'val'"):
        dataset.batches("val", 4)
    with pytest.raises(DatasetError, match="got 'val'"):
        dataset.interactions("val")


def test_the_hash_follows_the_content(tmp_path):
    one, same = write(tmp_path / "one"), write(tmp_path / "same")
    other = write(tmp_path / "other", train=[[0], [1], [2], [3]])
    assert one.hash == same.hash != other.hash


def test_damage_is_seen_on_opening(tmp_path):
    write(tmp_path / "d")
    (path,) = (tmp_path / "d/items").iterdir()
    data = bytearray(path.read_bytes())
    path.write_bytes(data[:-1])
    with pytest.raises(DatasetError, match="bytes; the manifest says"):
        open_dataset(tmp_path / "d")
    data[20] ^= 1
    path.write_bytes(data)
    with pytest.raises(DatasetError, match="sha256"):
        open_dataset(tmp_path / "d", verify=True)


@pytest.mark.parametrize("command", [pytest.param("train", marks=pytest.mark.slow), "evaluate"])
def test_a_command_compares_hashes_when_asked(tmp_path, capsys, command):
    from mmrec_tf.__main__ import main
    from mmrec_tf.runs.train import train_run

    dataset = open_dataset(small_world.write(tmp_path / "d"))
    config = small_world.config(**small_world.VECTORS, training__epochs=1, ranking__epochs=0)
    if command == "train":
        (tmp_path / "config.json").write_text(json.dumps(config.to_json()))
        arguments = ["--dataset", tmp_path / "d", "--config", tmp_path / "config.json"]
        arguments += ["--out", tmp_path / "run"]
    else:
        arguments = [train_run(dataset, config, tmp_path / "run").directory]
    # Records that are whole, of the same size, and not read by this model: only a hash can tell.
    for path in sorted((tmp_path / "d/items").rglob("*.tfrecord")):
        rows = [row.numpy() for row in tf.data.TFRecordDataset(str(path))]
        if any(b"owl" in row for row in rows):
            break
    with tf.io.TFRecordWriter(str(path)) as writer:
        for row in rows:
            writer.write(row.replace(b"owl", b"OWL"))
    arguments = [command, *map(str, arguments)]
    assert main([*arguments, "--verify"]) == 1
    assert f"{path}: its content is not what was written" in capsys.readouterr().err
    assert main(arguments) == 0
