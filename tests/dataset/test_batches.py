"""Batches: balanced by item, in any order or in one, made here or by a tf.data service."""

import collections
import dataclasses
import itertools
import os
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf
from support import small_world
from support.retrieval_steps import popular_world
from support.small_world import build_retrieval
from support.tiny_dataset import examples, user, write

from mmrec_tf import RetrievalModel
from mmrec_tf.config import Config, RetrievalConfig, require_effect
from mmrec_tf.dataset.batches import NUM_ORDERS
from mmrec_tf.dataset.catalog import draw_probability
from mmrec_tf.errors import ConfigError
from mmrec_tf.training.fit import train


def pairs(batches):
    """Each example as (user, item, rating, weight), in the order of the batches."""
    names = ("user", "item", "rating", "weight")
    columns = [[batch[name] for name in names] for batch in batches.as_numpy_iterator()]
    return [row for batch in columns for row in zip(*(c.tolist() for c in batch), strict=True)]


def balanced(balance):
    return RetrievalConfig(item_balance=balance)


def frequency(dataset, balance, **options):
    """How often each item is drawn, over some epochs."""
    batches = dataset.batches("train", 64, retrieval=balanced(balance), **options)
    drawn = np.concatenate([b["item"] for b in batches.repeat(40).as_numpy_iterator()])
    return np.bincount(drawn, minlength=dataset.schema.num_items) / len(drawn)


@pytest.fixture(scope="module")
def popular(tmp_path_factory):
    """Twelve items, of which the first is met twelve times as often as the last."""
    return popular_world(tmp_path_factory.mktemp("popular") / "d")


# Next items and windows


def ends(dataset, length, retrieval, *, window=0, epochs=400):
    """How often each history comes before each item of the first user, over some epochs."""
    settings = dataclasses.replace(user(length, "past"), training_window=window)
    batches = dataset.batches("train", 8, user=settings, retrieval=retrieval, shuffle=True)
    found = collections.defaultdict(collections.Counter)
    for (person, item), _, _, history in histories(batches.repeat(epochs)):
        if person == 0:
            found[item][tuple(one for one in history if one >= 0)] += 1
    return found


def test_an_example_is_one_of_the_next_items_the_nearest_most_often(tmp_path):
    dataset = write(tmp_path / "d", train=[[0, 1, 2, 3, 4]], valid=[[5]], ordered=True)
    found = ends(dataset, 9, RetrievalConfig(next_items=3, fading=0.5))
    # A history is not emptied, and no longer than it is.
    assert found[0] == {(): 400} and found[1] == {(0,): 400}
    for item in (3, 4):
        want = {tuple(range(item - n)): 400 * 0.5**n / 1.75 for n in range(3)}
        assert set(found[item]) == set(want)
        for history, count in found[item].items():
            assert abs(count - want[history]) < 4 * 400**0.5 / 2
    assert set(found[2]) == {(0, 1), (0,)}
    # One next item alone is as ever, and a user without a past has none.
    plain = ends(dataset, 9, RetrievalConfig(), epochs=2)
    assert plain[4] == {(0, 1, 2, 3): 2}


def test_a_window_lies_anywhere_in_what_is_read_otherwise(tmp_path):
    dataset = write(tmp_path / "d", train=[list(range(9))], valid=[[9]], ordered=True, num_items=10)
    found = ends(dataset, 5, RetrievalConfig(), window=2)
    assert found[1] == {(0,): 400} and found[2] == {(0, 1): 400}
    # Of the last five before it, two in a row, all about as often.
    assert set(found[8]) == {(3, 4), (4, 5), (5, 6), (6, 7)}
    assert min(found[8].values()) > 60
    both = ends(dataset, 5, RetrievalConfig(next_items=2, fading=1.0), window=2)
    assert set(both[8]) == {(2, 3), (3, 4), (4, 5), (5, 6), (6, 7)}
    for split, width in (("train", 2), ("valid", 5)):
        settings = dataclasses.replace(user(5, "past"), training_window=2)
        (batch,) = dataset.batches(split, 99, user=settings).as_numpy_iterator()
        assert batch["history"].shape[1] == width
    others = dataclasses.replace(user(5, "others"), training_window=2)
    for _, _, _, history in histories(dataset.batches("train", 8, user=others)):
        assert len(history) == 2 and (history[1] - history[0]) % 9 in (1, 2, 7, 8)


