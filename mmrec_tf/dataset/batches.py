"""A split's interactions -> batches, as a tf.data pipeline in this process or on a service."""

import itertools
import socket
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from mmrec_tf.dataset.histories import Histories, HistoryTable
from mmrec_tf.errors import ConfigError
from mmrec_tf.records import Interactions

# So many orders of the examples a data service is given; epochs take them in turn.
NUM_ORDERS = 8
TIMEOUT_SECONDS = 5.0

# Columns of a batch by name, as in `Schema.batch_spec`.
Batch = dict[str, tf.Tensor]


def build_batches(
    interactions: Interactions,
    histories: Histories,
    *,
    batch_size: int,
    length: int,
    context: str,
    window: int = 0,
    next_items: int = 1,
    fading: float = 1.0,
    among: np.ndarray | None = None,
    shuffle: bool = False,
    seed: int = 0,
    drop_remainder: bool = False,
    deterministic: bool = True,
    item_balance: float = 0.0,
    disliked: Histories | None = None,
    num_disliked: int = 0,
    data_service: str = "",
) -> tf.data.Dataset:
    """Batches of examples, each with a history; see `Dataset.batches`.

    Args:
      interactions: the examples, at least one.
      histories: of the train split.
      length: of the history that a batch carries.
      context: "last", the end of the user's history; "past", what lies before the example;
        "others", all but the example itself. The latter two are for examples in the order of
        `histories`, by user and oldest first.
      window: how many items in a row of those a batch carries instead, drawn anew each time; 0 for
        all of them. Not under "last".
      next_items: under "past", of how many items the example may be any that comes after its
        history: this ends so many items earlier less one, or fewer, drawn anew each time. It keeps
        one item where there is one.
      fading: how much more often it ends n items earlier than n + 1.
      among: <bool>[example], whether it stands in `histories`, which then hold these and no
        others; None where all do. Under "last" it makes no difference.
      disliked: the train items that each user rated low; None where that is not asked.
      num_disliked: of those, how many a row of a batch carries.

    Returns:
      tf.data.Dataset with elements as `Schema.batch_spec`.

    Raises:
      ConfigError: when no data service answers at the address.
    """
    size = len(interactions.user)
    steps = size // batch_size if drop_remainder else -(-size // batch_size)
    columns = {
        "user": interactions.user,
        "item": interactions.item,
        "time": interactions.timestamp,
        "rating": interactions.rating,
        "weight": interactions.weight,
        "events": interactions.events,
        "position": interactions.position,
    }
    # On the host, wherever the model is: a table on a GPU would be copied back for each batch.
    with tf.device("CPU"):
        around = _surround(
            histories,
            length=length,
            context=context,
            window=window,
            fades=fading ** np.arange(next_items),
            among=among,
            seed=seed,
        )
        dislikes = _dislikes(disliked, length=num_disliked, seed=seed)
        if item_balance:
            choose = _balanced_draw(interactions.item, item_balance, seed=seed)
        else:
            choose = _permutation(size, seed) if shuffle else _in_order
        gather = _gather_examples(columns, choose, batch_size, drop_remainder)

    # Nothing of it branches on tensors in Python, and AutoGraph would rewrite all that is called.
    @tf.autograph.experimental.do_not_convert
    def make(step: tf.Tensor, number: tf.Tensor, epoch: tf.Tensor) -> Batch:
        made = around(gather(step, number, epoch), number)
        return made | {"disliked": dislikes(made["user"], number)}

    def finish(places: tf.data.Dataset) -> tf.data.Dataset:
        batches = places.map(make, num_parallel_calls=tf.data.AUTOTUNE)
        return batches.prefetch(tf.data.AUTOTUNE)

    if data_service:
        _reach(data_service)
        orders = [finish(_numbered_places(steps, epoch)) for epoch in range(NUM_ORDERS)]
        batches = _distribute(orders, data_service)
        # Keras, not knowing when an epoch ends, would take one more step, without a batch.
        return batches.apply(tf.data.experimental.assert_cardinality(steps))
    options = tf.data.Options()
    options.deterministic = deterministic
    # Taking an iterator down waits for the tuner to wake up, for seconds on a busy machine.
    options.autotune.enabled = False
    return finish(_drawn_places(steps, seed)).with_options(options)


def _numbered_places(steps: int, epoch: int) -> tf.data.Dataset:
    """Each batch's place in the epoch, its number, which no other batch of any epoch has, and the
    epoch, each <int64>[]. A worker of a service knows these and nothing of other epochs."""
    return tf.data.Dataset.range(steps).map(
        lambda step: (step, step + (epoch << 32), tf.constant(epoch, tf.int64))
    )


