"""Datasets of a few items and users, given as lists, and what batches make of them."""

import functools
import itertools
import json
import shutil
import tracemalloc
import numpy as np
import pytest
import tensorflow as tf
from support import small_world
from support.tiny_dataset import TRAIN, VALID, examples, user, write
from mmrec_tf import open_dataset, records
from mmrec_tf.config import RetrievalConfig
from mmrec_tf.dataset.catalog import Content
from mmrec_tf.errors import ConfigError, DatasetError
from mmrec_tf.records import DatasetWriter
from mmrec_tf.schema import ModalitySpec, Schema



