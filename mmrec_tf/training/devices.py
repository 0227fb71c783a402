"""The devices that training runs on: chosen by a word, and said in a line."""

import json
import os
import pathlib

import tensorflow as tf

from mmrec_tf.config import TrainingConfig
from mmrec_tf.errors import ConfigError

# What NVIDIA's driver leaves where a GPU is, whether TensorFlow can use it or not.
_DRIVER = pathlib.Path("/proc/driver/nvidia/version")


def choose_devices(devices: str | None) -> tf.distribute.Strategy:
    """The strategy under which a model is made and trained.

    Args:
      devices: "all", or a number of this machine's GPUs; of its CPU devices where it has no GPU.
        None for TensorFlow's own choice, which is the first device.

    Returns:
      MirroredStrategy over several devices, else one of a single device.

    Raises:
      ConfigError: for another word, more devices than there are, or a `TF_CONFIG` of several
        workers, each of which would write the same run.
    """
    if _workers() > 1:
        raise ConfigError(
            f"TF_CONFIG: wanted one worker, as a run directory is trained by one process; got "
            f"{_workers()}. Train with mm.train under tf.distribute.MultiWorkerMirroredStrategy "
            "(docs/howto/several_gpus.md), or unset TF_CONFIG."
        )
    if devices is None:
        return tf.distribute.get_strategy()
    kind = "GPU" if tf.config.list_physical_devices("GPU") else "CPU"
    there = [device.name for device in tf.config.list_logical_devices(kind)]
    wanted = len(there) if devices == "all" else int(devices) if devices.isdecimal() else 0
    if not 1 <= wanted <= len(there):
        raise ConfigError(
            f"--devices: wanted all, or a number from 1 to {len(there)}, as TensorFlow sees "
            f"{len(there)} {kind} here; got {devices!r}.{unseen_gpu()}"
        )
    if wanted == 1:
        return tf.distribute.OneDeviceStrategy(there[0])
    return tf.distribute.MirroredStrategy(there[:wanted])


def _workers() -> int:
    """How many processes `TF_CONFIG` names to train together; 1 without it.

    Raises:
      ConfigError: when it is no JSON of TensorFlow's form.
    """
    text = os.environ.get("TF_CONFIG", "")
    if not text:
        return 1
    try:
        cluster = json.loads(text).get("cluster", {})
        return max(1, sum(len(cluster.get(job, ())) for job in ("chief", "worker")))
    except (ValueError, AttributeError, TypeError) as error:
        raise ConfigError(
            'TF_CONFIG: wanted JSON such as {"cluster": {"worker": ["one:2345", "two:2345"]}, '
            f'"task": {{"type": "worker", "index": 0}}}}; got {text!r:.60} ({error}).'
        ) from error


def describe_devices(strategy: tf.distribute.Strategy, training: TrainingConfig) -> str:
    """What training runs on, and how exactly it computes, in a line."""
    replicas = strategy.num_replicas_in_sync
    gpus = tf.config.list_physical_devices("GPU")
    kind = "GPU" if gpus else "CPU"
    names = sorted(
        {tf.config.experimental.get_device_details(gpu).get("device_name", "GPU") for gpu in gpus}
    )
    where = f"{replicas} {kind} device{'s' if replicas > 1 else ''}"
    if names:
        where += f" ({', '.join(names)})"
    precision = "mixed_float16" if training.mixed_precision else "float32"
    compiled = ", compiled by XLA" if training.jit_compile else ""
    said = f"devices: {where}; towers in {precision}, frozen encoders in float32{compiled}"
    return f"{said}; batches are made on the CPU.{unseen_gpu()}"


def unseen_gpu() -> str:
    """A sentence where this machine has an NVIDIA GPU of which TensorFlow sees nothing; else ""."""
    if not _DRIVER.exists() or tf.config.list_physical_devices("GPU"):
        return ""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return " A GPU is here, but CUDA_VISIBLE_DEVICES hides it."
    return (
        " A GPU is here, but TensorFlow sees none, as CUDA's libraries are missing or of another "
        'version: pip install "tensorflow[and-cuda]" of the same version brings them.'
    )