def _drawn_places(steps: int, seed: int) -> tf.data.Dataset:
    """As `_numbered_places`, with numbers that are drawn anew for each pass over the dataset.

    The pass that is the n-th to begin draws what follows from the seed and n, so that training goes
    on in the order of its epoch once it has begun, and dropped, as many passes as epochs are done.
    """
    # A number a batch, as batches are made side by side: a random op would give its numbers to
    # whichever comes first.
    numbers = tf.data.Dataset.random(seed=seed, rerandomize_each_iteration=True)
    none = tf.constant(-1, tf.int64)

    def name_epoch(first: tf.Tensor, place: tuple[tf.Tensor, tf.Tensor]) -> tuple:
        first = tf.where(first == none, place[1], first)
        return first, (*place, first)

    return tf.data.Dataset.zip(tf.data.Dataset.range(steps), numbers).scan(none, name_epoch)


def _surround(
    histories: Histories,
    *,
    length: int,
    context: str,
    window: int,
    fades: np.ndarray,
    among: np.ndarray | None,
    seed: int,
) -> Callable:
    """The function that gives a batch of columns, with its number, its histories; `fades` are the
    shares of the examples whose history ends 0, 1, ... items earlier."""
    width = window or length
    table = HistoryTable.constant(histories)
    place = _places(among)

    def surround(batch: Batch, number: tf.Tensor) -> Batch:
        start, end = table.bounds(batch["user"])
        if context == "last":
            read = table.last(start, end, length)
        elif context == "past":
            end = place(batch["at"])[0]
            if len(fades) > 1:
                end -= _draw_earlier(end - start - 1, fades, [~number, seed])
            if window:
                end = _draw_end(tf.maximum(start, end - length), end, window, [seed, number])
            read = table.last(start, end, width)
        else:
            own, itself = place(batch["at"])
            position, known = _window(end - start - itself, width, [seed, number])
            after = tf.cast(position >= (own - start)[:, None], tf.int64)
            read = table.read(start[:, None] + position + after * itself[:, None], known)
        return {
            "user": batch["user"],
            "history": tf.ensure_shape(read.item, [None, width]),
            "gap": tf.ensure_shape(read.gap, [None, width]),
            "item": batch["item"],
            "time": batch["time"],
            "rating": batch["rating"],
            "weight": batch["weight"],
            "events": tf.cast(batch["events"], tf.float32),
            "position": batch["position"],
        }

    return surround


def _draw_earlier(most: tf.Tensor, fades: np.ndarray, seed: list[Any]) -> tf.Tensor:
    """How many items earlier histories end, <int64>[batch]: n as often as `fades[n]` says among
    those from 0 to `most` <int64>[batch]."""
    up_to = tf.constant(np.cumsum(fades))
    total = tf.gather(up_to, tf.clip_by_value(most, 0, len(fades) - 1))
    drawn = total * tf.random.stateless_uniform(tf.shape(total), seed, dtype=tf.float64)
    return tf.reduce_sum(tf.cast(drawn[:, None] >= up_to[None, :-1], tf.int64), axis=1)


def _draw_end(start: tf.Tensor, end: tf.Tensor, window: int, seed: list[Any]) -> tf.Tensor:
    """Where windows end that lie anywhere among the items from `start` up to `end`, each
    <int64>[batch]; at `end` where there are no more of them."""
    room = tf.maximum(end - start - window, 0)
    drawn = tf.random.stateless_uniform(tf.shape(room), seed, maxval=2**31 - 1, dtype=tf.int64)
    return end - drawn % (room + 1)


def _places(among: np.ndarray | None) -> Callable:
    """The function from examples, by number, to where each stands in the histories.

    It returns <int64>[batch], of one that does not stand there the place of the next that does,
    and <int64>[batch], 1 for one that does, else 0.
    """
    if among is None:
        return lambda at: (at, tf.ones_like(at))
    itself = tf.constant(among.astype(np.int8))
    before = tf.constant(np.cumsum(among) - among)
    return lambda at: (tf.gather(before, at), tf.cast(tf.gather(itself, at), tf.int64))


