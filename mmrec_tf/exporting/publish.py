"""Servables to version folders: numbered once, checked aside, renamed into place.

- `EXPORT/recommender/1/` holds `saved_model.pb`, `variables/` and `assets.extra/`;
- `EXPORT/recommender/.versions` holds every number that was ever taken, a line each.
"""

import contextlib
import datetime
import fcntl
import json
import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from mmrec_tf.errors import ConfigError, ExportError
from mmrec_tf.exporting.checksums import write_checksums
from mmrec_tf.exporting.limits import Limits
from mmrec_tf.exporting.request_examples import Example, examples_path, write_examples
from mmrec_tf.exporting.servables import RECOMMENDER_LIMITS, EncoderServable, RecommenderServable
from mmrec_tf.exporting.verify import predict_request
from mmrec_tf.recommender.recommender import Recommender
from mmrec_tf.records.files import hold_folder
from mmrec_tf.retrieval.index import ExactIndex, build_index
from mmrec_tf.runs.model_card import to_markdown
from mmrec_tf.runs.run import versions

WARMUP_FILE = "assets.extra/tf_serving_warmup_requests"
CARD_FILE = "assets.extra/model_card.json"
README_FILE = "assets.extra/README.md"
TAKEN_FILE = ".versions"
# So many users, or items, ask the index of an export what an exact one would have found.
NUM_QUERIES = 1024
# TensorFlow Serving reads versions as int64.
MAX_VERSION = 2**63 - 1


def export(
    recommender: Recommender,
    directory: str | pathlib.Path,
    *,
    version: int | None = None,
    k: int = 50,
    index: str = "auto",
    min_recall: float = 0.95,
    limits: Limits = RECOMMENDER_LIMITS,
    card: Mapping[str, Any] | None = None,
) -> list[pathlib.Path]:
    """Writes `recommender/VERSION` and `encoder/VERSION`, checked, aside and renamed into place.

    They are reloaded in a fresh process that imports TensorFlow only, and must give the answers
    that this process gives, called directly and over gRPC. A model without modalities has no
    encoder.

    Args:
      recommender: Recommender.
      directory: where the servables stand; may hold earlier versions.
      version: above all that were ever taken there, as TensorFlow Serving never loads a number
        twice; None for the next one.
      k: how many items an answer holds.
      index: "auto", "exact", "ivf", "ivf_int8" or "ivf_pq", see
        `mmrec_tf.retrieval.index.build_index`.
      min_recall: the least recall of the index against an exact one, on real queries.
      limits: of a request to the recommender.
      card: what else the model card says, such as how good the model is; under "about", what
        `mmrec_tf.runs.model_card.describe_run` returned, which `README.md` is made of, too.

    Returns:
      The version folders.

    Raises:
      ConfigError: for a version or a k below 1, a version above 2^63 - 1, or an unknown index.
      ExportError: when an encoder cannot be exported, the version is not above those there, the
        index finds too little, or a check fails; no version is left. Also when another
        process exports there.
    """
    if k < 1 or (version is not None and version < 1):
        raise ConfigError(f"export: wanted a version and a k of at least 1; got {version}, {k}.")
    if version is not None and version > MAX_VERSION:
        raise ConfigError(
            f"export: wanted a version of at most {MAX_VERSION}, as TensorFlow Serving never sees "
            f"a greater one; got {version}. Without one the next is taken."
        )
    for name, encoder in recommender.retrieval.encoders.items():
        if encoder.not_exported:
            raise ExportError(
                f"export: the encoder of {name} cannot be exported: {encoder.not_exported}. Train "
                "with another family of encoders, or without this modality; mmrec-tf encoders "
                "lists which can be."
            )
    directory = pathlib.Path(directory)
    made = list(_servables(recommender, k=k, index=index, min_recall=min_recall, limits=limits))
    with hold_folder(directory, ExportError, "exports"):
        return _publish(recommender, directory, made, version, card or {})