def test_where_nothing_comes_next_no_next_items_are_learned(tmp_path):
    dataset = write(tmp_path / "d")
    with pytest.raises(ConfigError, match="retrieval.next_items: wanted 1, as histories hold all"):
        dataset.batches("train", 8, retrieval=RetrievalConfig(next_items=2))
    with pytest.raises(ConfigError, match="retrieval.next_items: wanted 1 as the dataset's split"):
        require_effect(Config(retrieval=RetrievalConfig(next_items=2)), dataset.schema)


# Balance


@pytest.mark.parametrize("balance", [0.5, 1.0])
def test_items_are_drawn_as_often_as_the_balance_says(popular, balance):
    count = popular.catalog.train_count
    want = count ** (1 - balance) / (count ** (1 - balance)).sum()
    got = frequency(popular, balance)
    assert count.max() > 8 * count.min()
    np.testing.assert_allclose(got, want, rtol=0.12)
    np.testing.assert_allclose(draw_probability(count, balance=balance), want, rtol=1e-5)


def test_all_of_an_item_s_examples_are_drawn(popular):
    """With replacement: as many as there are in all, a few of them several times an epoch."""
    batches = popular.batches("train", 64, retrieval=balanced(1.0))
    epochs = [pairs(batches) for _ in range(30)]
    total = len(popular.interactions("train").user)
    assert {len(epoch) for epoch in epochs} == {total}
    assert max(collections.Counter(epochs[0]).values()) > 1
    assert {p[:2] for epoch in epochs for p in epoch} == set(
        zip(*(column.tolist() for column in popular.interactions("train")[:2]), strict=True)
    )


def test_every_epoch_is_another_draw_and_the_seed_decides(popular):
    def epochs(seed):
        batches = popular.batches("train", 64, retrieval=balanced(1.0), seed=seed)
        return [pairs(batches) for _ in range(2)]

    one, other = epochs(1), epochs(2)
    assert epochs(1) == one
    assert one[0] != one[1] and one[0] != other[0]


def test_balanced_examples_keep_their_history_weight_and_rating(tmp_path):
    columns = {"rating": [1.0, 2.0, 3.0, 4.0, 5.0], "weight": [0.5, 1.0, 1.5, 2.0, 2.5]}
    dataset = write(tmp_path / "d", ordered=True, **columns)
    plain = {pair: row for pair, *row in histories(dataset.batches("train", 3, user=user(3)))}
    drawn = dataset.batches("train", 3, user=user(3), retrieval=balanced(0.7)).repeat(20)
    seen = {pair: row for pair, *row in histories(drawn)}
    assert seen == plain


def histories(batches):
    for batch in batches.as_numpy_iterator():
        columns = (batch[name].tolist() for name in ("user", "item", "rating", "weight", "history"))
        for person, item, *rest in zip(*columns, strict=True):
            yield (person, item), *rest


def test_balance_keeps_the_spec(popular):
    for exact in (False, True):
        batches = popular.batches("train", 7, retrieval=balanced(1.0), drop_remainder=exact)
        assert batches.element_spec == popular.schema.batch_spec(7 if exact else None, 50)
        sizes = [len(batch["user"]) for batch in batches]
        assert len(sizes) == batches.cardinality()
        total = len(popular.interactions("train").user)
        assert sum(sizes) == (total - total % 7 if exact else total)


@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
def test_the_correction_follows_what_is_drawn(popular, balance):
    """All that can be learned here is how often an item is drawn: to the power of 1 - balance.

    A correction that still went by the plain count would arrive at 1 each time.
    """
    model = build_retrieval(
        popular,
        modalities=[],
        user__history="none",
        retrieval__mask_history=False,
        retrieval__remove_accidental_hits=False,
        retrieval__item_balance=balance,
    )
    model.item_tower.id_embedding.table.assign(tf.zeros([12, 8]))
    model.popularity_weight.assign(0.5)
    optimizer = tf.keras.optimizers.Adam(0.05)

    @tf.function(reduce_retracing=True)
    def step(inputs):
        with tf.GradientTape() as tape:
            loss = model.compute_loss(inputs)
        gradient = tape.gradient(loss, model.popularity_weight)
        optimizer.apply_gradients([(gradient, model.popularity_weight)])

    batches = popular.batches(
        "train", 64, user=model.config.user, shuffle=True, retrieval=balanced(balance)
    )
    for inputs in batches.repeat(4):
        step(inputs)
    assert float(model.popularity_weight) == pytest.approx(1 - balance, abs=0.1)


