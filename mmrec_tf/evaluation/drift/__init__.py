"""Whether what comes in still is what a model was trained on."""

from mmrec_tf.evaluation.drift.measure import Thresholds, measure
from mmrec_tf.evaluation.drift.traffic import Traffic, read_requests, traffic_of

__all__ = ["Thresholds", "Traffic", "measure", "read_requests", "traffic_of"]
