"""Ranks items that are in no catalog yet, by what the encoder made of them."""

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from mmrec_tf.recommender.explanation import explain_rows
from mmrec_tf.recommender.feature_entries import FeatureEntries
from mmrec_tf.recommender.ranked import Rows
from mmrec_tf.recommender.recommender import Recommender
from mmrec_tf.retrieval.index.interests import score_rows
from mmrec_tf.schema import LOWEST_SCORE


class NewItems(tf.Module):
    """What `rank` will say of an item once it is published, before it is.

    A new item counts as one without any interaction: it has the popularity bias, takes the
    dampening and has the offset (`cold_items`) of such an item; how far it is pulled toward warm
    ones is in the embedding that `embed_item` answers. What smoothing over alike content
    (`graph.content_layers`) will do to embeddings, its own or those of its neighbors, is not
    foreseen, nor what a head of items against items (`item_head`) will add to its score, which only
    a head of kind "content" does; smoothing over shared users does nothing to it.

    Args:
      recommender: Recommender.
    """

    def __init__(self, recommender: Recommender):
        super().__init__(name="new_items")
        dataset, ranking = recommender.dataset, recommender.ranking
        reads = ranking is not None and recommender.config.ranking.features
        self.entries = FeatureEntries(dataset.schema.item_features if reads else {})
        # What an item has that nobody met, in train and in what is known.
        frequency = recommender.retrieval.tables["cold_log_frequency"]
        nothing = tf.zeros([1, recommender.config.dim])
        whole = recommender.retrieval.candidates(nothing, tf.constant([frequency], tf.float32))
        # A number, as the weight behind it is not part of an export.
        self.bias = float(whole[0, -1])
        placed = recommender.retrieval.cold_items_fit
        if placed is not None:
            self.bias += placed.offset
        known = dataset.known_count(recommender.history)
        self.popularity = float(-np.log(np.mean(known + 1.0)))
        self.stored = {
            name: tf.zeros([1, *table.shape[1:]], table.dtype)
            for name, table in recommender.items["features"].items()
        }

    def specs(self, recommender: Recommender) -> list[tf.TensorSpec]:
        """The inputs of `rank`, by name."""
        dim, count = recommender.config.dim, recommender.items["modalities"].shape[1]
        names = {
            "embedding": ([None, None, dim], tf.float32),
            "modalities": ([None, None, count, dim], tf.float32),
            "present": ([None, None, count], tf.bool),
            "weights": ([None, None, count], tf.float32),
            "features": ([None, None, None], tf.string),
        }
        return [
            tf.TensorSpec([None], tf.string, name="user_id"),
            tf.TensorSpec([None, None], tf.string, name="history"),
            tf.TensorSpec([None], tf.int64, name="time"),
            *(tf.TensorSpec(shape, dtype, name=name) for name, (shape, dtype) in names.items()),
        ]

    def rank(
        self,
        recommender: Recommender,
        user_id: tf.Tensor,
        history: tf.Tensor,
        time: tf.Tensor,
        embedding: tf.Tensor,
        modalities: tf.Tensor,
        present: tf.Tensor,
        weights: tf.Tensor,
        features: tf.Tensor,
    ) -> dict[str, tf.Tensor]:
        """What is said of new items.

        Args:
          recommender: Recommender.
          user_id: <string>[batch].
          history: <string>[batch, step], items of the catalog, oldest first.
          time: <int64>[batch], seconds since 1970 UTC; 0 where it is not known.
          embedding: <float32>[batch, new, dim], of `embed_item`.
          modalities: <float32>[batch, new, modality, dim], likewise.
          present: <bool>[batch, new, modality], likewise; a row without any stands for no item.
          weights: <float32>[batch, new, modality], likewise.
          features: <string>[batch, new, any], side features such as "genre=comedy"; "" for none.

        Returns:
          score, probability <float32>[batch, new], `LOWEST_SCORE` and 0 for no item; modality and
          history_item <string>[batch, new], "" for none; unread <bool>[batch, new], whether a side
          feature came that the model does not read.
        """
        retriever = recommender.retriever
        user = retriever.user_table.lookup(user_id)
        read, gap, _ = retriever.read_history(user, history)
        request = recommender.request(user, read, gap, time)
        nobody = retriever.nobody(request)
        shape = tf.shape(embedding)[:2]
        real = tf.reduce_any(present, axis=2) & tf.reduce_all(tf.math.is_finite(embedding), axis=2)
        embedding = tf.where(real[..., None], embedding, 0.0)
        # With `item.missing` "mapped" more is counted than came: what has a vector.
        counted = tf.reduce_any(modalities != 0.0, axis=3) & real[..., None]
        placed = tf.concat([embedding, tf.fill(shape, self.bias)[..., None]], axis=2)
        vectors = tf.concat([placed, tf.fill(shape, self.popularity)[..., None]], axis=2)
        brought, unread = self._features(features)
        rows = Rows(placed, modalities, counted, weights, brought)
        retrieved = score_rows(retriever.queries(request, nobody), vectors)
        shown = recommender.judge(
            request, nobody, tf.zeros(shape, tf.int32), retrieved, vectors, rows=rows
        )
        modality, because = explain_rows(
            shown,
            read,
            recommender.items["vector"],
            vectors,
            modalities=modalities,
            weights=weights,
            present=counted,
        )
        blank = tf.fill(shape, "")
        names = tf.gather(recommender.item_id, tf.maximum(because, 0))
        probability = recommender.calibration(shown.logit)
        return {
            "score": tf.where(real, shown.score, LOWEST_SCORE),
            "probability": tf.where(real, probability, tf.zeros_like(probability)),
            "modality": tf.where(real, tf.gather(recommender.modality_name, modality), blank),
            "history_item": tf.where(real & (because >= 0), names, blank),
            "unread": unread,
        }

    def _features(self, entries: tf.Tensor) -> tuple[Mapping[str, tf.Tensor], tf.Tensor]:
        """Side features by name, [batch, new, ...], and which items brought others,
        <bool>[batch, new]."""
        shape = tf.shape(entries)
        flat = tf.reshape(entries, [shape[0] * shape[1], shape[2]])
        found, passed_over = self.entries(flat)
        values = {
            name: found.get(name, tf.repeat(zeros, shape[0] * shape[1], axis=0))
            for name, zeros in self.stored.items()
        }
        wide = {
            name: tf.reshape(value, tf.concat([shape[:2], tf.shape(value)[1:]], axis=0))
            for name, value in values.items()
        }
        return wide, tf.reshape(tf.reduce_any(passed_over, axis=1), shape[:2])
