"""What the embeddings of a catalog are sums of, and of it what a served answer is explained by."""

import numpy as np
import tensorflow as tf

from mmrec_tf.retrieval.cold_items import blended, pulled_parts, unit_parts
from mmrec_tf.retrieval.model import RetrievalModel
from mmrec_tf.towers import ItemTower, TowerOutput
from mmrec_tf.towers.additive import is_plain, is_weighted_sum, item_parts

# Items at a time, of which a fusion that is no sum makes a vector for each subset of modalities.
_BLOCK = 1024


def catalog_parts(
    retrieval: RetrievalModel, catalog: TowerOutput, items: np.ndarray | None = None
) -> np.ndarray:
    """What embeddings of `RetrievalModel.embed_catalog` are sums of.

    Args:
      retrieval: RetrievalModel.
      catalog: what `embed_catalog` returned, so that no encoder runs again.
      items: <int>[item], the items that are asked for; None for all.

    Returns:
      <float32>[item, part, dim], the parts of `item_parts`, smoothed as the embeddings are, and
      placed where the items are cold: what reaches an item from its neighbors counts for the part
      that it is of.

    Raises:
      ConfigError: for a model with an item tower of one's own.
    """
    graph, wanted = retrieval.graph, items
    if reads_others(retrieval) or items is None:
        items = np.arange(retrieval.schema.num_items)
    parts = np.concatenate(
        [_parts(retrieval, catalog, items[at : at + _BLOCK]) for at in range(0, len(items), _BLOCK)]
    )
    if not reads_others(retrieval):
        return parts
    whole = parts
    if graph is not None:
        # A linear map, so that what it makes of the parts sums to what it makes of their sum.
        smooth = np.asarray(graph.smooth(tf.constant(parts.reshape([len(items), -1]))))
        smooth = smooth.reshape(parts.shape).astype(np.float64)
        whole = unit_parts(smooth).astype(np.float32)
    fit = retrieval.cold_items_fit
    if fit is not None and retrieval.places_items:
        placed = whole.copy()
        for some, near, weight in retrieval.cold_neighbors():
            content = _parts(retrieval, catalog, some, content_only=True)
            pulled = pulled_parts(content, whole[near], weight, fit.pull)
            placed[some] = blended(whole[some], pulled, retrieval.tables["confidence"][some])
        whole = placed
    return whole if wanted is None else whole[wanted]


def reads_others(retrieval: RetrievalModel) -> bool:
    """Whether an item's embedding depends on those of others."""
    return retrieval.graph is not None or retrieval.places_items


def _parts(
    retrieval: RetrievalModel,
    catalog: TowerOutput,
    items: np.ndarray,
    *,
    content_only: bool = False,
) -> np.ndarray:
    tables = retrieval.tables
    warm = tf.gather(tables["warm"], items) & (not content_only)
    inputs = {
        "item": tf.where(warm, items.astype(np.int32), -1),
        "present": tf.constant(catalog.present[items]),
        "features": {n: tf.gather(v, items) for n, v in tables["item_features"].items()},
    }
    aligned = tf.constant(catalog.modalities[items])
    return item_parts(retrieval.item_tower, inputs, aligned=aligned).vectors


def reason_tables(retrieval: RetrievalModel, catalog: TowerOutput) -> dict[str, np.ndarray]:
    """What tells a modality that outweighs the id from one that does not, beside the catalog's own
    tables.

    Args:
      retrieval: RetrievalModel.
      catalog: what `embed_catalog` returned.

    Returns:
      "id" <float32>[item, dim], the id's part of the embedding, left out where no item has one; and
      "scale" <float32>[item], by which a modality's vector times its weight is its part, or where
      fusion or smoothing is not of that form "parts" <float32>[item, modality, dim]. Nothing for a
      model without modalities, or with an item tower of one's own, of which nothing is known.
    """
    count = len(retrieval.modalities)
    if not count or not is_plain(retrieval.item_tower, ItemTower):
        return {}
    alone = not reads_others(retrieval)
    scaled = is_weighted_sum(retrieval.item_tower.fusion) and alone
    size = _BLOCK if alone else retrieval.schema.num_items
    found: dict[str, list[np.ndarray]] = {"id": [], "scale" if scaled else "parts": []}
    for start in range(0, retrieval.schema.num_items, size):
        items = np.arange(start, min(start + size, retrieval.schema.num_items))
        parts = catalog_parts(retrieval, catalog, items)
        found["id"].append(parts[:, count])
        content = parts[:, :count]
        if not scaled:
            found["parts"].append(content)
            continue
        weighted = catalog.modalities[items] * catalog.weights[items][..., None]
        square = np.square(weighted).sum(axis=(1, 2))
        ratio = (content * weighted).sum(axis=(1, 2)) / np.maximum(square, 1e-12)
        found["scale"].append(ratio.astype(np.float32))
    tables = {name: np.concatenate(each) for name, each in found.items()}
    if not tables["id"].any():
        del tables["id"]
    return tables
