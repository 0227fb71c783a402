"""Of what is recommended: how much of the catalog, how popular, how varied."""

import numpy as np

from mmrec_tf.dataset.directory import Dataset
from mmrec_tf.errors import ConfigError
from mmrec_tf.records.inspection import category_names
from mmrec_tf.reporting import figures, page
from mmrec_tf.reporting.material import KS, NAMES, Material
from mmrec_tf.reporting.page import Section

TITLE = "Coverage and popularity"
# What a column is called that says whose an item is.
PROVIDERS = ("provider", "seller", "vendor", "supplier", "brand", "publisher", "creator", "artist")
_MOST_GROUPS = 10


def section(material: Material) -> Section:
    """Coverage, Gini, novelty and diversity; whom the places go to."""
    found = material.evaluation
    if found is None:
        return page.missing(TITLE, f"Nothing could be measured: {material.why}")
    number, k = material.dataset.schema.num_items, KS[0]
    shown = {
        name: np.bincount(top[top >= 0], minlength=number) for name, top in material.tops.items()
    }
    train = material.dataset.catalog.train_count
    drawing = page.figure(
        figures.shares(
            {**shown, "train interactions": train},
            across="items, the most frequent first, %",
            up=f"of all places in lists of {k}, %",
        ),
        "How unequally lists deal with items. A curve near the corner: few items fill all lists; "
        "the dotted line: all items equally often.",
    )
    beyond = found["beyond_accuracy"]
    metrics = [name for name in beyond["model"] if name.endswith(f"@{k}")]
    rows = [
        [NAMES.get(name, name), *(values[metric] for metric in metrics)]
        for name, values in beyond.items()
    ]
    places = shown["this run"]
    lift = _mean_count(places, train) / max(_mean_count(train, train), 1e-12)
    told = [
        page.figures(drawing, _thirds(material, shown), *_by_group(material)),
        page.table(
            ["", *metrics],
            rows,
            caption="coverage: share of the catalog that anyone is shown; gini: 0 all equally "
            "often, near 1 a single one; novelty in bits, higher is rarer; diversity of "
            f"{found['diversity_of']}.",
        ),
        page.paragraph(
            f"Popularity lift: an item in these lists has {lift:.2f} times as many train "
            "interactions as the item of a train interaction has on average. Above 1 lists are "
            "more popular than what people choose."
        ),
    ]
    return Section(TITLE, page.join(told))


def _by_group(material: Material) -> list[page.Markup]:
    """What each group of items, such as a provider's, is shown, beside what is chosen of it.

    Exposure is that of the place in the list, 1 / log2(1 + place) (Singh and Joachims 2018, section
    3); of an item with several categories each has a part.
    """
    found = item_groups(material.dataset, material.group)
    if found is None:
        return []
    name, names, member = found
    share = member / np.maximum(member.sum(axis=1, keepdims=True), 1)
    chosen = np.bincount(material.relevant[1], minlength=len(member))
    rows = {
        "exposure in these lists": exposure_by_place(material.tops["this run"], member),
        f"chosen in {material.split}": chosen @ share,
        "catalog": share.sum(axis=0),
    }
    parts = {who: 100 * each / max(each.sum(), 1e-12) for who, each in rows.items()}
    order = np.argsort(-parts["catalog"], kind="stable")[:_MOST_GROUPS]
    labels = [names[n] for n in order.tolist()]
    values = {who: part[order].tolist() for who, part in parts.items()}
    left = len(names) - len(order)
    more = f" The {left} smallest are left out." if left else ""
    if alone := int((~member.any(axis=1)).sum()):
        more += f" {alone:,} items without {name} do not count."
    return [
        page.figure(
            figures.bars(labels, values, unit="share, %"),
            f"Exposure against relevance by {name}: a group whose first bar is longer than its "
            f"second is shown more than it is chosen.{more}",
        )
    ]


def exposure_by_place(top: np.ndarray, member: np.ndarray) -> np.ndarray:
    """How much groups are seen: the sum over the places of lists of 1 / log2(1 + place).

    Args:
      top: <int32>[user, k], what is shown, best first; -1 for none.
      member: <bool>[item, group]; an item of several groups counts for each by a part.

    Returns:
      <float64>[group].
    """
    share = member / np.maximum(member.sum(axis=1, keepdims=True), 1)
    weight = np.zeros([len(member)])
    for place in range(top.shape[1]):
        shown = top[top[:, place] >= 0, place]
        weight += np.bincount(shown, minlength=len(member)) / np.log2(place + 2)
    return weight @ share


def item_groups(dataset: Dataset, name: str | None) -> tuple[str, list[str], np.ndarray] | None:
    """The groups of items: the feature's name, those of its categories, and which items are in
    which, <bool>[item, category]; None without a categorical feature.

    Args:
      dataset: Dataset.
      name: a categorical feature; None for the first of `PROVIDERS` that there is, or else the
        feature that most items have.

    Raises:
      ConfigError: for a feature that the dataset does not have, or one that has no categories.
    """
    specs = dataset.schema.item_features
    fit = [n for n, spec in specs.items() if spec.kind == "categorical" and spec.vocabulary]
    if name is not None and name not in fit:
        raise ConfigError(
            f"--group: wanted a categorical feature of items, one of {', '.join(fit) or 'none'}; "
            f"got {name!r}."
        )
    if not fit:
        return None
    if name is None:
        named = [provider for provider in PROVIDERS if provider in fit]
        features = dataset.catalog.features
        name = named[0] if named else max(fit, key=lambda n: (features[n] > 0).any(axis=1).sum())
    value = dataset.catalog.features[name]
    numbers = [n for n in np.unique(value).tolist() if n > 0]
    if not numbers:
        return None
    member = np.stack([(value == number).any(axis=1) for number in numbers], axis=1)
    return name, [category_names(specs[name], number)[0] for number in numbers], member


def _mean_count(weight: np.ndarray, count: np.ndarray) -> float:
    """The mean of a count over items, weighted."""
    return float((weight * count).sum() / max(weight.sum(), 1))


def _thirds(material: Material, shown: dict[str, np.ndarray]) -> page.Markup:
    """Whose the places are, by popularity of the items."""
    count = material.dataset.catalog.train_count
    warm = count[count > 0]
    low, high = np.quantile(warm, [1 / 3, 2 / 3]) if len(warm) else (0, 0)
    groups = {
        "head": count > high,
        "middle": (count > low) & (count <= high),
        "tail": (count > 0) & (count <= low),
        "cold": count == 0,
    }
    who = {**shown, "train": count}
    who["what they chose"] = np.bincount(material.relevant[1], minlength=len(count))
    values = {
        group: [
            100 * float(places[members].sum() / max(places.sum(), 1)) for places in who.values()
        ]
        for group, members in groups.items()
    }
    return page.figure(
        figures.bars(list(who), values, unit="of all places, %", stacked=True),
        "Whose the places are: items by thirds of their train interactions. The last bar is what "
        f"the users of the {material.split} split chose.",
    )
