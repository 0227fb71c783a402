"""How good the recommendations are: every item ranked for every user, train items left out."""

from collections.abc import Iterable, Iterator

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from mmrec_tf.dataset import Dataset
from mmrec_tf.errors import DatasetError
from mmrec_tf.metrics import mean_metrics, retrieval_metrics, top_k
from mmrec_tf.recommender import Recommender
from mmrec_tf.retrieval import RetrievalModel
from mmrec_tf.runs import Run

BLOCK = 1024


def relevant_items(dataset: Dataset, split: str) -> tuple[np.ndarray, tuple]:
    """Who is evaluated on a split, and on what.

    Returns:
      The users with at least one interaction in the split <int64>[n], and their items as
      (offsets <int64>[n + 1], items <int32>[pair]).

    Raises:
      DatasetError: for a split without interactions.
    """
    data = dataset.interactions(split)
    if not len(data.user):
        raise DatasetError(f"{dataset.directory}: the {split} split has no interactions.")
    users, count = np.unique(data.user, return_counts=True)
    return users, (np.concatenate([[0], np.cumsum(count)]), data.item)


def _blocks(num_users: int, desc: str) -> Iterator[slice]:
    with tqdm(total=num_users, desc=desc, unit="user", disable=None, leave=False) as progress:
        for start in range(0, num_users, BLOCK):
            block = slice(start, min(start + BLOCK, num_users))
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
    two_stage = isinstance(model, Recommender)
    retrieval = model.retrieval if two_stage else model
    histories = dataset.histories()
    length = retrieval.config.user.history_length
    if not two_stage:
        embedding = tf.constant(retrieval.embed_catalog().embedding)
        vectors = retrieval.candidates(embedding, retrieval.tables["log_frequency"])

    def score(user, history):
        rows = tf.gather(embedding, tf.maximum(history, 0))
        queries = retrieval.queries(retrieval.embed_users(user, rows, history >= 0))
        return tf.matmul(queries, vectors, transpose_b=True)

    tops = []
    for block in _blocks(len(users), "rank"):
        some = users[block]
        user = tf.constant(some, tf.int32)
        history = tf.constant(histories.last(some, length))
        if two_stage:
            widest = int((histories.offset[some + 1] - histories.offset[some]).max())
            exclude = tf.constant(histories.last(some, max(widest, 1)))
            top = model.recommend_items(user, history, exclude, k=k)[0].numpy()
            padding = ((0, 0), (0, k - top.shape[1]))
            tops.append(np.pad(top, padding, constant_values=-1))
        else:
            scores = score(user, history).numpy()
            tops.append(top_k(scores, k, exclude=histories.pairs(some)))
    return np.concatenate(tops)


def evaluate_users(
    model: RetrievalModel | Recommender | None,
    dataset: Dataset,
    *,
    split: str = "test",
    ks: Iterable[int] = (10, 20),
) -> dict[str, np.ndarray]:
    """`evaluate` before the mean: each metric of each user of the split, <float64>[user]."""
    ks = sorted(set(ks))
    users, relevant = relevant_items(dataset, split)
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
) -> dict[str, float]:
    """Ranks every item for each user with an interaction in a split, and compares.

    A user's history and mask are the train split's, whatever the split.

    Args:
      model: RetrievalModel; Recommender for what is left after both stages; None for the most
        popular items, the baseline.
      dataset: Dataset.
      split: "valid" or "test".
      ks: cut-offs.

    Returns:
      By name such as "recall@10", the mean over users; see `mmrec_tf.metrics.retrieval_metrics`.

    Raises:
      DatasetError: for a split without interactions.
    """
    return mean_metrics(evaluate_users(model, dataset, split=split, ks=ks))


def rank_by_popularity(dataset: Dataset, users: np.ndarray, *, k: int) -> np.ndarray:
    """As `rank_items`, by the number of train interactions."""
    histories, count = dataset.histories(), dataset.catalog.train_count.astype(np.float32)
    return np.concatenate(
        [
            top_k(
                np.tile(count, (block.stop - block.start, 1)),
                k,
                exclude=histories.pairs(users[block]),
            )
            for block in _blocks(len(users), "popularity")
        ]
    )


def evaluate_run(run: Run, *, split: str, ks: Iterable[int], stage: str = "retrieval") -> dict:
    """The figures of a run beside those of the baselines.

    Args:
      run: Run.
      split: "valid" or "test".
      ks: cut-offs.
      stage: "retrieval", or "recommender" for what is left after ranking too.

    Returns:
      `{"split", "users", "model", "popularity", "id_only"}`; the last three hold metrics by name,
      `id_only` is None for a run without a twin.
    """
    ks = list(ks)
    dataset, twin = run.dataset, run.twin

    def measure(part: Run) -> dict[str, float]:
        model = part.recommender() if stage == "recommender" else part.retrieval
        return evaluate(model, dataset, split=split, ks=ks)

    return {
        "split": split,
        "users": len(relevant_items(dataset, split)[0]),
        "model": measure(run),
        "popularity": evaluate(None, dataset, split=split, ks=ks),
        "id_only": measure(twin) if twin is not None else None,
    }
