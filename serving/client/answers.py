"""What a server answers, as named tuples."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mmrec_tf.errors import ConfigError, ServingError


class Recommendations(NamedTuple):
    """Items in the order to show them, and why.

    `item_id`: object array of str, [batch, k]; "" where there were fewer than k items to show.
    `score`: <float32>[batch, k], what ordered them; -1e9 there. It falls along a row unless the
      export diversifies.
    `probability`: <float32>[batch, k], of a click; 0 there.
    `modality`: object array of str, [batch, k], the one that drew user and item together most; ""
      where the item has none, or nothing is known of the user.
    `history_item`: object array of str, [batch, k], the item of the history that weighed most; ""
      without a history.
    """

    item_id: np.ndarray
    score: np.ndarray
    probability: np.ndarray
    modality: np.ndarray
    history_item: np.ndarray


class SimilarItems(NamedTuple):
    """Items near to an item or to content, the nearest first.

    `item_id`: object array of str, [batch, k]; "" where there were fewer than k.
    `score`: <float32>[batch, k], the cosine of the embeddings; -1e9 there.
    """

    item_id: np.ndarray
    score: np.ndarray


class Ranking(NamedTuple):
    """What is said of given items, in the order given.

    `item_id`: object array of str, [batch, candidate]; "" where a row had fewer candidates.
    `score`: <float32>[batch, candidate]; NaN there, -1e9 for an item that the model does not know.
    `probability`: <float32>[batch, candidate], of a click; NaN there, 0 for an unknown item.
    """

    item_id: np.ndarray
    score: np.ndarray
    probability: np.ndarray


class ItemEmbeddings(NamedTuple):
    """Where items lie, and how much each modality counted.

    `embedding`: <float32>[batch, dim].
    `weights`: <float32>[batch, modality].
    """

    embedding: np.ndarray
    weights: np.ndarray


def output(outputs: Mapping[str, np.ndarray], name: str, signature: str) -> np.ndarray:
    """One output of an answer, which has to be there."""
    if name not in outputs:
        raise ServingError(
            f"{signature}: wanted an output {name}; the model answered with "
            f"{', '.join(sorted(outputs))}. Is it an export of mmrec_tf?"
        )
    return outputs[name]


def best(
    outputs: Mapping[str, np.ndarray], names: Sequence[str], k: int | None, signature: str
) -> dict[str, np.ndarray]:
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


def to_str(array: np.ndarray) -> np.ndarray:
    """Bytes to str, in an array of any shape."""
    decoded = np.empty(array.shape, dtype=object)
    for place, value in np.ndenumerate(array):
        decoded[place] = value.decode("utf-8", "surrogateescape")
    return decoded
