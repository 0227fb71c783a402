"""Which family of encoders finds what, and what does it cost? Writes a JSON file.

    python -m benchmarks.bench_families --birds BIRDS --work work/families --out FILE

On the birds, frozen encoders of each family under the same head: every kind of content is mapped to
the pictures' principal components (`alignment.kinds` ridge, `target` image), which one epoch on ids
does not move. A row changes the family of one kind, and leaves the others as they are.

- `own`: the query is other content of a species whose own the catalog holds, as `another` of
  `benchmarks.bench_search`.
- `crossing`: the query is content that neither catalog nor training ever met, of a species that the
  catalog knows by one other kind alone, among all species that have it.

Four folds withhold a quarter each (those of `benchmarks.bench_search`), all of which count: nothing
is chosen here. That the maps are ridge, and lead to pictures, was chosen by cross-validation over
pairs of words and pictures of the same species, so that those two figures are on the bright side.
Also: bytes of weights, items encoded in a second on this machine (one batch of 32, best of three),
and whether an export holds the family. About 25 minutes on two cores; goes on after a kill.
"""

import argparse
import os
import pathlib
import time
from typing import Any

import mmrec_tf as mm  # isort: skip  (chooses Keras 2 before TensorFlow is imported)

import numpy as np
import tensorflow as tf

from benchmarks.bench_search import (
    FOLDS,
    crossed,
    fold_dataset,
    queries,
    ranks,
    read_items,
    withhold,
)
from benchmarks.bench_search import figures as recall
from benchmarks.facts import ROOT, facts
from mmrec_tf.exporting.servables import EncoderServable
from mmrec_tf.records.files import write_json
from mmrec_tf.runs.train import train_run

WEIGHTS = pathlib.Path("../shared/weights")

# By kind and name: the settings of a family, beside those of the first of each other kind.
ROWS: dict[str, dict[str, dict[str, Any]]] = {
    "text": {
        "bert (MiniLM)": {"weights": "text/minilm-l6-fp16", "max_tokens": 128},
        "word_vectors (GloVe 50)": {
            "family": "word_vectors",
            "vectors": "words/glove.6B.50d.top20k.txt.gz",
            "weighting": "tfidf",
        },
        "word_vectors (wink 100)": {
            "family": "word_vectors",
            "vectors": "words/wink-sg.100d.top20k.word2vec.txt.gz",
            "weighting": "tfidf",
        },
        "tfidf": {"family": "tfidf"},
        "bag_of_words": {"family": "bag_of_words"},
    },
    "image": {
        "keras_model (EfficientNet-Lite0)": {
            "family": "keras_model",
            "model": "image/efficientnet_lite0_imagenet.keras",
            "layer": "avg_pool",
        },
        "applications (MobileNetV2)": {
            "architecture": "MobileNetV2",
            "weights": "image/mobilenet_v2_imagenet_notop.h5",
        },
        "descriptors": {"family": "descriptors"},
    },
    "audio": {
        "saved_model (YAMNet)": {"family": "saved_model", "model": "sound/yamnet_savedmodel"},
        "transformers (Whisper tiny.en)": {
            "family": "transformers",
            "weights": "speech/whisper-tiny-en-fp16",
        },
        "mel_cnn (random weights)": {"trainable_layers": 0},
        "recurrent (random weights)": {"family": "recurrent", "trainable_layers": 0},
    },
}
PATHS = ("weights", "model", "vectors")


def config_of(kind: str, name: str) -> mm.Config:
    """The config of a row: the first family of each other kind, and this one of its own."""
    chosen = {other: next(iter(rows)) for other, rows in ROWS.items()} | {kind: name}
    settings: dict[str, Any] = {
        "alignment.kinds": ("ridge",),
        "alignment.target": "image",
        "alignment.trainable": False,
        "item.fusion": "mean",
        "retrieval.softmax": "full",
        "ranking.epochs": 0,
        "training.epochs": 1,
        "training.batch_size": 512,
    }
    for other, row in chosen.items():
        for setting, value in ROWS[other][row].items():
            is_path = setting in PATHS
            settings[f"{other}.{setting}"] = str(ROOT / WEIGHTS / value) if is_path else value
    return mm.Config().override(settings)


