"""Tables on a terminal, of what commands found."""

import json
from collections.abc import Mapping, Sequence
from typing import Any


def print_evaluation(
    run: str, result: Mapping[str, Any], *, ceiling: Mapping[str, float] | None
) -> None:
    """What `evaluate_run` found.

    Args:
      run: the run's path, for the title.
      result: what `mmrec_tf.runs.evaluate.evaluate_run` returned, with "ranking" for both stages.
      ceiling: the best that can be reached, by metric; None where nobody knows.
    """
    rows = {name: result[name] for name in ("model", "popularity", "id_only") if result[name]}
    rows |= result["baselines"]
    if ceiling is not None:
        rows["ceiling"] = ceiling
    print_table(f"{run}, {_protocol(result)}, {result['users']} users", rows)
    shown = [name for name in result["model"] if name.startswith(("recall@", "ndcg@"))]
    differences = {
        name: {metric: _interval(*values[metric]) for metric in shown}
        for name, values in result["differences"].items()
    }
    print_table(
        f"\nthe model minus each, {_protocol(result)}, with 95% intervals", differences, width=28
    )
    if "ranking" in result:
        _print_ranking(result["ranking"])
    title = f"beyond accuracy, {_protocol(result)}; diversity of {result['diversity_of']}"
    print_table(f"\n{title}", result["beyond_accuracy"])
    if "slices" in result:
        at = max(int(name.partition("@")[2]) for name in result["model"])
        slices = {
            name: {key: _at(value, f"recall@{at}") for key, value in values.items()}
            for name, values in result["slices"].items()
            if values["users"]
        }
        empty = len(result["slices"]) - len(slices)
        title = f"recall@{at} by slice of items, {_protocol(result)}"
        title += f" ({empty} slices that no user asks for left out)"
        print_table(f"\n{title}", slices)


def print_ablation(run: str, result: Mapping[str, Any]) -> None:
    """What `mmrec_tf.runs.ablation.ablate_run` found."""
    rows = {"model": {"value": result["model"]}}
    for name, ways in result["knock_outs"].items():
        rows |= {f"{name} {how}": figure for how, figure in ways.items()}
    rows |= {
        f"{figure['removed']:.0%} of all content absent": figure for figure in result["missing"]
    }
    rows |= {f"trained: {name}": figure for name, figure in (result["retrained"] or {}).items()}
    table = {
        name: {
            result["metric"]: figure["value"],
            "minus the model": _interval(figure["difference"], figure["low"], figure["high"])
            if "low" in figure
            else "",
        }
        for name, figure in rows.items()
    }
    title = f"{run}, {_protocol(result)}, {result['users']} users, 95% intervals"
    print_table(title, table, width=28)
    print()
    for name, verdict in result["verdicts"].items():
        print(f"{name}: {verdict}")


def _print_ranking(result: Mapping) -> None:
    num = result["num_candidates"]
    found = result["candidates"]
    said = _protocol(result)
    title = f"{found['examples']} candidates, {num} a user, {found['positives']} of them chosen"
    title += f", {said}"
    rows = {name: found[name] for name in ("ranking", "retrieval")}
    print_table(f"\n{title}", rows, width=max(map(len, rows["ranking"])) + 1)
    for name, figures in result["shown"].items():
        title = f"{name}: the split's own interactions, {said}"
        print_table(f"\n{title}", {name: figures}, width=17)
    recall = result["funnel"]["retrieved"][f"recall@{num}"]
    rows = {name: result["funnel"][name] for name in ("retrieval", "ranking", "recommended")}
    title = f"the funnel, {said}: {recall:.4f} of what was chosen is among the {num}"
    print_table(f"\n{title}", rows)
    differences = {
        f"{name} - retrieval": {m: _interval(*v) for m, v in values.items() if "@" in m}
        for name, values in result["differences"].items()
    }
    shown = [name for name in rows["ranking"] if name.startswith(("recall@", "ndcg@"))]
    print_table(
        f"\n{said}, with 95% intervals",
        {name: {m: values[m] for m in shown} for name, values in differences.items()},
        width=28,
    )


def print_answers(asked: str, ids: Sequence[str], answer: Mapping, *, as_json: bool) -> None:
    """One line an item, TAB between what is said of it; or one JSON object."""
    if as_json:
        columns = {name: values.tolist() for name, values in answer.items()}
        rows = [
            {asked: name, **{column: values[row] for column, values in columns.items()}}
            for row, name in enumerate(ids)
        ]
        print(json.dumps({f"{asked}s": rows}))
        return
    for row, name in enumerate(ids):
        for rank, cells in enumerate(zip(*(v[row] for v in answer.values()), strict=True), start=1):
            if cells[0]:  # Fewer than k were left.
                said = (c or "-" if isinstance(c, str) else f"{c:.4f}" for c in cells)
                print(name, rank, *said, sep="\t")


def add_reasons(
    columns: dict[str, Any], whys: Sequence[Sequence[Mapping]], *, as_json: bool
) -> None:
    """Adds a column of reasons to an answer, in place: sentences, or all that is known.

    Args:
      columns: by name [user, k].
      whys: of each user what `mmrec_tf.reporting.explanation.explain_answers` says.
      as_json: whether all of it is wanted.
    """
    # Here, as --help answers without it.
    import numpy as np

    width = columns["item_id"].shape[1]
    column = np.full(columns["item_id"].shape, "", object)
    for row, found in enumerate(whys):
        for place, why in enumerate(found[:width]):
            column[row, place] = why if as_json else why["sentence"]
    columns["why"] = column


def print_table(title: str, rows: Mapping[str, Mapping], *, width: int = 12) -> None:
    """One line a row, one column a key, whose width is given in characters."""
    names = list(next(iter(rows.values())))
    first = max(map(len, rows))
    print(title)
    print(" " * first, *(f"{name:>{width}}" for name in names))
    for row, values in rows.items():
        print(f"{row:{first}}", *(f"{_cell(values.get(name)):>{width}}" for name in names))


def _cell(value: object) -> str:
    """Blank for what is not known."""
    return f"{value:.4f}" if isinstance(value, float) else "" if value is None else str(value)


def _protocol(result: Mapping[str, Any]) -> str:
    """What was measured, and what was known beforehand."""
    return f"{result['split']} split, history {result['history']}"


def _interval(mean: float, low: float, high: float) -> str:
    return f"{mean:+.4f} ({low:+.4f} to {high:+.4f})"


def _at(value: Any, metric: str) -> Any:
    """A number as it is, of metrics the one that is asked for."""
    return value[metric] if isinstance(value, dict) else value
