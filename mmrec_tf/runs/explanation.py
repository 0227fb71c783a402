"""Why a run shows an item to a user: both stages taken apart, and the content that weighed most."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from mmrec_tf.ranking.attribution import RankingAttribution, integrated_gradients
from mmrec_tf.ranking.model import RankingModel
from mmrec_tf.recommender.contributions import Contributions, Explainer
from mmrec_tf.recommender.occlusion import Evidence, occlude
from mmrec_tf.recommender.recommender import Recommender
from mmrec_tf.retrieval.model import RetrievalModel


class Explanation(NamedTuple):
    """Why an item is shown to a user.

    Attributes:
      contributions: Contributions to retrieval's score.
      ranking: RankingAttribution; None without ranking, and of a user of whom nothing is known,
        who is shown what is popular.
      dampening: float, what is taken off the score for popularity
        (`recommender.popularity_dampening`).
      score: float, what orders the list.
      evidence: Evidence of each modality that has pieces; none where it was not asked for.
      values: by modality of which the item has several values that do not count alike
        (`item.values_pooling`), how much each counts, in their order, adding up to 1.
    """

    contributions: Contributions
    ranking: RankingAttribution | None
    dampening: float
    score: float
    evidence: tuple[Evidence, ...]
    values: dict[str, list[float]]

    def to_json(self) -> dict[str, Any]:
        """As plain dictionaries, lists and scalars."""
        contributions, ranking = self.contributions, self.ranking
        return {
            "user": contributions.user_id,
            "item": contributions.item_id,
            "score": self.score,
            "retrieval": contributions.to_json(),
            "ranking": None
            if ranking is None
            else {
                **ranking._asdict(),
                "history": ranking.history.tolist(),
                "popularity_dampening": -self.dampening,
            },
            "evidence": [one.to_json() for one in self.evidence],
            "values": self.values,
        }


def explain(
    recommender: Recommender,
    user_id: str,
    item_ids: Sequence[str],
    *,
    history: Sequence[str] | None = None,
    profile: str = "",
    features: Sequence[str] = (),
    evidence: bool = True,
    explainer: Explainer | None = None,
) -> list[Explanation]:
    """Takes apart why items are shown, or would be.

    Args:
      recommender: Recommender, as `Run.recommender` makes it.
      user_id: an id; an unknown one is answered by history, profile and features.
      item_ids: ids of items of the catalog.
      history: ids of items, oldest first; None for what is known of the user.
      profile, features: as for `Recommender.recommend`.
      evidence: whether words, regions and spans are looked for, which runs the encoders.
      explainer: of this recommender, where there is one already.

    Raises:
      ConfigError: for an item that is not in the catalog, or a model with towers of one's own.
      RunError: where integrated gradients do not become complete.
    """
    explainer = explainer or Explainer(recommender)
    given: dict[str, Any] = {"history": history, "profile": profile, "features": features}
    found = explainer.contributions(user_id, item_ids, **given)
    request, _ = explainer.request(user_id, **given)
    items = explainer.numbers(item_ids)
    vectors = recommender.index.gather(tf.constant(items, tf.int32)).numpy()
    less = recommender.config.recommender.popularity_dampening
    explanations = []
    for place, one in enumerate(found):
        item = int(items[place])
        ranking, dampening, score = None, 0.0, one.score
        if one.known:
            dampening = less * float(vectors[place, -1])
            if isinstance(recommender.ranking, RankingModel):
                ranking = integrated_gradients(
                    recommender.ranking, request, item, one.score, items=recommender.items
                )
                score = ranking.score
            score -= dampening
        seen = []
        if evidence and one.known:
            asked = [occlude(recommender, request, item, name) for name in one.modalities]
            seen = [one for one in asked if one is not None]
        values = _value_weights(recommender.retrieval, item)
        explanations.append(Explanation(one, ranking, dampening, score, tuple(seen), values))
    return explanations


def _value_weights(retrieval: RetrievalModel, item: int) -> dict[str, list[float]]:
    found = {}
    for name in retrieval.modalities:
        weights = retrieval.value_weights(name, np.array([item]))
        if weights is not None and (there := weights[0][weights[0] > 0]).size > 1:
            found[name] = there.tolist()
    return found
