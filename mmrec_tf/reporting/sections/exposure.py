"""Of what is recommended: how much of the catalog, how popular, how varied."""

import numpy as np

from mmrec_tf.reporting import figures, page
from mmrec_tf.reporting.material import KS, Material
from mmrec_tf.reporting.page import Section

TITLE = "Coverage and popularity"
_NAMES = {"model": "this run", "id_only": "its id-only twin", "popularity": "most popular"}


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
        [_NAMES.get(name, name), *(values[metric] for metric in metrics)]
        for name, values in beyond.items()
    ]
    places = shown["this run"]
    lift = _mean_count(places, train) / max(_mean_count(train, train), 1e-12)
    told = [
        page.figures(drawing, _thirds(material, shown)),
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
