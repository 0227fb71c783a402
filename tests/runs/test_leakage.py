"""What a model sees in training is the same whatever stands in valid and test; so are its lists for
test, whatever stands there, and in valid unless that is known.

A dataset is prepared, and beside it stands another that differs in its valid and test interactions
only: once made from the dataset directory, once from the tables that it is prepared from.
"""

import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from support import small_world

from data.interactions.options import SelectionOptions
from data.items.shards import runner
from data.sources import media_folder
from data.sources.media_folder import MediaFolder
from data.tables.side_features import FeatureColumns
from mmrec_tf import RankingModel, Recommender, RetrievalModel, open_dataset, records
from mmrec_tf.config import RetrievalConfig, UserConfig
from mmrec_tf.dataset.directory import Dataset
from mmrec_tf.dataset.histories import Histories
from mmrec_tf.evaluation.baselines import BASELINES, rank_by
from mmrec_tf.schema import SPLITS

NUM_USERS, NUM_ITEMS = 24, 30
RULES = {
    "given": {"split": "given"},
    "random": {"split": "random", "valid_share": 0.2, "test_share": 0.2},
    "leave-last-out": {"split": "leave-last-out"},
    "time": {"split": "time", "valid_from": 1000, "test_from": 2000},
}
# Those under which it can be said beforehand which rows are held out.
FORESEEN = ("given", "leave-last-out", "time")


# The made-up tables: each user's train lies before 1000, valid at 1000, test at 2000; what was
# seen in train may be bought when test has begun.


def log(*, held_out_seed: int = 0) -> list[str]:
    """Rows of the interactions; those of valid and test hang on the seed."""
    rng, held_out = np.random.default_rng(0), np.random.default_rng(held_out_seed)
    rows = []
    for user in range(NUM_USERS):
        # The last items are cold: nobody meets them in train.
        train = rng.choice(NUM_ITEMS - 3, 3 + user % 5, replace=False)
        times = np.sort(rng.choice(1000, len(train), replace=False))
        for item, time in zip(train, times, strict=True):
            rows.append(f"u{user},i{item},{time},{rng.integers(1, 6)},view,train")
        rest = held_out.permutation(np.setdiff1d(np.arange(NUM_ITEMS), train))
        for item, time, split in zip(rest, (1000 + user, 2000 + user), SPLITS[1:], strict=False):
            rows.append(f"u{user},i{item},{time},{held_out.integers(1, 6)},view,{split}")
        bought = held_out.choice(train)
        rows.append(f"u{user},i{bought},{2500 + user},5,purchase,test")
    return rows


def write_tables(folder: pathlib.Path, rows: list[str]) -> pathlib.Path:
    rng = np.random.default_rng(0)
    folder.mkdir()
    words = ("owl", "gull", "lark")
    items = [
        f"i{n},{words[n % 3]} {n},{words[n % 3]}|{words[n % 2]},{1990 + n}"
        for n in range(NUM_ITEMS)
    ]
    users = [
        f"u{n},likes the {words[n % 3]},{rng.integers(20, 60)},{words[n % 2]}"
        for n in range(NUM_USERS)
    ]
    header = "user,item,timestamp,rating,event,split"
    for name, lines in {
        "items": ["item,title,kinds,year", *items],
        "users": ["user,profile,age,city", *users],
        "interactions": [header, *rows],
    }.items():
        (folder / f"{name}.csv").write_text("\n".join(lines) + "\n")
    return folder


def prepare(source: pathlib.Path, out: pathlib.Path, rule: str) -> Dataset:
    options = MediaFolder(
        items=str(source / "items.csv"),
        interactions=str(source / "interactions.csv"),
        users=str(source / "users.csv"),
        item_features=FeatureColumns(categorical=("kinds",), numeric=("year",)),
        user_features=FeatureColumns(categorical=("city",), numeric=("age",)),
        selection=SelectionOptions(event_weights={"view": 1.0, "purchase": 5.0}, **RULES[rule]),
    )
    media_folder.prepare(options, out, run=runner(0))
    return open_dataset(out)


@pytest.fixture(scope="module", params=RULES)
def prepared(request, tmp_path_factory) -> Dataset:
    folder = tmp_path_factory.mktemp("leakage")
    return prepare(write_tables(folder / "source", log()), folder / "d", request.param)