def measure(birds: pathlib.Path, work: pathlib.Path, kind: str, name: str) -> dict[str, Any]:
    """The figures of a row; those of folds that are done are read."""
    places: dict[str, dict[str, tuple[list[np.ndarray], list[int]]]] = {"own": {}, "crossing": {}}
    items, cost = read_items(birds), {}
    for fold in range(FOLDS):
        withheld = withhold(items, fold)
        dataset = fold_dataset(birds, work, fold)
        label = "".join(c if c.isalnum() else "_" for c in f"{kind}_{name}")
        path = work / f"{label}-{fold}"
        done = (path / "metrics.json").exists()
        run = mm.load_run(path) if done else train_run(dataset, config_of(kind, name), path)
        num_items = dataset.schema.num_items
        servable = EncoderServable(run.retrieval, dataset.catalog.item_id, k=num_items)
        asked = queries(birds, items, withheld)
        for other in ROWS:
            if kind == other:
                found = ranks(servable, asked["another", other], other)
                _note(places["own"], other, found, num_items)
            for target in ROWS:
                if target != other and kind in (target, other):
                    some = asked["withheld", other]
                    found, among = crossed(servable, run, some, other, by=(target,))
                    _note(places["crossing"], f"{other} -> {target}", found, among)
        if not cost:
            cost = _cost(run.retrieval, kind, asked["another", kind])
    return cost | {
        way: {pair: recall(np.concatenate(found), among) for pair, (found, among) in some.items()}
        for way, some in places.items()
    }


def _note(
    places: dict[str, tuple[list[np.ndarray], list[int]]], key: str, found: np.ndarray, among: int
) -> None:
    """Adds the places of one fold to those of the others."""
    all_found, all_among = places.setdefault(key, ([], []))
    all_found.append(found)
    all_among.append(among)


def _cost(model: Any, kind: str, asked: dict[str, bytes]) -> dict[str, Any]:
    """What a family takes: bytes, and items a second from raw content to a vector."""
    encoder = model.encoders[kind]
    content = list(asked.values())
    raw = tf.constant((content * (1 + 32 // len(content)))[:32])
    encode = tf.function(lambda raw: encoder(encoder.preprocess(raw)), autograph=False)
    encode(raw)
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        encode(raw)
        seconds.append(time.perf_counter() - start)
    return {
        "vector_length": encoder.output_dim,
        "bytes": sum(w.shape.num_elements() * w.dtype.size for w in encoder.weights),
        "items_per_second": round(32 / min(seconds), 1),
        "exported": not encoder.not_exported,
    }


def main() -> None:
    """Measures row after row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--birds", type=pathlib.Path, required=True, metavar="DIR")
    parser.add_argument("--work", type=pathlib.Path, required=True, metavar="DIR")
    parser.add_argument("--out", type=pathlib.Path, required=True, metavar="FILE")
    parser.add_argument("--only", metavar="KIND", choices=sorted(ROWS), help="print, write nothing")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    os.chdir(ROOT)
    table: dict[str, dict[str, Any]] = {}
    for kind, rows in ROWS.items():
        if options.only not in (None, kind):
            continue
        for name in rows:
            table.setdefault(kind, {})[name] = row = measure(
                options.birds, options.work, kind, name
            )
            print(kind, name, row, flush=True)
    if options.only is None:
        command = "python -m benchmarks.bench_families --birds BIRDS --work WORK --out FILE"
        head = facts("Which family of encoders finds what, and what does it cost?", command=command)
        write_json(options.out, {**head, "items": len(read_items(options.birds)), **table})


if __name__ == "__main__":
    main()
