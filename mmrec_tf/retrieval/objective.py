"""What each example's positive is compared with, and the loss of it."""

from collections.abc import Mapping

import numpy as np
import tensorflow as tf
import tensorflow_recommenders as tfrs

from mmrec_tf.config import RetrievalConfig
from mmrec_tf.dataset import draws
from mmrec_tf.errors import RunError
from mmrec_tf.retrieval.losses import (
    batch_history_mask,
    batch_softmax_loss,
    bpr_loss,
    full_softmax_loss,
    gbce_loss,
    history_mask,
    named_in,
    positive_power,
    sampled_softmax_loss,
)
from mmrec_tf.retrieval.negatives import (
    FrequencyEstimator,
    ItemMemory,
    draw_columns,
    log_expected,
)
from mmrec_tf.training.step import gather_replicas

# Places of examples on one replica do not reach those on the next.
REPLICA_PLACES = 2**24


class Objective(tf.Module):
    """The retrieval loss that a config asks for.

    `numbers` and `rows` name the items of a step: "item" <int32>[batch], "history" <int32>[batch,
    step], and what `draw` adds: "uniform" <int32>[n] for all rows, "mined" and "disliked"
    <int32>[batch, n] for each, -1 for none. Numbers are those of the catalog; rows say where each
    stands among the step's candidates.

    Args:
      settings: RetrievalConfig.
      num_items: int, in the catalog.
      dim: int. Width of an item's embedding.
      static_shapes: bool. Whether XLA compiles it, so that no shape may depend on values.
    """

    def __init__(
        self,
        settings: RetrievalConfig,
        *,
        num_items: int,
        dim: int,
        static_shapes: bool = False,
        name: str | None = None,
    ):
        super().__init__(name)
        self.static_shapes = static_shapes
        self.settings = settings
        self.num_items = num_items
        self.task = tfrs.tasks.Retrieval(
            loss=tf.keras.losses.CategoricalCrossentropy(
                from_logits=True, reduction=tf.keras.losses.Reduction.NONE
            ),
            num_hard_negatives=settings.num_hard_negatives or None,
            remove_accidental_hits=settings.remove_accidental_hits,
        )
        self.frequency = self.memory = None
        if settings.softmax == "batch":
            if settings.sampling_correction == "streaming":
                self.frequency = FrequencyEstimator(num_items, name="frequency")
            if settings.memory_size:
                self.memory = ItemMemory(settings.memory_size, dim, name="memory")
        # A weight of 0 adds nothing, as disliked items are left out.
        self.log_dislike = float(np.log(settings.disliked_weight or 1.0))

    def draw(
        self, inputs: Mapping[str, tf.Tensor], mined: tf.Tensor | None
    ) -> dict[str, tf.Tensor]:
        """Numbers of items that stand beside the batch's own, by name.

        Args:
          inputs: a batch as `Schema.batch_spec` describes.
          mined: <int32>[user, n], what the model itself ranked highest; None where not asked for.

        Raises:
          RunError: when mined negatives are asked for and there are none.
        """
        settings = self.settings
        drawn = {}
        if settings.softmax == "batch" and settings.num_uniform_negatives:
            drawn["uniform"] = draws.uniform(
                [settings.num_uniform_negatives], maxval=self.num_items, dtype=tf.int32
            )
        if settings.softmax == "batch" and settings.num_mined_negatives:
            if mined is None:
                raise RunError(
                    "retrieval.num_mined_negatives: nothing was mined yet. Train with "
                    "mmrec_tf.train, or give `fit` the callback mmrec_tf.training.fit.Mining."
                )
            drawn["mined"] = draw_columns(mined, inputs["user"], settings.num_mined_negatives)
        if settings.disliked_below is not None:
            drawn["disliked"] = inputs["disliked"]
        return drawn

    def __call__(
        self,
        inputs: Mapping[str, tf.Tensor],
        queries: tf.Tensor,
        candidates: tf.Tensor,
        *,
        numbers: Mapping[str, tf.Tensor],
        rows: Mapping[str, tf.Tensor],
        tables: Mapping[str, tf.Tensor],
        remembered: tuple[tf.Tensor, tf.Tensor] | None = None,
    ) -> tf.Tensor:
        """The loss of each example.

        Args:
          inputs: a batch.
          queries: <float32>[batch, dim + 1].
          candidates: <float32>[row, dim + 1]; of the whole catalog under the full softmax.
          numbers, rows: see the class.
          tables: "probability" <float32>[item], "warm" <bool>[item].
          remembered: what the memory holds: numbers <int32>[size], -1 where there is nothing yet,
            and candidates <float32>[size, dim + 1]; None without a memory.

        Returns:
          <float32>[batch].

        Raises:
          ValueError: when there is a memory and `remembered` is None.
        """
        settings = self.settings
        if settings.softmax == "full":
            return self._full(inputs, queries, candidates, numbers, tables)
        if settings.loss == "gbce":
            return self._uniform(inputs, queries, candidates, numbers, rows, tables)
        plain = settings.loss == "softmax" and not settings.label_smoothing
        plain = plain and not settings.memory_size
        plain = plain and not {"uniform", "mined", "disliked"} & set(numbers)
        if plain and tf.distribute.get_strategy().num_replicas_in_sync == 1:
            return self._in_batch(inputs, queries, tf.gather(candidates, rows["item"]), tables)
        return self._sampled(inputs, queries, candidates, numbers, rows, tables, remembered)

    def remember(self, item: tf.Tensor, embedding: tf.Tensor) -> None:
        """Takes a batch into the streaming estimate and the memory.

        Args:
          item: <int32>[batch].
          embedding: <float32>[batch, dim].
        """
        if self.frequency is None and self.memory is None:
            return
        item, embedding = gather_replicas(item, embedding)
        if self.frequency is not None:
            self.frequency.update(item)
        if self.memory is not None:
            self.memory.write(item, embedding)

    def _probability(self, item: tf.Tensor, tables: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """How probable items are as an example's item, <float32>[n]."""
        if self.frequency is not None:
            return self.frequency(item)
        return tf.gather(tables["probability"], item)

    def _full(
        self,
        inputs: Mapping[str, tf.Tensor],
        queries: tf.Tensor,
        candidates: tf.Tensor,
        numbers: Mapping[str, tf.Tensor],
        tables: Mapping[str, tf.Tensor],
    ) -> tf.Tensor:
        """Against the whole catalog."""
        settings, item = self.settings, inputs["item"]
        logits = tf.matmul(queries, candidates, transpose_b=True)
        own = tf.range(self.num_items)[None, :] == item[:, None]
        allowed = tf.ones_like(logits, tf.bool)
        if settings.mask_history:
            allowed = history_mask(inputs["history"], item, num_items=self.num_items)
        if not settings.cold_negatives:
            allowed &= tables["warm"][None, :]
        if settings.loss == "gbce":
            weight = tf.cast(allowed & ~own, tf.float32)
            if "disliked" in numbers:
                others = history_mask(numbers["disliked"], item, num_items=self.num_items)
                weight = tf.where(others, weight, weight * settings.disliked_weight)
            positive = tf.gather(logits, item, batch_dims=1)
            return gbce_loss(positive, logits, weight=weight, power=1.0)
        if "disliked" in numbers:
            others = history_mask(numbers["disliked"], item, num_items=self.num_items)
            logits = tf.where(others, logits, logits + self.log_dislike)
            allowed &= others | (settings.disliked_weight > 0)
        if settings.loss == "bpr":
            positive = tf.gather(logits, item, batch_dims=1)
            return bpr_loss(positive, logits, allowed=allowed & ~own)
        return full_softmax_loss(
            logits, item, allowed=allowed | own, label_smoothing=settings.label_smoothing
        )

    def _uniform(
        self,
        inputs: Mapping[str, tf.Tensor],
        queries: tf.Tensor,
        candidates: tf.Tensor,
        numbers: Mapping[str, tf.Tensor],
        rows: Mapping[str, tf.Tensor],
        tables: Mapping[str, tf.Tensor],
    ) -> tf.Tensor:
        """Against items that are drawn evenly, the same for all rows, and what a row dislikes."""
        settings, item, drawn = self.settings, inputs["item"], numbers["uniform"]
        known = inputs["history"] if settings.mask_history else inputs["history"][:, :0]
        apart = tf.concat([known, numbers["disliked"]], axis=1) if "disliked" in numbers else known
        allowed = (drawn[None, :] != item[:, None]) & ~named_in(apart, drawn)
        if not settings.cold_negatives:
            allowed &= tf.gather(tables["warm"], drawn)[None, :]
        vectors = tf.gather(candidates, rows["uniform"])
        logits = tf.matmul(queries, vectors, transpose_b=True)
        weight = tf.cast(allowed, tf.float32)
        if "disliked" in numbers:
            number = numbers["disliked"]
            more = tf.einsum("bd,bnd->bn", queries, tf.gather(candidates, rows["disliked"]))
            counts = (number >= 0) & (number != item[:, None]) & ~named_in(known, number)
            logits = tf.concat([logits, more], axis=1)
            more_weight = settings.disliked_weight * tf.cast(counts, tf.float32)
            weight = tf.concat([weight, more_weight], axis=1)
        positive = tf.reduce_sum(queries * tf.gather(candidates, rows["item"]), axis=1)
        power = positive_power(settings.num_uniform_negatives, self.num_items, settings.calibration)
        return gbce_loss(positive, logits, weight=weight, power=power)

    def _in_batch(
        self,
        inputs: Mapping[str, tf.Tensor],
        queries: tf.Tensor,
        candidates: tf.Tensor,
        tables: Mapping[str, tf.Tensor],
    ) -> tf.Tensor:
        """Against the batch's items."""
        settings, item, history = self.settings, inputs["item"], inputs["history"]
        # XLA knows no shape that depends on values, such as the number of distinct items.
        if not settings.num_hard_negatives and not self.static_shapes:
            return batch_softmax_loss(
                queries,
                candidates,
                item,
                probability=self._probability(item, tables)
                if settings.sampling_correction != "none"
                else None,
                history=history if settings.mask_history else None,
                remove_hits=settings.remove_accidental_hits,
            )
        return self.task(
            queries,
            candidates,
            candidate_sampling_probability=self._probability(item, tables)
            if settings.sampling_correction != "none"
            else None,
            candidate_ids=item if settings.remove_accidental_hits else None,
            score_mask=batch_history_mask(history, item) if settings.mask_history else None,
            compute_metrics=False,
        )

    def _shared(
        self,
        item: tf.Tensor,
        own: tf.Tensor,
        candidates: tf.Tensor,
        numbers: Mapping[str, tf.Tensor],
        rows: Mapping[str, tf.Tensor],
        remembered: tuple[tf.Tensor, tf.Tensor] | None,
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
        """What all rows are compared with: the items of all replicas' batches, some of the catalog
        at random, and the memory.

        Returns:
          Numbers <int32>[n], -1 where the memory is empty; candidates <float32>[n, dim + 1]; places
          <int32>[n] of the examples whose positives they are, -1 for none, and those of this
          replica's, <int32>[batch]; how many of the items examples drew, <int32>[].
        """
        context = tf.distribute.get_replica_context()
        replica = context.replica_id_in_sync_group if context is not None else 0
        place = tf.range(tf.size(item)) + replica * REPLICA_PLACES
        shared, vectors, places = gather_replicas(item, own, place)
        num_drawn = tf.size(shared)
        if "uniform" in numbers:
            shared = tf.concat([shared, numbers["uniform"]], axis=0)
            vectors = tf.concat([vectors, tf.gather(candidates, rows["uniform"])], axis=0)
        if self.memory is not None:
            if remembered is None:
                raise ValueError("remembered: wanted what the memory holds; got None.")
            item_then, vectors_then = remembered
            shared = tf.concat([shared, item_then], axis=0)
            vectors = tf.concat([vectors, vectors_then], axis=0)
            num_drawn += tf.reduce_sum(tf.cast(item_then >= 0, tf.int32))
        places = tf.pad(places, [[0, tf.size(shared) - tf.size(places)]], constant_values=-1)
        return shared, vectors, places, place, num_drawn

    def _sampled(
        self,
        inputs: Mapping[str, tf.Tensor],
        queries: tf.Tensor,
        candidates: tf.Tensor,
        numbers: Mapping[str, tf.Tensor],
        rows: Mapping[str, tf.Tensor],
        tables: Mapping[str, tf.Tensor],
        remembered: tuple[tf.Tensor, tf.Tensor] | None,
    ) -> tf.Tensor:
        """Against what all rows share, and what each has for itself."""
        settings, item, history = self.settings, inputs["item"], inputs["history"]
        own = tf.gather(candidates, rows["item"])
        shared, vectors, places, place, num_drawn = self._shared(
            item, own, candidates, numbers, rows, remembered
        )
        positive = tf.reduce_sum(queries * own, axis=1)
        logits = tf.matmul(queries, vectors, transpose_b=True)
        if settings.sampling_correction != "none":
            expected = {
                "num_drawn": num_drawn,
                "num_uniform": settings.num_uniform_negatives,
                "num_items": self.num_items,
            }
            positive -= log_expected(self._probability(item, tables), **expected)
            drawn = self._probability(tf.maximum(shared, 0), tables)
            logits -= log_expected(drawn, **expected)[None, :]
        hit = shared[None, :] == item[:, None]
        if not settings.remove_accidental_hits:
            # Those of the batch stay; what nobody chose now is never a negative of itself.
            hit &= (places < 0)[None, :]
        allowed = (shared >= 0)[None, :] & (places[None, :] != place[:, None]) & ~hit
        known = history if settings.mask_history else history[:, :0]
        # A disliked item counts by its weight alone, wherever else it stands.
        apart = tf.concat([known, numbers["disliked"]], axis=1) if "disliked" in numbers else known
        allowed &= ~named_in(apart, shared)
        if not settings.cold_negatives:
            allowed &= tf.gather(tables["warm"], tf.maximum(shared, 0))[None, :]
        for name, left_out in (("mined", apart), ("disliked", known)):
            if name not in numbers:
                continue
            number = numbers[name]
            more = tf.einsum("bd,bnd->bn", queries, tf.gather(candidates, rows[name]))
            counts = (number >= 0) & (number != item[:, None]) & ~named_in(left_out, number)
            if name == "disliked":
                more += self.log_dislike
                counts &= settings.disliked_weight > 0
            elif not settings.cold_negatives:
                counts &= tf.gather(tables["warm"], tf.maximum(number, 0))
            logits = tf.concat([logits, more], axis=1)
            allowed = tf.concat([allowed, counts], axis=1)
        common = {"allowed": allowed, "num_hard": settings.num_hard_negatives}
        if settings.loss == "bpr":
            return bpr_loss(positive, logits, **common)
        return sampled_softmax_loss(
            positive, logits, **common, label_smoothing=settings.label_smoothing
        )
