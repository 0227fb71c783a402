"""What an item is called, foretold by its embedding: heads for categories and for tags."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from mmrec_tf.config import LabelsConfig
from mmrec_tf.errors import ConfigError
from mmrec_tf.schema import FeatureSpec, Schema

FORMS = ("softmax", "sigmoid")


@tf.keras.utils.register_keras_serializable("mmrec_tf")
class LabelHeads(tf.keras.layers.Layer):
    """One linear head, or one with a hidden layer, for each labeled feature of the items.

    Args:
      forms: by feature, "softmax" where an item is of one of its categories, "sigmoid" where it may
        be of any number of them.
      sizes: by feature, how many categories its vocabulary has.
      buckets: by feature, the numbers of `Catalog.features` that come before those of the
        vocabulary: 0 for none, and what is out of vocabulary.
      dim: of the embedding.
      hidden: width of a hidden layer; 0 for none.
    """

    def __init__(
        self,
        forms: Mapping[str, str],
        sizes: Mapping[str, int],
        buckets: Mapping[str, int],
        dim: int,
        hidden: int = 0,
        **kwargs: Any,
    ) -> None:
        # Not even mixed precision may round logits.
        super().__init__(autocast=False, **kwargs)
        self.forms, self.sizes, self.buckets = dict(forms), dict(sizes), dict(buckets)
        self.dim, self.hidden = dim, hidden
        policy = {"dtype": "float32"}
        self.widen = tf.keras.layers.Dense(hidden, "relu", name="hidden", **policy)
        if hidden:
            self.widen.build([None, dim])
        self.heads = {
            name: tf.keras.layers.Dense(size, name=name, **policy) for name, size in sizes.items()
        }
        for head in self.heads.values():
            head.build([None, hidden or dim])

    @classmethod
    def from_experiment(
        cls, config: LabelsConfig, schema: Schema, dim: int, **kwargs: Any
    ) -> "LabelHeads | None":
        """The heads that a config asks for on a dataset's schema; None for none.

        Raises:
          ConfigError: for a feature that the dataset's items do not have, or that has no
            categories.
        """
        forms = {name: form for form in FORMS for name in getattr(config, form)}
        if not forms:
            return None
        for name, form in forms.items():
            spec = schema.item_features.get(name)
            if spec is None or spec.kind != "categorical" or not spec.vocabulary:
                known = [n for n, s in schema.item_features.items() if s.kind == "categorical"]
                raise ConfigError(
                    f"labels.{form}: wanted categorical features of the items "
                    f"({', '.join(known) or 'the dataset has none'}); got {name!r}. Prepare the "
                    "dataset with it (--item-categorical), or leave it out."
                )
        specs = {name: schema.item_features[name] for name in forms}
        return cls(
            forms,
            {name: len(spec.vocabulary) for name, spec in specs.items()},
            {name: 1 + spec.oov_buckets for name, spec in specs.items()},
            dim,
            config.hidden,
            **kwargs,
        )

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "forms": self.forms,
            "sizes": self.sizes,
            "buckets": self.buckets,
            "dim": self.dim,
            "hidden": self.hidden,
        }

    def call(self, embedding: tf.Tensor) -> dict[str, tf.Tensor]:
        """<float32>[batch, dim] to logits by feature, <float32>[batch, category]."""
        state = tf.cast(embedding, tf.float32)
        if self.hidden:
            state = self.widen(state)
        return {name: head(state) for name, head in self.heads.items()}

    def probabilities(self, embedding: tf.Tensor) -> dict[str, tf.Tensor]:
        """<float32>[batch, dim] to probabilities by feature, <float32>[batch, category]."""
        logits = self(embedding)
        return {
            name: tf.nn.softmax(value) if self.forms[name] == "softmax" else tf.sigmoid(value)
            for name, value in logits.items()
        }

    def truth(self, name: str, numbers: tf.Tensor) -> tf.Tensor:
        """Which categories of the vocabulary items have: <int32>[batch, width] as
        `Catalog.features`, to <float32>[batch, category]; zeros where none is known."""
        place = tf.where(numbers >= self.buckets[name], numbers - self.buckets[name], -1)
        # A number of -1 gives a row of zeros.
        return tf.reduce_max(tf.one_hot(place, self.sizes[name]), axis=1)

    def loss(self, embedding: tf.Tensor, features: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Cross-entropy of what is known of some items; those of which nothing is say nothing.

        Args:
          embedding: <float32>[batch, dim].
          features: as `Catalog.features`.

        Returns:
          <float32>[], the sum over features of the mean over items: of "softmax" the cross-entropy
          with the share of an item's categories, of "sigmoid" the mean over categories of that with
          each of them.
        """
        total = tf.constant(0.0)
        for name, logits in self(embedding).items():
            truth = self.truth(name, features[name])
            count = tf.reduce_sum(truth, axis=1)
            known = tf.cast(count > 0, tf.float32)
            if self.forms[name] == "softmax":
                share = tf.math.divide_no_nan(truth, count[:, None])
                losses = tf.nn.softmax_cross_entropy_with_logits(share, logits)
            else:
                losses = tf.reduce_mean(
                    tf.nn.sigmoid_cross_entropy_with_logits(truth, logits), axis=1
                )
            total += tf.math.divide_no_nan(tf.reduce_sum(losses * known), tf.reduce_sum(known))
        return total


def label_names(specs: Mapping[str, FeatureSpec], forms: Mapping[str, str]) -> list[str]:
    """What each probability is of, such as "genre=comedy", the features one after the other."""
    return [f"{name}={category}" for name in forms for category in specs[name].vocabulary]


def truth_of(heads: LabelHeads, features: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """`LabelHeads.truth` of a catalog, <bool>[item, category] by feature."""
    return {
        name: heads.truth(name, tf.constant(features[name])).numpy() > 0 for name in heads.forms
    }
