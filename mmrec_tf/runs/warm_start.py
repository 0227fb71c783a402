"""A finished run's weights, put where another dataset has their ids: to train on, or to serve.

The weights of items and users follow their ids, those of categories their values. A row that is
new, or that was never trained, starts at the mean of those that were: what is expected of an item
or a user of whom nothing but the content is known. An initializer's small random row would, in a
model of ids alone, be scaled to unit length, and point the item at some users for no reason. After
an epoch or two of training the two are as good as each other.
"""

import functools
import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from mmrec_tf.config import Config, settled_paths
from mmrec_tf.dataset.directory import Dataset
from mmrec_tf.encoders.cache import carry_encoded
from mmrec_tf.errors import ConfigError, MmrecError, RunError
from mmrec_tf.ranking.model import RankingModel
from mmrec_tf.recommender.recommender import Recommender
from mmrec_tf.retrieval.item_head import ItemHead
from mmrec_tf.retrieval.item_similarity import Neighbors
from mmrec_tf.retrieval.model import RetrievalModel
from mmrec_tf.runs.run import Run
from mmrec_tf.schema import FeatureSpec, Schema
from mmrec_tf.training.stage import Stage

# Parts of a model that hold what its last batches left behind, in numbers of the old dataset, and
# its encoders, which have a checkpoint of their own.
LEFT = ("optimizer", "objective", "trained_encoders")
FEATURES = (
    "item_tower.features.",
    "user_tower.features.",
    "pairs.item_features.",
    "pairs.user_features.",
)


class Rows(NamedTuple):
    """What the rows of a table stand for.

    Attributes:
      name: by row, an id or a value that is the same in every dataset.
      trained: <bool>[row], whether training could learn the row.
    """

    name: np.ndarray | list
    trained: np.ndarray


def check_start(start: Run, config: Config, schema: Schema) -> None:
    """Refuses what a run's weights cannot go on as.

    Args:
      start: Run.
      config: of the run that is to go on.
      schema: of the dataset that it is to go on with.

    Raises:
      ConfigError: for another value of a setting that weights depend on, or for modalities or
        profile texts that the dataset and the run do not have alike.
      RunError: when `start` is not finished, or its dataset is not at hand.
    """
    if not start.finished:
        raise RunError(f"{start.directory}: wanted a finished run to go on from; train it first.")

    def differ(name: str, there: Any, here: Any) -> ConfigError:
        return ConfigError(
            f"{name}: wanted {json.dumps(there)}, as in {start.directory}, whose weights training "
            f"goes on from; got {json.dumps(here)}. Keep that, or train without a start."
        )

    ranked = start.config.ranking.epochs and config.ranking.epochs
    for path in settled_paths():
        if path.startswith("ranking.") and not ranked:
            continue  # No weights of it are carried.
        there, here = (
            functools.reduce(getattr, path.split("."), c) for c in (start.config, config)
        )
        if there != here:
            raise differ(path, there, here)
    modalities = start.schema.select(start.config.modalities)
    if schema.select(config.modalities) != modalities:
        schema.select(modalities)  # Says which one the dataset lacks.
        raise differ("modalities", modalities, schema.select(config.modalities))
    for name in modalities:
        known, given = start.schema.modalities[name], schema.modalities[name]
        if (known.kind, known.dim) != (given.kind, given.dim):
            raise ConfigError(
                f"modalities: wanted {name!r} as {start.directory} knows it, {known}; the dataset "
                f"has {given}. Prepare the dataset with the same, or train without a start."
            )
    read = start.config.user.profile and start.schema.profile
    if read != (config.user.profile and schema.profile):
        raise ConfigError(
            f"user.profile: wanted profile texts {'to' if read else 'not to'} be read, as in "
            f"{start.directory}; the dataset {'has' if schema.profile else 'lacks'} them, and "
            f"user.profile is {json.dumps(config.user.profile)}. Change one of the two, or train "
            "without a start."
        )
    try:
        start.dataset  # noqa: B018
    except MmrecError as error:
        raise RunError(
            f"{start.directory}: going on takes the ids of the dataset that it was trained on, "
            f"which is missing or another one by now: {start.facts['dataset']}. Put it back, or "
            "name it in Python: train_run(..., start=load_run(RUN, dataset=DIR))."
        ) from error


