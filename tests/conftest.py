"""What all tests share. mmrec_tf is imported first: it chooses Keras 2 before TensorFlow loads."""

import contextlib
import fcntl
import os
import pathlib
import random
import sys

import numpy as np
import pytest

import mmrec_tf

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TQDM_DISABLE", "1")
if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers share the cores: threads of their own would only wait for each other.
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
# A test that asks a hub is a fault, and is to fail at once.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

ROOT = pathlib.Path(__file__).resolve().parents[1]


def pytest_make_parametrize_id(val, argname):
    """Bytes are numbered: what made them may add the time of day, and workers that start a second
    apart would collect tests of other names."""
    return argname if isinstance(val, bytes) else None


@pytest.fixture(autouse=True)
def seeds():
    """Every test starts from the same random state; TensorFlow's only where it is loaded."""
    random.seed(0)
    np.random.seed(0)
    if "tensorflow" in sys.modules:
        sys.modules["tensorflow"].random.set_seed(0)


@pytest.fixture(scope="session")
def shared() -> pathlib.Path:
    """The folder of large inputs beside the checkout; a test that needs it is skipped without."""
    path = ROOT.parent / "shared"
    if not path.is_dir():
        pytest.skip("needs the folder shared/ beside the checkout, which is not here")
    return path


@contextlib.contextmanager
def built_once(tmp_path_factory, name):
    """A folder that is the same for all workers, and whether this one has to fill it.

    The others wait at the door until it is full.
    """
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    folder, full = root / "shared" / name, root / "shared" / f"{name}.full"
    folder.parent.mkdir(exist_ok=True)
    with (root / "shared" / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder, not full.exists()
        full.touch()


@pytest.fixture(scope="session")
def dataset(tmp_path_factory):
    """The small world, opened; for reading only."""
    from support import small_world

    with built_once(tmp_path_factory, "dataset") as (folder, missing):
        if missing:
            small_world.write(folder)
    return mmrec_tf.open_dataset(folder)


@pytest.fixture(scope="session")
def labeled(tmp_path_factory):
    """The small world with ratings, types of events and positions, opened; for reading only."""
    from support import small_world

    with built_once(tmp_path_factory, "labeled") as (folder, missing):
        if missing:
            small_world.write(folder, labels=True)
    return mmrec_tf.open_dataset(folder)


@pytest.fixture(scope="session")
def run(dataset, tmp_path_factory):
    """A finished run on the small world, with all modalities and the id-only twin; for reading
    only."""
    from support import small_world

    from mmrec_tf.runs.train import train_run

    with built_once(tmp_path_factory, "run") as (folder, missing):
        if missing:
            # After one epoch ranking may well be of no use, and is to be served all the same.
            config = small_world.config(training__epochs=3, ranking__serve="always")
            return train_run(dataset, config, folder, twin=True)
    return mmrec_tf.load_run(folder)


@pytest.fixture(scope="session")
def exported(run, tmp_path_factory):
    """The export of `run`, read back from disk first, with five items an answer."""
    with built_once(tmp_path_factory, "export") as (folder, missing):
        if missing:
            loaded = mmrec_tf.load_run(run.directory)
            mmrec_tf.export(loaded.recommender(), folder, version=1, k=5)
    return folder
