"""A catalog's content as tensors, or as files mapped into memory, with what else a retrieval model
reads of a dataset: popularity, side features, the graph."""

import pathlib
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from mmrec_tf.config import ColdItemsConfig, Config, RetrievalConfig
from mmrec_tf.dataset.catalog import Content, draw_probability, relative_log_frequency
from mmrec_tf.dataset.directory import Dataset
from mmrec_tf.encoders.cache import encode, encoded_bytes
from mmrec_tf.errors import ConfigError
from mmrec_tf.retrieval.item_graph import CatalogGraph
from mmrec_tf.towers.missing import fill_from_neighbors, fill_nearest
from mmrec_tf.towers.modality_maps import ModalityMap, fill_mapped, fit_maps

PROFILE = "profile"


def build_tables(
    dataset: Dataset,
    config: Config,
    *,
    raw: Mapping[str, np.ndarray | Content],
    encoders: Mapping,
    cache: str | pathlib.Path | None = None,
) -> tuple[dict, CatalogGraph | None]:
    """Runs the frozen encoders over the catalog, fills the tables and builds the graph.

    Args:
      dataset: Dataset.
      config: Config.
      raw: by encoder, the raw values that it reads; those of the items' modalities in the order of
        the columns of "present", and "profile" where the user tower reads profile texts.
      encoders: by the same names.
      cache: folder for the frozen encoders' vectors, and for tables that do not fit into memory;
        None encodes anew, into memory.

    Returns:
      The tables, one row an item or a user, and the graph; None where nothing is smoothed.

    Raises:
      ConfigError: when a table does not fit into `training.catalog_memory_mb` and the config
        cannot do without, or when the config asks for what the dataset does not have.
    """
    catalog, schema = dataset.catalog, dataset.schema
    modalities = [name for name in raw if name != PROFILE]
    by_graph = "graph" in config.alignment.kinds
    if by_graph and not schema.num_relations:
        raise ConfigError(
            "alignment.kinds: graph wants a dataset with a knowledge graph; "
            f'{dataset.directory} has none. Prepare it with "--triples FILE", or leave '
            "graph out."
        )
    sizes = {name: encoded_bytes(encoders[name], schema.num_items) for name in modalities}
    held = held_content(config, sizes)
    content = {
        name: encode(
            encoders[name],
            value,
            name=name,
            cache=cache,
            sha256=catalog.content_sha256.get(name),
            mapped=name in modalities and name not in held,
        )
        for name, value in raw.items()
    }
    present = catalog.present[:, [list(schema.modalities).index(name) for name in modalities]]
    frozen = [m for m, name in enumerate(modalities) if encoders[name].frozen]
    if not frozen and (config.graph.content_layers or config.item.missing == "nearest"):
        raise ConfigError(
            "graph.content_layers, item.missing: wanted a modality with a frozen encoder, "
            f"whose vectors are known before training; got {', '.join(modalities) or 'no modality'}"
            ". Freeze one, or leave the setting out."
        )
    mapped = config.item.missing == "mapped"
    if mapped and len(frozen) < 2:
        raise ConfigError(
            "item.missing: wanted two or more modalities with frozen encoders, as mapped predicts "
            f"one from another; got {', '.join(modalities[m] for m in frozen) or 'none'} of "
            f"{', '.join(modalities)}. Freeze another encoder, or choose another item.missing."
        )
    vectors = [content[modalities[m]] for m in frozen]
    graph = CatalogGraph.from_experiment(
        config.graph, dataset, config.retrieval.disliked_below, vectors, present[:, frozen]
    )
    maps: list[ModalityMap] = []
    if config.item.missing in ("nearest", "mapped") or by_graph:
        filled, now = vectors, present[:, frozen]
        if config.item.missing == "nearest":
            filled, now = fill_nearest(filled, now)
        if mapped:
            maps = fit_maps(filled, now, catalog.train_count > 0)
            filled, now = fill_mapped(filled, now, maps)
            maps = [m._replace(source=frozen[m.source], target=frozen[m.target]) for m in maps]
            _warn_of_unmapped(modalities, frozen, maps)
        if by_graph:
            head, _, tail = dataset.triples[:3]
            filled, now = fill_from_neighbors(filled, now, head, tail, schema.num_items)
        present = present.copy()
        present[:, frozen] = now
        # What was filled is in memory by now, whatever there is room for.
        held = held | {modalities[m] for m in frozen}
        content.update({modalities[m]: v for m, v in zip(frozen, filled, strict=True)})
    tables = {
        "content": {
            name: tf.constant(content[name]) if name in held else content[name]
            for name in modalities
        },
        "present": tf.constant(present),
        **_counted(dataset, config),
        "item_features": {n: tf.constant(v) for n, v in catalog.features.items()},
        "user_features": {
            n: tf.Variable(v, trainable=False) for n, v in dataset.users.features.items()
        },
    }
    if mapped:
        tables["maps"] = maps
    if PROFILE in content:
        tables[PROFILE] = tf.Variable(content[PROFILE], trainable=False)
    if by_graph:
        head, relation, tail = dataset.triples[:3]
        tables["triples"] = tf.constant(np.stack([head, relation, tail], axis=1), tf.int32)
    return tables, graph