def reembed(
    start: Run, dataset: Dataset, *, unavailable: Sequence[str] = (), history: str = "all"
) -> tuple[Recommender, dict[str, int]]:
    """A finished run's models on another dataset, such as a catalog that has grown, untrained.

    Items that are new or changed are embedded by the trained towers; only their content goes
    through frozen encoders. Histories and popularity are the dataset's: of all its splits, unless
    `history` says otherwise. The popularity bias in the score counts its train split.

    Args:
      start: Run.
      dataset: Dataset.
      unavailable: ids of items that are never recommended.
      history: what is known of users, as in `Recommender`.

    Returns:
      Recommender, and how many items are "new", "changed" in their content, "gone" and
      "unchanged".

    Raises:
      As `check_start` and `carry_weights`.
    """
    check_start(start, start.config, dataset.schema)
    known = start.dataset
    if dataset.hash == known.hash:
        unchanged = {"gone": 0, "new": 0, "changed": 0, "unchanged": known.schema.num_items}
        return start.recommender(unavailable=unavailable, history=history), unchanged
    counts = {"gone": len(set(known.catalog.item_id) - set(dataset.catalog.item_id))}
    encoders = start.load_encoders(dataset)
    same = np.ones(len(dataset.catalog.item_id), bool)
    place = {name: row for row, name in enumerate(known.catalog.item_id)}
    row = np.array([place.get(name, -1) for name in dataset.catalog.item_id])
    for name in dataset.schema.select(start.config.modalities):
        # What the encoders made of it, if it is the same, is the same.
        same &= carry_encoded(
            encoders[name],
            known.catalog.content[name],
            dataset.catalog.content[name],
            row,
            name=name,
            caches=(known.cache, dataset.cache),
            sha256=(known.catalog.content_sha256[name], dataset.catalog.content_sha256[name]),
        )
    counts["new"] = int((row < 0).sum())
    counts["changed"] = int((~same & (row >= 0)).sum())
    counts["unchanged"] = len(row) - counts["new"] - counts["changed"]
    retrieval = RetrievalModel(start.config, dataset, encoders=encoders, initialize=False)
    carry_weights(retrieval, start, dataset)
    carry_item_head(retrieval, start)
    # The neighbors are those of the catalog that is there now.
    retrieval.set_cold_items(start.cold_items_fit)
    ranking = None
    if start.serves_ranking:
        ranking = RankingModel(start.config, dataset, retrieval=retrieval, initialize=False)
        carry_weights(ranking, start, dataset)
    recommender = Recommender(
        retrieval,
        ranking,
        dataset,
        calibration=start.calibration,
        unavailable=unavailable,
        history=history,
    )
    return recommender, counts


def carry_rows(old: np.ndarray, fresh: np.ndarray, *, before: Rows, after: Rows) -> np.ndarray:
    """A table's rows, put where another dataset has their names.

    Args:
      old: <float32>[old row, dim].
      fresh: <float32>[row, dim], which stay where `old` has no trained row to go by.
      before: Rows of `old`.
      after: Rows of the result; `trained` is not read.

    Returns:
      <float32>[row, dim]: `old`'s row of the same name if it was trained, else the mean of all
      trained rows.
    """
    if not before.trained.any() or not len(after.name):
        return fresh
    place = {name: row for row, name in enumerate(before.name)}
    source = np.fromiter((place.get(name, -1) for name in after.name), np.int64, len(after.name))
    known = (source >= 0) & before.trained[source]
    mean = old[before.trained].mean(axis=0, dtype=np.float64)
    return np.where(known[:, None], old[source], mean).astype(old.dtype)