def _dislikes(disliked: Histories | None, *, length: int, seed: int) -> Callable:
    """The function from users, with the number of their batch, to items that they dislike."""
    if disliked is None:
        return lambda user, number: tf.zeros_like(user)[:, None][:, :0]
    table = HistoryTable.constant(disliked._replace(time=None))

    def dislikes(user: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
        start, end = table.bounds(user)
        # Seeded apart from histories, whose windows are drawn by the same number.
        position, known = _window(end - start, length, [-1 - seed, number])
        return tf.ensure_shape(table.read(start[:, None] + position, known).item, [None, length])

    return dislikes


def _window(count: tf.Tensor, length: int, seed: list[Any]) -> tuple[tf.Tensor, tf.Tensor]:
    """A window over the items of each user that starts anywhere and wraps around.

    So more items than it takes are seen in parts, epoch after epoch.

    Args:
      count: <int64>[batch], how many items there are.
      length: of the window.
      seed: two integers.

    Returns:
      <int64>[batch, length], places of items from 0 to count - 1, and <bool>[batch, length], False
      after the last item of those who have fewer, where places are of no meaning.
    """
    many = tf.maximum(count, 1)[:, None]
    first = tf.random.stateless_uniform(tf.shape(many), seed, maxval=2**31 - 1, dtype=tf.int64)
    first = tf.where(many > length, first % many, 0)
    step = tf.range(length, dtype=tf.int64)[None, :]
    position = first + step
    # Once around at most, where there are any: a remainder would take as long as all else.
    return tf.where(position >= many, position - many, position), step < count[:, None]


def _gather_examples(
    columns: Mapping[str, np.ndarray], choose: Callable, batch_size: int, drop_remainder: bool
) -> Callable:
    """The function from a batch's place in the epoch, its number and the epoch to its columns.

    `choose` names the examples: <int64>[batch], their places in the epoch, the number and the
    epoch, to <int64>[batch].
    """
    size = len(columns["user"])
    tables = {name: tf.constant(column) for name, column in columns.items()}

    def gather(step: tf.Tensor, number: tf.Tensor, epoch: tf.Tensor) -> Batch:
        place = tf.range(step * batch_size, tf.minimum((step + 1) * batch_size, size))
        row = choose(place, number, epoch)
        row = tf.ensure_shape(row, [batch_size if drop_remainder else None])
        return {n: tf.gather(table, row) for n, table in tables.items()} | {"at": row}

    return gather


def _in_order(place: tf.Tensor, number: tf.Tensor, epoch: tf.Tensor) -> tf.Tensor:
    return place


def _permutation(size: int, seed: int) -> Callable:
    """Each example once, in an order that is computed, not kept: any worker can say who is next."""

    def choose(place: tf.Tensor, number: tf.Tensor, epoch: tf.Tensor) -> tf.Tensor:
        # Twice: the op's four rounds leave neighbors correlated, eight do not.
        last = tf.constant(size - 1, tf.int64)
        for key in (tf.stack([tf.constant(seed, tf.int64), epoch]), tf.stack([epoch, ~seed])):
            place = tf.random.experimental.index_shuffle(place, key, last)
        return place

    return choose


def _balanced_draw(item: np.ndarray, balance: float, *, seed: int) -> Callable:
    """Examples drawn with replacement, with probability proportional to count ** -balance."""
    share = np.bincount(item)[item] ** -balance
    upper = tf.constant(np.cumsum(share / share.sum()))

    def choose(place: tf.Tensor, number: tf.Tensor, epoch: tf.Tensor) -> tf.Tensor:
        # Seeded the other way around than histories, which are drawn by the same two numbers.
        drawn = tf.random.stateless_uniform(tf.shape(place), [number, seed], dtype=tf.float64)
        row = tf.searchsorted(upper, drawn, side="right", out_type=tf.int64)
        return tf.minimum(row, len(item) - 1)

    return choose


def _reach(address: str) -> None:
    """Refuses an address where nothing answers: tf.data would wait for it without end."""
    wanted = (
        "training.data_service: wanted the address of a tf.data service dispatcher such as "
        f'grpc://localhost:5000; {{}} {address!r}. Start one with a worker, or set it to "".'
    )
    protocol, _, place = address.partition("://")
    host, _, port = place.rpartition(":")
    if protocol != "grpc" or not host or not port.isdigit():
        raise ConfigError(wanted.format("got"))
    try:
        socket.create_connection((host, int(port)), timeout=TIMEOUT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(wanted.format(f"nothing answers ({error}) at")) from error


def _distribute(orders: list[tf.data.Dataset], address: str) -> tf.data.Dataset:
    """Has a data service make the batches: of the first order in the first epoch, and so on.

    A worker that starts anew draws the same numbers anew. So that epochs differ, the service knows
    several orders of the same examples, and they are taken in turn.
    """
    service = tf.data.experimental.service
    known = tf.stack([service.register_dataset(address, order) for order in orders])
    spec = orders[0].element_spec
    turns = itertools.cycle(range(len(orders)))

    def read(_: tf.Tensor) -> tf.data.Dataset:
        turn = tf.numpy_function(lambda: np.int64(next(turns)), [], tf.int64)
        # Batches are handed out one at a time to whichever worker is free.
        return service.from_dataset_id(
            service.ShardingPolicy.DYNAMIC, address, known[turn], element_spec=spec
        )

    return tf.data.Dataset.range(1).flat_map(read).prefetch(tf.data.AUTOTUNE)
