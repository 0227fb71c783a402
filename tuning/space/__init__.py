"""What a search may vary: settings and their ranges, as KerasTuner hyperparameters and back.

A space maps the path of a setting to its range, in JSON as here:

    {"training.learning_rate": {"float": [1e-4, 1e-2], "log": true},
     "user.history": {"choice": ["mean", "self_attention"]},
     "user.num_layers": {"int": [1, 3]}}

`language` reads ranges, `conditions` finds out where a setting has an effect at all (above,
`user.num_layers` only with self-attention), and `ready_made` holds spaces with a name. In Python a
space may also be a function of `keras_tuner.HyperParameters`, or such hyperparameters.
"""

from tuning.space.conditions import NO_EFFECT, RESERVED, stage_of
from tuning.space.language import (
    AnySpace,
    Space,
    differences,
    hyperparameters,
    load_space,
    overrides,
    rounded,
    touched,
    values_of,
)
from tuning.space.ready_made import SPACES, default_space, ready_made

__all__ = [
    "NO_EFFECT",
    "RESERVED",
    "SPACES",
    "AnySpace",
    "Space",
    "default_space",
    "differences",
    "hyperparameters",
    "load_space",
    "overrides",
    "ready_made",
    "rounded",
    "stage_of",
    "touched",
    "values_of",
]
