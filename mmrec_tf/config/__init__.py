"""All that an experiment may vary, as a tree of frozen dataclasses.

A `Config` is checked when it is made, strict when it is read from JSON (an unknown name is
refused with the nearest known one) and saved with every run. `override` is the one function
through which the command line (`--set`) and the tuner change a setting.
"""

from mmrec_tf.config.effects import require_effect
from mmrec_tf.config.encoders import (
    FAMILIES,
    SHARED,
    AudioConfig,
    ImageConfig,
    TextConfig,
    VideoConfig,
    random_weights,
    trains,
)
from mmrec_tf.config.experiment import (
    DECAYS,
    Config,
    TrainingConfig,
    load_config,
    setting_paths,
    settled_paths,
)
from mmrec_tf.config.ranking import (
    ARCHITECTURES,
    CALIBRATIONS,
    CONTEXTS,
    RANKING_LOSSES,
    RANKING_METRICS,
    SERVES,
    SHARINGS,
    RankingConfig,
    RecommenderConfig,
)
from mmrec_tf.config.retrieval import (
    ALIGNMENTS,
    CORRECTIONS,
    FITTED,
    FUSIONS,
    HISTORIES,
    HISTORY_CONTEXTS,
    ID_INITS,
    ITEM_HEADS,
    LOSSES,
    MISSING,
    SOFTMAXES,
    VALUES_POOLINGS,
    AlignmentConfig,
    GraphConfig,
    ItemConfig,
    ItemHeadConfig,
    RetrievalConfig,
    UserConfig,
)
from mmrec_tf.config.text import ADAPTATIONS, POOLINGS, WEIGHTINGS
from mmrec_tf.config.video import FRAME_POOLS

__all__ = [
    "ADAPTATIONS",
    "ALIGNMENTS",
    "ARCHITECTURES",
    "CALIBRATIONS",
    "CONTEXTS",
    "CORRECTIONS",
    "DECAYS",
    "FAMILIES",
    "FITTED",
    "FRAME_POOLS",
    "FUSIONS",
    "HISTORIES",
    "HISTORY_CONTEXTS",
    "ID_INITS",
    "ITEM_HEADS",
    "LOSSES",
    "MISSING",
    "POOLINGS",
    "RANKING_LOSSES",
    "RANKING_METRICS",
    "SERVES",
    "SHARED",
    "SHARINGS",
    "SOFTMAXES",
    "VALUES_POOLINGS",
    "WEIGHTINGS",
    "AlignmentConfig",
    "AudioConfig",
    "Config",
    "GraphConfig",
    "ImageConfig",
    "ItemConfig",
    "ItemHeadConfig",
    "RankingConfig",
    "RecommenderConfig",
    "RetrievalConfig",
    "TextConfig",
    "TrainingConfig",
    "UserConfig",
    "VideoConfig",
    "load_config",
    "random_weights",
    "require_effect",
    "setting_paths",
    "settled_paths",
    "trains",
]
