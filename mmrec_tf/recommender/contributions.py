"""Retrieval's score of an item as a sum: what each part of the item and of the user adds to it.

With the user's embedding u = sum of u_r and the item's v = sum of v_c (`mmrec_tf.towers.additive`)
the score is

    u . v / temperature + popularity + head = sum over r, c of u_r . v_c / temperature + ...,

a table with a row for each part of the user and a column for each part of the item. Its columns,
summed, say what each modality and the id add; its rows what each item of the history adds. Of
several interests of a user, u is the one that the item is scored by.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from mmrec_tf.errors import ConfigError
from mmrec_tf.recommender.ranked import Request
from mmrec_tf.recommender.recommender import Recommender
from mmrec_tf.retrieval.embedding_parts import catalog_parts, reads_others
from mmrec_tf.retrieval.index.interests import nearest_interest, score_rows
from mmrec_tf.towers import TowerOutput
from mmrec_tf.towers.additive import CONSTANT, FEATURES, ID, PROFILE, user_parts

POPULARITY, ITEM_HEAD = "popularity", "item head"
USER_ID, USER_FEATURES = "user id", "user features"


class Contributions(NamedTuple):
    """What a score is the sum of.

    Attributes:
      user_id, item_id: str.
      score: float, retrieval's, with what a head of items against items adds.
      modalities: names of those that the model reads.
      present: <bool>[modality], which the item has.
      rows: what the table's rows are of: ids of items of the history; then "user id", "profile",
        "user features" and "constant".
      columns: the modalities, then "id", "features" and "constant".
      table: <float64>[row, column], what each pair of parts adds.
      popularity: float, the popularity bias, of a cold item with the offset that was fitted; of a
        user of whom nothing is known all of the score.
      head: by item of the history, what the head adds for it; {} without one.
      known: bool, whether anything is known of the user.
    """

    user_id: str
    item_id: str
    score: float
    modalities: tuple[str, ...]
    present: np.ndarray
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    table: np.ndarray
    popularity: float
    head: dict[str, float]
    known: bool

    @property
    def of_item(self) -> dict[str, float]:
        """By part of the item: modalities, "id", "features", "constant", "popularity" and "item
        head"; they sum to the score."""
        sums = dict(zip(self.columns, self.table.sum(axis=0).tolist(), strict=True))
        return {**sums, POPULARITY: self.popularity, ITEM_HEAD: sum(self.head.values())}

    @property
    def of_history(self) -> dict[str, float]:
        """By item of the history, oldest first, by both towers and head."""
        steps = len(self.rows) - 4
        sums = dict(zip(self.rows[:steps], self.table[:steps].sum(axis=1).tolist(), strict=True))
        met = [name for name in self.head if name not in sums]
        return {name: sums.get(name, 0.0) + self.head.get(name, 0.0) for name in [*met, *sums]}

    @property
    def of_user(self) -> dict[str, float]:
        """By part of the user: "history", "user id", "profile", "user features", "constant" and
        "popularity"; they sum to the score."""
        rest = dict(zip(self.rows[-4:], self.table[-4:].sum(axis=1).tolist(), strict=True))
        return {"history": sum(self.of_history.values()), **rest, POPULARITY: self.popularity}

    @property
    def total(self) -> float:
        """The sum of all, which is the score but for rounding."""
        return float(self.table.sum()) + self.popularity + sum(self.head.values())

    @property
    def modality(self) -> str:
        """The modality that adds the most, where the item has it and it outweighs the id; else
        ""."""
        added = self.of_item
        there = [n for n, has in zip(self.modalities, self.present.tolist(), strict=True) if has]
        best = max(there, key=lambda name: added[name], default="")
        return best if best and added[best] > max(added[ID], 0.0) else ""

    @property
    def history_item(self) -> str:
        """The item of the history that adds the most; "" where none adds anything."""
        added = self.of_history
        best = max(added, key=lambda name: added[name], default="")
        return best if best and added[best] > 0.0 else ""

    @property
    def because(self) -> str:
        """The item of the history that a modality is named beside: the one that adds the most
        together with it; without a modality `history_item`. "" where none adds anything."""
        steps = len(self.rows) - 4
        if not self.modality or self.head:
            return self.history_item
        added = self.table[:steps, self.columns.index(self.modality)]
        best = int(np.argmax(added)) if steps else -1
        return self.rows[best] if steps and added[best] > 0.0 else ""

    def to_json(self) -> dict[str, Any]:
        """As plain dictionaries, lists and scalars."""
        return {
            "score": self.score,
            "modality": self.modality,
            "history_item": self.history_item,
            "item": self.of_item,
            "user": self.of_user,
            "history": self.of_history,
            "item_head": self.head,
        }


