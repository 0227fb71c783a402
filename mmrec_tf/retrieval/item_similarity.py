"""Items against items in closed form: what the head beside the towers is made of.

A row holds what an item that a user met says of all others. Of each row the strongest weights are
kept, so that a matrix of any catalog is a table of a few numbers an item.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import scipy.linalg
import scipy.sparse

from mmrec_tf.config import Config, ItemHeadConfig, trains
from mmrec_tf.dataset.directory import Dataset
from mmrec_tf.dataset.histories import Histories
from mmrec_tf.errors import ConfigError
from mmrec_tf.evaluation.baselines import fit_autoencoder
from mmrec_tf.retrieval.item_graph import content_graph
from mmrec_tf.schema import Schema

# Rows of a dense matrix, or pairs of a sparse one, at a time: some tens of megabytes.
CELLS = 1 << 22
# Pairs of a history so far apart that both decays leave less of them than this do not count.
LEAST = 1e-4


class Neighbors(NamedTuple):
    """The strongest weights of each row.

    Attributes:
      item: <int32>[item, neighbor], columns of the matrix, -1 behind the last one.
      weight: <float32>[item, neighbor], 0 there.
    """

    item: np.ndarray
    weight: np.ndarray


def frozen_modalities(config: Config, schema: Schema) -> list[str]:
    """The modalities of a config whose content never changes under training."""
    kinds = {name: schema.modalities[name].kind for name in schema.select(config.modalities)}
    return [n for n, k in kinds.items() if k == "vector" or not trains(k, getattr(config, k))]


def require_item_head(config: Config, dataset: Dataset) -> None:
    """Refuses a head of items against items that a dataset has nothing for, or no memory.

    Raises:
      ConfigError: for "slist" without an order, "content" without frozen content, no item that is
        met often enough, or a matrix above `item_head.memory_mb`.
    """
    settings = config.item_head
    if settings.kind == "slist" and not dataset.schema.ordered:
        raise ConfigError(
            "item_head.kind: wanted none, ease or content, as the dataset's histories have no "
            'order; got "slist". Prepare the dataset with times and a split that follows them.'
        )
    if settings.kind == "content" and not frozen_modalities(config, dataset.schema):
        raise ConfigError(
            "item_head.kind: wanted a modality whose encoder is frozen, as items are compared by "
            'what does not change; got "content" without one. Set trainable_layers of one to 0.'
        )
    if settings.kind in ("ease", "slist"):
        _fitted_items(settings, _liked(config, dataset), dataset.schema.num_items)


def fit_neighbors(
    config: Config,
    dataset: Dataset,
    *,
    encoded: Sequence[np.ndarray] = (),
    present: np.ndarray | None = None,
) -> Neighbors:
    """The matrix that `item_head` asks for, fitted to train, the strongest weights of each row.

    Args:
      config: Config.
      dataset: Dataset.
      encoded, present: of "content", as for `content_graph`.

    Raises:
      ConfigError: as `require_item_head`.
    """
    require_item_head(config, dataset)
    settings, num_items = config.item_head, dataset.schema.num_items
    if settings.kind == "content":
        assert present is not None
        count = settings.num_neighbors
        links = content_graph(encoded, present, num_neighbors=count, cosines=True)
        return strongest(links, count)
    liked = _liked(config, dataset)
    items = _fitted_items(settings, liked, num_items)
    if settings.neighborhood:
        weights = _fit_locally(settings, liked, items)
    else:
        weights = _fit_whole(settings, liked, items)
    found = strongest(weights, settings.num_neighbors)
    # Back from the items that are fitted to those of the catalog.
    item = np.full([num_items, found.item.shape[1]], -1, np.int32)
    weight = np.zeros(item.shape, np.float32)
    item[items] = np.where(found.item >= 0, items[found.item], -1)
    weight[items] = found.weight
    return Neighbors(item, weight)


def fit_co_occurrence(config: Config, dataset: Dataset, *, count: int) -> Neighbors:
    """How often train users met two items both, as a cosine: users of both over the root of the
    users of each (Sarwar et al. 2001, section 3.1.1), the `count` highest of each item.

    Args:
      config: Config, whose `retrieval.disliked_below` says what is liked.
      dataset: Dataset.
      count: int.
    """
    liked, num_items = _liked(config, dataset), dataset.schema.num_items
    met = _history_matrix(liked, np.arange(num_items))
    scale = 1.0 / np.sqrt(np.maximum(np.bincount(liked.item, minlength=num_items), 1))
    item, weight = [], []
    for block, together in _met_together(met):
        cosine = scipy.sparse.diags(scale[block]) @ together @ scipy.sparse.diags(scale)
        rows = np.arange(cosine.shape[0])
        cosine = cosine.tolil()
        cosine[rows, rows + block.start] = 0.0
        found = strongest(cosine.tocsr(), count)
        item.append(found.item)
        weight.append(found.weight)
    return Neighbors(np.concatenate(item), np.concatenate(weight))


def strongest(matrix: np.ndarray | scipy.sparse.csr_matrix, count: int) -> Neighbors:
    """The `count` entries of each row with the highest absolute values, those first; of equal ones
    the lower column first, and none that is 0.

    Args:
      matrix: <float>[row, column].
      count: int.
    """
    rows, columns = matrix.shape
    count = max(1, min(count, columns))
    item, weight = np.full([rows, count], -1, np.int32), np.zeros([rows, count], np.float32)
    size = max(1, CELLS // max(columns, 1))
    for start in range(0, rows, size):
        part = matrix[start : start + size]
        dense = part if isinstance(part, np.ndarray) else part.toarray()
        dense = dense.astype(np.float32, copy=False)
        order = np.argsort(-np.abs(dense), axis=1, kind="stable")[:, :count]
        value = np.take_along_axis(dense, order, axis=1)
        item[start : start + size] = np.where(value != 0, order, -1)
        weight[start : start + size] = value
    return Neighbors(item, weight)


def _liked(config: Config, dataset: Dataset) -> Histories:
    """The train histories, each item once, where it first stands."""
    found = dataset.histories(disliked_below=config.retrieval.disliked_below)
    user = np.repeat(np.arange(len(found.offset) - 1), np.diff(found.offset))
    pair = user * np.int64(max(dataset.schema.num_items, 1)) + found.item
    first = np.sort(np.unique(pair, return_index=True)[1])
    if len(first) == len(pair):
        return found
    offset = np.searchsorted(user[first], np.arange(len(found.offset)))
    return Histories(found.item[first], offset.astype(np.int64), None)


def _fitted_items(settings: ItemHeadConfig, liked: Histories, num_items: int) -> np.ndarray:
    """The numbers of the items that are fitted, <int64>[fitted], if their matrix fits."""
    count = np.bincount(liked.item, minlength=num_items)
    items = np.flatnonzero(count >= settings.min_count)
    if not len(items):
        raise ConfigError(
            f"item_head.min_count: wanted at most {count.max(initial=0)}, the train interactions "
            f"of the most frequent item; got {settings.min_count}."
        )
    memory = settings.memory_mb << 20
    copies = _copies(settings)
    if not settings.neighborhood and copies * 4 * len(items) ** 2 > memory:
        wanted = math.ceil(copies * 4 * len(items) ** 2 / 2**20)
        most = int((memory / (4 * copies)) ** 0.5)
        least = int(np.sort(count)[-most - 1]) + 1 if most < num_items else 1
        raise ConfigError(
            f"item_head.memory_mb: wanted {wanted} or more, for "
            f"{'a matrix' if copies == 1 else f'{copies} matrices'} of {len(items)} items against "
            f"each other in single precision; got {settings.memory_mb}, which hold {most} items. "
            f"Set item_head.min_count to {least}, which leaves the rarer ones out; or set "
            "item_head.neighborhood to some hundreds, which fits each item to those alone that it "
            "was met with most often."
        )
    return items


def _copies(settings: ItemHeadConfig) -> int:
    """How many dense matrices are held at once."""
    return 3 if settings.kind == "slist" else 1


def _fit_whole(settings: ItemHeadConfig, liked: Histories, items: np.ndarray) -> np.ndarray:
    """B of all items at once, <float>[fitted, fitted]."""
    double = _copies(settings) * 8 * len(items) ** 2 <= settings.memory_mb << 20
    dtype = np.float64 if double else np.float32
    history = _history_matrix(liked, items)
    share = settings.whole_share if settings.kind == "slist" else 1.0
    gram = np.zeros([len(items)] * 2, dtype)
    for block, part in _met_together(history):
        gram[block] = share * part.toarray()
    if settings.kind == "ease":
        return fit_autoencoder(gram, l2=settings.l2)
    target = gram.copy()
    for past, future in _split_histories(settings, liked, items):
        for whole, part in ((gram, past.tocoo()), (target, future.tocoo())):
            whole[part.row, part.col] += (1 - share) * part.data
    return fit_autoencoder(gram, l2=settings.l2, target=target)


def _fit_locally(
    settings: ItemHeadConfig, liked: Histories, items: np.ndarray
) -> scipy.sparse.csr_matrix:
    """B with each column fitted to its neighborhood alone, as in fsSLIM (Ning and Karypis 2011)
    with a ridge penalty in place of their elastic net; with a neighborhood of all items it is the
    same as `_fit_whole`.

    Raises:
      ConfigError: where even the pairs that were met together do not fit.
    """
    history = _history_matrix(liked, items)
    share = settings.whole_share if settings.kind == "slist" else 1.0
    parts, size = [], 0
    for block, part in _met_together(history):
        parts.append(part)
        size += 12 * part.nnz
        if size > settings.memory_mb << 20:
            done = block.stop / len(items)
            raise ConfigError(
                f"item_head.memory_mb: wanted about {size / done / 2**20:.0f}, for all pairs of "
                f"{len(items)} items that anyone met together; got {settings.memory_mb}. Set it "
                "higher, or raise item_head.min_count, which leaves rare items out."
            )
    gram = scipy.sparse.vstack(parts).tocsr().astype(np.float64) * share
    target = gram
    if settings.kind == "slist":
        target = gram.copy()
        for past, future in _split_histories(settings, liked, items):
            gram = gram + (1 - share) * past
            target = target + (1 - share) * future
    outputs = target.tocsc()
    rows, columns, values = [], [], []
    for j in range(len(items)):
        span = slice(outputs.indptr[j], outputs.indptr[j + 1])
        near, met = outputs.indices[span], outputs.data[span]
        near, met = near[near != j], met[near != j]
        kept = np.sort(np.argsort(-met, kind="stable")[: settings.neighborhood])
        near, met = near[kept], met[kept]
        if not len(near):
            continue
        inner = gram[near][:, near].toarray()
        np.fill_diagonal(inner, inner.diagonal() + settings.l2)
        rows.append(near)
        columns.append(np.full(len(near), j))
        values.append(scipy.linalg.solve(inner, met, assume_a="pos", overwrite_a=True))
    shape = (len(items), len(items))
    if not rows:
        return scipy.sparse.csr_matrix(shape, dtype=np.float64)
    place = (np.concatenate(rows), np.concatenate(columns))
    return scipy.sparse.csr_matrix((np.concatenate(values), place), shape)


def _history_matrix(liked: Histories, items: np.ndarray) -> scipy.sparse.csr_matrix:
    """Who met which of some items, <float32>[user, fitted] of ones."""
    user = np.repeat(np.arange(len(liked.offset) - 1), np.diff(liked.offset))
    place = _places(items, liked.item)
    known = place >= 0
    ones = np.ones(int(known.sum()), np.float32)
    shape = (len(liked.offset) - 1, len(items))
    return scipy.sparse.csr_matrix((ones, (user[known], place[known])), shape)


def _places(items: np.ndarray, item: np.ndarray) -> np.ndarray:
    """Where items stand among those that are fitted, -1 for none."""
    at = np.minimum(np.searchsorted(items, item), len(items) - 1)
    return np.where(items[at] == item, at, -1)


def _met_together(
    history: scipy.sparse.csr_matrix,
) -> Iterator[tuple[slice, scipy.sparse.csr_matrix]]:
    """X'X of <float32>[user, item] in blocks of rows, each <float32>[row, item]."""
    num_items = history.shape[1]
    by_item = history.T.tocsr()
    size = max(1, CELLS // num_items)
    for start in range(0, num_items, size):
        block = slice(start, min(start + size, num_items))
        yield block, (by_item[block] @ history).tocsr()


def _split_histories(
    settings: ItemHeadConfig, liked: Histories, items: np.ndarray
) -> Iterator[tuple[scipy.sparse.csr_matrix, scipy.sparse.csr_matrix]]:
    """S'S and S'T of histories that are cut into past and future at every place, in blocks of
    users, each <float64>[fitted, fitted].

    At a cut behind place p of n, the item at place a <= p counts x^(p - a) in S and one at b > p
    counts y^(b - p - 1) in T, with x = exp(-1 / history_decay) and y = exp(-1 / target_decay)
    (Choi et al. 2021, section 3.3). Over all cuts that is, for places a <= b,

        S'S_ab = x^(b - a) (1 - x^(2 (n - 1 - b))) / (1 - x^2)
        S'T_ab = sum over q from 0 to b - a - 1 of x^q y^(b - a - 1 - q)

    so that no row of S is ever written down.
    """
    x, y = (np.exp(-1.0 / age) for age in (settings.history_decay, settings.target_decay))
    reach = int(np.ceil(-np.log(LEAST) * max(settings.history_decay, settings.target_decay))) + 1
    longest = int(np.diff(liked.offset).max(initial=0))
    reach = max(1, min(reach, longest - 1))
    # By b - a; 0 for the place itself.
    future = np.zeros(reach + 1)
    for apart in range(1, reach + 1):
        future[apart] = x * future[apart - 1] + y ** (apart - 1)
    shape = (len(items), len(items))
    length = np.diff(liked.offset)
    block_ends = np.searchsorted(
        np.cumsum(length), np.arange(0, length.sum(), max(1, CELLS // (reach + 1))), side="left"
    )
    edges = np.unique(np.concatenate([[0], block_ends + 1, [len(length)]]))
    edges = edges[edges <= len(length)]
    for start, stop in zip(edges[:-1], edges[1:], strict=True):
        span = slice(liked.offset[start], liked.offset[stop])
        place = _places(items, liked.item[span])
        n = np.repeat(length[start:stop], length[start:stop])
        first = np.repeat(liked.offset[start:stop] - liked.offset[start], length[start:stop])
        at = np.arange(len(place)) - first
        row, column, of_past, of_future = [], [], [], []
        for apart in range(reach + 1):
            b = np.flatnonzero(at >= apart)
            a = b - apart
            known = (place[a] >= 0) & (place[b] >= 0)
            a, b = a[known], b[known]
            row.append(place[a])
            column.append(place[b])
            left = n[b] - 1 - at[b]
            of_past.append(x**apart * (1 - x ** (2.0 * left)) / (1 - x**2))
            of_future.append(np.full(len(a), future[apart]))
        index = (np.concatenate(row), np.concatenate(column))
        upper = scipy.sparse.csr_matrix((np.concatenate(of_past), index), shape)
        # An item stands once in a history, so that the diagonal comes of apart = 0 alone.
        past = upper + upper.T - scipy.sparse.diags(upper.diagonal())
        after = scipy.sparse.csr_matrix((np.concatenate(of_future), index), shape)
        yield past.tocsr(), after
