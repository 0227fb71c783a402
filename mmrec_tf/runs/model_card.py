"""What a trained model is, what it is for and how good it is: `README.md` in the form of Hugging
Face's model cards (Mitchell et al. 2019), and the same as `model_card.json`."""

import json
import pathlib
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmrec_tf.errors import RunError
from mmrec_tf.records.files import read_json, write_json, write_text
from mmrec_tf.runs.evaluate import evaluate_run
from mmrec_tf.runs.run import Run

FILE, README = "model_card.json", "README.md"
KS = (10, 20)
# Of weights that are named and not a file, by kind: license in Hugging Face's words, and where it
# is said.
_KNOWN_WEIGHTS = {
    "google-bert/bert-base-uncased": ("apache-2.0", "its page on huggingface.co"),
    "bert-base-uncased": ("apache-2.0", "its page on huggingface.co"),
    "imagenet": (
        "other",
        "weights of Keras Applications; ImageNet's pictures are for research that is not "
        "commercial, so ask whoever counsels you before you sell what was made with them",
    ),
}
_LICENSE_LINE = re.compile(r"^license:\s*[\"']?([\w.+-]+)", re.MULTILINE)


def describe_run(run: Run, *, split: str = "valid") -> dict[str, Any]:
    """The model card of a run.

    Args:
      run: Run, finished.
      split: what is measured: "valid", or "test", which is looked at last.

    Returns:
      dict that JSON can hold: "name", "library", "data", "splits", "model", "metrics" with 95 %
      intervals, "slices", "intended_use", "limits", "licenses", "reproduce", "seed" and
      "versions".

    Raises:
      DatasetError: for a split without interactions, or a dataset that is missing or damaged.
    """
    stage = "recommender" if run.ranks else "retrieval"
    found = evaluate_run(run, split=split, ks=KS, stage=stage, slices=True)
    licenses = _licenses(run)
    return {
        "name": run.directory.resolve().name,
        "library": "mmrec_tf",
        "data": _data(run),
        "splits": _splits(run),
        "model": _model(run),
        "metrics": _metrics(run, found, stage),
        "slices": _slices(found),
        "intended_use": _intended_use(run),
        "limits": _limits(run, found),
        "licenses": licenses,
        "reproduce": _reproduce(run),
        "seed": run.config.training.seed,
        "versions": run.facts["versions"],
    }


def write_card(run: Run, *, split: str = "valid") -> pathlib.Path:
    """Writes `model_card.json` and `README.md` into the run directory.

    Args:
      run: Run, finished.
      split: as for `describe_run`.

    Returns:
      The path of `README.md`.
    """
    card = describe_run(run, split=split)
    write_json(run.directory / FILE, card)
    write_text(run.directory / README, to_markdown(card))
    return run.directory / README


def card_of(run: Run) -> dict[str, Any]:
    """The card in a run's directory; made now where training left none.

    Raises:
      RunError: when it cannot be read.
    """
    path = run.directory / FILE
    if not path.exists():
        return describe_run(run)
    try:
        return dict(read_json(path))
    except (OSError, ValueError) as error:
        raise RunError(
            f'{path}: wanted the model card; {error}. "mmrec-tf card {run.directory}" writes it '
            "again."
        ) from error


def to_markdown(card: Mapping[str, Any], *, servable: Mapping[str, Any] | None = None) -> str:
    """A model card as Hugging Face reads it: metadata in YAML between two lines of dashes, then
    Markdown.

    Args:
      card: what `describe_run` returned; {} where the run is not known.
      servable: of an export, what its own `model_card.json` says of the servable.
    """
    lines = ["---", *_metadata(card, servable), "---", ""]
    lines += [*_sections(card)] if card else []
    lines += [*_servable(servable)] if servable else []
    return "\n".join(lines).rstrip() + "\n"


def _data(run: Run) -> dict[str, Any]:
    dataset, schema = run.dataset, run.schema
    counts = dataset.manifest["counts"]
    source = dataset.manifest["source"]
    return {
        "name": dataset.directory.resolve().name,
        "source": source["name"],
        "arguments": source.get("arguments", {}),
        "sha256": run.facts["dataset_hash"],
        "users": schema.num_users,
        "items": schema.num_items,
        "interactions": counts["interactions"],
        "items_with": counts["present"],
        "item_features": sorted(schema.item_features),
        "user_features": sorted(schema.user_features),
        "ratings": schema.ratings,
        "events": list(schema.events),
        "warnings": dataset.manifest.get("warnings", []),
    }


