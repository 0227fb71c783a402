"""Two-stage recommendation from what things are as well as from who clicked.

    import mmrec_tf as mm

    dataset = mm.open_dataset("work/toy")
    config = mm.Config(modalities=("text", "image", "audio"))
    retrieval = mm.RetrievalModel(config, dataset)
    mm.train(retrieval, dataset)
    print(retrieval.evaluate(dataset, split="test"))

Names are loaded on first use, so importing the package neither imports TensorFlow nor logs.
"""

import importlib
import os
import sys
import typing

from mmrec_tf import errors

errors.answer_interrupts("mmrec_tf", script="mmrec-tf")

_NAMES = {
    "Catalog": "dataset.catalog",
    "Config": "config",
    "ConfigError": "errors",
    "Dataset": "dataset.directory",
    "DatasetError": "errors",
    "ExportError": "errors",
    "MediaError": "errors",
    "MmrecError": "errors",
    "RankingModel": "ranking.model",
    "Recommendations": "recommender.outputs",
    "Recommender": "recommender.recommender",
    "RetrievalModel": "retrieval.model",
    "RunError": "errors",
    "Schema": "schema",
    "ServingError": "errors",
    "SimilarItems": "recommender.outputs",
    "TuningError": "errors",
    "callbacks": "training.callbacks",
    "evaluate": "evaluation.evaluate",
    "evaluate_ranking": "recommender.funnel",
    "export": "exporting.publish",
    "load_config": "config",
    "load_run": "runs.run",
    "open_dataset": "dataset.directory",
    "train": "training.fit",
}
__all__ = sorted(_NAMES)
__version__ = "0.1.0"


def _choose_keras_2() -> None:
    """TFRS and TF-BERT need Keras 2 (`tf_keras`); this is the one place that chooses it.

    TensorFlow reads the variable when it is imported, so a process that loaded it first without
    the variable is stuck with Keras 3.
    """
    chosen = os.environ.get("TF_USE_LEGACY_KERAS", "").lower() in ("1", "true")
    if not chosen and "tensorflow" in sys.modules:
        raise ImportError(
            "mmrec_tf needs Keras 2, but this process imported TensorFlow with Keras 3 already. "
            "Import mmrec_tf before tensorflow, or set TF_USE_LEGACY_KERAS=1 before Python starts."
        )
    os.environ["TF_USE_LEGACY_KERAS"] = "1"


_choose_keras_2()


def __getattr__(name: str) -> typing.Any:
    if name not in _NAMES:
        raise AttributeError(f"module 'mmrec_tf' has no attribute {name!r}")
    module = importlib.import_module(f"mmrec_tf.{_NAMES[name]}")
    value = module if name == "callbacks" else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
