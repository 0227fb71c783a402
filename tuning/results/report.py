"""The page of a search: one HTML file with plotly's script in it, for people to look at."""

import json
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from mmrec_tf.reporting import page
from mmrec_tf.reporting.page import Markup, Section
from tuning.objective import Objective
from tuning.results.importance import Forest, importances, scaled
from tuning.results.table import Row, best_row, short

# So many of the best configs stand side by side, and so many settings, which fit on a screen.
BEST = 5
MOST_AXES = 8
EPOCHS = "epochs given"
# Names above axes are broken into lines of about so many letters.
_NAME_LETTERS = 14
_ACCENT, _SOFT, _BAD = "#0b6bcb", "#9aa7b4", "#b3261e"
_SCALE = "Viridis"


def write_report(
    path: pathlib.Path,
    rows: Sequence[Row],
    objective: Objective,
    settings: Sequence[str],
    *,
    facts: Mapping[str, Any],
    first: int = 0,
) -> None:
    """Writes the page aside and renames it into place.

    Args:
      path: its file.
      rows: the trials that have ended, in that order.
      objective: what was measured.
      settings: what was varied.
      facts: what is searched, as in `search.json`.
      first: how many trials were given, the start among them.
    """
    from plotly.offline import get_plotlyjs

    best = best_row(rows, objective)
    paced, varied = _with_epochs(rows, settings)
    forest = importances(paced, varied)
    failed = [row for row in rows if not row.completed]
    cards = [
        _card(
            "trials", f"{len(rows)}", f"{len(failed)} of them failed" if failed else "all completed"
        ),
        _card(
            "best",
            "–" if best is None or best.score is None else f"{best.score:.4f}",
            objective.name,
        ),
    ]
    start = next((row for row in rows if row.completed and int(row.trial) == 0), None)
    if first and start is not None and start.score is not None:
        cards.append(_card("the start", f"{start.score:.4f}", "where the search began"))
    cards.append(
        _card("time in trials", _time(sum(row.seconds for row in rows)), facts["strategy"])
    )
    lead = page.join(
        [
            page.paragraph(
                f"{facts['dataset']}; {objective.name} on the valid split, which a search may read "
                "and which its best trial therefore flatters. It has not read the test split.",
                class_="soft",
            ),
            page.element("div", *cards, class_="cards"),
            page.element("script", Markup(get_plotlyjs())),
            page.element("style", Markup(_STYLE)),
        ]
    )
    sections = [
        _over_time(rows, objective),
        _parallel(paced, objective, varied, forest),
        _importance(forest),
        _side_by_side(rows, objective, settings),
        _failures(failed),
        _how(facts),
    ]
    page.write_page(path, "Search for a config", lead, sections)


_STYLE = """
.plot { margin: .4em 0; }
"""


def _with_epochs(
    rows: Sequence[Row], settings: Sequence[str]
) -> tuple[Sequence[Row], Sequence[str]]:
    """Where trials were given different numbers of epochs, these as a setting among the others:
    else all that they do to a score would seem to be another's doing."""
    if len({row.epochs for row in rows}) < 2:
        return rows, settings
    each = [row._replace(settings={**row.settings, EPOCHS: row.epochs}) for row in rows]
    return each, [*settings, EPOCHS]


def _card(title: str, value: str, below: str) -> Markup:
    return page.element(
        "div",
        title,
        page.element("b", value),
        page.element("span", below, class_="soft"),
        class_="card",
    )


