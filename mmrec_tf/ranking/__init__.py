"""The ranking model: orders the few candidates that retrieval found."""

from mmrec_tf.ranking.model import RankingModel
from mmrec_tf.ranking.pair_features import PairFeatures
from mmrec_tf.recommender.ranked import Lists, Ranked, Request

__all__ = ["Lists", "PairFeatures", "RankingModel", "Ranked", "Request"]