# The dataset beside it


def rewritten(dataset: Dataset, folder: pathlib.Path, **replaced) -> Dataset:
    """The same dataset with other interactions.

    Args:
      dataset: what is copied.
      folder: where the copy is written.
      replaced: by split, `records.Interactions` that take the place of the dataset's.
    """
    schema = dataset.schema
    with records.DatasetWriter(folder) as writer:
        items = records.read_items(dataset.directory, schema)
        for item in sorted(items, key=lambda item: item.number):
            writer.write_item(item.item_id, content=item.content, features=item.features)
        for user in records.read_users(dataset.directory, schema):
            writer.write_user(user.user_id, profile=user.profile, features=user.features)
        for split in SPLITS:
            data = replaced.get(split, dataset.interactions(split))
            for user in np.unique(data.user):
                own = {
                    name: column[data.user == user]
                    for name, column in data._asdict().items()
                    if name != "user"
                }
                writer.write_interactions(split, int(user), **own)
        writer.finish(schema, source={"name": "test"}, split_rule=dataset.manifest["split_rule"])
    return open_dataset(folder)


def others(dataset: Dataset, split: str) -> records.Interactions:
    """The interactions of a split with other items, ratings and weights."""
    data = dataset.interactions(split)
    met = {name: dataset.interactions(name) for name in SPLITS}
    item = data.item.copy()
    for user in np.unique(data.user):
        own = np.concatenate([part.item[part.user == user] for part in met.values()])
        free = np.setdiff1d(np.arange(dataset.schema.num_items), own)
        # One half of the free items for valid, the other for test.
        free = free[SPLITS.index(split) % 2 :: 2]
        rows = np.flatnonzero(data.user == user)[: len(free)]
        item[rows] = np.random.default_rng(int(user)).choice(free, len(rows), replace=False)
    return data._replace(item=item, rating=6 - data.rating, weight=data.weight + 1)


def beside(dataset: Dataset, folder: pathlib.Path) -> Dataset:
    """The same dataset with other interactions in valid and test."""
    held_out = {split: others(dataset, split) for split in SPLITS[1:]}
    for split, data in held_out.items():
        before = dataset.interactions(split)
        assert len(before.user) and (before.item != data.item).mean() > 0.5
    return rewritten(dataset, folder, **held_out)


# What training sees


def seen_in_training(dataset: Dataset, *, model: bool = True) -> dict[str, np.ndarray]:
    """All that statistics, batches and, if wanted, a model take from a dataset, by name."""
    catalog, users = dataset.catalog, dataset.users
    seen: dict[str, np.ndarray] = {"schema": np.array(json.dumps(dataset.schema.to_json()))}
    _add(seen, "catalog", catalog._asdict())
    _add(seen, "users", users._asdict())
    _add(seen, "histories", dataset.histories()._asdict())
    batch_size = len(dataset.interactions("train").user) // 8 + 1
    for context in ("past", "others"):
        user = UserConfig(history_length=4, history_context=context)
        settings = [{"item_balance": 0.0}, {"item_balance": 1.0}]
        if context == "past":
            settings.append({"next_items": 3})
        if dataset.schema.ratings:
            settings.append({"disliked_below": 3.0})
        for setting in settings:
            retrieval = RetrievalConfig(**setting)
            batches = dataset.batches(
                "train", batch_size, user=user, retrieval=retrieval, shuffle=True, seed=1
            )
            epoch = list(batches.as_numpy_iterator())
            for name in epoch[0]:
                values = np.concatenate([batch[name] for batch in epoch])
                _add(seen, f"batches {context} {setting}", {name: values})
    if model:
        _add(seen, "tables", model_tables(dataset))
    return seen


def model_tables(dataset: Dataset) -> dict:
    """What a `RetrievalModel` takes in: encoded content, features, and train frequencies."""
    tf.keras.utils.set_random_seed(0)
    config = small_world.config(modalities=["text"], user__id_embedding=True, text__max_tokens=8)
    model = RetrievalModel(config, dataset, cache=None, initialize=False)
    return {**model.tables, "encoder": model.encoders["text"].get_weights()}