def _publish(
    recommender: Recommender,
    directory: pathlib.Path,
    made: Sequence[tuple[Any, list[Example], dict]],
    version: int | None,
    card: Mapping[str, Any],
) -> list[pathlib.Path]:
    """Writes the servables aside, checks them, and renames them; nobody else writes here now."""
    parents = [directory / servable.name_on_disk for servable, _, _ in made]
    for parent in parents:
        for left in parent.glob(".*.partial-*"):
            shutil.rmtree(left)  # by a process that was killed
    number = _take_number(parents, version)
    asides = [parent / f".{number}.partial-{os.getpid()}" for parent in parents]
    finals = [parent / str(number) for parent in parents]
    try:
        cards = []
        for (servable, _, facts), aside in zip(made, asides, strict=True):
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
            about = {**_describe(recommender, servable), "index": facts, **card}
            cards.append({"version": number, **about})
        _write([(servable, requests) for servable, requests, _ in made], asides, cards)
        for aside, final in zip(asides, finals, strict=True):
            os.rename(aside, final)
    finally:
        for aside in asides:
            shutil.rmtree(aside, ignore_errors=True)
    return finals


def _servables(
    recommender: Recommender, *, k: int, index: str, min_recall: float, limits: Limits
) -> Iterator[tuple[Any, list[Example], dict]]:
    """Each servable, its examples, and what is known of its index."""
    retrieval, catalog = recommender.retrieval, recommender.dataset.catalog
    available = recommender.available.numpy()
    rng = np.random.default_rng(0)
    facts: dict[str, Any] = {}

    def build(vectors: np.ndarray, queries: np.ndarray, num: int) -> ExactIndex:
        built, found = build_index(
            vectors, queries, kind=index, k=num, min_recall=min_recall, available=available
        )
        facts.clear()
        facts.update(found)
        return built

    def build_of_content(vectors: np.ndarray) -> ExactIndex:
        # Content that nobody has asked for yet is most like that of the catalog.
        asked = rng.permutation(len(vectors))[:NUM_QUERIES]
        return build(vectors, vectors[asked], k)

    queries = _user_queries(recommender, rng)
    num = max(k, recommender.num_candidates)
    built = build(recommender.index.vectors.numpy(), queries, num)
    served = RecommenderServable(recommender.with_index(built), k=k, limits=limits)
    yield served, served.examples(), dict(facts)
    if not retrieval.modalities:
        return
    encoder = EncoderServable(
        retrieval, catalog.item_id, k=k, build_index=build_of_content, available=available
    )
    columns = [list(retrieval.schema.modalities).index(n) for n in retrieval.modalities]
    content = {name: catalog.content[name] for name in retrieval.modalities}
    examples = encoder.examples_from(content, catalog.present[:, columns])
    yield encoder, examples, dict(facts)


def _user_queries(recommender: Recommender, rng: np.random.Generator) -> np.ndarray:
    """What some users, who have met something, ask the index, <float32>[user, dim]."""
    histories = recommender.dataset.histories(history=recommender.history)
    met = np.flatnonzero(np.diff(histories.offset) > 0)
    user = tf.constant(rng.permutation(met)[:NUM_QUERIES], tf.int32)
    read, gap, _ = recommender.read_history(user)
    request = recommender.request(user, read, gap, tf.zeros_like(user, tf.int64))
    return np.pad(request.queries.numpy(), [[0, 0], [0, 1]])


def _take_number(parents: Sequence[pathlib.Path], version: int | None) -> int:
    """A number that no version had and none will have again, whatever becomes of this one."""
    with contextlib.ExitStack() as stack:
        files, taken = [], [0]
        for parent in parents:
            parent.mkdir(parents=True, exist_ok=True)
            path = parent / TAKEN_FILE
            # Lines are only ever added, so that a crash loses none of them.
            file = stack.enter_context(path.open("a+", encoding="utf-8"))
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            lines = file.read().split()
            odd = [line for line in lines if not line.isdigit()]
            if odd:
                raise ExportError(
                    f"{path}: wanted a number a line; got {odd[0]!r:.40}. Write the highest "
                    "version that was ever served into it, or delete the file."
                )
            names = [path.name for path in parent.iterdir()]
            taken += [int(name) for name in [*lines, *names] if name.isdigit()]
            files.append(file)
        number = max(taken) + 1 if version is None else version
        if number > MAX_VERSION:
            raise ExportError(
                f"{parents[0].parent}: version {max(taken)} was taken, above which TensorFlow "
                "Serving sees none. Export into another folder, or delete that line of "
                f"{TAKEN_FILE} in it and the folder of that name."
            )
        if number <= max(taken):
            raise ExportError(
                f"{parents[0].parent}: wanted a version above {max(taken)}, the newest so far; got "
                f"{number}. Numbers are never used again; without one the next is taken."
            )
        for file in files:
            file.write(f"{number}\n")
        return number


