"""Encoders and language models, saved."""

import dataclasses
import inspect
import io
import types
import wave
import cv2
import numpy as np
import pytest
import tensorflow as tf
from support.saved_encoders import Exported, saved_operations
from mmrec_tf.config import FAMILIES, AudioConfig, Config, ImageConfig, TextConfig
from mmrec_tf.encoders import MODALITIES
from mmrec_tf.encoders.cache import build_encoders
from mmrec_tf.encoders.encoder import SharedEncoder, count_weights
from mmrec_tf.runs.run import load_weights, save_weights
from mmrec_tf.schema import MODALITY_KINDS, ModalitySpec



