"""How much each modality weighs in an item's vector, by category."""

import numpy as np

from mmrec_tf.reporting import figures, page
from mmrec_tf.reporting.material import Material
from mmrec_tf.reporting.page import Section

TITLE = "Fusion weights"
# A difference of means below this is rounding.
_EQUAL = 1e-3


def section(material: Material) -> Section:
    """The mean weight of each modality among the items of a category."""
    names = material.run.retrieval.modalities
    if not names:
        return page.missing(
            TITLE, "This run reads no modality: items are known by their ids alone."
        )
    if len(names) == 1:
        return page.missing(TITLE, f"This run reads {names[0]} alone, which has all the weight.")
    weights, present = np.asarray(material.tower.weights), np.asarray(material.tower.present)
    categories = material.categories
    some = present.any(axis=1)
    groups = [
        (name, (categories.of == number) & some) for number, name in enumerate(categories.names)
    ]
    groups = [(name, members) for name, members in groups if members.any()]
    if not groups:
        return page.missing(TITLE, "No item has any content.")
    means = np.stack([weights[members].mean(axis=0) for _, members in groups])
    if np.ptp(means, axis=0).max() < _EQUAL:
        said = ", ".join(f"{name} {mean:.2f}" for name, mean in zip(names, means[0], strict=True))
        return page.missing(
            TITLE,
            f"The same for items of every kind ({material.run.config.item.fusion} fusion): {said}.",
        )
    drawing = figures.bars(
        [f"{name} ({int(members.sum()):,})" for name, members in groups],
        {name: means[:, column].tolist() for column, name in enumerate(names)},
        unit="mean weight; an absent modality has 0",
        stacked=True,
    )
    by = categories.name
    told = [
        page.figure(
            drawing,
            f"By {by}, over items with any content (how many, in parentheses). Fusion: "
            f"{material.run.config.item.fusion}. The item's id stands beside these, unweighed.",
        )
    ]
    both = present.all(axis=1)
    if both.any() and np.ptp(weights[both], axis=0).max() < _EQUAL:
        told.append(
            page.paragraph(
                "Among items that have all modalities the weights are the same for each: what "
                "differs between the bars is what is absent.",
                class_="soft",
            )
        )
    return Section(TITLE, page.join(told))