def test_examples_that_are_left_are_balanced_among_themselves(tmp_path):
    train = [[0, 1], [0, 1], [0, 2], [0, 1], [3, 1]]
    dataset = write(tmp_path / "d", train=train, valid=[], rating=[5.0, 1.0])
    retrieval = RetrievalConfig(item_balance=1.0, disliked_below=3.0)
    batches = dataset.batches("train", 2, retrieval=retrieval).repeat(200)
    drawn = np.bincount([row[1] for row in pairs(batches)], minlength=6)
    np.testing.assert_allclose(drawn / drawn.sum(), [0.5, 0, 0, 0.5, 0, 0], atol=0.06)


@pytest.mark.slow
def test_training_balances_retrieval_and_nothing_else(dataset, monkeypatch):
    from mmrec_tf import RankingModel

    asked = []
    batches = type(dataset).batches

    def recorded(self, split, *arguments, **options):
        asked.append(options["retrieval"])
        return batches(self, split, *arguments, **options)

    monkeypatch.setattr(type(dataset), "batches", recorded)
    config = small_world.config(**small_world.VECTORS, retrieval__item_balance=0.75)
    retrieval = RetrievalModel(config, dataset)
    train(retrieval, dataset)
    train(RankingModel(config, dataset, retrieval=retrieval), dataset)
    each = [key for key, _ in itertools.groupby(asked)]
    assert each == [config.retrieval, dataclasses.replace(config.retrieval, item_balance=0.0)]


@pytest.mark.parametrize("value", [-0.1, 1.1])
def test_a_balance_out_of_range_is_refused(value):
    with pytest.raises(ConfigError, match="retrieval.item_balance: wanted 0 to 1"):
        small_world.config(retrieval__item_balance=value)


# Order


def orders(dataset, epochs, seed=3, passed=0):
    """The examples of some epochs, after passes that began and went no further."""
    batches = dataset.batches("train", 16, shuffle=True, seed=seed)
    for _ in range(passed):
        iter(batches)
    return [tuple(pairs(batches)) for _ in range(epochs)]


def test_every_example_comes_once_in_each_of_many_orders(popular):
    found = orders(popular, 5)
    assert len(set(found)) == 5
    assert {tuple(sorted(order)) for order in found} == {
        tuple(sorted(pairs(popular.batches("train", 16))))
    }
    # Neighbors in the source are strewn over the epoch: it is not shuffled within a window.
    place = {row: at for at, row in enumerate(pairs(popular.batches("train", 16)))}
    places = np.array([place[row] for row in found[0]])
    assert np.abs(np.diff(places)).mean() > len(places) / 4
    assert abs(np.corrcoef(places, np.arange(len(places)))[0, 1]) < 0.2


def test_one_place_says_nothing_of_the_next():
    """Rows of a table often come by user: a batch is to hold as few of one as chance would."""
    from mmrec_tf.dataset import batches as pipeline

    size = 63_594  # of a set on which four rounds of the op gave a correlation of 0.09
    choose = pipeline._permutation(size, seed=0)
    number = tf.constant(0, tf.int64)
    row = choose(tf.range(size, dtype=tf.int64), number, tf.constant(12345, tf.int64)).numpy()
    assert len(set(row.tolist())) == size
    assert abs(np.corrcoef(row[:-1], row[1:])[0, 1]) < 0.02


def test_an_epoch_s_order_follows_from_seed_and_epoch(popular):
    """So that training that goes on after a kill sees what it would have seen."""
    found = orders(popular, 4)
    assert orders(popular, 4) == found
    assert orders(popular, 2, passed=2) == found[2:]
    assert not set(orders(popular, 4, seed=4)) & set(found)


def test_an_epoch_begins_without_going_through_the_examples(monkeypatch, tmp_path):
    """No buffer is filled first: the first batch takes what the others take."""
    from mmrec_tf.dataset import batches as pipeline

    asked = []
    plain = pipeline._permutation

    def counted(size, seed):
        choose = plain(size, seed)

        def count(place, number, epoch):
            row = tf.numpy_function(lambda row: asked.append(len(row)) or row, [place], tf.int64)
            return choose(row, number, epoch)

        return count

    monkeypatch.setattr(pipeline, "_permutation", counted)
    train, times = [list(range(500))] * 20, list(range(500))
    dataset = write(tmp_path / "d", train=train, valid=[], num_items=500, timestamp=times)
    (batch,) = dataset.batches("train", 8, shuffle=True).take(1)
    assert len(batch["item"]) == 8 and sum(asked) < 2000


