"""The answers of a server, as named tuples."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from numpy.typing import NDArray

from mmrec_tf.errors import ConfigError, ServingError
from mmrec_tf.recommender.outputs import to_str

__all__ = [
    "FoundItems",
    "ItemEmbeddings",
    "NewRanking",
    "Outputs",
    "Ranking",
    "Recommendations",
    "SimilarItems",
    "UserEmbeddings",
    "best",
    "output",
    "to_str",
]


class Outputs(dict[str, NDArray[Any]]):
    """The outputs of a signature by public name; `version` is the model's that answered."""

    def __init__(self, outputs: Mapping[str, NDArray[Any]], *, version: int = 0):
        super().__init__(outputs)
        self.version = version


class Recommendations(NamedTuple):
    """What to show: the columns of `mmrec_tf.Recommendations`, and the version that answered.

    Attributes:
      item_id: object[batch, k] of str, in the order to show them; "" behind the last one.
      score: <float32>[batch, k], what ordered them; -1e9 for none.
      probability: <float32>[batch, k], of a click; 0 for none.
      modality: object[batch, k] of str, the one that adds most to the match of user and item, where
        that is more than the item's id adds; "" for none.
      history_item: object[batch, k] of str, the item of the history that weighed most; "" for none.
      version: of the recommender; 0 where nothing was asked for, as of no users.
      heaviest: <int32>[batch, k], of several values that the item has of that modality, such as the
        pictures of a gallery, the place of the one that counts most; -1 for none. None from a
        model that does not weigh values.
    """

    item_id: NDArray[Any]
    score: NDArray[Any]
    probability: NDArray[Any]
    modality: NDArray[Any]
    history_item: NDArray[Any]
    version: int = 0
    heaviest: NDArray[Any] | None = None


class SimilarItems(NamedTuple):
    """Items near to others.

    Attributes:
      item_id: object[batch, k] of str, the most alike first; "" for none.
      score: <float32>[batch, k], the cosine of their embeddings; -1e9 for none.
      version: as in `Recommendations`.
    """

    item_id: NDArray[Any]
    score: NDArray[Any]
    version: int = 0


class Ranking(NamedTuple):
    """Scores of given items, in the order given.

    Attributes:
      item_id: object[batch, candidate] of str; "" where a row had fewer candidates.
      score: <float32>[batch, candidate]; NaN there, -1e9 for an item that the model does not know.
      probability: <float32>[batch, candidate], of a click; NaN there, 0 for an unknown item.
      version: as in `Recommendations`.
    """

    item_id: NDArray[Any]
    score: NDArray[Any]
    probability: NDArray[Any]
    version: int = 0


class NewRanking(NamedTuple):
    """What is said of items that are in no catalog yet, in the order given.

    Attributes:
      score: <float32>[batch, new], on the scale of `Recommendations.score`; -1e9 for an item with
        no content that could be read.
      probability: <float32>[batch, new], of a click; 0 for such an item.
      modality: object[batch, new] of str, as in `Recommendations`.
      history_item: object[batch, new] of str, as in `Recommendations`.
      version: as in `Recommendations`.
    """

    score: NDArray[Any]
    probability: NDArray[Any]
    modality: NDArray[Any]
    history_item: NDArray[Any]
    version: int = 0


class UserEmbeddings(NamedTuple):
    """Embeddings of users.

    Attributes:
      embedding: <float32>[batch, dim], of unit length; its dot product with an item's is
        the retrieval score. Of a model with several interests <float32>[batch, interest, dim], of
        which the highest product counts.
      known: <bool>[batch]; False where nothing is known about the user, so that the embedding is
        meaningless.
      version: as in `Recommendations`.
    """

    embedding: NDArray[Any]
    known: NDArray[Any]
    version: int = 0


class ItemEmbeddings(NamedTuple):
    """Embeddings of items, and how much each modality counted.

    Modalities are in the order of the model card (`assets.extra/model_card.json`), which the
    server does not report.

    Attributes:
      embedding: <float32>[batch, dim].
      weights: <float32>[batch, modality].
      present: <bool>[batch, modality], which were sent and could be read; None from an export
        that does not say.
      unreadable: <bool>[batch, modality], which were sent but could not be read, so that they
        count as absent; None likewise.
      modalities: <float32>[batch, modality, dim], the embedding by each modality alone, which
        `rank_new` reads; None likewise.
      heaviest: <int32>[batch, modality], where several values came of one: the place in its list of
        the one that weighed most, -1 for none; None where all count alike (`item.values_pooling`).
      version: of the encoder; 0 where nothing was asked for.
    """

    embedding: NDArray[Any]
    weights: NDArray[Any]
    present: NDArray[Any] | None
    unreadable: NDArray[Any] | None
    modalities: NDArray[Any] | None = None
    version: int = 0
    heaviest: NDArray[Any] | None = None


class FoundItems(NamedTuple):
    """Items similar to some content.

    Attributes:
      item_id: object[batch, k] of str, the nearest first; "" for none, as when there was nothing
        to search by.
      score: <float32>[batch, k], the cosine, less where what was read is almost the same for all
        items; -1e9 for none.
      unreadable: <bool>[batch, modality], as in `ItemEmbeddings`.
      version: of the encoder; 0 where nothing was asked for.
    """

    item_id: NDArray[Any]
    score: NDArray[Any]
    unreadable: NDArray[Any] | None
    version: int = 0


class ItemLabels(NamedTuple):
    """What items are called, of a model that was trained with labels.

    Attributes:
      label: object[batch, k] of str, such as "genre=comedy", the most probable first; "" for an
        item with nothing to go by.
      probability: <float32>[batch, k]; -1 for none.
      unreadable: <bool>[batch, modality], as in `ItemEmbeddings`.
      version: of the encoder; 0 where nothing was asked for.
    """

    label: NDArray[Any]
    probability: NDArray[Any]
    unreadable: NDArray[Any] | None
    version: int = 0


def output(outputs: Mapping[str, NDArray[Any]], name: str, signature: str) -> NDArray[Any]:
    """One output of an answer, which must be there."""
    if name not in outputs:
        raise ServingError(
            f"{signature}: wanted an output {name}; the model answered with "
            f"{', '.join(sorted(outputs))}. Is it an export of mmrec_tf?"
        )
    return outputs[name]


def best(
    outputs: Mapping[str, NDArray[Any]], names: Sequence[str], k: int | None, signature: str
) -> dict[str, NDArray[Any]]:
    """The first k of each output, strings as str."""
    parts = {name: output(outputs, name, signature) for name in names}
    most = parts["item_id"].shape[1]
    if k is not None and not 1 <= k <= most:
        raise ConfigError(
            f"k: wanted 1 to {most}, which the export was made for; got {k}. "
            "Export again with a larger k for more."
        )
    cut = {name: part[:, :k] for name, part in parts.items()}
    return {name: to_str(part) if part.dtype == object else part for name, part in cut.items()}
