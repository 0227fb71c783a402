"""How good the recommendations are: every item ranked for every user, train items left out."""

import concurrent.futures
import sys
from collections.abc import Iterable, Iterator

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from mmrec_tf.dataset.directory import Dataset
from mmrec_tf.errors import ConfigError, DatasetError
from mmrec_tf.evaluation.baselines import BASELINES, BLOCK, SCORES, baseline_names, rank_by
from mmrec_tf.evaluation.metrics import (
    ItemVectors,
    coverage,
    diversity,
    gini,
    mean_metrics,
    novelty,
    paired_bootstrap,
    retrieval_metrics,
    top_k,
)
from mmrec_tf.recommender.recommender import Recommender
from mmrec_tf.retrieval.index import LOWEST
from mmrec_tf.retrieval.model import RetrievalModel
from mmrec_tf.runs.run import Run

# Fewer users at once than these, and multiplying matrices turns slow.
FEWEST = 128
# Of each slice these two are told, of everything else all metrics.
SLICE_METRICS = ("recall", "ndcg")


def relevant_items(
    dataset: Dataset, split: str, *, min_rating: float | None = None
) -> tuple[np.ndarray, tuple]:
    """Who is evaluated on a split, and on what.

    Args:
      dataset: Dataset.
      split: "train", "valid" or "test".
      min_rating: interactions with a lower rating do not count; None counts all.

    Returns:
      The users with at least one interaction in the split <int64>[n], and their items as
      (offsets <int64>[n + 1], items <int32>[pair]).

    Raises:
      DatasetError: for a split without interactions.
    """
    data = dataset.interactions(split)
    user, item = data.user, data.item
    if min_rating is not None:
        user, item = user[data.rating >= min_rating], item[data.rating >= min_rating]
    if not len(user):
        rated = "" if min_rating is None else f" rated {min_rating:g} or higher"
        raise DatasetError(f"{dataset.directory}: the {split} split has no interactions{rated}.")
    users, count = np.unique(user, return_counts=True)
    return users, (np.concatenate([[0], np.cumsum(count)]), item)


