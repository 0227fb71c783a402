"""How good the recommendations are: every item ranked for every user, known ones left out."""

from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np

from mmrec_tf.dataset.directory import Dataset
from mmrec_tf.errors import ConfigError, DatasetError
from mmrec_tf.evaluation.baselines import BASELINES, BLOCK, SCORES, rank_by
from mmrec_tf.evaluation.metrics import mean_metrics, retrieval_metrics
from mmrec_tf.records.progress import show_progress
from mmrec_tf.schema import HISTORIES

# Fewer users at once than these, and multiplying matrices turns slow.
FEWEST = 128


class Ranker(Protocol):
    """What can be evaluated: a retrieval model, a ranking model, a recommender, or anything else
    that ranks the catalog."""

    def rank_items(
        self, dataset: Dataset, users: np.ndarray, *, k: int, history: str = "train"
    ) -> np.ndarray:
        """The first k items for each user, of all items that are not in the user's history.

        Args:
          dataset: Dataset.
          users: <int>[n] numbers of users.
          k: int.
          history: whose interactions the ranking knows, and leaves out, as for
            `Dataset.known_interactions`.

        Returns:
          <int32>[n, k], best first; padded on the right with -1 where fewer are left.
        """
        ...


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


def require_history(split: str, history: str) -> None:
    """Refuses a history that holds the very interactions that it is measured on.

    Raises:
      ConfigError: for such a history, or an unknown one.
    """
    if history not in HISTORIES or (history != "train" and split in HISTORIES[history]):
        allowed = "train or train+valid" if split == "test" else "train"
        raise ConfigError(
            f"history: wanted {allowed} on the {split} split, which must not be known beforehand; "
            f"got {history!r}."
        )


def blocks(num_users: int, num_items: int, *, most: int = BLOCK) -> Iterator[slice]:
    """Ranges of users to rank at once, with progress on stderr.

    Args:
      num_users: int.
      num_items: that each is compared with.
      most: users in a range.
    """
    size = min(most, max(FEWEST, SCORES // num_items))
    with show_progress(total=num_users, desc="rank", unit="user", leave=False) as progress:
        for start in range(0, num_users, size):
            block = slice(start, min(start + size, num_users))
            yield block
            progress.update(block.stop - block.start)


def evaluate_users(
    model: Ranker | None,
    dataset: Dataset,
    *,
    split: str = "test",
    ks: Iterable[int] = (10, 20),
    min_rating: float | None = None,
    history: str = "train",
) -> dict[str, np.ndarray]:
    """`evaluate` before the mean: each metric of each user of the split, <float64>[user]."""
    require_history(split, history)
    ks = sorted(set(ks))
    users, relevant = relevant_items(dataset, split, min_rating=min_rating)
    if model is None:
        top = rank_by_popularity(dataset, users, k=ks[-1], history=history)
    else:
        top = model.rank_items(dataset, users, k=ks[-1], history=history)
    return retrieval_metrics(top, relevant, ks=ks)


def evaluate(
    model: Ranker | None,
    dataset: Dataset,
    *,
    split: str = "test",
    ks: Iterable[int] = (10, 20),
    min_rating: float | None = None,
    history: str = "train",
) -> dict[str, float]:
    """Ranks every item for each user with an interaction in a split, and compares.

    What the model was trained on is train, whatever the split and the history.

    Args:
      model: RetrievalModel; RankingModel or Recommender for what is left after both stages; None
        for the most popular items, the baseline.
      dataset: Dataset.
      split: "valid" or "test".
      ks: cut-offs.
      min_rating: interactions with a lower rating do not count; None counts all.
      history: the interactions that the model reads as a user's history and never recommends:
        "train", the only one on valid; or "train+valid", on test.

    Returns:
      By name such as "recall@10", the mean over users; see
      `mmrec_tf.evaluation.metrics.retrieval_metrics`.

    Raises:
      DatasetError: for a split without interactions.
      ConfigError: for a history that holds the split.
    """
    per_user = evaluate_users(
        model, dataset, split=split, ks=ks, min_rating=min_rating, history=history
    )
    return mean_metrics(per_user)


def rank_by_popularity(
    dataset: Dataset, users: np.ndarray, *, k: int, history: str = "train"
) -> np.ndarray:
    """As `Ranker.rank_items`, by the number of interactions."""
    score = BASELINES["popularity"](dataset, None, history=history)
    return rank_by(score, dataset, users, k=k, history=history)
