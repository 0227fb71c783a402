"""What all tests share. mmrec_tf is imported first: it chooses Keras 2 before TensorFlow loads."""

import os
import pathlib
import random
import sys

import numpy as np
import pytest

import mmrec_tf

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TQDM_DISABLE", "1")
# A test that asks a hub is a fault, and is to fail at once.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

ROOT = pathlib.Path(__file__).resolve().parents[1]


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


@pytest.fixture(scope="session")
def dataset(tmp_path_factory):
    """The small world, opened; for reading only."""
    from support import small_world

    return mmrec_tf.open_dataset(small_world.write(tmp_path_factory.mktemp("small") / "dataset"))


@pytest.fixture(scope="session")
def labeled(tmp_path_factory):
    """The small world with ratings, types of events and positions, opened; for reading only."""
    from support import small_world

    folder = tmp_path_factory.mktemp("small") / "labeled"
    return mmrec_tf.open_dataset(small_world.write(folder, labels=True))


@pytest.fixture(scope="session")
def run(dataset, tmp_path_factory):
    """A finished run on the small world, with all modalities and the id-only twin, as training
    left it in memory; for reading only."""
    from support import small_world

    from mmrec_tf.runs.train import train_run

    config = small_world.config(training__epochs=3)
    return train_run(dataset, config, tmp_path_factory.mktemp("small") / "run", twin=True)


@pytest.fixture(scope="session")
def exported(run, tmp_path_factory):
    """The export of `run`, read back from disk first, with five items an answer."""
    directory = tmp_path_factory.mktemp("small") / "export"
    loaded = mmrec_tf.load_run(run.directory)
    mmrec_tf.export(loaded.recommender(), directory, version=1, k=5)
    return directory