def _over_time(rows: Sequence[Row], objective: Objective) -> Section:
    import plotly.graph_objects as go

    title = "Score over time"
    done = [(n, row) for n, row in enumerate(rows, start=1) if row.score is not None]
    if not done:
        return page.missing(title, "No trial has completed.")
    scores = [row.score for _, row in done if row.score is not None]
    so_far = [objective.best(scores[: n + 1]) for n in range(len(scores))]
    spread = [row.spread or 0.0 for _, row in done]
    figure = go.Figure()
    figure.add_scatter(
        x=[n for n, _ in done],
        y=so_far,
        mode="lines",
        line={"shape": "hv", "color": _ACCENT, "width": 2},
        name="best so far",
        hoverinfo="skip",
    )
    figure.add_scatter(
        x=[n for n, _ in done],
        y=scores,
        mode="markers",
        marker={"color": _ACCENT, "size": 8},
        error_y={"type": "data", "array": spread, "visible": any(spread), "color": _SOFT},
        name="trial",
        text=[_hover(row, objective) for _, row in done],
        hovertemplate="%{text}<extra></extra>",
    )
    broken = [(n, row) for n, row in enumerate(rows, start=1) if row.score is None]
    if broken:
        low = min(scores) - 0.08 * ((max(scores) - min(scores)) or abs(max(scores)) or 1.0)
        figure.add_scatter(
            x=[n for n, _ in broken],
            y=[low] * len(broken),
            mode="markers",
            marker={"color": _BAD, "symbol": "x", "size": 9},
            name="failed",
            text=[f"trial {row.trial}<br>{page.escape(row.reason[:120])}" for _, row in broken],
            hovertemplate="%{text}<extra></extra>",
        )
    # Of few trials plotly would mark halves.
    figure.update_xaxes(title="trials that have ended", dtick=1 if len(rows) <= 12 else None)
    figure.update_yaxes(title=objective.name if len(objective.name) < 40 else "objective")
    told = page.paragraph(
        "Each point is a trial"
        + (", its bar the standard deviation over seeds" if any(spread) else "")
        + "; the line is the best so far.",
        class_="soft",
    )
    return Section(title, page.join([told, _drawn(figure, 380)]))


def _parallel(
    rows: Sequence[Row], objective: Objective, settings: Sequence[str], forest: Forest | None
) -> Section:
    """Parallel coordinates of lines, as trials lack settings that were not active, for which
    plotly's own have no place."""
    import plotly.colors
    import plotly.graph_objects as go

    title = "Settings and scores"
    done = [row for row in rows if row.score is not None]
    shown = [name for name in settings if any(name in row.settings for row in done)]
    if len(done) < 2 or not shown:
        return page.missing(title, "Wanted two completed trials.")
    varied = len(shown)
    if forest is not None and varied > MOST_AXES:
        shown = [entry.setting for entry in forest.settings if entry.setting in shown]
    shown = shown[:MOST_AXES]
    places, ticks = zip(
        *(_axis([row.settings.get(name) for row in done]) for name in shown), strict=True
    )
    scores = [float(row.score) for row in done if row.score is not None]
    linear = [(s - min(scores)) / ((max(scores) - min(scores)) or 1.0) for s in scores]
    inactive = any(name not in row.settings for row in done for name in shown)
    figure = go.Figure()
    # The best last, on top of the others.
    worst_first = sorted(
        range(len(done)), key=lambda n: scores[n] if objective.direction == "max" else -scores[n]
    )
    ranks = {n: place / max(1, len(done) - 1) for place, n in enumerate(worst_first)}
    for n in worst_first:
        color = plotly.colors.sample_colorscale(_SCALE, [1 - ranks[n]])[0]
        figure.add_scatter(
            x=list(range(len(shown) + 1)),
            y=[places[axis][n] for axis in range(len(shown))] + [linear[n]],
            mode="lines+markers",
            line={"color": color, "width": 3 if ranks[n] > 0.9 else 1.5},
            marker={"size": 5},
            opacity=0.35 + 0.65 * ranks[n],
            text=[_hover(done[n], objective)] * (len(shown) + 1),
            hovertemplate="%{text}<extra></extra>",
            showlegend=False,
        )
    for axis, marks in enumerate(
        [*ticks, [(0.0, f"{min(scores):.4f}"), (1.0, f"{max(scores):.4f}")]]
    ):
        figure.add_shape(
            type="line",
            x0=axis,
            x1=axis,
            y0=-0.12 if inactive else 0,
            y1=1,
            line={"color": _SOFT, "width": 1},
        )
        for height, mark in marks:
            figure.add_annotation(
                x=axis,
                y=height,
                text=_cut(mark, 14),
                showarrow=False,
                xanchor="left",
                xshift=5,
                font={"size": 10, "color": "#1d2733"},
                bgcolor="rgba(255,255,255,.7)",
            )
    names = [*shown, "score"]
    figure.update_xaxes(
        tickvals=list(range(len(names))),
        ticktext=[_lines(name) for name in names],
        range=[-0.15, len(names) - 0.4],
        side="top",
        tickangle=0,
        tickfont={"size": 11},
        showgrid=False,
        zeroline=False,
    )
    told = page.paragraph(
        "Each line is a trial, from its settings to its score; dark and thick is better."
        + (" A line at the foot of an axis has no such setting." if inactive else "")
        + _chosen(len(shown), varied, forest),
        class_="soft",
    )
    foot = 0.2 if inactive else 0.06
    figure.update_yaxes(visible=False, range=[-foot, 1.06])
    drawn = page.element("div", _drawn(figure, 400, least=118 * len(names)), class_="wide")
    return Section(title, page.join([told, drawn]))


