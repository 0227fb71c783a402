"""Side features that a request brings, as entries such as "genre=comedy" and "age=31"."""

import re
from collections.abc import Iterable, Mapping

import tensorflow as tf

from mmrec_tf.dataset.histories import drop_repeats
from mmrec_tf.errors import ConfigError, did_you_mean
from mmrec_tf.recommender.numbering import Numbering
from mmrec_tf.schema import FeatureSpec

# Bounded, so that no number of a request is more than a float64 holds.
NUMBER = r"[+-]?(\d{1,30}(\.\d{0,30})?|\.\d{1,30})([eE][+-]?\d{1,2})?"
_REST = 2**31 - 1


class FeatureEntries(tf.Module):
    """Reads entries of the form NAME=VALUE in a graph.

    A category that is not in the vocabulary counts as out of vocabulary, where all such share one
    number; where there are several, which of them it has is not known in a graph, and the entry is
    passed over.

    Args:
      specs: by name, the side features that are read; others are passed over.
    """

    def __init__(self, specs: Mapping[str, FeatureSpec]):
        super().__init__(name="feature_entries")
        self.specs = dict(specs)
        self.tables = {
            name: Numbering(spec.vocabulary)
            for name, spec in specs.items()
            if spec.kind == "categorical"
        }

    def require(self, entries: Iterable[str], *, of: str) -> None:
        """Refuses entries that a graph would pass over.

        Args:
          entries: of one user or item; "" is none.
          of: whose features they are, "users" or "items".

        Raises:
          ConfigError: naming the entry, and the nearest name.
        """
        for entry in filter(None, entries):
            name, _, value = entry.partition("=")
            spec = self.specs.get(name)
            if spec is None:
                reads = f"; it reads {', '.join(self.specs) or 'none'}."
                raise ConfigError(
                    f"features: wanted NAME=VALUE of a side feature of {of} that the model reads; "
                    f"got {entry!r}{did_you_mean(name, self.specs, otherwise=reads)}"
                )
            if spec.kind == "numeric" and not re.fullmatch(NUMBER, value):
                raise ConfigError(f"features: wanted a number, as in {name}=31; got {entry!r}.")
            known = spec.oov_buckets == 1 or value in spec.vocabulary
            if spec.kind == "categorical" and not (value and known):
                raise ConfigError(
                    f"features: wanted a value of {name} that the dataset has; got {entry!r}."
                )

    def __call__(self, entries: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        """Reads entries.

        Args:
          entries: <string>[batch, any]; "" for none. Of a number the first one counts; a category
            that is repeated counts once.

        Returns:
          By name as in `SideFeatures.call`, zeros where nothing was brought; and
          <bool>[batch, any], which entries came and were passed over.
        """
        # One entry more, as nothing can be chosen of lists without any.
        entries = tf.pad(entries, [[0, 0], [1, 0]], constant_values="")
        unread = tf.strings.length(entries) > 0
        found = {}
        for name, spec in self.specs.items():
            head = f"{name}="
            named = tf.strings.substr(entries, 0, len(head.encode())) == head
            value = tf.strings.substr(tf.where(named, entries, head), len(head.encode()), _REST)
            if spec.kind == "categorical":
                place = self.tables[name].lookup(value)
                number = tf.where(place >= 0, place + 1 + spec.oov_buckets, 0)
                if spec.oov_buckets == 1:
                    number = tf.where((place < 0) & (tf.strings.length(value) > 0), 1, number)
                read = named & (number > 0)
                found[name] = drop_repeats(tf.where(read, number, 0), blank=0)
            else:
                number = tf.strings.regex_full_match(value, NUMBER) & named
                parsed = tf.strings.to_number(tf.where(number, value, "0"), tf.float64)
                if spec.low is not None and spec.high is not None:
                    parsed = tf.clip_by_value(parsed, spec.low, spec.high)
                scaled = tf.cast((parsed - spec.mean) / spec.std, tf.float32)
                read = number & tf.math.is_finite(scaled)
                first = tf.argmax(read, axis=1)
                some = tf.reduce_any(read, axis=1)
                chosen = tf.where(some, tf.gather(scaled, first, batch_dims=1), 0.0)
                found[name] = tf.stack([chosen, tf.cast(some, tf.float32)], axis=1)
            unread &= ~read
        return found, unread[:, 1:]


def replace_features(
    stored: Mapping[str, tf.Tensor], brought: Mapping[str, tf.Tensor]
) -> dict[str, tf.Tensor]:
    """Side features by name as in `SideFeatures.call`: what was brought, else what is stored."""
    replaced = dict(stored)
    for name, value in brought.items():
        if value.dtype == tf.int32:
            some = tf.reduce_any(value > 0, axis=1, keepdims=True)
            # As many columns as both have, as a mean passes over those that hold none.
            kept = tf.where(some, 0, stored[name])
            replaced[name] = tf.concat([value, kept], axis=1)
        else:
            replaced[name] = tf.where(value[:, 1:] > 0, value, stored[name])
    return replaced