def _add(seen: dict[str, np.ndarray], name: str, value) -> None:
    if isinstance(value, dict):
        for key, part in value.items():
            _add(seen, f"{name} {key}", part)
    elif isinstance(value, list):
        _add(seen, name, dict(enumerate(value)))
    else:
        seen[name] = np.asarray(value)


def differences(one: Dataset, other: Dataset, *, model: bool = True) -> list[str]:
    """What training sees of one dataset and not of the other."""
    mine, theirs = (seen_in_training(dataset, model=model) for dataset in (one, other))
    assert mine.keys() == theirs.keys()
    return [name for name in mine if not np.array_equal(mine[name], theirs[name])]


def assert_histories_hold_train_only(dataset: Dataset) -> None:
    train = dataset.interactions("train")
    known = set(zip(train.user.tolist(), train.item.tolist(), strict=True))
    for split in SPLITS[1:]:
        found = 0
        for batch in dataset.batches(split, 64, user=UserConfig(history_length=5)):
            for user, history in zip(batch["user"].numpy(), batch["history"].numpy(), strict=True):
                pairs = {(int(user), item) for item in history[history >= 0].tolist()}
                assert pairs <= known
                found += len(pairs)
        assert found


# Tests


def test_the_split_is_what_was_asked_for(prepared):
    rule = prepared.manifest["split_rule"]
    assert prepared.schema.ordered == (rule != "random")
    pairs = [
        pair
        for split in SPLITS
        for pair in zip(*(prepared.interactions(split)[n].tolist() for n in (0, 1)), strict=True)
    ]
    # The purchase of what was seen before is the same pair again.
    assert len(pairs) == len(set(pairs)) == len(log()) - NUM_USERS
    if rule in FORESEEN:
        train, valid, test = (prepared.interactions(split).timestamp for split in SPLITS)
        assert train.max() < 1000 <= valid.min() and valid.max() < 2000 <= test.min()


# Training reads what was prepared, and that is looked at under every rule.
@pytest.mark.parametrize(
    "prepared",
    ["given", *(pytest.param(rule, marks=pytest.mark.slow) for rule in RULES if rule != "given")],
    indirect=True,
)
def test_training_does_not_see_valid_and_test(prepared, tmp_path):
    assert differences(prepared, beside(prepared, tmp_path / "beside")) == []


def test_histories_hold_train_only(prepared, tmp_path):
    assert_histories_hold_train_only(prepared)
    assert_histories_hold_train_only(beside(prepared, tmp_path / "beside"))


@pytest.mark.parametrize(
    "rule",
    [FORESEEN[0], *(pytest.param(rule, marks=pytest.mark.slow) for rule in FORESEEN[1:])],
)
def test_preparing_does_not_let_train_see_valid_and_test(tmp_path, rule):
    """Vocabularies, scales, numbers and weights are made before a dataset stands anywhere."""
    datasets = []
    for seed in (1, 2):
        source = write_tables(tmp_path / f"source{seed}", log(held_out_seed=seed))
        datasets.append(prepare(source, tmp_path / f"d{seed}", rule))
    one, other = datasets
    for split in SPLITS[1:]:
        items = [dataset.interactions(split).item for dataset in datasets]
        assert (items[0] != items[1]).mean() > 0.5
    assert one.schema.item_features["kinds"].vocabulary and one.schema.user_features["age"].mean
    assert differences(one, other, model=False) == []
    # A purchase after train does not weigh what was seen in train.
    assert set(one.interactions("train").weight) == {1.0}


@pytest.fixture
def by_time(tmp_path) -> Dataset:
    return prepare(write_tables(tmp_path / "source", log()), tmp_path / "d", "time")


def test_one_other_interaction_in_train_is_noticed(by_time, tmp_path):
    train = by_time.interactions("train")
    own = train.item[train.user == train.user[0]]
    item = train.item.copy()
    item[0] = np.setdiff1d(np.arange(NUM_ITEMS), own)[0]
    other = rewritten(by_time, tmp_path / "other", train=train._replace(item=item))
    found = differences(by_time, other)
    wanted = {"catalog train_count", "catalog log_frequency", "catalog probability"}
    wanted |= {"histories item", "tables log_frequency"}
    wanted |= {f"batches {n} {{'item_balance': 0.0}} item" for n in ("past", "others")}
    assert wanted <= set(found)
    # It changes neither the items nor the users themselves.
    assert not [n for n in found if n.startswith(("users", "catalog features", "tables content"))]


