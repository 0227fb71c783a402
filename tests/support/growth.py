"""A dataset that has grown since a run was trained on it."""

import dataclasses
import json
import shutil
import types
import numpy as np
import pytest
import tensorflow as tf
from support import small_world
from support.growth import GONE, NEW_ITEMS, grow
from support.small_world import NUM_ITEMS, NUM_USERS
from support.training_runs import EXACT, Scripted, in_order
from mmrec_tf import RankingModel, RetrievalModel, evaluate, load_run, open_dataset, records
from mmrec_tf.__main__ import main
from mmrec_tf.dataset.directory import Dataset
from mmrec_tf.errors import ConfigError, RunError
from mmrec_tf.recommender.ranked import Request
from mmrec_tf.runs import warm_start as continuation
from mmrec_tf.runs.run import Run
from mmrec_tf.runs.train import train_run
from mmrec_tf.runs.warm_start import Rows, carry_rows, carry_weights, rows_of
from mmrec_tf.schema import SPLITS, FeatureSpec, ModalitySpec
from mmrec_tf.training.callbacks import Progress



