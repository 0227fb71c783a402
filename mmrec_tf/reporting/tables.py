"""Tables on a terminal, of what commands found."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

NO_KNOWABLE = (
    "the dataset was prepared before it was measured; prepare it again to see it, in a folder of "
    "its own, as runs know their dataset by its hash."
)


def print_evaluation(
    run: str,
    result: Mapping[str, Any],
    *,
    ceiling: Mapping[str, float] | None,
    knowable: Mapping[str, float] | None = None,
) -> None:
    """What `evaluate_run` found.

    Args:
      run: the run's path, for the title.
      result: what `mmrec_tf.runs.evaluate.evaluate_run` returned, with "ranking" for both stages.
      ceiling: the best that can be reached, by metric; None where nobody knows.
      knowable: what of it train lets one know, likewise.
    """
    rows = {name: result[name] for name in ("model", "popularity", "id_only") if result[name]}
    rows |= result["baselines"]
    rows |= {
        name: values
        for name, values in {"knowable": knowable, "ceiling": ceiling}.items()
        if values is not None
    }
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


def print_families(families: Sequence[Mapping[str, Any]]) -> None:
    """What `mmrec_tf.encoders.families.list_families` found; the families that a config chooses
    are marked with a star."""
    columns = ("kind", "family", "trains", "weights", "numbers", "needs", "exported")
    rows = [
        (
            family["kind"],
            family["name"] + (" *" if family["chosen"] else ""),
            "yes" if family["trains"] else "no",
            "-" if family["weight_bytes"] is None else f"{family['weight_bytes'] / 1e6:.1f} MB",
            "-" if family["vector_length"] is None else str(family["vector_length"]),
            family["needs"],
            family["exported"],
        )
        for family in families
    ]
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    for row in (columns, *rows):
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )
    without = [f for f in families if f["weight_bytes"] is None]
    if without:
        print(
            "\n* chosen. -: weighs what is given to it; measured with --set, such as "
            "--set text.family=word_vectors --set text.vectors=FILE. Not made here:"
        )
        for family in without:
            print(f"  {family['kind']}.{family['name']}: {family['reason']}")
    print("\nnumbers: of an item's vector, 4 bytes each, which are kept of frozen encoders.")


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


def ranking_verdict(found: Mapping[str, Any], *, served: bool, metric: str = "ndcg@10") -> str:
    """One sentence on what ranking adds to retrieval.

    Args:
      found: what `mmrec_tf.recommender.funnel.evaluate_ranking` returned.
      served: whether the run's recommender ranks.
      metric: by which; where it was not measured, the first that was.
    """
    if not served:
        return (
            "ranking adds nothing here: no epoch beat retrieval's own order on valid, so lists "
            "are served in that order"
        )
    values = found["differences"]["recommended"]
    metric = metric if metric in values else next(name for name in values if "@" in name)
    mean, low, high = values[metric]
    verdict = "adds" if low > 0 else "costs" if high < 0 else "neither adds nor costs measurably:"
    return f"ranking {verdict} {_interval(mean, low, high)} {metric}, {_protocol(found)}"


def print_answers(
    asked: str,
    ids: Sequence[str],
    answer: Mapping,
    *,
    titles: Mapping[str, Any] | None = None,
    as_json: bool,
) -> None:
    """One line an item, TAB between what is said of it; or one JSON object.

    Args:
      asked: "user" or "item".
      ids: those asked for.
      answer: by name, an array [id, k].
      titles: likewise, what people call the items; left out where none has a title.
      as_json: whether it is one JSON object.
    """
    called = {name: of for name, of in (titles or {}).items() if of.astype(bool).any()}
    answer = {**answer, **called}
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
                print(name, rank, *map(_answer_cell, cells), sep="\t")


def _answer_cell(cell: Any) -> str:
    if isinstance(cell, str):
        return cell or "-"
    if getattr(cell, "dtype", None) is not None and cell.dtype.kind == "i":
        return str(cell) if cell >= 0 else "-"  # A place; none.
    return f"{cell:.4f}"


def add_reasons(
    columns: dict[str, Any], whys: Sequence[Sequence[Mapping]], *, as_json: bool
) -> None:
    """Adds a column of reasons to an answer, in place: sentences, or all that is known.

    Args:
      columns: by name [user, k].
      whys: of each user what `mmrec_tf.reporting.explanation.explain_answers` says.
      as_json: whether all of it is wanted.
    """
    import numpy as np  # Here, as `mmrec-tf --help` is to answer at once.

    width = columns["item_id"].shape[1]
    column = np.full(columns["item_id"].shape, "", object)
    for row, found in enumerate(whys):
        for place, why in enumerate(found[:width]):
            column[row, place] = why if as_json else why["sentence"]
    columns["why"] = column


def print_tags(found: Mapping[str, Mapping[str, float]], *, k: int, as_json: bool) -> None:
    """The k most probable labels of each item, one line each; or one JSON object with all."""
    if as_json:
        print(json.dumps(found, ensure_ascii=False))
        return
    for item, labels in found.items():
        best = sorted(labels.items(), key=lambda pair: -pair[1])[:k]
        for rank, (label, probability) in enumerate(best, start=1):
            print(item, rank, label, f"{probability:.4f}", sep="\t")
        if not best:
            print(item, "-", "no content", "", sep="\t")


def print_labels(run: str, report: Mapping[str, Any]) -> None:
    """What `mmrec_tf.runs.labels.report_labels` found."""
    groups = {"train": "items that train met", "new": "items that train never met"}
    for name, found in report.items():
        for group, words in groups.items():
            figures = found[group]
            if figures is None:
                print(f"{run}, {name}: no {words} with content and a known label")
                continue
            rows = dict(figures["classes"])
            title = (
                f"{run}, {name} ({found['form']}), {figures['items']} {words}: macro F1 "
                f"{figures['macro_f1']:.4f}, micro F1 {figures['micro_f1']:.4f}, accuracy "
                f"{figures['accuracy']:.4f}"
            )
            print_table(title, rows)
            if "confusion" in figures:
                width = max(6, *(len(category) for category in figures["confusion"]))
                print_table("true class, taken for", figures["confusion"], width=width)
            print()


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