class Explainer:
    """Takes the scores of a recommender apart.

    Args:
      recommender: Recommender.

    Raises:
      ConfigError: where a tower is called otherwise than those of this package, so that nothing is
        known of what it sums.
    """

    def __init__(self, recommender: Recommender):
        self.recommender = recommender
        self._catalog: TowerOutput | None = None
        self._whole: np.ndarray | None = None
        self._columns = (*recommender.retrieval.modalities, ID, FEATURES, CONSTANT)

    def parts_of(self, items: np.ndarray) -> np.ndarray:
        """<float32>[item, part, dim] of some items, <int>[item], see `catalog_parts`."""
        retrieval = self.recommender.retrieval
        if self._catalog is None:
            names = ("modalities", "present", "weights")
            tables = [self.recommender.items[name].numpy() for name in names]
            self._catalog = TowerOutput(np.zeros([0]), *tables)
        if not reads_others(retrieval):
            return catalog_parts(retrieval, self._catalog, items)
        if self._whole is None:
            self._whole = catalog_parts(retrieval, self._catalog)
        return self._whole[items]

    def contributions(
        self,
        user_id: str,
        item_ids: Sequence[str],
        *,
        history: Sequence[str] | None = None,
        profile: str = "",
        features: Sequence[str] = (),
    ) -> list[Contributions]:
        """What the scores of some items for a user are sums of.

        Args:
          user_id: an id; an unknown one is answered by history, profile and features.
          item_ids: ids of items of the catalog, withdrawn and known ones too.
          history: ids of items, oldest first; None for what is known of the user.
          profile, features: as for `Recommender.recommend`.

        Raises:
          ConfigError: for an item that is not in the catalog.
        """
        request, past = self.request(user_id, history=history, profile=profile, features=features)
        items = self.numbers(item_ids)
        recommender = self.recommender
        retriever, retrieval = recommender.retriever, recommender.retrieval
        nobody = bool(retriever.nobody(request)[0])
        of_items = self.parts_of(items).astype(np.float64)
        inverse = float(tf.exp(-retrieval.log_temperature))
        vectors = recommender.index.gather(tf.constant(items, tf.int32)).numpy()
        queries = retriever.queries(request, tf.constant([nobody]))
        if queries.shape.rank == 2:
            scores = tf.einsum("d,cd->c", queries[0], vectors)[None]
            interest = np.zeros([len(items)], np.int64)
        else:
            scores = score_rows(queries, vectors[None])
            interest = nearest_interest(queries, vectors[None]).numpy()[0]
        users = {one: self._user(request, one) for one in np.unique(interest).tolist()}
        named = tf.constant(items[None], tf.int32)
        scores = retriever.score_items(request, named, scores)[0].numpy()
        heads = self._head(past, items)
        found = []
        for place, item_id in enumerate(item_ids):
            rows, of_user = users[int(interest[place])]
            table = of_user @ of_items[place].T * inverse
            # What is popular is found by another number than the model's own.
            bias = vectors[place, -1] if nobody else vectors[place, -2]
            found.append(
                Contributions(
                    user_id=user_id,
                    item_id=item_id,
                    score=float(scores[place]),
                    modalities=tuple(retrieval.modalities),
                    present=recommender.items["present"].numpy()[items[place]],
                    rows=rows,
                    columns=self._columns,
                    table=table * (not nobody),
                    popularity=float(bias),
                    head=heads[place],
                    known=not nobody,
                )
            )
        return found

    def numbers(self, item_ids: Sequence[str]) -> np.ndarray:
        """<int64>[item].

        Raises:
          ConfigError: for an item that is not in the catalog.
        """
        ids = tf.constant(list(item_ids), tf.string, [len(item_ids)])
        items = self.recommender.retriever.item_table.lookup(ids).numpy()
        unknown = [name for name, item in zip(item_ids, items.tolist(), strict=True) if item < 0]
        if unknown:
            raise ConfigError(
                f"explain: wanted ids of items of the dataset; got {unknown[0]!r}, which none has."
            )
        return np.asarray(items, np.int64)

    def request(
        self,
        user_id: str,
        *,
        history: Sequence[str] | None = None,
        profile: str = "",
        features: Sequence[str] = (),
    ) -> tuple[Request, np.ndarray]:
        """Whom scores are for, as `Recommender.recommend` reads it, and all that is known of the
        history, <int32>[step], -1 for none."""
        recommender = self.recommender
        user = recommender.retriever.user_table.lookup(tf.constant([user_id]))
        given = None
        if history:
            given = tf.constant([list(history)], tf.string, [1, len(history)])
        read, gap, _ = recommender.read_history(user, given)
        past = recommender.read_past(user, given)
        request = recommender.request(
            user,
            read,
            gap,
            tf.zeros([1], tf.int64),
            profile=tf.constant([profile]),
            features=tf.constant([list(features)], tf.string, [1, len(features)]),
            past=past,
        )
        return request, request.whole.numpy()[0]

    def _user(self, request: Request, interest: int) -> tuple[tuple[str, ...], np.ndarray]:
        """The parts of one of the user's vectors: what they are of, and <float64>[part, dim]."""
        recommender = self.recommender
        retrieval = recommender.retrieval
        history, dim = request.history, recommender.config.dim
        embedding = recommender.index.gather(tf.maximum(history, 0))[..., :dim]
        tower = retrieval.user_tower
        inputs: dict[str, Any] = {
            "user": request.user,
            "history": embedding,
            "known": history >= 0,
            "gap": request.gap,
        }
        if tower.profile is not None:
            stored = retrieval.profiles_of(request.user)
            inputs["profile"] = stored if request.profile is None else request.profile
        if tower.features is not None:
            known: Mapping[str, tf.Tensor] = retrieval.features_of(request.user)
            inputs["features"] = known if request.features is None else request.features
        vectors = user_parts(tower, inputs, interest=interest).vectors[0].astype(np.float64)
        steps = history.numpy()[0]
        real = np.flatnonzero(steps >= 0)
        ids = recommender.dataset.catalog.item_id
        names = tuple(str(ids[item]) for item in steps[real].tolist())
        names = (*names, USER_ID, PROFILE, USER_FEATURES, CONSTANT)
        return names, np.concatenate([vectors[real], vectors[len(steps) :]])

    def _head(self, past: np.ndarray, items: np.ndarray) -> list[dict[str, float]]:
        """By asked-for item what the head adds for each item of the history."""
        head = self.recommender.item_head
        if head is None:
            return [{} for _ in items]
        ids = self.recommender.dataset.catalog.item_id
        read, counts, scale = head.read(tf.constant(past[None]))
        met, near, added = (part.numpy() for part in head.entries(read[0], counts[0]))
        added = added.astype(np.float64) * float(scale[0])
        found = []
        for item in items.tolist():
            sums = (added * (near == item)).sum(axis=1).tolist()
            found.append(
                {str(ids[m]): value for m, value in zip(met.tolist(), sums, strict=True) if value}
            )
        return found
