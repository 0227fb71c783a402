"""The planted world: hidden clusters make items and users, so that the best answer is known.

A cluster is a topic, a style and a timbre. An item's words show its topic, its picture its style
and its sound its timbre: any two of the three name the cluster, one alone leaves several. A user
likes one to three clusters and meets an item with a probability of

    (1 - background) * liking(user, cluster of item) * popularity(item within its cluster)
    + background / number of items.

Train holds items drawn in proportion to it without any cold one; valid and test are drawn later,
together, from all items that are left, and then told apart by lot. So ranking by that probability,
with the train items masked, is the best that any recommender can do: that is the ceiling.

Where there is a context effect, interactions are rated, too: 5 or 1, by the user, the item and the
hour of the day together. Each user leans to one side, each cluster to one, the day has two halves;
whether two of the three agree says nothing of the rating as long as the third is not known. So no
score of a user and an item alone can predict it, whatever they are made of.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from data.sources.synthetic import ceiling, knowable
from mmrec_tf.errors import ConfigError
from mmrec_tf.schema import SPLITS

# Drawn at a time: at most so many users, and so many pairs of a user and an item.
_BLOCK = 1024
_PAIRS = 1 << 19
_ITEMS_PER_CLUSTER = 30
_MOST_CLUSTERS = 16  # unless asked for more
# Topics, styles and timbres. As no two share a divisor, any two tell 5 * 6 clusters apart; with 14
# clusters each of them still leaves at least two.
_ATTRIBUTES = (7, 6, 5)
_FEWEST_FOR_RESIDUES = 14
_TRAIN_ITEMS = (16, 22)  # of a user, from and to
_TARGETS = 3  # of a user, in valid and in test each
_DAY_HOURS = (6, 18)  # of the half of the day that users lean to who are early
_LARGEST_EFFECT = 20  # beyond it, chance is lost in rounding


@dataclass(frozen=True)
class World:
    """The settings of a planted world.

    Attributes:
      num_users: at least 1.
      num_items: at least 12.
      num_clusters: at least 4, at most 30; by default one for 30 items, but 4 to 16.
      seed: equal seeds make equal worlds.
      missing_share: the share of items that lack a modality, of each modality on its own.
      cold_share: the share of items that nobody meets in train.
      background: the share of interactions that follow no liking at all.
      popularity_exponent: Zipf's, of the items within a cluster.
      cluster_exponent: Zipf's, of the clusters.
      context_effect: 0 for interactions without ratings; above 0, how much the hour of the day
        decides what of it a user likes: by the logarithm of the odds.
    """

    num_users: int = 2000
    num_items: int = 500
    num_clusters: int | None = None
    seed: int = 0
    missing_share: float = 0.15
    cold_share: float = 0.08
    background: float = 0.05
    popularity_exponent: float = 0.8
    cluster_exponent: float = 0.5
    context_effect: float = 0.0

    def __post_init__(self) -> None:
        if self.num_users < 1:
            raise ConfigError(f"users: wanted at least 1; got {self.num_users}.")
        if self.num_items < 12:
            raise ConfigError(f"items: wanted at least 12; got {self.num_items}.")
        if self.seed < 0:
            raise ConfigError(f"seed: wanted 0 or more; got {self.seed}.")
        most = min(self.num_items // 3, _ATTRIBUTES[1] * _ATTRIBUTES[2])
        if self.num_clusters is not None and not 4 <= self.num_clusters <= most:
            raise ConfigError(f"clusters: wanted 4 to {most}; got {self.num_clusters}.")
        if not 0 <= self.context_effect <= _LARGEST_EFFECT:
            raise ConfigError(
                f"context_effect: wanted 0 to {_LARGEST_EFFECT}; got {self.context_effect}."
            )

    @property
    def clusters(self) -> int:
        """The number of clusters."""
        if self.num_clusters is not None:
            return self.num_clusters
        return min(max(self.num_items // _ITEMS_PER_CLUSTER, 4), _MOST_CLUSTERS)

    @property
    def num_attributes(self) -> tuple[int, int, int]:
        """How many topics, styles and timbres there are."""
        if self.clusters >= _FEWEST_FOR_RESIDUES:
            return _ATTRIBUTES
        side = math.isqrt(self.clusters - 1) + 1
        return side, side, side

    def attributes(self, cluster: int) -> tuple[int, int, int]:
        """The topic, style and timbre of a cluster."""
        topics, styles, timbres = self.num_attributes
        if self.clusters >= _FEWEST_FOR_RESIDUES:
            return cluster % topics, cluster % styles, cluster % timbres
        topic, style = cluster % topics, cluster // topics
        return topic, style, (topic + style) % timbres  # a Latin square


class Truth(NamedTuple):
    """What a world's recommender would have to find out.

    Attributes:
      cluster: <int64>[item].
      popularity: <float64>[item], within its cluster; sums to 1 there.
      cold: <bool>[item], met by nobody in train.
      liking: <float64>[user, cluster], sums to 1 for each user.
      background: the share of interactions that follow no liking.
    """

    cluster: NDArray[np.int64]
    popularity: NDArray[np.float64]
    cold: NDArray[np.bool_]
    liking: NDArray[np.float64]
    background: float

    def probability(self, users: slice) -> NDArray[np.float64]:
        """<float64>[user, item], how probably one interaction of a user falls on an item."""
        liked = self.liking[users][:, self.cluster] * self.popularity
        mixed: NDArray[np.float64] = (1 - self.background) * liked + self.background / len(
            self.cluster
        )
        return mixed


def draw_truth(world: World, rng: np.random.Generator) -> Truth:
    """Draws clusters, popularity, cold items and likings."""
    cluster = rng.permutation(np.arange(world.num_items) % world.clusters)
    popularity = np.zeros([world.num_items])
    for number in range(world.clusters):
        members = rng.permutation(np.flatnonzero(cluster == number))
        popularity[members] = _zipf(len(members), world.popularity_exponent)
    cold = np.zeros([world.num_items], bool)
    cold[rng.permutation(world.num_items)[: round(world.cold_share * world.num_items)]] = True
    chance = rng.permutation(_zipf(world.clusters, world.cluster_exponent))
    liking = np.zeros([world.num_users, world.clusters])
    for user in range(world.num_users):
        number = rng.choice((1, 2, 3), p=(0.35, 0.4, 0.25))
        liked = rng.choice(world.clusters, number, replace=False, p=chance)
        liking[user, liked] = rng.dirichlet([2.0] * number)
    return Truth(cluster, popularity, cold, liking, world.background)


class Context(NamedTuple):
    """What decides whether a user likes what the user meets.

    Attributes:
      user: <int64>[user], 1 for one who leans to the day, else -1.
      item: <int64>[item], 1 or -1, by its cluster.
      effect: the logarithm of the odds where the three agree, and of those against where not.
    """

    user: NDArray[np.int64]
    item: NDArray[np.int64]
    effect: float

    def probability(
        self, user: Any, item: NDArray[np.int64], seconds: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """<float64>[interaction], how probably each is liked: sigmoid(effect * user * item * hour).

        Args:
          user: <int64>[interaction], or one number.
          item: <int64>[interaction].
          seconds: <int64>[interaction], since 1970 UTC; hour is 1 from 6 to 17 o'clock, else -1.
        """
        hour = seconds // 3600 % 24
        half = np.where((hour >= _DAY_HOURS[0]) & (hour < _DAY_HOURS[1]), 1, -1)
        side = self.user[user] * self.item[item] * half
        probability: NDArray[np.float64] = 1 / (1 + np.exp(-self.effect * side))
        return probability


def draw_context(world: World, truth: Truth, rng: np.random.Generator) -> Context:
    """Draws to which side users lean, each with even chance, and clusters, half of them each."""
    user = rng.choice((-1, 1), world.num_users)
    cluster = rng.permutation(np.arange(world.clusters) % 2 * 2 - 1)
    return Context(user, cluster[truth.cluster], world.context_effect)


class Met(NamedTuple):
    """What some users meet.

    Attributes:
      users: their numbers.
      items: by split, a sparse `<bool>[user, item]`.
    """

    users: slice
    items: dict[str, scipy.sparse.csr_matrix]


def draw_interactions(truth: Truth, rng: np.random.Generator) -> Iterator[Met]:
    """Draws what users meet, some users at a time."""
    num_users, num_items = len(truth.liking), len(truth.cluster)
    num_warm = int((~truth.cold).sum())
    most = min(_TRAIN_ITEMS[1], num_warm // 3)
    least = min(_TRAIN_ITEMS[0], most)
    targets = min(_TARGETS, (num_items - most) // 2)
    block = max(1, min(_BLOCK, _PAIRS // num_items))
    for start in range(0, num_users, block):
        users = slice(start, min(start + block, num_users))
        size = users.stop - users.start
        log_probability = np.log(truth.probability(users))
        warm = np.where(truth.cold, -np.inf, log_probability)
        train = _draw(warm, rng.integers(least, most + 1, size), rng)
        later = _draw(np.where(train, -np.inf, log_probability), np.full([size], 2 * targets), rng)
        # Told apart by lot, so that neither split gets the likelier items.
        valid = _draw(np.where(later, 0.0, -np.inf), np.full([size], targets), rng)
        drawn = {"train": train, "valid": valid, "test": later & ~valid}
        yield Met(users, {name: scipy.sparse.csr_matrix(items) for name, items in drawn.items()})


def best(
    truth: Truth, drawn: Sequence[Met], outcomes: Mapping[str, ceiling.Outcomes] | None = None
) -> dict[str, Any]:
    """The ceiling, what of it train lets one know, and what ranking by popularity in train reaches,
    for valid and test.

    Args:
      truth: the world's.
      drawn: what `draw_interactions` yielded.
      outcomes: by split, which interactions were liked; None where they are not rated.

    Returns:
      By split, and again by split under `knowable` and `popularity`, what `ceiling.measure` gives;
      by split also what `ceiling.tell_apart` gives, where there are outcomes.
    """
    train = scipy.sparse.vstack([met.items["train"] for met in drawn], format="csr")
    popularity = np.bincount(train.indices, minlength=len(truth.cluster))
    liking, within = knowable.estimate(train, truth.cluster)
    # What follows no liking is nothing that can be told from train.
    known = truth._replace(liking=liking, popularity=within, background=0.0)

    def blocks(split: str, by: Truth | None) -> Iterator[ceiling.Block]:
        for met in drawn:
            score: NDArray[Any] = np.broadcast_to(popularity, met.items[split].shape)
            if by is not None:
                score = by.probability(met.users)
            yield ceiling.Block(score, met.items["train"].toarray(), met.items[split].toarray())

    targets = [split for split in SPLITS if split != "train"]
    told_apart = {
        split: ceiling.tell_apart(outcomes[split]) if outcomes else {} for split in targets
    }
    return {
        **{split: ceiling.measure(blocks(split, truth)) | told_apart[split] for split in targets},
        "knowable": {split: ceiling.measure(blocks(split, known)) for split in targets},
        "popularity": {split: ceiling.measure(blocks(split, None)) for split in targets},
    }


def _zipf(number: int, exponent: float) -> NDArray[np.float64]:
    weight = np.arange(1, number + 1) ** -exponent
    share: NDArray[np.float64] = weight / weight.sum()
    return share


def _draw(
    log_weight: NDArray[np.float64], number: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Draws items without replacement, in proportion to their weight.

    The highest of log weight plus Gumbel noise are such a draw (Yellott 1977; Vieira 2014).

    Args:
      log_weight: <float64>[user, item], -inf for what cannot be drawn.
      number: <int64>[user], how many to draw.
      rng: where chance comes from.

    Returns:
      <bool>[user, item].
    """
    key = log_weight + rng.gumbel(size=log_weight.shape)
    rank = np.argsort(np.argsort(-key, axis=1), axis=1)
    drawn: NDArray[np.bool_] = (rank < number[:, None]) & np.isfinite(log_weight)
    return drawn
