"""What whoever trains a retrieval model should know of it."""

import tensorflow as tf


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
