"""For whom it is good: users by their side features."""

import numpy as np

from mmrec_tf.evaluation.metrics import retrieval_metrics
from mmrec_tf.records.inspection import category_names
from mmrec_tf.reporting import figures, page
from mmrec_tf.reporting.material import KS, Material
from mmrec_tf.reporting.page import Section

TITLE = "Groups of users"
_MOST_GROUPS = 12
_NUM_DRAWS = 500


def section(material: Material) -> Section:
    """A metric by category of each side feature, thirds of numeric ones."""
    specs = material.dataset.schema.user_features
    if not specs:
        return page.missing(TITLE, "The dataset has no side features of users to tell them apart.")
    if "this run" not in material.tops:
        return page.missing(TITLE, f"Nothing could be measured: {material.why}")
    k = KS[0]
    metric = f"ndcg@{k}"
    names: list[str] = [name for name in ("this run", "most popular") if name in material.tops]
    values = {
        name: retrieval_metrics(material.tops[name], material.relevant, ks=[k])[metric]
        for name in names
    }
    drawn, rows = [], []
    for feature in specs:
        groups = user_groups(material, feature)
        if len(groups) < 2:
            continue
        labels = [f"{name} ({int(members.sum()):,})" for name, members in groups.items()]
        bars: dict[str, list[float | None]] = {
            n: [float(values[n][m].mean()) for m in groups.values()] for n in names
        }
        drawn.append(
            page.figure(
                figures.bars(labels, bars, unit=metric),
                f"{metric} by {feature}; users of the {material.split} split in parentheses.",
            )
        )
        for name, members in groups.items():
            mean, low, high = interval(values["this run"][members])
            rows.append(
                [feature, name, int(members.sum()), mean, f"{low:.4f} to {high:.4f}"]
                + [float(values[other][members].mean()) for other in names[1:]]
            )
    if not rows:
        return page.missing(TITLE, "All users of the split are of one group by every feature.")
    header = ["feature", "group", "users", metric, "95 % interval", *names[1:]]
    told = [
        page.paragraph(
            "Intervals that overlap do not tell two groups apart. A group may be harder because "
            "its users met less, and not because it is treated worse."
        ),
        page.figures(*drawn),
        page.table(header, rows, caption=f"{metric}, the mean over a group's users"),
    ]
    return Section(TITLE, page.join(told))


def user_groups(material: Material, feature: str) -> dict[str, np.ndarray]:
    """Which users of the split are in which group, <bool>[user of the split], the largest first.

    Of several categories of a user all count; of numbers there are thirds, by the users of the
    split. Who has no value is a group, too.
    """
    spec = material.dataset.schema.user_features[feature]
    value = material.dataset.users.features[feature][material.users]
    found: dict[str, np.ndarray] = {}
    if spec.kind == "categorical":
        count = np.bincount(value[value > 0], minlength=1)
        for number in np.argsort(-count, kind="stable")[:_MOST_GROUPS].tolist():
            if count[number]:
                found[category_names(spec, number)[0]] = (value == number).any(axis=1)
        unknown = ~(value > 0).any(axis=1)
    else:
        known = value[:, 1] > 0
        unknown = ~known
        number = value[:, 0] * spec.std + spec.mean
        if known.any():
            low, high = np.quantile(number[known], [1 / 3, 2 / 3])
            parts = {
                f"up to {low:.4g}": known & (number <= low),
                f"{low:.4g} to {high:.4g}": known & (number > low) & (number <= high),
                f"above {high:.4g}": known & (number > high),
            }
            found = {name: members for name, members in parts.items() if members.any()}
    if unknown.any():
        found["not known"] = unknown
    return found


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """The mean, and the bounds of its 95 % bootstrap interval over users."""
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, len(values), [_NUM_DRAWS, len(values)])
    low, high = np.quantile(values[drawn].mean(axis=1), [0.025, 0.975])
    return float(values.mean()), float(low), float(high)