def _chosen(shown: int, varied: int, forest: Forest | None) -> str:
    """Which settings have an axis, where not all do."""
    if shown == varied:
        return ""
    which = "first" if forest is None else "most important"
    return (
        f" Of {varied} settings the {shown} {which} ones are shown; a trial's others appear when "
        "you point at it."
    )


def _lines(name: str) -> str:
    """The name of a setting in short lines."""
    lines = [""]
    for word in re.findall(r"[^._]+[._]?", name):
        full = len(lines[-1]) + len(word) > _NAME_LETTERS
        if lines[-1] and (full or lines[-1].endswith(".")):
            lines.append("")
        lines[-1] += word
    return "<br>".join(lines)


def _axis(values: Sequence[Any]) -> tuple[list[float], list[tuple[float, str]]]:
    """Where values stand on an axis from 0 to 1, at -0.12 for None, and what is written there."""
    known = [value for value in values if value is not None]
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in known)
    each = sorted(set(known)) if numbers else sorted({_word(v) for v in known})
    absent = [(-0.12, "none")] if len(known) < len(values) else []
    if numbers and len(each) > 6:
        at = [-0.12 if v is None else float(s) for v, s in zip(values, scaled(values), strict=True)]
        return at, [(0.0, short(each[0])), (1.0, short(each[-1])), *absent]
    place = {v: n / max(1, len(each) - 1) if len(each) > 1 else 0.5 for n, v in enumerate(each)}
    at = [-0.12 if v is None else place[v if numbers else _word(v)] for v in values]
    return at, [(height, short(v)) for v, height in place.items()] + absent


def _importance(forest: Forest | None) -> Section:
    import plotly.graph_objects as go

    title = "Importance of each setting"
    if forest is None:
        return page.missing(title, "Wanted eight completed trials with differing scores.")
    shown = [entry for entry in forest.settings][:15]
    figure = go.Figure()
    figure.add_bar(
        y=[entry.setting for entry in shown],
        x=[entry.mean for entry in shown],
        error_x={"type": "data", "array": [entry.spread for entry in shown], "color": "#5b6773"},
        orientation="h",
        marker={"color": _ACCENT},
        hovertemplate="%{y}: %{x:.3f}<extra></extra>",
    )
    figure.update_yaxes(autorange="reversed", automargin=True)
    figure.update_xaxes(title="fall of R² when shuffled")
    told = [
        page.paragraph(
            "A random forest was fitted to the trials; a bar says how much worse it tells scores "
            "when that setting is shuffled among them (permutation importance), with the standard "
            "deviation over shuffles.",
            class_="soft",
        )
    ]
    if forest.explained <= 0.1:
        told.append(
            page.paragraph(
                f"Of trials that it has not seen it explains {max(forest.explained, 0):.0%} of "
                "the variance: too little for these bars to mean much. More trials would help.",
                class_="warn",
            )
        )
    else:
        told.append(
            page.paragraph(
                f"Of trials that it has not seen it explains {forest.explained:.0%} of the "
                "variance.",
                class_="soft",
            )
        )
    return Section(title, page.join([*told, _drawn(figure, 110 + 28 * len(shown))]))


