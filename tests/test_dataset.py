"""A dataset directory, opened: the catalog, and batches whose history never tells the answer."""

import itertools

import numpy as np
import pytest
import small_world

from mmrec_tf import open_dataset
from mmrec_tf.config import UserConfig
from mmrec_tf.errors import DatasetError
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
                    parts = {name: value[: len(items)] for name, value in columns.items()}
                    writer.write_interactions(
                        split, user, item=items, timestamp=range(len(items)), **parts
                    )
        writer.finish(
            Schema(num_users=len(train), num_items=num_items, ordered=ordered),
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
