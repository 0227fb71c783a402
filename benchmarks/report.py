"""Fills the tables of the README, examples/ and docs/ in from benchmarks/results/*.json.

    python -m benchmarks.report            rewrites the pages
    python -m benchmarks.report --check    says whether they are up to date (exit status 1 if not)

A table stands between `<!-- results NAME PART -->` and `<!-- end -->`; the part is a split of an
example's result, SPLIT_less for what it has over the others, SPLIT_content for what content is
worth there, SPLIT_met for how that goes by how often train met an item, or that of another
benchmark, such as seeds_SPLIT of `benchmarks.bench_seeds`. With `later` behind the part, a result
that is not there yet leaves a line that says so.
"""

import argparse
import json
import pathlib
import re
import sys
from collections.abc import Collection

from benchmarks import tuning_tables

ROOT = pathlib.Path(__file__).parents[1]
PAGES = ("README.md", "examples/*.md", "docs/*.md")
COLUMNS = ("recall@10", "ndcg@10", "recall@20", "ndcg@20")
MARK = re.compile(r"(<!-- results (\w+) (\w+)( later)? -->\n).*?(<!-- end -->)", re.S)
LABELS = {
    "model": "this config",
    "id_only": "its id-only twin",
    "both_stages": "this config, after ranking too",
    "popularity": "most popular",
    "item_knn": "item-kNN",
    "ease": "EASE",
    "content_knn": "item-kNN on content",
    "ials": "iALS",
    "bpr": "BPR",
    "knowable": "knowable: told the clusters, and train",
    "ceiling": "ceiling: the planted truth",
    "cold": "this config, on items without train interactions",
    "cold_id_only": "its twin, on items without train interactions",
    "unplaced": "this config, cold items where content alone places them",
}
# What says whether content is worth anything.
CONTENT_ROWS = ("id_only", "popularity", "content_knn", "unplaced")


# What says the most of all this, for the first page.
SHORT_ROWS = (
    "model",
    "id_only",
    "ease",
    "popularity",
    "knowable",
    "ceiling",
    "cold",
    "cold_id_only",
)
SHORT_COLUMNS = ("recall@20", "ndcg@20")


def table(
    result: dict, split: str, *, rows: Collection[str] = (), columns: Collection[str] = COLUMNS
) -> str:
    """One split of a result as a Markdown table.

    Args:
      result: of an example.
      split: of it.
      rows: names of what was measured; all where none are given.
      columns: metrics.
    """
    figures = result["splits"][split]
    lines = [
        f"| {split} split, {figures['users']} users | {' | '.join(columns)} |",
        f"| --- |{' --- |' * len(columns)}",
    ]
    for name, values in figures.items():
        if isinstance(values, dict) and (not rows or name in rows):
            label = LABELS.get(name, name.replace("_and_id", " alone, and ids"))
            if "users" in values:
                label += f" ({values['users']} users)"
            cells = " | ".join(f"{values[column]:.4f}" for column in columns)
            lines.append(f"| {label} | {cells} |")
    return "\n".join(lines) + "\n"


def speed_table(result: dict) -> str:
    """Files a second of preparation."""
    lines = ["| files/s | one at a time | `data.prepare` | ratio |", "| --- | --- | --- | --- |"]
    for kind, figures in result["speed"].items():
        if kind == "commit":
            continue
        loop, ours = (figures[f"{name}_files_per_second"] for name in ("one_at_a_time", "ours"))
        lines.append(f"| {kind}s | {loop:,.0f} | {ours:,.0f} | {figures['ratio']:.2f} |")
        same = figures.get("ratio_to_a_loop_of_our_own_cleaning")
        if same is not None:
            row = (
                f"| {kind}s, our own cleaning in the loop, too | {ours / same:,.0f} | {ours:,.0f} "
            )
            lines.append(f"{row}| {same:.2f} |")
    return "\n".join(lines) + "\n"


def memory_table(result: dict) -> str:
    """Peak memory of preparation by number of items."""
    sizes = {name: size for name, size in result["memory"].items() if isinstance(size, dict)}
    header = " | ".join(f"{int(number):,} items" for number in sizes)
    peaks = " | ".join(f"{size['peak_mebibytes']:.0f} MiB" for size in sizes.values())
    return f"| peak memory | {header} |\n| --- |{' --- |' * len(sizes)}\n| | {peaks} |\n"


