"""One space for an item's modalities: projections to it, and what pulls them together there.

`projection` holds the layer, `closed_form` the maps that are solved for instead of trained,
`contrastive` and `translation` the losses.
"""

from mmrec_tf.towers.alignment.contrastive import collaborative_loss, contrastive_loss
from mmrec_tf.towers.alignment.projection import Alignment
from mmrec_tf.towers.alignment.translation import TranslationLoss

__all__ = ["Alignment", "TranslationLoss", "collaborative_loss", "contrastive_loss"]