def test_one_other_rating_in_train_is_noticed(by_time, tmp_path):
    train = by_time.interactions("train")
    rating = train.rating.copy()
    rating[0] += 1
    other = rewritten(by_time, tmp_path / "other", train=train._replace(rating=rating))
    found = differences(by_time, other, model=False)
    assert found and all(name.endswith("rating") for name in found)


def test_a_leak_is_noticed(by_time, tmp_path, monkeypatch):
    other = beside(by_time, tmp_path / "other")

    def leaky(self, disliked_below=None, history="train"):
        """Histories that end with what the user met in valid."""
        parts = [self.interactions(split) for split in ("train", "valid")]
        user, item, time = (np.concatenate([part[n] for part in parts]) for n in range(3))
        count = np.bincount(user, minlength=self.schema.num_users)
        order = np.argsort(user, kind="stable")
        return Histories(item[order], np.concatenate([[0], np.cumsum(count)]), time[order])

    monkeypatch.setattr(Dataset, "histories", leaky)
    monkeypatch.setattr(Dataset, "_by_user", lambda self, _: leaky(self))
    assert "histories item" in differences(by_time, other, model=False)
    with pytest.raises(AssertionError):
        assert_histories_hold_train_only(by_time)


def lists(dataset: Dataset, history: str) -> dict[str, np.ndarray]:
    """What everyone is recommended for test, by a model, both stages, and baselines."""
    tf.keras.utils.set_random_seed(0)
    config = small_world.config(
        schema=dataset.schema, modalities=[], user__profile=False, user__id_embedding=True
    )
    retrieval = RetrievalModel(config, dataset, cache=None, initialize=False)
    ranking = RankingModel(config, dataset, retrieval=retrieval, initialize=False)
    users = np.arange(NUM_USERS)
    models = {"retrieval": retrieval, "both": Recommender(retrieval, ranking, dataset)}
    known = {"k": 5, "history": history}
    found = {name: model.rank_items(dataset, users, **known) for name, model in models.items()}
    for name in ("popularity", "item_knn", "ease"):
        score = BASELINES[name](dataset, None, history=history)
        found[name] = rank_by(score, dataset, users, **known)
    return found


@pytest.mark.parametrize("history", ["train", "train+valid"])
def test_lists_for_test_do_not_see_it(by_time, tmp_path, history):
    """Under either protocol; nor valid, under the one that does not know it."""
    hidden = [split for split in SPLITS if split not in history.split("+")]
    other = rewritten(by_time, tmp_path / "other", **{n: others(by_time, n) for n in hidden})
    mine, theirs = lists(by_time, history), lists(other, history)
    for name, top in mine.items():
        np.testing.assert_array_equal(top, theirs[name], err_msg=name)


def test_what_is_known_of_valid_changes_every_list(by_time, tmp_path):
    other = rewritten(by_time, tmp_path / "other", valid=others(by_time, "valid"))
    mine, theirs = (lists(dataset, "train+valid") for dataset in (by_time, other))
    assert [name for name, top in mine.items() if (top == theirs[name]).all()] == []
    # And nobody is shown what they met there.
    data = by_time.interactions("valid")
    for top in mine.values():
        assert not (top[data.user] == data.item[:, None]).any()


@pytest.mark.slow
@pytest.mark.parametrize("split", ["given", "random", "leave-last-out", "time"])
def test_ml_posters(tmp_path, shared, split):
    folder = shared / "data" / "ml_posters"
    if not folder.is_dir():
        pytest.skip("needs shared/data/ml_posters")
    options = MediaFolder(
        items=str(folder / "items.csv"),
        interactions=str(folder / "ratings.csv.gz"),
        text=("title",),
        image="none",
        item_features=FeatureColumns(categorical=("genres",)),
        selection=SelectionOptions(split=split, k_core=5, min_rating=3.0),
    )
    media_folder.prepare(options, tmp_path / "d", run=runner(0))
    dataset = open_dataset(tmp_path / "d")
    assert differences(dataset, beside(dataset, tmp_path / "beside")) == []
    assert_histories_hold_train_only(dataset)