def _side_by_side(rows: Sequence[Row], objective: Objective, settings: Sequence[str]) -> Section:
    title = "The best configs"
    done = [row for row in rows if row.score is not None]
    if not done:
        return page.missing(title, "No trial has completed.")
    sign = -1 if objective.direction == "max" else 1
    best = sorted(done, key=lambda row: sign * (row.score or 0.0))[:BEST]
    several = any(row.spread is not None for row in best)
    body: list[list[object]] = [[objective.name, *(row.score for row in best)]]
    if several:
        body.append(["spread over seeds", *(row.spread for row in best)])
        body.append(["seeds", *(", ".join(f"{s:.4f}" for s in row.scores) for row in best)])
    if len(objective.terms) > 1:
        body += [
            [term.name, *(row.metrics.get(term.name) for row in best)] for term in objective.terms
        ]
    if any(row.epochs for row in best):
        body.append([EPOCHS, *(row.epochs for row in best)])
    body.append(["seconds", *(f"{row.seconds:.0f}" for row in best)])
    for name in settings:
        values = [None if name not in row.settings else short(row.settings[name]) for row in best]
        if any(value is not None for value in values):
            body.append([name, *values])
    told = [page.table(["", *(f"trial {row.trial}" for row in best)], body)]
    if several and len(best) > 1:
        told.append(page.paragraph(_verdict(best), class_="soft"))
    elif len(best) > 1:
        told.append(
            page.paragraph(
                "Each trial was trained once, so nobody can say how much of a difference is "
                "chance; --seeds 3 says it.",
                class_="soft",
            )
        )
    return Section(title, page.join(told))


def _verdict(best: Sequence[Row]) -> str:
    one, two = best[0], best[1]
    gap = abs((one.score or 0.0) - (two.score or 0.0))
    spread = max(one.spread or 0.0, two.spread or 0.0)
    if gap <= spread:
        return (
            f"The first two differ by {gap:.4f}, no more than their seeds do ({spread:.4f}): take "
            "either."
        )
    return f"The first two differ by {gap:.4f}; seeds of one config by {spread:.4f}."


def _failures(failed: Sequence[Row]) -> Section:
    title = "Trials that failed"
    if not failed:
        return page.missing(title, "None.")
    told = []
    for row in failed:
        told.append(page.paragraph(page.element("b", f"trial {row.trial}"), f": {row.reason}"))
        summary = page.element("summary", "its settings")
        told.append(page.element("details", summary, page.paragraph(_settings(row), class_="soft")))
    return Section(title, page.join(told))


def _how(facts: Mapping[str, Any]) -> Section:
    said = {
        "dataset": facts["dataset"],
        "objective": facts["objective"],
        "strategy": f"{facts['strategy']}, seed {facts['seed']}",
        "seeds of a trial": facts["seeds"],
    }
    config = page.element("pre", json.dumps(facts["config"], indent=1))
    start = page.element(
        "details", page.element("summary", "the config that it started from"), config
    )
    return Section("How it was searched", page.join([page.definition(said), start]))


def _drawn(figure: Any, height: int, *, least: int | None = None) -> Markup:
    """A figure as wide as the page, or `least` pixels, within what then scrolls."""
    import plotly.io

    figure.update_layout(
        template="plotly_white",
        height=height,
        margin={"l": 60, "r": 20, "t": 30, "b": 50 if least is None else 10},
        font={"family": "system-ui, sans-serif", "size": 12},
        legend={"orientation": "h", "y": 1.08, "x": 0},
        hoverlabel={"align": "left"},
    )
    text = plotly.io.to_html(
        figure,
        include_plotlyjs=False,
        full_html=False,
        config={"responsive": True, "displaylogo": False, "displayModeBar": False},
    )
    style = None if least is None else f"min-width: {least}px"
    return page.element("div", Markup(text), class_="plot", style=style)


def _hover(row: Row, objective: Objective) -> str:
    spread = "" if row.spread is None else f" ± {row.spread:.4f}"
    lines = [f"trial {row.trial}: {row.score:.4f}{spread}"]
    lines += [f"{name} {short(value)}" for name, value in row.settings.items()]
    return "<br>".join(str(page.escape(line)) for line in lines)


def _settings(row: Row) -> str:
    return ", ".join(f"{name} {short(value)}" for name, value in row.settings.items())


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _cut(text: str, most: int) -> str:
    return str(page.escape(text if len(text) <= most else text[: most - 1] + "…"))


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
