"""The ranking model: orders the few candidates that retrieval found."""

from mmrec_tf.ranking.features import PairFeatures
from mmrec_tf.ranking.model import RankingModel
from mmrec_tf.ranking.requests import Lists, Ranked, Request

__all__ = ["Lists", "PairFeatures", "RankingModel", "Ranked", "Request"]
