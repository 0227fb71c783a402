"""What whoever trains a retrieval model should know of it."""

import tensorflow as tf

from mmrec_tf.retrieval.catalog_tables import train_count


def remarks(model: tf.keras.Model) -> list[str]:
    """As `Stage.remarks`: of a batch of one, which has nothing to compare with, and of
    histories whose items go through encoders that train."""
    settings, found = model.config.retrieval, []
    user, size = model.config.user, model.config.training.batch_size
    length = user.training_window or user.history_length
    if (
        model.reads_raw
        and settings.softmax == "batch"
        and user.history != "none"
        and not model.caches_histories
    ):
        found.append(
            f"each step runs up to {size * (1 + length)} items through encoders "
            "that train, most of them histories'. user.history_embedding cached leaves "
            f"{size} of them."
        )
    drawn = settings.num_uniform_negatives + settings.num_mined_negatives + settings.memory_size
    negatives = settings.softmax == "full" or settings.num_uniform_negatives
    if model.config.cold_items.fit and settings.cold_negatives and negatives:
        found.append(
            "retrieval.cold_negatives true teaches that items which train never met are "
            "unwanted. The simulated cold start of cold_items.fit hides items that it taught "
            "nothing of the kind, so its offset is too low for those of this catalog. Set "
            "retrieval.cold_negatives to false."
        )
    if model.config.cold_items.warm_up and not model.near_items().any():
        found.append(
            "cold_items.warm_up: no item with content has as many train interactions, so that "
            "there is none to be near to, and vectors stay where they are. Set it lower; the most "
            f"that an item has is {train_count(model.dataset, settings).max(initial=0)}."
        )
    size = min(size, len(model.dataset.interactions("train").user))
    if settings.softmax == "batch" and size == 1 and not drawn:
        found.append(
            "a batch of one has no negatives under retrieval.softmax batch: nothing is "
            "learned. Train on larger batches (training.batch_size, more interactions), or set "
            "retrieval.softmax to full."
        )
    return found


def not_repeated(model: tf.keras.Model) -> list[str]:
    """As `Stage.not_repeated`, of encoders that train, whose layers are not ours."""
    found = []
    for name, encoder in model.trained_encoders.items():
        drops = any(
            isinstance(part, tf.keras.layers.Dropout) and part.rate for part in encoder.submodules
        )
        if drops or any(getattr(encoder, name, 0) for name in ("mask_bins", "mask_frames")):
            found.append(
                f"the {name} encoder draws other numbers for its own dropout or masks, so that "
                "the last digits may differ from a training without the interruption."
            )
    return found
