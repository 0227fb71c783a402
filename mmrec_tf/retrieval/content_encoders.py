"""The encoders of what items and users are, made for a dataset."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from mmrec_tf.config import Config
from mmrec_tf.dataset.catalog import Content
from mmrec_tf.dataset.directory import Dataset
from mmrec_tf.encoders.cache import build_encoders
from mmrec_tf.retrieval.catalog_tables import PROFILE
from mmrec_tf.schema import ModalitySpec


def reads_profile(config: Config, dataset: Dataset) -> bool:
    """Whether the user tower reads profile texts."""
    return config.user.profile and dataset.schema.profile


def raw_content(config: Config, dataset: Dataset) -> dict[str, np.ndarray | Content]:
    """The raw values that each encoder reads, by encoder; "profile" encodes the users' profile
    texts."""
    names = dataset.schema.select(config.modalities)
    values = {name: dataset.catalog.content[name] for name in names}
    if reads_profile(config, dataset):
        values[PROFILE] = dataset.users.profile
    return values


def make_encoders(
    config: Config, dataset: Dataset, *, assets: Mapping[str, Mapping[str, str]] | None = None
) -> dict[str, Any]:
    """The encoders by modality, with the weights that the config names or random ones; "profile"
    encodes the users' profile texts.

    Args:
      config: Config.
      dataset: Dataset, from whose texts a vocabulary may be learned.
      assets: by encoder, what its `assets()` returned, to rebuild those of a trained model without
        its pretrained weights at hand; None to make them as the config says.

    Returns:
      dict of `mmrec_tf.encoders.*.Encoder`, built.
    """
    schema, catalog = dataset.schema, dataset.catalog
    specs: dict[str, ModalitySpec] = {}
    values: dict[str, Iterable] = {}
    train_values: dict[str, Iterable] = {}
    met = catalog.train_count > 0
    for name, value in raw_content(config, dataset).items():
        specs[name] = ModalitySpec("text") if name == PROFILE else schema.modalities[name]
        if isinstance(value, Content):
            values[name] = value.present_values()
            # Every user is known to train.
            train_values[name] = value.present_values(None if name == PROFILE else met)
        elif name == PROFILE:
            values[name] = train_values[name] = value[value != b""]
        else:
            present = catalog.present[:, list(schema.modalities).index(name)]
            values[name], train_values[name] = value[present], value[present & met]
    return build_encoders(config, specs, values, train_values=train_values, assets=assets)