def _warn_of_unmapped(
    modalities: Sequence[str], frozen: Sequence[int], maps: Sequence[ModalityMap]
) -> None:
    """Says which modalities no other one leads to."""
    lacking = {*frozen} - {found.target for found in maps}
    if lacking:
        warnings.warn(
            f'item.missing "mapped": {", ".join(modalities[m] for m in sorted(lacking))} stays '
            "missing where it is, as no other modality says anything about it, or fewer than two "
            "train items have both.",
            stacklevel=3,
        )


def train_count(dataset: Dataset, settings: RetrievalConfig) -> np.ndarray:
    """How often train met each item, dislikes left out, <int64>[item]."""
    liked = dataset.histories(disliked_below=settings.disliked_below).item
    return np.bincount(liked, minlength=dataset.schema.num_items)


def cold_log_frequency(count: np.ndarray, settings: RetrievalConfig) -> float:
    """The log frequency that an item without train interactions has in the popularity bias.

    Args:
      count: as of `train_count`.
      settings: RetrievalConfig. Where cold items are no negatives, training did not learn that they
        are rare: they count as the average of the others.
    """
    warm = count > 0
    met = 0.0 if settings.cold_negatives or not warm.any() else count[warm].mean()
    # The mean count, not the mean of its logarithm: what an item is worth is a count.
    return float(np.log(met + 1.0) - np.log(np.mean(count + 1.0)))


def confidence(count: np.ndarray, settings: ColdItemsConfig) -> np.ndarray:
    """How far items are known by their interactions, and not by content alone.

    Args:
      count: as of `train_count`.
      settings: ColdItemsConfig.

    Returns:
      <float32>[item], from 0 without any to 1 from `warm_up` interactions on.
    """
    return np.minimum(count / max(settings.warm_up, 1), 1.0).astype(np.float32)


def _counted(dataset: Dataset, config: Config) -> dict:
    """What follows from how often train met each item."""
    settings = config.retrieval
    count = train_count(dataset, settings)
    warm = count > 0
    cold = cold_log_frequency(count, settings)
    log_frequency = np.where(warm, relative_log_frequency(count), cold)
    probability = draw_probability(count, balance=settings.item_balance)
    return {
        "log_frequency": tf.constant(log_frequency, tf.float32),
        "cold_log_frequency": cold,
        "probability": tf.constant(probability),
        "warm": tf.constant(warm),
        "confidence": confidence(count, config.cold_items),
    }


def fitting(sizes: Mapping[str, int], limit: int) -> set[str]:
    """The names of what fits, each in its turn into what those before it have left.

    Args:
      sizes: by name, in bytes.
      limit: in bytes.
    """
    found = set()
    for name, size in sizes.items():
        if size <= limit:
            found.add(name)
            limit -= size
    return found


def held_content(config: Config, sizes: Mapping[str, int]) -> set[str]:
    """The modalities whose tables `training.catalog_memory_mb` has room for.

    Args:
      config: Config.
      sizes: of the tables by modality, in bytes.

    Raises:
      ConfigError: when there is no room for one and the config cannot do without.
    """
    room = config.training.catalog_memory_mb
    held = fitting(sizes, room << 20)
    for name in sizes.keys() - held:
        if config.training.jit_compile:
            reason = "Python reads a table on disk, which training.jit_compile cannot compile"
            choice = "set training.jit_compile to false"
        elif config.retrieval.softmax == "full":
            reason = 'retrieval.softmax "full" reads all of it in each step'
            choice = 'set retrieval.softmax to "batch"'
        else:
            continue
        raise ConfigError(
            f"training.catalog_memory_mb: wanted room for all content; that of {name} takes "
            f"{_mebibytes(sizes[name])} of {room} MiB, and {reason}. Raise it to at least "
            f"{_mebibytes(sum(sizes.values()))}, or {choice}."
        )
    return held


def gather(table: tf.Tensor | tf.Variable | np.ndarray, rows: tf.Tensor) -> tf.Tensor:
    """Rows of a table, wherever it is.

    Args:
      table: a tensor or a variable, [row, ...]; or an array, which stays on the host, and on disk
        if it is mapped: rows are then fetched by Python, which no exported graph may hold and XLA
        cannot compile.
      rows: <int>[batch].

    Returns:
      [batch, ...].
    """
    if not isinstance(table, np.ndarray):
        return tf.gather(table, rows)
    array = np.asarray(table)  # Without the overhead of np.memmap, and without a copy.
    found = tf.numpy_function(lambda rows: array[rows], [rows], array.dtype, stateful=False)
    return tf.ensure_shape(found, [*rows.shape, *array.shape[1:]])


def _mebibytes(size: int) -> int:
    return -(-size // 2**20)