def cache_table(result: dict) -> str:
    """Examples a second with and without the cache of frozen encoders."""
    cache = result["cache"]
    return (
        "| examples/s | with the cache | encoding on the fly | ratio |\n| --- | --- | --- | --- |\n"
        f"| | {cache['with_cache']['examples_per_second']:,.0f} | "
        f"{cache['without_cache']['examples_per_second']:,.1f} | {cache['ratio']:,.0f} |\n"
    )


def parts_table(result: dict) -> str:
    """Seeds, and the config with one part removed."""
    monitor = result["config"]["training"]["monitor"]
    seeds, first = result["seeds"], f"whole, seed {result['seeds'][0]}"
    lines = [
        f"| valid split | {' | '.join(COLUMNS)} | {monitor} less the whole's, 95 % |",
        f"| --- |{' --- |' * (len(COLUMNS) + 1)}",
    ]
    for name, label in {"whole": "this config", "id_only": "its id-only twin"}.items():
        cells = " | ".join(
            f"{summary['mean']:.4f} ± {summary['std']:.4f}"
            for summary in (result["summary"][name][column] for column in COLUMNS)
        )
        lines.append(f"| {label}: mean and standard deviation of {len(seeds)} seeds | {cells} | |")
    for name, run in result["runs"].items():
        if "seed" in name and name != first:
            continue
        cells = " | ".join(f"{run['valid'][column]:.4f}" for column in COLUMNS)
        less = run.get(f"{monitor} less that of {first}")
        interval = f"{less['low']:+.4f} to {less['high']:+.4f}" if less else ""
        lines.append(f"| {name} | {cells} | {interval} |")
    return "\n".join(lines) + "\n"


