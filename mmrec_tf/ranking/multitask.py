"""What several tasks share, and how their losses add up.

Hidden layers are one stack for all tasks, or experts that each task weighs for itself. Every kind
is called with <float32>[batch, features] and returns one <float32>[batch, units] a task, for that
task's output unit. All compute in float32 under any policy, as the feature interactions below them
do.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import tensorflow as tf

from mmrec_tf.dataset import draws
from mmrec_tf.errors import ConfigError

FLOAT32 = {"dtype": "float32"}
# What a loss of that kind is multiplied with, over its task's variance.
KINDS = {"binary": 1.0, "regression": 0.5}


def both_logit(first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    """The logit of two things of which the second happens only after the first, as of a click and
    a purchase: that of sigmoid(first) * sigmoid(second) (ESMM, Ma et al. 2018b, eq. 1).

    Its odds are 1 / (exp(-first) + exp(-second) + exp(-first - second)), which has no difference
    to lose digits by.

    Args:
      first: <float32>[...].
      second: <float32>[...], of what happens given that the first did.

    Returns:
      <float32>[...].
    """
    return -tf.reduce_logsumexp(tf.stack([-first, -second, -first - second]), axis=0)


def _stack(hidden: Sequence[int], dropout: float, name: str) -> list[tf.keras.layers.Layer]:
    """Hidden layers of so many units, and dropout behind each."""
    layers = []
    for i, units in enumerate(hidden):
        dense = tf.keras.layers.Dense(units, activation="relu", name=f"{name}_{i}", **FLOAT32)
        layers += [dense, draws.Dropout(dropout, **FLOAT32)]
    return layers


def _through(layers: Iterable[tf.keras.layers.Layer], x: tf.Tensor, training: bool) -> tf.Tensor:
    for layer in layers:
        x = layer(x, training=training)
    return x


def _gate(num_experts: int, name: str) -> tf.keras.layers.Layer:
    """<float32>[batch, features] -> <float32>[batch, expert]; rows sum to 1."""
    return tf.keras.layers.Dense(
        num_experts, activation="softmax", use_bias=False, name=name, **FLOAT32
    )


def _mix(weights: tf.Tensor, outputs: Sequence[tf.Tensor]) -> tf.Tensor:
    """The weighted sum of experts' outputs, a list of <float32>[batch, units]."""
    return tf.einsum("be,beu->bu", weights, tf.stack(outputs, axis=1))


