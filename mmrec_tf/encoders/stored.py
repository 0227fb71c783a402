"""What a run knows of its frozen encoders without loading them, and who loads them when asked.

What a frozen encoder makes of a catalog is cached, so a finished run that recommends needs its
networks for texts only that a request brings, and they take most of the time until a first answer.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from mmrec_tf.encoders.encoder import ModalityEncoder


class StoredEncoder:
    """A frozen encoder as far as what it stored tells; the rest asks the encoder itself.

    Args:
      facts: as `stored_facts` returned them.
      load: to the encoder.
    """

    frozen = True
    stores_vectors = True

    def __init__(self, facts: Mapping[str, Any], load: Callable[[], ModalityEncoder]):
        self.output_dim: int = facts["output_dim"]
        self._fingerprint: str = facts["fingerprint"]
        self._load = load

    @property
    def stored_spec(self) -> tf.TensorSpec:
        """<float32>[batch, output_dim]."""
        return tf.TensorSpec([None, self.output_dim], tf.float32)

    def stored_fingerprint(self) -> str:
        """As of the encoder when it was saved."""
        return self._fingerprint

    def from_stored(self, stored: tf.Tensor, *, training: bool = False) -> tf.Tensor:
        """What is stored: nothing is left to do."""
        return stored

    # Asked of what the cache does not hold.

    @property
    def not_exported(self) -> str:
        """As `ModalityEncoder.not_exported`."""
        return self._load().not_exported

    def preprocess(self, raw: tf.Tensor) -> tf.Tensor:
        """As `ModalityEncoder.preprocess`."""
        return self._load().preprocess(raw)

    def to_stored(self, content: tf.Tensor) -> tf.Tensor:
        """As `ModalityEncoder.to_stored`."""
        return self._load().to_stored(content)

    def group_values(self, stored: np.ndarray, start: np.ndarray) -> np.ndarray:
        """As `ModalityEncoder.group_values`."""
        return self._load().group_values(stored, start)


class LazyEncoders:
    """Encoders by name, all of which are loaded when the first one is asked for. Read as a mapping,
    but none to Keras, which flattens what a model is made of.

    Args:
      facts: by name, as `stored_facts` returned them.
      load: to the encoders, with the same names and in that order.
    """

    def __init__(
        self,
        facts: Mapping[str, Mapping[str, Any] | None],
        load: Callable[[], Mapping[str, ModalityEncoder]],
    ):
        self._facts = facts
        self._load = load
        self._loaded: Mapping[str, ModalityEncoder] | None = None

    @property
    def loaded(self) -> bool:
        """Whether one was asked for."""
        return self._loaded is not None

    def known(self, name: str) -> ModalityEncoder | StoredEncoder:
        """What is enough for what is stored: the encoder where it trains or is loaded, else what
        the run says of it."""
        facts = self._facts[name]
        if self.loaded or facts is None:
            return self[name]
        return StoredEncoder(facts, lambda: self[name])

    def __getitem__(self, name: str) -> ModalityEncoder:
        if name not in self._facts:
            raise KeyError(name)
        if self._loaded is None:
            # Within a graph that is traced just now, weights would be its own.
            with tf.init_scope():
                self._loaded = self._load()
        return self._loaded[name]

    def __contains__(self, name: str) -> bool:
        return name in self._facts

    def __iter__(self) -> Iterator[str]:
        return iter(self._facts)

    def __len__(self) -> int:
        return len(self._facts)

    def keys(self) -> Iterable[str]:
        """The names."""
        return self._facts.keys()

    def values(self) -> list[ModalityEncoder]:
        """The encoders."""
        return [self[name] for name in self]

    def items(self) -> list[tuple[str, ModalityEncoder]]:
        """Both."""
        return [(name, self[name]) for name in self]


def stored_facts(encoder: ModalityEncoder) -> dict[str, Any] | None:
    """What a run keeps of an encoder; None of one that trains, which is always loaded."""
    if not encoder.frozen:
        return None
    return {"output_dim": encoder.output_dim, "fingerprint": encoder.stored_fingerprint()}


def known_encoder(
    encoders: Mapping[str, ModalityEncoder] | LazyEncoders, name: str
) -> ModalityEncoder | StoredEncoder:
    """An encoder as far as what it stored tells; loads none that need not be."""
    return encoders.known(name) if isinstance(encoders, LazyEncoders) else encoders[name]
