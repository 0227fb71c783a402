"""What train tells of a planted world to one who is told the clusters.

The ceiling ranks by the truth itself, which 20 interactions of a user cannot show, however well
they are read. An estimator that knows which item is of which cluster, as content could say at best,
and otherwise sees train alone, says how much of that was there to be learned.
"""

from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

_STEPS = 10
_PRIOR = 1.0  # interactions of each user that follow everyone's liking


def estimate(
    train: scipy.sparse.csr_matrix, cluster: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What users like, and how popular items are within their clusters.

    A user meets an item once at most, so what is popular has fewer interactions than its share.
    Items that are drawn without replacement come like the first events of Poisson processes of
    rate A[user, cluster] * p[item], and train says which had any. The most likely A and p are found
    by expectation maximization (Dempster, Laird and Rubin 1977), with an interaction at rate x
    standing for x / (1 - exp(-x)) events:

        A[u, c] = sum of u's events in c,   p[i] = sum of i's events / sum of A[:, c(i)]

    Args:
      train: sparse `<bool>[user, item]`, what was met.
      cluster: <int64>[item], from 0.

    Returns:
      Liking <float64>[user, cluster], which sums to 1 for each user, and popularity
      <float64>[item], which sums to 1 within each cluster. An item that nobody met is as popular as
      its cluster's items are on average, which is all that can be known of it.
    """
    num_users, num_items = train.shape
    num_clusters = int(cluster.max()) + 1
    met = train.tocoo()
    user, item = met.row.astype(np.int64), met.col.astype(np.int64)
    cell = user * num_clusters + cluster[item]

    def by_cluster(of_items: NDArray[Any]) -> NDArray[np.float64]:
        summed: NDArray[np.float64] = np.bincount(cluster, of_items, num_clusters).astype(float)
        return summed

    events = np.ones([len(user)])
    for step in range(_STEPS + 1):
        rate = np.bincount(cell, weights=events, minlength=num_users * num_clusters)
        count = np.bincount(item, weights=events, minlength=num_items)
        popularity = count / np.maximum(by_cluster(count), 1e-12)[cluster]
        if step < _STEPS:
            expected = rate[cell] * popularity[item]
            events = expected / -np.expm1(-expected)
    share = by_cluster(count) + _PRIOR
    liking = rate.reshape(num_users, num_clusters) + _PRIOR * share / share.sum()
    size, num_met = by_cluster(np.ones([num_items])), by_cluster(count > 0)
    popularity = np.where(count > 0, popularity * num_met[cluster], 1.0) / size[cluster]
    return liking / liking.sum(axis=1, keepdims=True), popularity
