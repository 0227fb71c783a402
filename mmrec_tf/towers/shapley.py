"""Shapley values: what each of some players adds to a whole that is no sum of them.

The Shapley value (Shapley 1953) of a player is what it adds to those before it, on average over all
orders in which players may come; values sum to the whole less what is there without any player.
"""

import math
from collections.abc import Callable

import numpy as np

# So many players are counted exactly: 64 sets of them.
MOST_EXACT = 6
# Beyond, so many orders are drawn, and each is taken backwards, too.
NUM_ORDERS = 16


def subsets(players: int) -> np.ndarray:
    """All sets of some players, <bool>[2 ** players, player]: row n holds the players whose bit is
    set in n."""
    return (np.arange(2**players)[:, None] >> np.arange(players)) % 2 == 1


def exact(values: np.ndarray) -> np.ndarray:
    """Shapley values by definition.

    Args:
      values: <float>[2 ** players, ...], the whole that each of `subsets` makes.

    Returns:
      <float64>[player, ...]: the sum over sets S without the player of
      |S|! (n - |S| - 1)! / n! * (v(S + player) - v(S)). They sum to values[-1] - values[0].
    """
    values = np.asarray(values, np.float64)
    players = int(len(values)).bit_length() - 1
    found = np.zeros([players, *values.shape[1:]])
    for number in range(len(values)):
        size = number.bit_count()
        if size == players:
            continue
        ways = math.factorial(size) * math.factorial(players - size - 1)
        weight = ways / math.factorial(players)
        for player in range(players):
            if not number >> player & 1:
                found[player] += weight * (values[number | 1 << player] - values[number])
    return found


def orders(players: int, *, seed: int = 0) -> np.ndarray:
    """Orders in which players come, each beside the same backwards, <int64>[order, player]."""
    rng = np.random.default_rng(seed)
    drawn = [rng.permutation(players) for _ in range(NUM_ORDERS)]
    return np.array([order for one in drawn for order in (one, one[::-1])], np.int64)


def estimate(value: Callable[[np.ndarray], np.ndarray], players: int) -> np.ndarray:
    """Shapley values, exact for up to `MOST_EXACT` players, else averaged over drawn orders (Castro
    et al. 2009), each beside its reverse (Mitchell et al. 2022).

    Whatever the orders, what players add along one sums to the whole, so that the estimate's sum is
    exact, and only how it is dealt out among the players is estimated.

    Args:
      value: from sets <bool>[set, player] to the whole that each makes, <float>[set, ...].
      players: how many there are.

    Returns:
      <float64>[player, ...].
    """
    if not players:
        return np.zeros([0, *np.asarray(value(np.zeros([1, 0], bool))).shape[1:]])
    if players <= MOST_EXACT:
        return exact(value(subsets(players)))
    drawn = orders(players)
    sets = np.zeros([len(drawn), players + 1, players], bool)
    for row, order in enumerate(drawn):
        for step, player in enumerate(order.tolist()):
            sets[row, step + 1 :, player] = True
    made = np.asarray(value(sets.reshape([-1, players])), np.float64)
    made = made.reshape([len(drawn), players + 1, *made.shape[1:]])
    added = np.diff(made, axis=1)
    found = np.zeros([players, *made.shape[2:]])
    for row, order in enumerate(drawn):
        found[order] += added[row]
    return found / len(drawn)
