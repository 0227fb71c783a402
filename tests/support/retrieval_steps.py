"""Batches for one step of a retrieval model, and what comes of it."""

import itertools
import numpy as np
import pytest
import tensorflow as tf
from support import small_world
from support.retrieval_steps import REPEATED, batch, gradients, logits_of, popular_world
from support.small_world import build_retrieval as build