@tf.keras.utils.register_keras_serializable("mmrec_tf")
class SharedBottom(tf.keras.layers.Layer):
    """One stack of hidden layers for all tasks (Caruana 1997).

    Args:
      num_tasks: int.
      hidden: tuple of int. Units of the hidden layers.
      dropout: float. Rate behind each of them.
    """

    def __init__(
        self, num_tasks: int, *, hidden: Sequence[int] = (64,), dropout: float = 0.0, **kwargs: Any
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        self.num_tasks = num_tasks
        self.hidden = tuple(hidden)
        self.dropout = dropout

    def get_config(self) -> dict[str, Any]:
        settings = {"num_tasks": self.num_tasks, "hidden": self.hidden, "dropout": self.dropout}
        return {**super().get_config(), **settings}

    def build(self, input_shape: Any) -> None:
        self.stack = _stack(self.hidden, self.dropout, "hidden")
        super().build(input_shape)

    def call(self, inputs: tf.Tensor, training: bool = False) -> list[tf.Tensor]:
        """What each task's output unit reads.

        Args:
          inputs: <float32>[batch, features].
          training: whether dropout is on.

        Returns:
          A list of one <float32>[batch, units] a task; the inputs as they are where they have 0
          columns, or where there are no hidden layers.
        """
        if not self.hidden or not inputs.shape[1]:
            return [inputs] * self.num_tasks
        return self.of_tasks(inputs, training)

    def of_tasks(self, inputs: tf.Tensor, training: bool) -> list[tf.Tensor]:
        """As `call`, with columns to read and layers to read them."""
        return [_through(self.stack, inputs, training)] * self.num_tasks


@tf.keras.utils.register_keras_serializable("mmrec_tf")
class MMoE(SharedBottom):
    """Multi-gate mixture of experts (Ma et al. 2018): every expert is a stack of the
    hidden layers, and each task has a softmax gate over them, fed by the inputs.

    Args:
      num_experts: int. Shared by all tasks.
      num_tasks, hidden, dropout: as in `SharedBottom`.
    """

    def __init__(self, num_tasks: int, *, num_experts: int = 4, **kwargs: Any) -> None:
        super().__init__(num_tasks, **kwargs)
        self.num_experts = num_experts

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_experts": self.num_experts}

    def build(self, input_shape: Any) -> None:
        self.experts = [
            _stack(self.hidden, self.dropout, f"expert_{i}") for i in range(self.num_experts)
        ]
        self.gates = [_gate(self.num_experts, f"gate_{i}") for i in range(self.num_tasks)]
        super().build(input_shape)

    def of_tasks(self, inputs: tf.Tensor, training: bool) -> list[tf.Tensor]:
        outputs = [_through(expert, inputs, training) for expert in self.experts]
        return [_mix(gate(inputs), outputs) for gate in self.gates]


@tf.keras.utils.register_keras_serializable("mmrec_tf")
class PLE(SharedBottom):
    """Progressive layered extraction (Tang et al. 2020, section 4.2): each task has experts of its
    own beside those that all share.

    Each of the hidden layers is a level, and an expert of a level is one layer of that many units.
    A task's experts and gate read what the level below made for the task, and the gate weighs them
    and the shared ones; the shared experts and their gate, which weighs all experts, read what it
    made there for all. With one hidden layer it is the paper's customized gate control
    (section 4.1).

    Args:
      num_experts: int. Of each task, on each level.
      num_shared: int. Of all tasks, on each level; None for as many as a task has.
      num_tasks, hidden, dropout: as in `SharedBottom`.
    """

    def __init__(
        self, num_tasks: int, *, num_experts: int = 2, num_shared: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(num_tasks, **kwargs)
        self.num_experts = num_experts
        self.num_shared = num_experts if num_shared is None else num_shared

    def get_config(self) -> dict[str, Any]:
        settings = {"num_experts": self.num_experts, "num_shared": self.num_shared}
        return {**super().get_config(), **settings}

    def build(self, input_shape: Any) -> None:
        tasks = [f"task_{i}" for i in range(self.num_tasks)]
        sizes = {**dict.fromkeys(tasks, self.num_experts), "shared": self.num_shared}
        # By level and group; the shared group stands last, and has no gate on the last level, of
        # which only the tasks read.
        self.experts, self.gates = [], []
        for i, units in enumerate(self.hidden):
            self.experts.append(
                [
                    [_stack([units], self.dropout, f"level_{i}_{name}_{e}") for e in range(size)]
                    for name, size in sizes.items()
                ]
            )
            widths = dict.fromkeys(tasks, self.num_experts + self.num_shared)
            if i + 1 < len(self.hidden):
                widths["shared"] = sum(sizes.values())
            self.gates.append([_gate(n, f"level_{i}_gate_{name}") for name, n in widths.items()])
        super().build(input_shape)

    def of_tasks(self, inputs: tf.Tensor, training: bool) -> list[tf.Tensor]:
        groups = [inputs] * (self.num_tasks + 1)
        for experts, gates in zip(self.experts, self.gates, strict=True):
            *tasks, shared = [
                [_through(expert, x, training) for expert in group]
                for group, x in zip(experts, groups, strict=True)
            ]
            weighed = [own + shared for own in tasks] + [sum(tasks, shared)]
            # The gates end before the shared group on the last level.
            groups = [
                _mix(gate(x), outputs)
                for gate, x, outputs in zip(gates, groups, weighed, strict=False)
            ]
        return groups


def _one_stack(*, num_experts: int = 1, **kwargs: Any) -> SharedBottom:
    """`SharedBottom`, to which a number of experts means nothing."""
    return SharedBottom(**kwargs)


# Called with num_tasks, num_experts, hidden, dropout, and the settings of any layer.
SHARINGS: dict[str, Callable] = {"shared_bottom": _one_stack, "mmoe": MMoE, "ple": PLE}


@tf.keras.utils.register_keras_serializable("mmrec_tf")
class UncertaintyWeights(tf.keras.layers.Layer):
    """Losses of several tasks, weighed by learned uncertainty (Kendall et al. 2018, eqs. 7 and 10).

    With s the log of a task's variance, a loss L adds exp(-s) L + s / 2, and half of exp(-s) L
    where it is a squared error. s starts at 0.

    Args:
      kinds: sequence of str, one a task. "regression" for a squared error; "binary" for the
        negative log of a probability, of a click or of a place in a list.

    Raises:
      ConfigError: for another kind.
    """

    def __init__(self, kinds: Sequence[str], **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        for kind in kinds:
            if kind not in KINDS:
                raise ConfigError(f"kinds: wanted some of {', '.join(KINDS)}; got {kind!r}.")
        self.kinds = tuple(kinds)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "kinds": self.kinds}

    def build(self, input_shape: Any) -> None:
        self.log_variance = self.add_weight(
            name="log_variance",
            shape=[len(self.kinds)],
            initializer="zeros",
            dtype=tf.float32,
            experimental_autocast=False,
        )
        super().build(input_shape)

    def call(self, losses: Sequence[tf.Tensor]) -> tf.Tensor:
        """The total.

        Args:
          losses: a list of one <float32>[...] a task, all of one shape.

        Returns:
          <float32>[...], of that shape.

        Raises:
          ValueError: for another number of losses.
        """
        if len(losses) != len(self.kinds):
            raise ValueError(
                f"losses: wanted one for each of {len(self.kinds)} tasks; got {len(losses)}."
            )
        factors = tf.unstack(tf.exp(-self.log_variance))
        total = tf.reduce_sum(self.log_variance) / 2
        for kind, factor, loss in zip(self.kinds, factors, losses, strict=True):
            total += KINDS[kind] * factor * loss
        return total