def _splits(run: Run) -> dict[str, Any]:
    manifest = run.dataset.manifest
    return {
        "rule": manifest["split_rule"],
        "borders": manifest.get("split_borders"),
        "after_train": run.schema.ordered,
        "interactions": manifest["counts"]["interactions"],
    }


def _model(run: Run) -> dict[str, Any]:
    config, metrics = run.config, run.metrics
    names = config.modalities if config.modalities is not None else tuple(run.schema.modalities)
    head, placed = run.item_head_fit, run.cold_items_fit
    return {
        "stages": ["retrieval", *(["ranking"] if run.serves_ranking else [])],
        "ranking_trained": run.ranks,
        "modalities": list(names),
        "encoders": {name: _encoder(run, name) for name in names},
        "dim": config.dim,
        "parameters": metrics.get("parameters"),
        "item_head": None if head is None else head.to_json(),
        "cold_items": None if placed is None else placed.to_json(),
        "config": config.to_json(),
    }


def _encoder(run: Run, name: str) -> dict[str, Any]:
    kind = run.schema.modalities[name].kind
    settings = getattr(run.config, kind, None)
    named = ("family", "architecture", "weights", "trainable_layers")
    return {"kind": kind} | {key: getattr(settings, key) for key in named if hasattr(settings, key)}


def _metrics(run: Run, found: Mapping[str, Any], stage: str) -> dict[str, Any]:
    others = {"most popular": "popularity", "id-only twin": "id_only"}
    ceiling = run.dataset.ceiling(found["split"]) if found["history"] == "train" else None
    return {
        "split": found["split"],
        "history": found["history"],
        "stage": stage,
        "users": found["users"],
        "confidence": 0.95,
        "model": {
            name: dict(zip(("value", "low", "high"), values, strict=True))
            for name, values in found["intervals"].items()
        },
        "compared": {
            said: {
                "metrics": found[key],
                "model_minus_it": {
                    name: dict(zip(("value", "low", "high"), values, strict=True))
                    for name, values in found["differences"][key].items()
                },
            }
            for said, key in others.items()
            if found[key]
        },
        "ceiling": ceiling and {name: ceiling[name] for name in found["model"] if name in ceiling},
        "beyond_accuracy": found["beyond_accuracy"]["model"],
    }


def _slices(found: Mapping[str, Any]) -> dict[str, Any]:
    """Those of one kind alone: the crossed ones would be a long table of few users."""
    return {
        name: {"items": values["items"], "users": values["users"], **values["model"]}
        for name, values in found["slices"].items()
        if values["users"] and ", " not in name
    }


def _intended_use(run: Run) -> list[str]:
    kinds = ", ".join(run.schema.modalities) or "ids alone"
    said = [
        f"Lists of items for users of the catalog it was trained on ({kinds}), and items like "
        "an item; scores order items for one user, and compare nothing between users.",
        "Items without interactions are found through their content, users without any are shown "
        "what is popular.",
    ]
    if not run.schema.modalities:
        said[1] = "Items that nobody has chosen yet are not found: the model reads no content."
    return said


def _limits(run: Run, found: Mapping[str, Any]) -> list[str]:
    rule = run.dataset.manifest["split_rule"]
    said = [
        f"Measured offline on {found['users']:,} users of the {found['split']} split ({rule}) and "
        "one seed: an interval covers other users of the same kind, not another training, and says "
        "nothing of what people would click if they were shown these lists.",
        "It repeats what users did, the popularity of items and the gaps in the data included; "
        "nothing was measured between groups of people.",
        "It is no basis for decisions on people, such as on credit, work, housing or health.",
    ]
    if found["split"] == "valid":
        said.append(
            "Training stopped, and probabilities were fitted, by the valid split, so its figures "
            "are somewhat too good; `mmrec-tf card RUN --split test` measures test."
        )
    if run.dataset.manifest["source"]["name"] == "synthetic":
        said.append("The data is made up: the figures say nothing of real users.")
    if not run.schema.ordered:
        said.append(
            "Some of what was to be predicted is older than what was trained on, so the figures "
            "are those of filling gaps rather than of predicting what comes."
        )
    said += [f"Of the data: {warning}" for warning in run.dataset.manifest.get("warnings", [])]
    return said


def _licenses(run: Run) -> dict[str, Any]:
    """Of the weights that encoders began with. What was trained is the user's own."""
    return {
        "weights": {
            name: _license(facts["weights"])
            for name, facts in _model(run)["encoders"].items()
            if "weights" in facts
        },
        "data": {"license": "unknown", "why": "a dataset directory does not say; state it here"},
    }