def _describe(
    recommender: Recommender, servable: RecommenderServable | EncoderServable
) -> dict[str, Any]:
    """What every model card says."""
    dataset, config = recommender.dataset, recommender.config
    train = dataset.interactions("train")
    about: dict[str, Any] = {
        "servable": servable.name_on_disk,
        "made": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "config": config.to_json(),
        "modalities": list(recommender.retrieval.modalities),
        "dataset": {
            "sha256": dataset.hash,
            "users": dataset.schema.num_users,
            "items": dataset.schema.num_items,
            "train_interactions": len(train.user),
            "withdrawn_items": int((~recommender.available.numpy()).sum()),
        },
        "limits": {"k": servable.k, **servable.limits._asdict()},
    }
    if servable.name_on_disk == RecommenderServable.name_on_disk:
        about["limits"]["candidates"] = max(recommender.num_candidates, servable.k)
        about["limits"]["history_length"] = recommender.config.user.history_length
        about["history"] = {
            "name": recommender.history,
            "interactions": recommender.num_known,
        }
        fit = recommender.retrieval.item_head_fit
        about["item_head"] = None if fit is None else fit.to_json()
        about["profile"] = recommender.retriever.reads_profile
        about["features"] = list(recommender.retriever.feature_entries.specs)
    else:
        about["features"] = list(servable.feature_entries.specs)
    return about


def _write(
    made: Sequence[tuple[Any, list[Example]]],
    folders: Sequence[pathlib.Path],
    cards: Sequence[dict[str, Any]],
) -> None:
    """Servables with their examples into folders, all of them checked before any has its sums."""
    for (servable, requests), folder, card in zip(made, folders, cards, strict=True):
        tf.saved_model.save(
            servable,
            str(folder),
            signatures=servable.signatures,
            options=tf.saved_model.SaveOptions(experimental_custom_gradients=False),
        )
        name = servable.name_on_disk
        write_examples(examples_path(folder), requests, servable=name, version=card["version"])
        write_warmup(folder, name, requests)
    names = [servable.name_on_disk for servable, _ in made]
    checked = _verify(dict(zip(names, folders, strict=True)))
    for folder, about, ops in zip(folders, cards, checked, strict=True):
        card = {**about, "ops": ops}
        (folder / CARD_FILE).write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
        readme = to_markdown(about.get("about", {}), servable=card)
        (folder / README_FILE).write_text(readme, encoding="utf-8")
        write_checksums(folder)


def write_warmup(folder: pathlib.Path, servable: str, requests: list[Example]) -> None:
    """Writes requests that TensorFlow Serving replays before it takes a version into use."""
    from tensorflow_serving.apis import prediction_log_pb2

    path = folder / WARMUP_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    default = requests[0]._replace(signature="serving_default")
    with tf.io.TFRecordWriter(str(path)) as writer:
        for example in [default, *requests]:
            log = prediction_log_pb2.PredictionLog(
                predict_log=prediction_log_pb2.PredictLog(
                    request=predict_request(servable, example)
                )
            )
            writer.write(log.SerializeToString())


def _verify(folders: Mapping[str, pathlib.Path]) -> list[list[str]]:
    """The ops of each SavedModel, all of which give their answers in one process of their own.

    Args:
      folders: by the name of the servable.
    """
    command = [sys.executable, "-m", "mmrec_tf.exporting.verify", *map(str, folders.values())]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}
    beside = str(pathlib.Path(__file__).parents[2])
    environment["PYTHONPATH"] = os.pathsep.join(
        [beside, *filter(None, [os.environ.get("PYTHONPATH")])]
    )
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    checked = [line.split() for line in done.stdout.splitlines()]
    if done.returncode:
        # Each that passed left a line.
        servable = [*folders][min(len(checked), len(folders) - 1)]
        reason = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
        raise ExportError(f"{servable}: {reason[0]}")
    return checked
