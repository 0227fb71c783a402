"""What the items of a run are called: foretold tags, and how far they can be trusted."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mmrec_tf.errors import ConfigError
from mmrec_tf.evaluation.classification import class_report
from mmrec_tf.retrieval.model import RetrievalModel
from mmrec_tf.runs.run import Run
from mmrec_tf.towers.labels import LabelHeads, truth_of


def require_heads(run: Run) -> LabelHeads:
    """The heads of a run.

    Raises:
      ConfigError: for a run without any.
    """
    heads = run.retrieval.label_heads
    if heads is None:
        raise ConfigError(
            f"{run.directory}: wanted a run that was trained with labels; it has none. Train with "
            'labels.softmax or labels.sigmoid, such as --set labels.softmax=["genre"].'
        )
    return heads


def tag_items(run: Run, items: Sequence[str] | None = None) -> dict[str, dict[str, float]]:
    """How probable each label is of some items, by their content alone.

    Args:
      run: Run.
      items: their ids; None for all.

    Returns:
      By id, labels such as "genre=comedy" with their probabilities; {} for an item without
      content.

    Raises:
      ConfigError: for a run without labels, or an id that no item has.
    """
    heads, dataset = require_heads(run), run.dataset
    catalog = dataset.catalog
    rows = np.arange(len(catalog.item_id))
    if items is not None:
        place = {name: row for row, name in enumerate(catalog.item_id)}
        unknown = [name for name in items if name not in place]
        if unknown:
            raise ConfigError(f"--item: wanted ids of items of the dataset; got {unknown[0]!r}.")
        rows = np.array([place[name] for name in items], np.int64)
    foretold, present = foretell(run.retrieval)
    specs = dataset.schema.item_features
    found: dict[str, dict[str, float]] = {}
    for row in rows.tolist():
        found[str(catalog.item_id[row])] = {
            f"{name}={category}": float(foretold[name][row, n])
            for name in heads.forms
            for n, category in enumerate(specs[name].vocabulary)
            if present[row]
        }
    return found


def foretell(model: RetrievalModel) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Of all items the probabilities by feature, <float32>[item, category], and which have content
    to go by, <bool>[item]; of a model with heads."""
    output = model.embed_catalog(content_only=True)
    assert model.label_heads is not None
    found = model.label_heads.probabilities(output.embedding)
    return {name: value.numpy() for name, value in found.items()}, output.present.any(axis=1)


def report_labels(model: RetrievalModel) -> dict[str, Any]:
    """`class_report` by feature, of items with content and known labels.

    Returns:
      By feature its "form", the report of items that train met, whose labels the head has learned
      ("train"), and of those that it never met ("new"), which it has not; None for a group
      without items.
    """
    heads, dataset = model.label_heads, model.dataset
    assert heads is not None
    foretold, present = foretell(model)
    truth = truth_of(heads, dataset.catalog.features)
    met = dataset.catalog.train_count > 0
    found: dict[str, Any] = {}
    for name, form in heads.forms.items():
        names = dataset.schema.item_features[name].vocabulary
        found[name] = {"form": form}
        for group, some in (("train", present & met), ("new", present & ~met)):
            some = some & truth[name].any(axis=1)
            found[name][group] = (
                class_report(
                    truth[name][some], foretold[name][some], names, single=form == "softmax"
                )
                if some.any()
                else None
            )
    return found
