"""How good: the run beside its twin and the baselines."""

from mmrec_tf.reporting import figures, page
from mmrec_tf.reporting.material import KS, NAMES, Material
from mmrec_tf.reporting.page import Section
from mmrec_tf.reporting.tables import NO_KNOWABLE

TITLE = "Headline figures"
_OWN = ("model", "id_only", "popularity")
_SHOWN = [f"{name}@{k}" for k in KS for name in ("recall", "ndcg")]


def section(material: Material) -> Section:
    """Figures, differences with intervals, and what ranking adds."""
    found = material.evaluation
    if found is None:
        return page.missing(TITLE, f"Nothing could be measured: {material.why}")
    rows = {name: found[name] for name in _OWN if found[name]} | found["baselines"]
    metrics = [name for name in _SHOWN if name in found["model"]]
    main = f"ndcg@{KS[0]}"
    ceiling = material.dataset.ceiling(material.split)
    knowable = material.dataset.ceiling(material.split, knowable=True)
    table = [[_name(n), *(values[m] for m in metrics)] for n, values in rows.items()]
    if knowable is not None:
        row = ["knowable: told the clusters, and train", *(knowable.get(m) for m in metrics)]
        table.append(row)
    if ceiling is not None:
        table.append(["ceiling: the planted truth", *(ceiling.get(m) for m in metrics)])
    cards = [
        page.element("div", _words(name), page.element("b", f"{found['model'][name]:.4f}"))
        for name in metrics
    ]
    cards = [page.Markup(card.replace("<div>", '<div class="card">', 1)) for card in cards]
    differences = {_name(name): values for name, values in found["differences"].items()}
    drawings = [
        page.figure(
            figures.intervals(
                {name: values[main] for name, values in differences.items()},
                unit=f"this run minus it, {main}",
            ),
            f"{main} of this run minus that of each, with 95 % intervals. Right of 0 this run is "
            "better; an interval across 0 cannot tell the two apart.",
        )
    ]
    intervals = [
        [name, *(page.interval(values[metric]) for metric in metrics)]
        for name, values in differences.items()
    ]
    if material.stage != "recommender":
        said = "retrieval, which this run does not rank anew"
    elif material.run.serves_ranking:
        said = "what people are shown, after ranking"
    else:
        said = "what people are shown, in retrieval's order, which ranking did not better"
    told = [
        page.paragraph(
            f"The {material.split} split, {found['users']:,} users, history {found['history']}: "
            f"{said}. The mean over users; higher is better, 1 is the best there is."
        ),
        page.element("div", *cards, class_="cards"),
        page.table(["", *metrics], table),
        page.figures(*drawings),
        page.table(
            ["this run minus", *metrics],
            intervals,
            caption="Paired bootstrap over users, 95 % intervals; green and red exclude 0.",
        ),
        *_ranking(material),
    ]
    left_out = [*found["left_out"].values()]
    if ceiling is not None and knowable is None:
        left_out.append(f"the knowable ceiling: {NO_KNOWABLE}")
    if material.baselines_left_out:
        left_out.append(material.baselines_left_out)
    told += [page.paragraph(f"Left out: {why}", class_="soft") for why in left_out]
    return Section(TITLE, page.join(told))


def _ranking(material: Material) -> list[page.Markup]:
    """What the second stage changes."""
    if not material.run.ranks:
        return [page.paragraph("This run has no ranking model.", class_="missing")]
    figured = material.run.metrics.get("ranking", {})
    if material.split != "valid" or "funnel" not in figured:
        return []
    funnel = figured["funnel"]
    metrics = [name for name in _SHOWN if name in funnel["retrieval"]]
    rows = [[name, *(funnel[name][m] for m in metrics)] for name in ("retrieval", "ranking")]
    difference = figured["differences"]["ranking"]
    rows.append(["ranking minus retrieval", *(page.interval(difference[m]) for m in metrics)])
    best = difference[metrics[0]]
    verdict = "adds" if best[1] > 0 else "costs" if best[2] < 0 else "neither adds nor costs"
    return [
        page.table(
            ["stage", *metrics],
            rows,
            caption=f"What ranking changes, on the {figured['users']:,} users with a click.",
        ),
        page.paragraph(f"Ranking {verdict} measurably by {metrics[0]}."),
    ]


def _name(name: str) -> str:
    return NAMES.get(name, name)


def _words(metric: str) -> str:
    name, _, k = metric.partition("@")
    return f"{name.upper() if name == 'ndcg' else name} at {k}"