def seeds_table(result: dict, protocol: str) -> str:
    """Mean and standard deviation over seeds, and what the config has over the others."""
    found = result["splits"][protocol]
    lines = [
        f"| {found['split']} split, history {found['history']}, {found['users']} users, "
        f"{len(result['seeds'])} seeds | {' | '.join(COLUMNS)} |",
        f"| --- |{' --- |' * len(COLUMNS)}",
    ]
    for name, metrics in found["summary"].items():
        cells = [
            f"{one['mean']:.4f}" + ("" if one["std"] is None else f" ± {one['std']:.4f}")
            for one in (metrics[column] for column in COLUMNS)
        ]
        lines.append(f"| {LABELS[name]} | {' | '.join(cells)} |")
    for name, metrics in found["differences"].items():
        cells = ["{:+.4f} ({:+.4f} to {:+.4f})".format(*metrics[column]) for column in COLUMNS]
        lines.append(f"| this config less {LABELS[name]}, 95 % | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def difference_table(result: dict, split: str) -> str:
    """What the model has over the others, with intervals."""
    lines = [
        f"| {split} split: this config less | {' | '.join(COLUMNS)} |",
        f"| --- |{' --- |' * len(COLUMNS)}",
    ]
    for name, values in result["differences"][split].items():
        cells = " | ".join(
            "{:+.4f} ({:+.4f} to {:+.4f})".format(*values[column]) for column in COLUMNS
        )
        lines.append(f"| {LABELS.get(name, name)} | {cells} |")
    return "\n".join(lines) + "\n"


def content_table(result: dict, split: str) -> str:
    """What content is worth: the model and what knows none of it, or nothing else, with what the
    model has over each; and each modality alone."""
    # Results from before differences were told have none.
    figures = result["splits"][split]
    differences = result.get("differences", {}).get(split, {})
    lines = [
        f"| {split} split, {figures['users']} users | recall@10 | this config less it, 95 % "
        "| ndcg@10 | this config less it, 95 % |",
        f"| --- |{' --- |' * 4}",
    ]
    alone = [name for name in figures if name.endswith("_and_id")]
    for name in ("model", *CONTENT_ROWS, *alone):
        if not figures.get(name):
            continue
        cells = []
        for metric in ("recall@10", "ndcg@10"):
            less = differences.get(name)
            cells.append(f"{figures[name][metric]:.4f}")
            cells.append("{:+.4f} ({:+.4f} to {:+.4f})".format(*less[metric]) if less else "")
        label = LABELS.get(name, name.replace("_and_id", " alone, and ids"))
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def met_table(result: dict, split: str) -> str:
    """Recall by how often train met what was wanted."""
    slices = result["slices"][split]
    # Results from before the counts were told have thirds.
    counted = [name for name in slices if name.startswith("met ") and "," not in name]
    who = ("model", "id_only", "popularity", "content_knn")
    there = [one for one in who if any(one in found for found in slices.values())]
    lines = [
        f"| {split} split, recall@20 | items | users | "
        f"{' | '.join(LABELS[one] for one in there)} |",
        f"| --- |{' --- |' * (2 + len(there))}",
    ]
    for name in ("cold", *(counted or ("tail", "middle", "head"))):
        found = slices[name]
        if found["users"]:
            cells = " | ".join(f"{found[one]['recall@20']:.4f}" for one in there)
            lines.append(f"| {name} | {found['items']} | {found['users']} | {cells} |")
    return "\n".join(lines) + "\n"


def ranking_table(result: dict) -> str:
    """Ranking models by architecture and task: their predictions and the funnel."""
    lines = [
        "| ranking model | AUC | GAUC | log loss | NDCG@10 | less retrieval's, 95 % "
        "| test: AUC | GAUC | log loss | NDCG@10 | less retrieval's, 95 % |",
        f"| --- |{' --- |' * 10}",
    ]
    first = next(iter(result["ranking"].values()))
    cells = []
    for split in ("valid", "test"):
        found, funnel = first[split]["candidates"]["retrieval"], first[split]["funnel"]
        cells += [f"{found['auc']:.4f}", f"{found['gauc']:.4f}", ""]
        cells += [f"{funnel['retrieval']['ndcg@10']:.4f}", ""]
    lines.append(f"| retrieval alone | {' | '.join(cells)} |")
    for name, entry in result["ranking"].items():
        cells = []
        for split in ("valid", "test"):
            found = entry[split]["candidates"]["ranking"]
            cells += [f"{found[metric]:.4f}" for metric in ("auc", "gauc", "log_loss")]
            cells.append(f"{entry[split]['funnel']['ranking']['ndcg@10']:.4f}")
            mean, low, high = entry[split]["differences"]["ranking"]["ndcg@10"]
            cells.append(f"{mean:+.4f} ({low:+.4f} to {high:+.4f})")
        label = f"**{name}**" if name == result["chosen"] else name
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def funnel_table(result: dict) -> str:
    """What each stage of the chosen chain leaves."""
    entry = result["ranking"][result["chosen"]]
    metrics = ("recall@10", "ndcg@10", "recall@20", "ndcg@20")
    num = entry["valid"]["num_candidates"]
    lines = [f"| {result['chosen']} | {' | '.join(metrics)} |", f"| --- |{' --- |' * len(metrics)}"]
    for split in ("valid", "test"):
        funnel = entry[split]["funnel"]
        recall = funnel["retrieved"][f"recall@{num}"]
        users = entry[split]["users"]
        lines.append(f"| {split}, {users} users: recall@{num} of retrieval {recall:.4f} | | | | |")
        for stage in ("retrieval", "ranking"):
            cells = " | ".join(f"{funnel[stage][metric]:.4f}" for metric in metrics)
            lines.append(f"| {split}: {stage} | {cells} |")
        cells = " | ".join(
            "{:+.4f} ({:+.4f} to {:+.4f})".format(*entry[split]["differences"]["ranking"][m])
            for m in metrics
        )
        lines.append(f"| {split}: ranking less retrieval, 95 % | {cells} |")
    return "\n".join(lines) + "\n"


def shown_table(result: dict) -> str:
    """Of the interactions themselves: whether they were liked, and how they were rated."""
    lines = [
        "| ranking model | AUC of a click | of retrieval alone | RMSE of a rating "
        "| of the mean rating | test: AUC | of retrieval alone | RMSE | of the mean |",
        f"| --- |{' --- |' * 8}",
    ]
    for name, entry in result["ranking"].items():
        cells = []
        for split in ("valid", "test"):
            for kind, metrics in (
                ("click", ("auc", "retrieval_auc")),
                ("rating", ("rmse", "rmse_of_the_mean")),
            ):
                found = entry[split]["shown"].get(kind, {})
                cells += [f"{found[m]:.4f}" if m in found else "" for m in metrics]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    if "ceiling" in result:
        aucs = [f"{result['ceiling'][split]['auc']:.4f}" for split in ("valid", "test")]
        lines.append(f"| ceiling: the planted truth | {aucs[0]} | | | | {aucs[1]} | | | |")
    return "\n".join(lines) + "\n"


def calibration_table(result: dict) -> str:
    """ECE on the test split, by what was fitted on valid."""
    kinds = ("none", "temperature", "platt", "isotonic")
    lines = [f"| ECE, test split | {' | '.join(kinds)} |", f"| --- |{' --- |' * len(kinds)}"]
    for name, found in result["calibration"].items():
        for bins, label in (("ece", "equal width"), ("ece_equal_mass", "equal mass")):
            cells = " | ".join(f"{found[kind][bins]:.5f}" for kind in kinds)
            lines.append(f"| {name}, bins of {label} | {cells} |")
    return "\n".join(lines) + "\n"


def stage_table(result: dict) -> str:
    """Milliseconds a user of each stage."""
    stages = ("retrieve", "rank", "diversify", "recommend", "bare")
    lines = [
        f"| ms a user, {result['items']:,} items | {' | '.join(stages)} |",
        f"| --- |{' --- |' * len(stages)}",
    ]
    for row in result["milliseconds_a_user"]:
        cells = " | ".join(f"{row[stage]:.2f}" for stage in stages)
        lines.append(f"| batch {row['batch']}, {row['candidates']:,} candidates | {cells} |")
    return "\n".join(lines) + "\n"


def head_table(result: dict) -> str:
    """What the head of items against items adds to an answer."""
    columns = ("p50 without", "with", "ratio of p50", "p95 without", "with")
    lines = [
        f"| ms a request, {result['items']:,} items, one user | {' | '.join(columns)} |",
        f"| --- |{' --- |' * len(columns)}",
    ]
    for name, found in result["milliseconds"].items():
        cells = (
            f"{found['without_p50']:.2f} | {found['with_head_p50']:.2f} | "
            f"{found['ratio_of_p50']:.2f} | "
            f"{found['without_p95']:.2f} | {found['with_head_p95']:.2f}"
        )
        lines.append(f"| {name} | {cells} |")
    return "\n".join(lines) + "\n"


def latency_table(result: dict, only: str = "") -> str:
    """What each signature costs, in process and over gRPC; all of them, or only one."""
    lines = [
        f"| {result['items']:,} items, k {result['k']} | batch | in process p50, ms | gRPC p50 "
        "| p95 | p99 | requests/s, one caller | gRPC over in process |",
        f"| --- |{' --- |' * 7}",
    ]
    for name, batches in result["signatures"].items():
        for batch, figures in batches.items() if only in name else ():
            grpc = figures["grpc"]
            cells = (
                f"{figures['in_process']['p50_ms']:.2f} | {grpc['p50_ms']:.2f} | "
                f"{grpc['p95_ms']:.2f} | {grpc['p99_ms']:.2f} | "
                f"{grpc['requests_per_second']:,.0f} | {figures['grpc_over_in_process']:.2f}"
            )
            lines.append(f"| `{name}` | {batch} | {cells} |")
    return "\n".join(lines) + "\n"


def malformed_table(result: dict) -> str:
    """What each odd request is answered with."""
    lines = ["| request | to | code | answer |", "| --- | --- | --- | --- |"]
    for row in result["requests"]:
        said = row["answer"].replace("|", "\\|").replace("<", "\\<")
        lines.append(f"| {row['request']} | `{row['signature']}` | {row['code']} | {said} |")
    return "\n".join(lines) + "\n"


def search_table(result: dict) -> str:
    """How often content finds its own item."""
    lines = [
        f"| test folds, {result['items']} items | queries | recall@10 | 95 % | chance |",
        f"| --- |{' --- |' * 4}",
    ]
    for way, modalities in result["test"].items():
        for name, figures in modalities.items():
            lines.append(
                f"| {way} {name} | {figures['queries']} | {figures['recall@10']:.3f} | "
                f"{figures['low']:.3f} to {figures['high']:.3f} | {figures['chance']:.3f} |"
            )
    return "\n".join(lines) + "\n"


def index_table(result: dict, names: Collection[str] = (), *, but: str = "") -> str:
    """Indexes beside `BruteForce`, on the sets of vectors that are named, or all but one."""
    columns = (
        "items",
        "index",
        f"recall@{result['k']}",
        "lists read",
        "1 query, ms",
        "times BruteForce",
        "64 queries, ms",
        "times BruteForce",
        "1 query, excluding, ms",
        "bytes an item, vector and lists",
    )
    lines = [f"| {' | '.join(columns)} |", "|" + " --- |" * len(columns)]
    for one in result["sets"]:
        if one["set"] == but or (names and one["set"] not in names):
            continue
        items = f"{one['set']}, {one['items']:,}"
        for method, about in one["methods"].items():
            read = f"{about['probes']}" if "probes" in about else "all"
            read += f" of {about['lists']:,}" if "lists" in about else ""
            plain, size = about["plain"], about.get("bytes_an_item", {})
            excluding = about.get("excluding", {}).get("milliseconds_of_1")
            cells = [
                items,
                method,
                f"{about['recall']:.3f}",
                read,
                f"{plain['milliseconds_of_1']:.2f}",
                f"{plain['times_brute_force_of_1']:.1f}",
                f"{plain['milliseconds_of_64']:.1f}",
                f"{plain['times_brute_force_of_64']:.1f}",
                "" if excluding is None else f"{excluding:.2f}",
                f"{size['vectors']:.0f} + {size['lists']:.0f}" if size else "",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def loop_table(result: dict) -> str:
    """What the nights of simulated users came to."""
    recall, nights = result["recall_of_the_truth"], result["settings"]["nights"]
    mean, low, high = recall["difference"]
    lines = [
        f"| after {nights} nights | trained each night | never trained again | difference, 95 % |",
        "| --- | --- | --- | --- |",
        f"| recall@10 of the planted truth | {recall['learning']:.4f} | {recall['frozen']:.4f} "
        f"| {mean:+.4f} ({low:+.4f} to {high:+.4f}) |",
    ]
    share = result["new_items_share_of_impressions"]
    lines += [
        "",
        "| share of impressions | trained each night | never | never, and no exploration slot |",
        "| --- | --- | --- | --- |",
        f"| of items that came in these days | {share['learning']:.3f} | {share['frozen']:.3f} "
        f"| {share['no_slot']:.3f} |",
    ]
    return "\n".join(lines) + "\n"


PARTS = {
    "loop": loop_table,
    "clustered": lambda result: index_table(result, ["clustered"]),
    "grown": lambda result: index_table(result, ["grown"]),
    "trained": lambda result: index_table(result, but="clustered"),
    "latency": latency_table,
    "recommend": lambda result: latency_table(result, "/recommend"),
    "malformed": malformed_table,
    "search": search_table,
    "ranking": ranking_table,
    "funnel": funnel_table,
    "shown": shown_table,
    "calibration": calibration_table,
    "stages": stage_table,
    "head": head_table,
    "parts": parts_table,
    "seeds_valid": lambda result: seeds_table(result, "valid"),
    "seeds_test": lambda result: seeds_table(result, "test"),
    "seeds_test_after_valid": lambda result: seeds_table(result, "test_after_valid"),
    "test_short": lambda result: table(result, "test", rows=SHORT_ROWS, columns=SHORT_COLUMNS),
    "test_less": lambda result: difference_table(result, "test"),
    "valid_less": lambda result: difference_table(result, "valid"),
    "test_content": lambda result: content_table(result, "test"),
    "test_met": lambda result: met_table(result, "test"),
    "valid_content": lambda result: content_table(result, "valid"),
    "valid_met": lambda result: met_table(result, "valid"),
    "speed": speed_table,
    "memory": memory_table,
    "cache": cache_table,
    **tuning_tables.PARTS,
}


def filled(text: str) -> str:
    """A page with its tables made anew."""

    def fill(match: re.Match) -> str:
        path = ROOT / "benchmarks" / "results" / f"{match[2]}.json"
        if match[4] and not path.exists():
            return f"{match[1]}*Not measured yet.*\n{match[5]}"
        result = json.loads(path.read_text(encoding="utf-8"))
        part = PARTS[match[3]](result) if match[3] in PARTS else table(result, match[3])
        return f"{match[1]}{part}{match[5]}"

    return MARK.sub(fill, text)


def main() -> int:
    """Rewrites or checks the pages."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    parsed = parser.parse_args()
    stale = []
    for page in (path for pattern in PAGES for path in sorted(ROOT.glob(pattern))):
        text = page.read_text(encoding="utf-8")
        if filled(text) != text:
            stale.append(page)
            if not parsed.check:
                page.write_text(filled(text), encoding="utf-8")
    for page in stale:
        print(f"{page.relative_to(ROOT)}: {'is out of date' if parsed.check else 'rewritten'}")
    return 1 if stale and parsed.check else 0


if __name__ == "__main__":
    sys.exit(main())
