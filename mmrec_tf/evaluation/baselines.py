"""What a model has to beat: rankings that need no neural network.

score = BASELINES["ease"](dataset, None)
score(np.array([3, 7]))  # <float32>[2, item], higher is better
rank_by(score, dataset, users, k=10)

As a model's weights do, what is fitted reads train, whatever the history: similarities, weights,
factors. What a user did is that of the history: the items that similarities are summed over, what
is left out, and what popularity counts.
"""

import types
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import numpy as np
import scipy.linalg
import scipy.sparse

from mmrec_tf.dataset.directory import Dataset
from mmrec_tf.errors import ConfigError, did_you_mean
from mmrec_tf.evaluation.metrics import ItemVectors, mean_metrics, retrieval_metrics, top_k

# Users ranked at once: so many, or fewer, so that their scores stay below 128 MiB.
BLOCK, SCORES = 1024, 1 << 25
# Matrices of items against items are dense: at this many, 1.6 GB in single precision.
MAX_ITEMS = 20_000
EASE_L2 = 50.0
FACTORS = 64
IALS_ALPHA = 10.0
# What suits a dataset differs by orders of magnitude, so the valid split has to say.
IALS_L2 = (10.0, 30.0, 100.0)
BPR_L2 = (0.01, 0.03, 0.1)
CHOICE = "ndcg@10"

Score = Callable[[np.ndarray], np.ndarray]


class Baseline(Protocol):
    """What makes a `Score`."""

    def __call__(
        self, dataset: Dataset, vectors: ItemVectors | None, *, history: str = "train"
    ) -> Score:
        """Fits to the train split of a dataset.

        Args:
          dataset: Dataset.
          vectors: of the items' content; None where there are none.
          history: what is known of users when they are scored, as for
            `Dataset.known_interactions`.
        """


def history_matrix(dataset: Dataset, history: str) -> scipy.sparse.csr_matrix:
    """Who met what, as <float32>[user, item] of zeros and ones."""
    known = dataset.known_interactions(history)
    shape = (dataset.schema.num_users, dataset.schema.num_items)
    ones = np.ones(len(known.user), np.float32)
    matrix = scipy.sparse.csr_matrix((ones, (known.user, known.item)), shape)
    matrix.data[:] = 1  # The same pair twice was summed up.
    return matrix