def carry_weights(model: Stage, start: Run, dataset: Dataset) -> None:
    """Gives a model the weights of a finished run, and says in a line on stderr what was known.

    After `check_start`. The scores of items and users that have not changed stay what they were,
    but for what the dataset counts anew: the popularity bias, the graph of users and items, and
    the mean of a numeric side feature (its weight follows the standard deviation). A side feature
    that is new starts at zeros, which change nothing until they are trained.

    Args:
      model: RetrievalModel or RankingModel.
      start: Run.
      dataset: Dataset that training goes on with.

    Raises:
      RunError: when the weights of `start` are missing or damaged.
      ConfigError: when they do not fit, naming them and the settings that differ.
    """
    stage = model.stage
    old = _read(start, stage)
    new = {path: v for path, v in model.get_weight_paths().items() if _carried(path)}
    fresh, left = _features(new.keys() - old.keys()), _features(old.keys() - new.keys())
    odd = (old.keys() ^ new.keys()) - fresh - left
    values = {}
    for path in sorted(new.keys() & old.keys()):
        values[path] = _value(path, old[path], new[path].numpy(), start, dataset)
        if values[path].shape != new[path].shape:
            odd.add(path)
    if odd:
        settings = ", ".join(_differing(start.config, model.config)) or "none"
        raise ConfigError(
            f"{start.directory}: wanted weights like those of its {stage} model; got others in "
            f"{', '.join(sorted(odd))}. Settings that differ: {settings}. Keep them, or train "
            "without a start."
        )
    for path in fresh:
        values[path] = np.zeros(new[path].shape, np.float32)
    for path, value in values.items():
        new[path].assign(value)
    _say(stage, start, dataset, fresh=fresh, left=left)


def rows_of(path: str, dataset: Dataset, *, disliked_below: float | None = None) -> Rows | None:
    """What the rows of a weight stand for in a dataset; None for one without ids or categories.

    Args:
      path: of the weight in the model, as `tf.keras.Model.get_weight_paths` calls it.
      dataset: Dataset.
      disliked_below: train interactions with a lower rating trained no row.
    """
    catalog, users, schema = dataset.catalog, dataset.users, dataset.schema
    if path.endswith("tower.id_embedding.table"):
        liked = dataset.histories(disliked_below=disliked_below)
        if _of_users(path):
            return Rows(users.user_id, np.diff(liked.offset) > 0)
        return Rows(catalog.item_id, np.bincount(liked.item, minlength=schema.num_items) > 0)
    if path.startswith("translation."):
        graph = dataset.triples
        name = graph.entity_id if path.endswith(".entities") else graph.relation_id
        return Rows(name, np.ones(len(name), bool))
    spec = _feature(path, schema)
    if spec is None or spec.kind != "categorical":
        return None
    column = (users if _of_users(path) else catalog).features[_feature_name(path)]
    # A number cannot be mistaken for a word: 0 for none, then the buckets.
    value = [*range(1 + spec.oov_buckets), *spec.vocabulary]
    return Rows(value, np.isin(np.arange(len(value)), column[column > 0]))


def carry_item_head(model: RetrievalModel, start: Run) -> None:
    """Gives a model the head of items against items of a finished run. What was fitted to train
    stays as it was, and follows the ids; an item that is new has no neighbors, and is none. Of
    content, which is known of new items too, the neighbors are found anew; the weights stay."""
    fit, old = start.item_head_fit, start.retrieval.item_head
    if fit is None or old is None:
        model.set_item_head(None, fit)
        return
    if model.config.item_head.kind == "content":
        model.set_item_head(model.make_item_head(), fit)
        return
    there, here = start.dataset.catalog.item_id, model.dataset.catalog.item_id
    number = {name: row for row, name in enumerate(here)}
    row = np.array([number.get(name, -1) for name in there], np.int32)
    kept = row >= 0
    neighbors, values = old.neighbors.numpy()[kept], old.values.numpy()[kept]
    neighbors = np.where(neighbors >= 0, row[neighbors], -1)
    item = np.full([len(here), neighbors.shape[1]], -1, np.int32)
    weight = np.zeros(item.shape, np.float32)
    item[row[kept]], weight[row[kept]] = neighbors, np.where(neighbors >= 0, values, 0)
    head = ItemHead.of(model.config, len(here), Neighbors(item, weight))
    model.set_item_head(head, fit)