def test_in_any_order_they_are_the_same_batches(dataset):
    def batches(deterministic):
        made = dataset.batches("train", 8, shuffle=True, seed=5, deterministic=deterministic)
        return [tuple(map(tuple, b["history"].numpy().tolist())) for b in made]

    assert batches(True) == batches(True)
    assert sorted(batches(True)) == sorted(batches(False))


def test_only_where_it_is_asked_for_a_slow_batch_holds_up_the_others(monkeypatch, popular):
    """The first batch made is made slow; later ones wait for it only in a fixed order."""
    from mmrec_tf.dataset import batches as pipeline

    plain = pipeline._surround

    def slow(*arguments, **options):
        surround = plain(*arguments, **options)

        def wait(first):
            time.sleep(1.0 if first else 0.0)
            return first

        def late(batch, number):
            first = tf.equal(batch["at"][0], 0)
            with tf.control_dependencies([tf.numpy_function(wait, [first], tf.bool)]):
                return surround({n: tf.identity(v) for n, v in batch.items()}, number)

        return late

    monkeypatch.setattr(pipeline, "_surround", slow)
    first = pairs(popular.batches("train", 64))[0]
    for deterministic in (True, False):
        found = pairs(popular.batches("train", 64, deterministic=deterministic))
        assert (found[0] == first) == deterministic


# The service


SERVICE = """
import sys
import tensorflow as tf

part = tf.data.experimental.service
dispatcher = part.DispatchServer()
address = dispatcher.target.split("://")[1]
workers = [part.WorkerServer(part.WorkerConfig(dispatcher_address=address)) for _ in range(2)]
print(dispatcher.target, flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def service():
    """The address of a dispatcher with two workers, in a process that knows nothing of this one."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVICE],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    yield process.stdout.readline().strip()
    # Asked to stop, it would wait for seconds for each epoch that it has served.
    process.kill()
    process.communicate()