def _license(weights: str) -> dict[str, str]:
    if weights == "random":
        return {"weights": weights, "license": "none needed", "why": "drawn at random here"}
    if weights in _KNOWN_WEIGHTS:
        license_, why = _KNOWN_WEIGHTS[weights]
        return {"weights": weights, "license": license_, "why": why}
    path = pathlib.Path(weights)
    folder = path if path.is_dir() else path.parent
    readme = folder / README
    if path.exists() and readme.is_file():
        text = readme.read_text(encoding="utf-8", errors="replace")
        stated = _LICENSE_LINE.search(text.partition("\n---")[0])
        if stated:
            return {"weights": weights, "license": stated[1], "why": f"{readme} says so"}
    return {
        "weights": weights,
        "license": "unknown",
        "why": "look it up where the weights came from before you pass this model on",
    }


def _reproduce(run: Run) -> list[str]:
    source = run.dataset.manifest["source"]
    prepare = f"python -m data.prepare {source['name']} --out DATASET"
    if source["name"] == "synthetic":
        given = source["arguments"]
        options = {"users": "num_users", "items": "num_items", "clusters": "num_clusters"}
        options |= {"seed": "seed", "context-effect": "context_effect"}
        for option, key in options.items():
            if key in given:
                prepare += f" --{option} {given[key]}"
    train = f"mmrec-tf train --dataset DATASET --config {run.directory.name}/config.json --out RUN"
    start = run.facts.get("start")
    if start:
        train += f" --from {shlex.quote(start['run'])}"
    if run.twin is not None:
        train += " --twin"
    return [prepare, train, "mmrec-tf card RUN"]


def _metadata(card: Mapping[str, Any], servable: Mapping[str, Any] | None) -> Iterator[str]:
    """YAML, of which JSON's strings and lists are a part."""
    modalities = card["model"]["modalities"] if card else (servable or {}).get("modalities", [])
    tags = ["recommendation", "recommender-system", "two-tower", "tensorflow", *modalities]
    yield "library_name: mmrec_tf"
    # The data's, which a dataset directory does not know.
    yield "license: unknown"
    yield f"tags: {json.dumps(list(dict.fromkeys(tags)))}"
    if not card:
        return
    metrics, data = card["metrics"], card["data"]
    yield "model-index:"
    yield f"- name: {json.dumps(card['name'])}"
    yield "  results:"
    yield "  - task:"
    yield "      type: recommendation"
    yield "      name: Top-k recommendation"
    yield "    dataset:"
    yield f"      type: {json.dumps(data['source'])}"
    yield f"      name: {json.dumps(data['name'])}"
    yield f"      split: {json.dumps(metrics['split'])}"
    yield "    metrics:"
    for name, values in metrics["model"].items():
        yield f"    - type: {json.dumps(name)}"
        yield f"      name: {json.dumps(name)}"
        yield f"      value: {values['value']:.6f}"


