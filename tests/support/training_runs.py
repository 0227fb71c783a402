"""Training whose course is known beforehand."""

import csv
import json
import os
import pathlib
import shutil
import subprocess
import sys
import numpy as np
import pytest
import tensorflow as tf
from support import small_world
from support.tiny_dataset import write
from support.training_runs import EPOCHS, EXACT, Scripted, in_order, values
from mmrec_tf import RankingModel, Recommender, RetrievalModel, open_dataset
from mmrec_tf.dataset.directory import Dataset
from mmrec_tf.errors import DatasetError
from mmrec_tf.runs.train import train_run
from mmrec_tf.training.callbacks import Progress
from mmrec_tf.training.fit import train
from mmrec_tf.training.optimizer import build_optimizer



