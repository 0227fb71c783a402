"""Trials for TensorBoard's HParams tab: `tensorboard --logdir OUT/tensorboard`."""

import json
import pathlib
import shutil
from collections.abc import Sequence

from tuning.objective import Objective
from tuning.results.table import Row


def write_board(
    folder: pathlib.Path, row: Row, objective: Objective, settings: Sequence[str]
) -> None:
    """Writes one completed trial as a run of its own.

    Args:
      folder: of all trials' logs.
      row: the trial.
      objective: names the score.
      settings: what the space varies, of which a trial has some.
    """
    import tensorflow as tf
    from tensorboard.plugins.hparams import api as hp

    if row.score is None:
        return
    place = folder / f"trial_{row.trial}"
    shutil.rmtree(place, ignore_errors=True)
    metrics = {objective.name: row.score, **row.metrics}
    if not any(folder.glob("events.*")):
        with tf.summary.create_file_writer(str(folder)).as_default():
            hp.hparams_config(
                hparams=[hp.HParam(name) for name in settings],
                metrics=[hp.Metric(_tag(name)) for name in metrics],
            )
    values = {
        name: value if isinstance(value, int | float | str) else json.dumps(value)
        for name, value in row.settings.items()
    }
    with tf.summary.create_file_writer(str(place)).as_default():
        hp.hparams(values, trial_id=row.trial)
        for name, value in metrics.items():
            tf.summary.scalar(_tag(name), value, step=0)
        if row.spread is not None:
            tf.summary.scalar("spread", row.spread, step=0)


def _tag(name: str) -> str:
    """A name that TensorBoard takes: of letters, digits and a few signs."""
    return "".join(c if c.isalnum() or c in "._-/" else "_" for c in name)