def _value(
    path: str, old: np.ndarray, fresh: np.ndarray, start: Run, dataset: Dataset
) -> np.ndarray:
    """A weight of the old model as the new one has it."""
    there, here = _feature(path, start.schema), _feature(path, dataset.schema)
    if there is not None and here is not None:
        if there.kind != here.kind:
            return np.zeros_like(fresh)  # Another feature of the same name.
        if here.kind == "numeric":
            return old * np.float32(here.std / there.std)
    if path == "item_shift":
        # Nothing is added to the embedding of an item that ranking has not met.
        place = {name: row for row, name in enumerate(start.dataset.catalog.item_id)}
        rows = np.array([place.get(name, len(old)) for name in dataset.catalog.item_id])
        return np.append(old, np.zeros_like(old[:1]), axis=0)[rows]
    disliked_below = start.config.retrieval.disliked_below
    before = rows_of(path, start.dataset, disliked_below=disliked_below)
    after = rows_of(path, dataset)
    if before is None or after is None:
        return old
    return carry_rows(old, fresh, before=before, after=after)


def _read(start: Run, stage: str) -> dict[str, np.ndarray]:
    """The weights of a run by their path in the model."""
    prefix = start.directory / "weights" / stage
    suffix = "/.ATTRIBUTES/VARIABLE_VALUE"
    try:
        reader = tf.train.load_checkpoint(str(prefix / "weights"))
        found = {}
        for key in reader.get_variable_to_shape_map():
            # As a checkpoint writes "." and "/" within a name.
            names = [n.replace(".S", "/").replace("..", ".") for n in key.split("/")]
            path = ".".join(names[1:-2])
            if key.endswith(suffix) and _carried(path):
                found[path] = reader.get_tensor(key)
        return found
    except (tf.errors.OpError, ValueError, IndexError) as error:
        reason = str(error).strip().splitlines()[0]
        raise RunError(f"{prefix}: wanted the weights of a run; {reason}. Train again.") from error


def _differing(there: Config, here: Config) -> list[str]:
    """Settings with another value, but for those of how training runs."""
    found = []
    for name, old in there.to_json().items():
        new = here.to_json()[name]
        if not isinstance(old, dict):
            found += [name] if old != new else []
        elif name != "training":
            found += [f"{name}.{leaf}" for leaf in old if old[leaf] != new[leaf]]
    return found


def _carried(path: str) -> bool:
    part = path.partition(".")[0]
    return part not in LEFT and not part.endswith("_tracker")


def _of_users(path: str) -> bool:
    return path.startswith(("user_", "pairs.user_"))


def _feature_name(path: str) -> str:
    return path.partition("features.")[2]


def _feature(path: str, schema: Schema) -> FeatureSpec | None:
    """The side feature that a weight belongs to."""
    if not path.startswith(FEATURES):
        return None
    side = schema.user_features if _of_users(path) else schema.item_features
    return side.get(_feature_name(path))


def _features(paths: Iterable[str]) -> set[str]:
    return {path for path in paths if path.startswith(FEATURES)}


def _say(stage: str, start: Run, dataset: Dataset, *, fresh: set[str], left: set[str]) -> None:
    parts = []
    if stage == "retrieval":
        for what, before, after in (
            ("items", start.dataset.catalog.item_id, dataset.catalog.item_id),
            ("users", start.dataset.users.user_id, dataset.users.user_id),
        ):
            parts.append(f"{len(set(before) & set(after))} of {len(after)} {what} known")
    for what, paths in (("new", fresh), ("left out", left)):
        if paths:
            parts.append(f"{what}: {', '.join(sorted(map(_feature_name, paths)))}")
    tail = f"; {'; '.join(parts)}" if parts else ""
    tqdm.write(f"{stage}: goes on from {start.directory}{tail}", file=sys.stderr)
