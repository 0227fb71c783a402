"""The two sides of the retrieval model: an item to a vector, a user to a vector."""

from mmrec_tf.towers.embeddings import IdEmbedding, SideFeatures, gap_number, keep, unit
from mmrec_tf.towers.item import ItemTower, TowerOutput
from mmrec_tf.towers.user import SelfAttention, UserTower, steps_from_newest

__all__ = [
    "IdEmbedding",
    "ItemTower",
    "SelfAttention",
    "SideFeatures",
    "TowerOutput",
    "UserTower",
    "gap_number",
    "keep",
    "steps_from_newest",
    "unit",
]