def _sections(card: Mapping[str, Any]) -> Iterator[str]:
    data, model, metrics = card["data"], card["model"], card["metrics"]
    yield f"# {card['name']}"
    yield ""
    yield (
        f"A recommender of mmrec_tf (TensorFlow 2): {' and '.join(model['stages'])}, reading "
        f"{', '.join(model['modalities']) or 'ids alone'}, for {data['users']:,} users and "
        f"{data['items']:,} items."
    )
    if model["ranking_trained"] and "ranking" not in model["stages"]:
        yield ""
        yield "A ranking model was trained; it did not better retrieval's order and is not served."
    yield from _list("Intended use", card["intended_use"])
    yield from _heading("Data")
    yield from _table(
        ("", ""),
        [
            ("dataset", f"{data['name']} (source: {data['source']})"),
            ("SHA-256 of its manifest", f"`{data['sha256']}`"),
            ("users", f"{data['users']:,}"),
            ("items", f"{data['items']:,}"),
            *((f"items with {name}", f"{n:,}") for name, n in data["items_with"].items()),
            ("side features of items", ", ".join(data["item_features"]) or "none"),
            ("side features of users", ", ".join(data["user_features"]) or "none"),
        ],
    )
    yield from _heading("Splits")
    splits = card["splits"]
    after = "after" if splits["after_train"] else "not all after"
    counts = ", ".join(f"{n:,} {name}" for name, n in splits["interactions"].items())
    yield (
        f"By the rule `{splits['rule']}`: {counts} interactions. Those of valid and test are "
        f"{after} the user's train interactions."
    )
    yield from _quality(metrics)
    yield from _heading("Slices")
    yield "As if items of one kind alone counted."
    yield ""
    shown = [f"{name}@{k}" for k in KS for name in ("recall", "ndcg")]
    yield from _table(
        ("items", "number", "users", *shown),
        [
            (name, f"{of['items']:,}", f"{of['users']:,}", *(_cell(of.get(m)) for m in shown))
            for name, of in card["slices"].items()
        ],
    )
    yield from _list("Limits", card["limits"])
    yield from _heading("Encoders and licenses of weights")
    licenses = card["licenses"]["weights"]
    yield from _table(
        ("modality", "encoder", "weights it began with", "their license", ""),
        [
            (
                name,
                str(of.get("architecture", of.get("family", of["kind"]))),
                *(licenses.get(name, {}).get(key, "none") for key in ("weights", "license", "why")),
            )
            for name, of in model["encoders"].items()
        ],
    )
    yield ""
    yield f"Of the data: {card['licenses']['data']['license']}; {card['licenses']['data']['why']}."
    head = model["item_head"]
    if head is not None:
        yield from _heading("Head of items against items")
        yield from _table(("fitted on valid", ""), [(k, _cell(v)) for k, v in head.items()])
    placed = model["cold_items"]
    if placed is not None:
        yield from _heading("Items without train interactions")
        rows = [(k, _cell(v)) for k, v in placed.items() if not isinstance(v, dict)]
        for how in ("without", "with_fit"):
            rows += [(f"{how}: {name}", _cell(value)) for name, value in placed[how].items()]
        yield from _table(("found by a simulated cold start", ""), rows)
    yield from _heading("How to reproduce")
    yield from ["```", *card["reproduce"], "```", ""]
    versions = ", ".join(f"{name} {version}" for name, version in card["versions"].items())
    yield f"Seed {card['seed']}; {versions}. The whole config is in `{FILE}`."


def _quality(metrics: Mapping[str, Any]) -> Iterator[str]:
    yield from _heading("Metrics")
    what = "lists as they are shown" if metrics["stage"] == "recommender" else "retrieval"
    yield (
        f"The {metrics['split']} split, {metrics['users']:,} users, {what}, over the whole catalog "
        f"less what users had; known of them: {metrics['history']}. Means over users with 95 % "
        "bootstrap intervals; higher is better."
    )
    yield ""
    compared = metrics["compared"]
    header = ["", "this model", *compared, *(f"this model minus {other}" for other in compared)]
    header += ["the best there is"] * bool(metrics["ceiling"])
    rows = []
    for name, of in metrics["model"].items():
        row = [name, _interval(of)]
        row += [_cell(other["metrics"].get(name)) for other in compared.values()]
        row += [_interval(other["model_minus_it"][name], "+") for other in compared.values()]
        row += [_cell(metrics["ceiling"].get(name))] if metrics["ceiling"] else []
        rows.append(row)
    yield from _table(header, rows)


def _servable(about: Mapping[str, Any]) -> Iterator[str]:
    yield from _heading(f"Servable {about['servable']}")
    facts = {
        "version": about.get("version"),
        "made": about.get("made"),
        "signatures read": "docs/serving.md of mmrec_tf",
        "limits of a request": ", ".join(f"{k} {v}" for k, v in about["limits"].items()),
        "index": about.get("index", {}).get("kind"),
        "history": (about.get("history") or {}).get("name"),
        "train interactions": about["dataset"]["train_interactions"],
        "withdrawn items": about["dataset"]["withdrawn_items"],
        "made with": ", ".join(f"{k} {v}" for k, v in about["versions"].items()),
    }
    yield from _table(("", ""), [(k, str(v)) for k, v in facts.items() if v is not None])
    yield ""
    yield f"All of it, with config and ops, is in `{FILE}` beside this file."


def _heading(title: str) -> Sequence[str]:
    return "", f"## {title}", ""


def _list(title: str, points: Sequence[str]) -> Iterator[str]:
    yield from _heading(title)
    yield from (f"- {point}" for point in points)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    for row in (header, ["---"] * len(header), *rows):
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"


def _cell(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else "" if value is None else str(value)


def _interval(of: Mapping[str, float], sign: str = "") -> str:
    return f"{of['value']:{sign}.4f} ({of['low']:{sign}.4f} to {of['high']:{sign}.4f})"
