"""The mean of the weights after the last few epochs (Izmailov et al. 2018)."""

import pathlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import tensorflow as tf

from mmrec_tf.training.checkpoints import keep_state, kept_state, load_weights

_NAME = "recent"


class WeightAverage:
    """Keeps the trained weights after each of the last epochs, in memory and beside the backup.

    What does not train, such as running means of batch normalization, is that of the last epoch.

    Args:
      model: Stage, or any Keras model.
      epochs: how many are averaged; 1 keeps nothing.
      directory: where they survive a kill; None for memory only.
    """

    def __init__(self, model: tf.keras.Model, epochs: int, directory: pathlib.Path | None = None):
        self.model, self.epochs, self.directory = model, epochs, directory
        self.recent: dict[int, list[np.ndarray]] = {}
        facts = kept_state(directory, _NAME) if directory is not None and epochs > 1 else None
        if directory is None or facts is None:
            return
        held = _Held({n: [weight.numpy() for weight in self._weights] for n in facts["epochs"]})
        load_weights(directory / facts["folder"], recent=held)
        self.recent = held.read()

    @property
    def _weights(self) -> list[tf.Variable]:
        return self.model.trainable_variables

    def add(self, epoch: int) -> None:
        """Takes the model's weights as those after `epoch`; what an interrupted run had of that
        epoch or of later ones gives way."""
        if self.epochs == 1:
            return
        self.recent = {n: values for n, values in self.recent.items() if n < epoch}
        self.recent[epoch] = [weight.numpy() for weight in self._weights]
        for old in sorted(self.recent)[: -self.epochs]:
            del self.recent[old]
        if self.directory is not None:
            facts = {"epochs": sorted(self.recent)}
            keep_state(self.directory, _NAME, epoch, facts, recent=_Held(self.recent))

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within it the model has the mean of what was added, and its own weights again behind."""
        if len(self.recent) < 2:
            yield
            return
        own = [weight.numpy() for weight in self._weights]
        try:
            for place, weight in enumerate(self._weights):
                values = [self.recent[epoch][place] for epoch in sorted(self.recent)]
                # Sums of halves, and of many epochs, lose digits.
                weight.assign(np.mean(values, axis=0, dtype=np.float64).astype(values[0].dtype))
            yield
        finally:
            for weight, value in zip(self._weights, own, strict=True):
                weight.assign(value)


class _Held(tf.Module):
    """Arrays by epoch, as variables that a checkpoint can hold."""

    def __init__(self, values: dict[int, list[np.ndarray]]):
        super().__init__()
        self.held = {
            str(epoch): [tf.Variable(value, trainable=False) for value in arrays]
            for epoch, arrays in values.items()
        }

    def read(self) -> dict[int, list[np.ndarray]]:
        """The arrays again."""
        return {
            int(epoch): [variable.numpy() for variable in variables]
            for epoch, variables in self.held.items()
        }