def rank_by(
    score: Score, dataset: Dataset, users: np.ndarray, *, k: int, history: str = "train"
) -> np.ndarray:
    """The first k items for each user, known items left out.

    Args:
      score: <int>[n] numbers of users -> <float32>[n, item].
      dataset: Dataset.
      users: <int>[n].
      k: int.
      history: as for `Dataset.known_interactions`.

    Returns:
      <int32>[n, k], best first; -1 behind the last one where fewer are left.
    """
    histories = dataset.histories(history=history)
    size = min(BLOCK, max(1, SCORES // dataset.schema.num_items))
    blocks = [users[start : start + size] for start in range(0, len(users), size)]
    return np.concatenate([top_k(score(some), k, exclude=histories.pairs(some)) for some in blocks])


def popularity(dataset: Dataset, vectors: ItemVectors | None, *, history: str = "train") -> Score:
    """The same for everyone: the number of known interactions."""
    count = dataset.known_count(history).astype(np.float32)
    return lambda users: np.tile(count, (len(users), 1))


def item_knn(dataset: Dataset, vectors: ItemVectors | None, *, history: str = "train") -> Score:
    """Items that the same users met: cosine between columns (Sarwar et al. 2001), all neighbors.

    Raises:
      ConfigError: for more than `MAX_ITEMS` items, as all others that compare items with items.
    """
    _require_few(dataset, "item_knn")
    train = history_matrix(dataset, "train")
    norm = np.sqrt(np.maximum(np.asarray(train.sum(axis=0)).ravel(), 1))
    similarity = (train.T @ train).toarray() / norm[:, None] / norm[None, :]
    return _linear(history_matrix(dataset, history), similarity)


def content_knn(dataset: Dataset, vectors: ItemVectors | None, *, history: str = "train") -> Score:
    """Items that are alike: cosine between the vectors of frozen encoders, the mean over the
    modalities that both have. It reaches items that nobody has met, and knows no popularity.

    Raises:
      ConfigError: without such vectors.
    """
    if vectors is None:
        raise ConfigError(
            "content_knn: wanted vectors of frozen encoders; this model has none. Measure a run "
            "with a modality whose trainable_layers is 0."
        )
    _require_few(dataset, "content_knn")
    similarity, _ = vectors.similarity(np.arange(dataset.schema.num_items))
    return _linear(history_matrix(dataset, history), similarity)


def ease(dataset: Dataset, vectors: ItemVectors | None, *, history: str = "train") -> Score:
    """The embarrassingly shallow autoencoder (Steck 2019, eq. 8) with a penalty of `EASE_L2`."""
    _require_few(dataset, "ease")
    train = history_matrix(dataset, "train")
    gram = (train.T @ train).toarray().astype(np.float64)
    return _linear(history_matrix(dataset, history), fit_autoencoder(gram, l2=EASE_L2))


def fit_autoencoder(gram: np.ndarray, *, l2: float, target: np.ndarray | None = None) -> np.ndarray:
    """The matrix B that foretells items from items with the least squared error, plus `l2` times
    its own square, no item from itself:

        B = P (T - diag(g)),  P = (G + l2 I)^-1,  g such that B has a diagonal of zeros

    With T = G, one history on both sides, that is B_ij = -P_ij / P_jj (Steck 2019, eq. 8).

    Args:
      gram: <float>[item, item], G, what the inputs have in common; overwritten.
      l2: the penalty, above 0.
      target: <float>[item, item], T, what inputs (rows) and outputs (columns) have in common; None
        where the outputs are the inputs.

    Returns:
      <float>[item, item]; an item's weights for all others lie in its row.
    """
    np.fill_diagonal(gram, gram.diagonal() + l2)
    # In place, which LAPACK does for columns that lie together only; the matrix is symmetric.
    inverse = scipy.linalg.inv(gram.T, overwrite_a=True)
    if target is None:
        inverse /= -inverse.diagonal()
        np.fill_diagonal(inverse, 0)
        return inverse
    weights = inverse @ target
    inverse *= weights.diagonal() / inverse.diagonal()
    weights -= inverse
    np.fill_diagonal(weights, 0)
    return weights


def ials(dataset: Dataset, vectors: ItemVectors | None, *, history: str = "train") -> Score:
    """Weighted matrix factorization (Hu et al. 2008), of `implicit`.

    The penalty is that of `IALS_L2` which ranks the valid split best. Users whose history holds
    more than train are solved for anew, against the items' factors as they are.

    Raises:
      ConfigError: where `implicit` is not installed.
    """
    model = _implicit("ials").als.AlternatingLeastSquares
    best = _best(
        dataset,
        (
            model(factors=FACTORS, alpha=IALS_ALPHA, regularization=l2, random_state=0)
            for l2 in IALS_L2
        ),
    )
    users = best.user_factors
    if history != "train":
        known = history_matrix(dataset, history)
        users = best.recalculate_user(np.arange(known.shape[0]), known)
    return _dot(users, best.item_factors)


def bpr(dataset: Dataset, vectors: ItemVectors | None, *, history: str = "train") -> Score:
    """Matrix factorization under a pairwise loss (Rendle et al. 2009), of `implicit`.

    The penalty is that of `BPR_L2` which ranks the valid split best. Negatives are drawn as often
    as items were met, so little is learned of how popular these are. A user's factors are those
    of train, whatever the history.

    Raises:
      ConfigError: where `implicit` is not installed.
    """
    model = _implicit("bpr").bpr.BayesianPersonalizedRanking
    best = _best(
        dataset,
        # On one thread, as several overwrite each other's steps, and no two runs are the same.
        (model(factors=FACTORS, regularization=l2, num_threads=1, random_state=0) for l2 in BPR_L2),
    )
    return _dot(best.user_factors, best.item_factors)


BASELINES: dict[str, Baseline] = {
    "popularity": popularity,
    "item_knn": item_knn,
    "content_knn": content_knn,
    "ease": ease,
    "ials": ials,
    "bpr": bpr,
}


def baseline_names(names: Iterable[str]) -> list[str]:
    """Names of baselines, each once; "all" stands for all of them.

    Raises:
      ConfigError: for an unknown one.
    """
    found: list[str] = []
    for name in names:
        if name != "all" and name not in BASELINES:
            raise ConfigError(f"unknown baseline {name!r}{did_you_mean(name, BASELINES)}")
        found += BASELINES if name == "all" else [name]
    return list(dict.fromkeys(found))


def _require_few(dataset: Dataset, name: str) -> None:
    num_items = dataset.schema.num_items
    if num_items > MAX_ITEMS:
        raise ConfigError(
            f"{name}: wanted at most {MAX_ITEMS} items, as it compares each with each in memory; "
            f"got {num_items}. Leave it out, or compare with ials."
        )


def _linear(known: scipy.sparse.csr_matrix, weights: np.ndarray) -> Score:
    """Sums an item's weights over a user's known items; no item speaks for itself."""
    weights = weights.astype(np.float32, copy=False)
    np.fill_diagonal(weights, 0)
    return lambda users: np.asarray(known[users] @ weights)


def _implicit(name: str) -> types.ModuleType:
    """The package's models for the CPU: those for a GPU are others and give other figures."""
    try:
        import implicit.cpu.als
        import implicit.cpu.bpr
    except ImportError as error:
        raise ConfigError(
            f"{name}: wanted the package implicit; install it with pip install "
            f'"mmrec_tf[baselines]".'
        ) from error
    return implicit.cpu


def _best(dataset: Dataset, models: Iterable) -> Any:
    """The model, fitted to train, that ranks the valid split best; the first where that is
    empty."""
    from threadpoolctl import threadpool_limits  # implicit depends on it.

    train, valid = history_matrix(dataset, "train"), dataset.interactions("valid")
    users, count = np.unique(valid.user, return_counts=True)
    relevant = (np.concatenate([[0], np.cumsum(count)]), valid.item)
    found: list[tuple[float, Any]] = []
    # implicit has threads of its own, which those of its linear algebra only get in the way of.
    with threadpool_limits(1, user_api="blas"):
        for model in models:
            model.fit(train, show_progress=False)
            score, value = _dot(model.user_factors, model.item_factors), 0.0
            if len(users):
                top = rank_by(score, dataset, users, k=10)
                value = mean_metrics(retrieval_metrics(top, relevant, ks=[10]))[CHOICE]
            found.append((value, model))
    return max(found, key=lambda pair: pair[0])[1]


def _dot(users: np.ndarray, items: np.ndarray) -> Score:
    return lambda numbers: users[numbers] @ items.T