@pytest.mark.parametrize("shuffle", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_service_makes_each_example_once_an_epoch(dataset, service, shuffle):
    plain = dataset.batches("train", 16, user=user(4), shuffle=shuffle)
    served = dataset.batches("train", 16, user=user(4), shuffle=shuffle, data_service=service)
    assert served.element_spec == plain.element_spec
    orders = []
    for _ in range(3):
        found = pairs(served)
        assert sorted(found) == sorted(pairs(plain))
        orders.append(tuple(found))
    # Workers race for batches, but what a batch holds does not hang on that.
    groups = {frozenset(order[:16]) for order in orders}
    assert len(groups) == 3 or not shuffle


def test_a_service_gives_an_example_its_own_history_and_weight(tmp_path, service):
    columns = {"rating": [1.0, 2.0, 3.0, 4.0, 5.0], "weight": [0.5, 1.0, 1.5, 2.0, 2.5]}
    dataset = write(tmp_path / "d", ordered=True, **columns)
    plain = dataset.batches("train", 3, user=user(3))
    served = dataset.batches("train", 3, user=user(3), shuffle=True, data_service=service)
    assert examples(served) == examples(plain)
    assert sorted(pairs(served)) == sorted(pairs(plain))


@pytest.mark.slow
def test_a_service_gives_gaps_and_dislikes_too(tmp_path, service):
    columns = {"rating": [5.0, 1.0, 3.0, 2.5, 4.0], "timestamp": [10, 20, 40, 80, 160]}
    dataset = write(tmp_path / "d", ordered=True, **columns)

    def rows(**options):
        retrieval = RetrievalConfig(disliked_below=3.0, item_balance=options.pop("balance", 0.0))
        batches = dataset.batches("train", 2, user=user(3), retrieval=retrieval, **options)
        return {
            (person, item): (history, gap, sorted(disliked))
            for batch in batches.repeat(8).as_numpy_iterator()
            for person, item, history, gap, disliked in zip(
                *(batch[n].tolist() for n in ("user", "item", "history", "gap", "disliked")),
                strict=True,
            )
        }

    plain = rows()
    assert plain[0, 4] == ([0, 2, -1], [30.0, 0.0, -1.0], [1, 3])
    assert rows(data_service=service) == rows(data_service=service, shuffle=True) == plain
    drawn = rows(data_service=service, balance=0.5)
    assert len(drawn) > 2 and all(plain[pair] == row for pair, row in drawn.items())


@pytest.mark.slow
def test_a_service_keeps_what_is_disliked_with_its_labels(tmp_path, service):
    columns = {
        "rating": [5.0, 1.0, 3.0, 2.5, 4.0],
        "events": [[1, 0], [1, 1], [0, 1], [0, 0], [1, 0]],
        "position": [4, 0, 1, 3, 2],
    }
    dataset = write(tmp_path / "d", **columns)

    def rows(balance=0.0, **options):
        retrieval = RetrievalConfig(disliked_below=3.0, item_balance=balance)
        options |= {"user": user(3), "retrieval": retrieval, "keep_disliked": True}
        names = ("user", "item", "history", "time", "events", "position", "rating")
        return {
            (person, item): rest
            for batch in dataset.batches("train", 2, **options).repeat(8).as_numpy_iterator()
            for person, item, *rest in zip(*(batch[n].tolist() for n in names), strict=True)
        }

    plain = rows()
    assert plain[0, 1] == [[0, 2, 4], 1, [1.0, 1.0], 0, 1.0]
    assert len(plain) == 8
    assert rows(data_service=service) == rows(data_service=service, shuffle=True) == plain
    for options in ({"shuffle": True}, {"balance": 0.5}, {"data_service": service, "balance": 0.5}):
        drawn = rows(**options)
        assert len(drawn) > 2 and all(plain[pair] == row for pair, row in drawn.items())


@pytest.mark.slow
def test_orders_are_taken_in_turn(dataset, service):
    served = dataset.batches("train", 500, shuffle=True, data_service=service)
    orders = [tuple(pairs(served)) for _ in range(NUM_ORDERS + 1)]
    assert len(set(orders)) == NUM_ORDERS and orders[0] == orders[-1]
    other = dataset.batches("train", 500, shuffle=True, seed=1, data_service=service)
    assert tuple(pairs(other)) not in orders


@pytest.mark.slow
def test_long_histories_are_seen_in_parts_on_a_service_too(tmp_path, service):
    dataset = write(tmp_path / "d", train=[list(range(20))], valid=[[20]], num_items=21)
    served = dataset.batches("train", 8, user=user(4, "others"), shuffle=True, data_service=service)
    windows = {tuple(found[0, 0]) for found in (examples(served) for _ in range(NUM_ORDERS))}
    assert len(windows) > 3 and all(0 not in window for window in windows)


@pytest.mark.slow
def test_a_service_draws_as_the_balance_says(popular, service):
    options = {"retrieval": balanced(1.0), "data_service": service}
    batches = popular.batches("train", 64, **options)
    drawn = [np.array([p[1] for p in pairs(batches)]) for _ in range(NUM_ORDERS)]
    share = np.bincount(np.concatenate(drawn), minlength=12) / sum(map(len, drawn))
    np.testing.assert_allclose(share, 1 / 12, rtol=0.12)
    assert len({tuple(sorted(epoch)) for epoch in drawn}) == NUM_ORDERS


@pytest.mark.slow
def test_a_model_trains_on_a_service(dataset, service):
    config = small_world.config(**small_world.VECTORS, training__data_service=service)
    model = RetrievalModel(config, dataset)
    losses = train(model, dataset).history["loss"]
    assert len(losses) == 2 and np.isfinite(losses).all()
    steps = -(-len(dataset.interactions("train").user) // 32)
    assert int(model.optimizer.iterations) == 2 * steps


@pytest.mark.parametrize("address", ["localhost:5000", "http://localhost:5000", "grpc://localhost"])
def test_what_is_no_address_is_refused(dataset, address):
    with pytest.raises(ConfigError, match=r"such as grpc://localhost:5000; got"):
        dataset.batches("train", 8, data_service=address)


def test_where_nothing_answers_it_says_so_at_once(dataset):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    start = time.monotonic()
    with pytest.raises(ConfigError, match=rf"nothing answers .*localhost:{port}"):
        dataset.batches("train", 8, data_service=f"grpc://localhost:{port}")
    assert time.monotonic() - start < 10
