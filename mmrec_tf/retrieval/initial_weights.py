"""The weights that a new retrieval model does not start at random: ids and projections."""

import warnings

import numpy as np
import tensorflow as tf

from mmrec_tf.retrieval.item_graph import spectral_embedding, train_graph


def set_initial_weights(model: tf.keras.Model) -> None:
    """Sets the weights that a new model does not start at random."""
    dataset = model.dataset
    fitted = bool(model.modalities) and model.item_tower.alignment.fitted is not None
    spectral = model.config.item.id_init == "spectral"
    if not fitted and not spectral:
        return
    below = model.config.retrieval.disliked_below
    target = spectral_embedding(train_graph(dataset, disliked_below=below), model.config.dim)
    known = np.linalg.norm(target, axis=1) > 0
    if spectral and model.item_tower.id_embedding is not None:
        table = model.item_tower.id_embedding.table
        # On average as long as the random rows that they replace.
        length = np.sqrt(np.mean(np.square(table.numpy()).sum(axis=1)))
        scale = np.sqrt(np.mean(np.square(target[known]).sum(axis=1))) if known.any() else 1.0
        table.assign(np.where(known[:, None], target * (length / scale), table.numpy()))
    if fitted:
        _fit_projections(model, target, known)


def _fit_projections(model: tf.keras.Model, spectral: np.ndarray, known: np.ndarray) -> None:
    """Fits the projections to `alignment.target`: a modality, or the items' spectral embedding
    <float32>[item, dim], of meaning where `known`, <bool>[item]. What was filled in for a
    missing modality teaches nothing."""
    catalog, names, to = model.dataset.catalog, model.modalities, model.config.alignment.target
    vectors = [model.encode_catalog(name) for name in names]
    columns = [list(model.schema.modalities).index(name) for name in names]
    present, layer = catalog.present[:, columns], model.item_tower.alignment
    if to:
        fits = layer.fit_to_modality(vectors, present, names.index(to), catalog.train_count > 0)
    else:
        fits = layer.fit(vectors, present, spectral, known)
    model.state.fits = dict(zip(names, fits, strict=True))
    at_random = [name for name, fit in model.state.fits.items() if not fit.num_items]
    if at_random:
        warnings.warn(
            f"alignment: the projection of {', '.join(at_random)} starts at random, as fewer "
            f"than two train items have {f'it and {to}' if to else 'it'}.",
            stacklevel=3,
        )