def blocks(num_users: int, num_items: int, *, most: int = BLOCK) -> Iterator[slice]:
    """Ranges of users to rank at once, with progress on stderr.

    Args:
      num_users: int.
      num_items: that each is compared with.
      most: users in a range.
    """
    size = min(most, max(FEWEST, SCORES // num_items))
    with tqdm(total=num_users, desc="rank", unit="user", disable=None, leave=False) as progress:
        for start in range(0, num_users, size):
            block = slice(start, min(start + size, num_users))
            yield block
            progress.update(block.stop - block.start)


def rank_items(
    model: RetrievalModel | Recommender, dataset: Dataset, users: np.ndarray, *, k: int
) -> np.ndarray:
    """The first k items for each user, of all items that are not among the user's train items.

    Args:
      model: RetrievalModel, or Recommender for both stages.
      dataset: Dataset.
      users: <int>[n] numbers of users.
      k: int.

    Returns:
      <int32>[n, k], best first; -1 behind the last one where fewer are left.
    """
    if isinstance(model, Recommender):
        return _recommend_items(model, dataset, users, k=k)
    histories = dataset.histories()
    liked = dataset.histories(disliked_below=model.config.retrieval.disliked_below)
    length = model.config.user.history_length
    embedding = tf.constant(model.embed_catalog().embedding)
    vectors = model.candidates(embedding, model.tables["log_frequency"])
    tops: list[concurrent.futures.Future] = []
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        for block in blocks(len(users), dataset.schema.num_items):
            some = users[block]
            history, gap, _ = map(tf.constant, liked.read(some, length))
            rows = tf.gather(embedding, tf.maximum(history, 0))
            user = tf.constant(some, tf.int32)
            queries = model.queries(model.embed_users(user, rows, history >= 0, gap=gap))
            # A copy, so it may be written to.
            scores = tf.matmul(queries, vectors, transpose_b=True).numpy()
            scores[histories.pairs(some)] = -np.inf
            # One block is sorted while the next one is scored; no more of them stay in memory.
            concurrent.futures.wait(tops[-1:])
            tops.append(pool.submit(top_k, scores, k))
    return np.concatenate([top.result() for top in tops])


def _recommend_items(
    recommender: Recommender, dataset: Dataset, users: np.ndarray, *, k: int
) -> np.ndarray:
    """`rank_items` of both stages."""

    def recommend(user):
        history, gap, met = recommender.read_history(user)
        shown = recommender.recommend_items(user, history, gap, met, k=k)
        return tf.where(shown.score > LOWEST, shown.item, -1)

    graph = recommender.graph(("items", k), recommend, [tf.TensorSpec([None], tf.int32)])
    tops = [
        graph(tf.constant(users[block], tf.int32)).numpy()
        for block in blocks(len(users), dataset.schema.num_items)
    ]
    top = np.concatenate(tops)
    return np.pad(top, ((0, 0), (0, k - top.shape[1])), constant_values=-1)


def evaluate_users(
    model: RetrievalModel | Recommender | None,
    dataset: Dataset,
    *,
    split: str = "test",
    ks: Iterable[int] = (10, 20),
    min_rating: float | None = None,
) -> dict[str, np.ndarray]:
    """`evaluate` before the mean: each metric of each user of the split, <float64>[user]."""
    ks = sorted(set(ks))
    users, relevant = relevant_items(dataset, split, min_rating=min_rating)
    if model is None:
        top = rank_by_popularity(dataset, users, k=ks[-1])
    else:
        top = rank_items(model, dataset, users, k=ks[-1])
    return retrieval_metrics(top, relevant, ks=ks)


def evaluate(
    model: RetrievalModel | Recommender | None,
    dataset: Dataset,
    *,
    split: str = "test",
    ks: Iterable[int] = (10, 20),
    min_rating: float | None = None,
) -> dict[str, float]:
    """Ranks every item for each user with an interaction in a split, and compares.

    A user's history and mask are the train split's, whatever the split.

    Args:
      model: RetrievalModel; Recommender for what is left after both stages; None for the most
        popular items, the baseline.
      dataset: Dataset.
      split: "valid" or "test".
      ks: cut-offs.
      min_rating: interactions with a lower rating do not count; None counts all.

    Returns:
      By name such as "recall@10", the mean over users; see
      `mmrec_tf.evaluation.metrics.retrieval_metrics`.

    Raises:
      DatasetError: for a split without interactions.
    """
    per_user = evaluate_users(model, dataset, split=split, ks=ks, min_rating=min_rating)
    return mean_metrics(per_user)


def rank_by_popularity(dataset: Dataset, users: np.ndarray, *, k: int) -> np.ndarray:
    """As `rank_items`, by the number of train interactions."""
    return rank_by(BASELINES["popularity"](dataset, None), dataset, users, k=k)


def content_vectors(model: RetrievalModel, dataset: Dataset) -> ItemVectors | None:
    """What the frozen encoders of a model make of the catalog; None for a model without one.

    Those of encoders that train would say what the model has learned, not what the content is.
    """
    frozen = [name for name in model.modalities if model.encoders[name].frozen]
    if not frozen:
        return None
    # Not the model's own table, in which absent content may have been filled in.
    present = dataset.catalog.present
    columns = [list(dataset.schema.modalities).index(name) for name in frozen]
    content = model.tables["content"]
    return ItemVectors({name: np.asarray(content[name]) for name in frozen}, present[:, columns])


def item_slices(dataset: Dataset) -> dict[str, np.ndarray]:
    """Groups of items by how often train met them, by what content they have, and by both.

    Returns:
      By name, <bool>[item]. "warm" has train interactions, "cold" has none; "tail", "middle" and
      "head" are the thirds of the warm items by number of train interactions, equal numbers on
      the same side. "no content", "some content" and "all content" say how many of the dataset's
      modalities an item has, "with text" and "without text" and so on whether it has that one.
      "cold, with text" is in both.
    """
    count, present = dataset.catalog.train_count, dataset.catalog.present
    warm = count > 0
    low, high = np.quantile(count[warm], [1 / 3, 2 / 3]) if warm.any() else (0, 0)
    popularity = {
        "cold": ~warm,
        "tail": warm & (count <= low),
        "middle": (count > low) & (count <= high),
        "head": warm & (count > high),
    }
    content = {}
    if present.shape[1]:
        some, every = present.any(axis=1), present.all(axis=1)
        content = {"no content": ~some, "some content": some & ~every, "all content": every}
    for name, has in zip(dataset.schema.modalities, present.T, strict=True):
        content |= {f"with {name}": has, f"without {name}": ~has}
    both = {f"{p}, {c}": popularity[p] & content[c] for p in popularity for c in content}
    return {"warm": warm, **popularity, **content, **both}


def slice_metrics(
    top: np.ndarray, relevant: tuple[np.ndarray, np.ndarray], members: np.ndarray, ks: Iterable[int]
) -> dict[str, float]:
    """The metrics of a ranking as if only some items had been relevant.

    Args:
      top: <int32>[user, k] of all items, as `rank_items` returns it.
      relevant: as `relevant_items` returns it.
      members: <bool>[item], the slice.
      ks: cut-offs.

    Returns:
      "users", the number of users with a relevant item in the slice, and the mean over these of
      each metric; without metrics where there are none.
    """
    offset, items = relevant
    row = np.repeat(np.arange(len(top)), np.diff(offset))[members[items]]
    kept, count = np.unique(row, return_counts=True)
    inside = (np.concatenate([[0], np.cumsum(count)]), items[members[items]])
    if not len(kept):
        return {"users": 0}
    return {"users": len(kept), **mean_metrics(retrieval_metrics(top[kept], inside, ks=ks))}


def beyond_accuracy(
    top: np.ndarray, dataset: Dataset, vectors: ItemVectors, *, ks: Iterable[int]
) -> dict[str, float | None]:
    """Coverage, Gini, novelty and diversity at each cut-off, see `mmrec_tf.evaluation.metrics`."""
    found: dict[str, float | None] = {}
    for k in ks:
        first = top[:, :k]
        found |= {
            f"coverage@{k}": coverage(first, num_items=dataset.schema.num_items),
            f"gini@{k}": gini(first, num_items=dataset.schema.num_items),
            f"novelty@{k}": novelty(first, probability=dataset.catalog.probability),
            f"diversity@{k}": diversity(first, vectors=vectors),
        }
    return found


def _rank_baselines(
    names: Iterable[str], dataset: Dataset, users: np.ndarray, vectors, *, k: int
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The first k items by each baseline, and why those are missing that could not be made."""
    tops, left_out = {}, {}
    for name in names:
        try:
            score = BASELINES[name](dataset, vectors)
        except ConfigError as error:
            left_out[name] = str(error)
            tqdm.write(f"left out: {error}", file=sys.stderr)
            continue
        tops[name] = rank_by(score, dataset, users, k=k)
    return tops, left_out


def evaluate_run(
    run: Run,
    *,
    split: str,
    ks: Iterable[int],
    stage: str = "retrieval",
    baselines: Iterable[str] = (),
    slices: bool = False,
) -> dict:
    """The figures of a run beside those of what it has to beat.

    Args:
      run: Run.
      split: "valid" or "test".
      ks: cut-offs.
      stage: "retrieval", or "recommender" for what is left after ranking too.
      baselines: names of `mmrec_tf.evaluation.baselines.BASELINES`, or "all"; popularity is
        always there.
      slices: whether to say also how each does on groups of items.

    Returns:
      dict of

      - "split", and "users", the number of users;
      - "model", "popularity" and "id_only", metrics by name; the last is None without a twin;
      - "baselines", by name their metrics;
      - "left_out", by name the reason why a baseline could not be made; also a line on stderr;
      - "differences", by what stands beside the model and by metric, `[mean, low, high]` of
        model minus that, see `mmrec_tf.evaluation.metrics.paired_bootstrap`;
      - "beyond_accuracy", of each, see `beyond_accuracy`; "diversity_of" says whether diversity
        compares "content" (vectors of frozen encoders) or the model's "item embeddings";
      - "slices", only if asked for: by slice (`item_slices`) the number of items and users, and
        recall and NDCG of each.

    Raises:
      ConfigError: for an unknown baseline.
      DatasetError: for a split without interactions.
    """
    names = [name for name in baseline_names(baselines) if name != "popularity"]
    ks = sorted(set(ks))
    dataset, twin = run.dataset, run.twin
    users, relevant = relevant_items(dataset, split)
    vectors = content_vectors(run.retrieval, dataset)

    def rank(part: Run) -> np.ndarray:
        model = part.recommender() if stage == "recommender" else part.retrieval
        return rank_items(model, dataset, users, k=ks[-1])

    tops = {"model": rank(run), "popularity": rank_by_popularity(dataset, users, k=ks[-1])}
    if twin is not None:
        tops["id_only"] = rank(twin)
    others, left_out = _rank_baselines(names, dataset, users, vectors, k=ks[-1])
    tops |= others
    per_user = {name: retrieval_metrics(top, relevant, ks=ks) for name, top in tops.items()}
    means = {name: mean_metrics(values) for name, values in per_user.items()}
    compared = vectors or _embeddings(run.retrieval)
    result = {
        "split": split,
        "users": len(users),
        "model": means["model"],
        "popularity": means["popularity"],
        "id_only": means.get("id_only"),
        "baselines": {name: means[name] for name in others},
        "left_out": left_out,
        "differences": {
            name: {
                metric: list(paired_bootstrap(per_user["model"][metric], values))
                for metric, values in per_user[name].items()
            }
            for name in tops
            if name != "model"
        },
        "diversity_of": "item embeddings" if vectors is None else "content",
        "beyond_accuracy": {
            name: beyond_accuracy(top, dataset, compared, ks=ks) for name, top in tops.items()
        },
    }
    if slices:
        result["slices"] = {
            name: _slice(tops, relevant, members, ks)
            for name, members in item_slices(dataset).items()
        }
    return result


def _embeddings(model: RetrievalModel) -> ItemVectors:
    embedding = model.embed_catalog().embedding
    return ItemVectors({"embedding": embedding}, np.ones([len(embedding), 1], bool))


def _slice(tops: dict[str, np.ndarray], relevant, members: np.ndarray, ks: list[int]) -> dict:
    """One slice of "slices"; users are the same whoever ranks."""
    found: dict = {"items": int(members.sum())}
    for name, top in tops.items():
        values = slice_metrics(top, relevant, members, ks)
        found["users"] = values.pop("users")
        found[name] = {n: v for n, v in values.items() if n.partition("@")[0] in SLICE_METRICS}
    return found
