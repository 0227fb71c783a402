"""What `benchmarks.bench_tuning` found, as Markdown tables for `benchmarks.report`."""

from typing import Any


def kills_table(result: dict[str, Any]) -> str:
    """What became of killed searches, by strategy."""
    columns = (
        "strategy",
        "trials",
        "kills",
        "of them before its end",
        "ended as if left alone",
        "trials done before the kills",
        "of them done again or lost",
        "trials twice",
        "files left over",
    )
    lines = [f"| {' | '.join(columns)} |", "|" + " --- |" * len(columns)]
    for name, found in result["strategies"].items():
        cells = (
            name,
            found["trials"],
            found["kills"],
            found["killed_before_its_end"],
            found["same_trials_and_best"],
            found["trials_done_before"],
            found["trials_done_again"],
            found["duplicate_trials"],
            found["left_over"],
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def rungs_table(result: dict[str, Any]) -> str:
    """The finalists of Hyperband with what they go on from, epoch by epoch."""
    trace = {row["trial"]: row for row in result["trace"]}
    longest = max(len(row["epochs"]) for row in trace.values())
    shown: list[dict[str, Any]] = []
    for finalist in result["finalists"]:
        chain = [trace[finalist["trial"]]]
        while chain[-1]["goes_on_from"]:
            chain.append(trace[chain[-1]["goes_on_from"]])
        shown += chain[::-1]
    lines = [
        f"| trial | goes on from | {' | '.join(f'epoch {n + 1}' for n in range(longest))} |",
        "| --- | --- |" + " --- |" * longest,
    ]
    for row in shown:
        before = len(row["epochs"]) - row["epochs_trained_here"]
        cells = [f"{epoch['valid_ndcg@10']:.4f}" for epoch in row["epochs"]]
        cells = [f"({cell})" if n < before else cell for n, cell in enumerate(cells)]
        cells += [""] * (longest - len(cells))
        lines.append(f"| {row['trial']} | {row['goes_on_from']} | {' | '.join(cells)} |")
    told = result["summary"]
    lines += [
        "",
        f"NDCG@10 on valid after each epoch; in brackets those of the trial before. Of "
        f"{told['promoted']} promoted trials {told['promoted_that_go_on']} go on, so that "
        f"{told['epochs_trained']} epochs were trained instead of "
        f"{told['epochs_if_each_began_anew']}; {told['finalists_equal_to_one_training']} of "
        f"{told['finalists']} finalists equal one uninterrupted training to the last digit.",
    ]
    return "\n".join(lines) + "\n"


def workers_table(result: dict[str, Any]) -> str:
    """One worker beside two, and two of which one is killed."""
    labels = {
        "1_at_once": "one worker",
        "2_at_once": "two workers",
        "killed": "two workers, one killed in a trial",
    }
    lines = [
        "| search | trials completed | trials twice | wall time, s |",
        "| --- | --- | --- | --- |",
    ]
    for name, label in labels.items():
        found = result["searches"][name]
        done = f"{found['completed']} of {found['trials']}"
        twice = found["trials_twice"] + found["settings_twice"]
        lines.append(f"| {label} | {done} | {twice} | {found['wall_seconds']:.0f} |")
    lines += [
        "",
        f"On {result['machine']['cores']} cores, beside other work (load {result['load_before']}). "
        + _taken_over(result["killed"]),
    ]
    return "\n".join(lines) + "\n"


def machines_paragraph(result: dict[str, Any]) -> str:
    """What became of the trial of a worker that is gone for good."""
    found = result["search"]
    return (
        f"Of {found['trials']} trials {found['completed']} completed, none twice. "
        f"{_taken_over(result['killed'])}\n"
    )


def _taken_over(killed: dict[str, Any]) -> str:
    score = "the same score as" if killed["same_score_as_undisturbed"] else "another score than"
    who = killed["done_by"].partition(" ")[0]
    who = "the same worker, started anew," if who == killed["worker"] else "the other worker"
    return (
        f"Trial {killed['trial']}, in which a worker was killed, was {killed['status']} by {who} "
        f"with {score} without the kill."
    )


def architectures_table(result: dict[str, Any]) -> str:
    """AUC of each architecture where only the hour tells."""
    lines = ["| `ranking.architecture` | AUC on valid |", "| --- | --- |"]
    for name, found in sorted(result["architectures"].items(), key=lambda item: -item[1]["auc"]):
        chosen = " (chosen)" if name == result["chosen"] else ""
        lines.append(f"| {name}{chosen} | {found['auc']:.4f} |")
    if result["ceiling_auc"] is not None:
        lines.append(f"| ceiling: the planted truth | {result['ceiling_auc']:.4f} |")
    return "\n".join(lines) + "\n"


def found_table(result: dict[str, Any]) -> str:
    """The default config, the example and the best of a search."""
    stage, _, metric = result["objective"].partition(".")
    valid, retrained = result["valid"], result["retrained"]
    test = retrained["test"]
    example = "" if valid["example"] is None else f"{valid['example']:.4f}"
    measured = "no such split" if test is None else f"{test[metric]:.4f}"
    lines = [
        f"| {len(result['trials'])} trials of at most {result['budget']['max_epochs']} epochs, "
        f"{metric} of {stage} | valid | test, once |",
        "| --- | --- | --- |",
        f"| default config | {valid['default']:.4f} | |",
        f"| the example | {example} | |",
        f"| best of the search | {valid['best']:.4f} | |",
        f"| the best, trained anew | {retrained['valid'][metric]:.4f} | {measured} |",
    ]
    shipped = result["example_as_it_is_shipped"]
    if shipped["same_dataset"]:
        lines.append(
            f"| the example as it is shipped, in its whole training | {shipped['valid']:.4f} | |"
        )
    return "\n".join(lines) + "\n"


PARTS = {
    "kills": kills_table,
    "rungs": rungs_table,
    "workers": workers_table,
    "machines": machines_paragraph,
    "architectures": architectures_table,
    "found": found_table,
}
