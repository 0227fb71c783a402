"""Do words, a picture or a sound find their own species? Writes a JSON file.

    python -m benchmarks.bench_search --birds BIRDS --work work/search --out FILE

On the birds with the config of `examples/birds.json`, through the exported encoder's `search`, in
three ways, each against chance:

- `withheld`: the query is content of a species that has other modalities too, and that neither
  catalog nor training ever met. Only by another modality can it be found, among species most of
  which can be found by the query's own.
- `crossing`: the same queries, and the catalog without any content of the query's modality: what
  alignment alone is worth.
- `another`: the query is other content of a species whose own the catalog holds: the second half of
  a description (the catalog has the first), the middle of a photograph mirrored, another three
  seconds of a recording (of the few of which more than those are at hand).

Each of four folds withholds a quarter of the sounds, of the pictures and of the texts (those of
species with a picture or a sound), and trains a model without them. The first fold is for choosing
("valid"), the other three tell ("test"). That `search` centers modalities was chosen on a quarter
that was drawn otherwise, so that some of its species are in the test folds, too. About 10 minutes
on two cores.
"""

import argparse
import csv
import io
import pathlib

import mmrec_tf as mm  # isort: skip  (chooses Keras 2 before TensorFlow is imported)

import numpy as np
import tensorflow as tf
from PIL import Image

from benchmarks.facts import ROOT, facts
from data.prepare import main as prepare
from mmrec_tf.exporting.servables import EncoderServable
from mmrec_tf.media.audio import prepare as prepare_sound
from mmrec_tf.media.image import prepare as prepare_picture
from mmrec_tf.records.files import write_json
from mmrec_tf.runs.train import train_run

K = 10
FOLDS = 4
SEED = 0


def read_items(birds: pathlib.Path) -> list[dict[str, str]]:
    """The rows of items.csv that have interactions."""
    with (birds / "items.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def withhold(items: list[dict[str, str]], fold: int) -> dict[str, set[str]]:
    """Item ids by the modality that is withheld of them, no item twice in a fold."""
    rng = np.random.default_rng(SEED)
    chosen: dict[str, set[str]] = {"audio": set(), "image": set(), "text": set()}
    for item in items:
        order = rng.permutation(FOLDS).tolist()
        for name, turn in zip(chosen, order, strict=False):
            having = (item["image"] or item["audio"]) if name == "text" else item[name]
            if having and turn == fold:
                chosen[name].add(item["item"])
    return chosen


def halves(text: str) -> tuple[str, str]:
    """A description's first sentences and its last ones."""
    sentences = text.split(". ")
    middle = len(sentences) // 2
    return ". ".join(sentences[:middle]), ". ".join(sentences[middle:])


def write_items(items, withheld: dict[str, set[str]], path: pathlib.Path) -> None:
    """items.csv without what is withheld, and with the first half of each description."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(items[0]))
        writer.writeheader()
        for item in items:
            item = {**item, "description": halves(item["description"])[0]}
            if item["item"] in withheld["text"]:
                item |= {"title": "", "description": ""}
            for name in ("image", "audio"):
                if item["item"] in withheld[name]:
                    item[name] = ""
            writer.writerow(item)


def queries(birds: pathlib.Path, items, withheld) -> dict[tuple[str, str], dict[str, bytes]]:
    """Content by way and modality, and by the item that it is to find."""
    found: dict[tuple[str, str], dict[str, bytes]] = {}
    for name, ids in withheld.items():
        found["withheld", name] = {
            item["item"]: _content(birds, item, name) for item in items if item["item"] in ids
        }
    rest = {n: [i for i in items if i["item"] not in ids] for n, ids in withheld.items()}
    second = {i["item"]: halves(i["description"])[1].encode() for i in rest["text"]}
    found["another", "text"] = {item: text for item, text in second.items() if text}
    found["another", "image"] = {
        item["item"]: _mirrored(birds / item["image"]) for item in rest["image"] if item["image"]
    }
    found["another", "audio"] = {}
    for item in rest["audio"]:
        originals = list((birds / "audio_orig").glob(f"{int(item['item']):03}.*"))
        excerpt = _another(originals[0], float(item["audio_offset_s"])) if originals else b""
        if item["audio"] and excerpt:
            found["another", "audio"][item["item"]] = excerpt
    return found


def _content(birds: pathlib.Path, item: dict[str, str], name: str) -> bytes:
    if name == "text":
        # As the catalog has it.
        return f"{item['title']}\n{halves(item['description'])[0]}".encode()
    data = (birds / item[name]).read_bytes()
    return prepare_picture(data) if name == "image" else prepare_sound(data)


def _mirrored(path: pathlib.Path) -> bytes:
    """The middle four fifths of a photograph, mirrored."""
    with Image.open(path) as picture:
        width, height = picture.size
        box = (width // 10, height // 10, width - width // 10, height - height // 10)
        part = picture.convert("RGB").crop(box).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    written = io.BytesIO()
    part.save(written, "JPEG", quality=90)
    return prepare_picture(written.getvalue())


def _another(path: pathlib.Path, offset_seconds: float) -> bytes:
    """Three seconds of a recording that do not overlap those at an offset; b"" for none."""
    import librosa
    import soundfile

    sound, rate = librosa.load(path, sr=16000, mono=True)
    seconds = len(sound) / rate
    after, before = seconds - (offset_seconds + 3), offset_seconds
    if max(after, before) < 3:
        return b""
    start = offset_seconds + 3 if after >= before else 0
    written = io.BytesIO()
    part = sound[round(start * rate) : round((start + 3) * rate)]
    soundfile.write(written, part, rate, "PCM_16", format="WAV")
    return written.getvalue()


def ranks(servable: EncoderServable, asked: dict[str, bytes], name: str) -> np.ndarray:
    """The place of each query's own item, from 0, <int>[query]."""
    place = {item: row for row, item in enumerate(servable.item_id.numpy().astype(str))}
    found = []
    wanted = [item for item in asked if item in place]
    for start in range(0, len(wanted), 32):
        some = wanted[start : start + 32]
        raw = {n: [[b""]] * len(some) for n in servable.modalities}
        raw[name] = [[asked[item]] for item in some]
        answer = servable.search(*(tf.constant(raw[n]) for n in servable.modalities))
        for item, row in zip(some, answer["item_id"].numpy().astype(str), strict=True):
            found.append(int(np.flatnonzero(row == item)[0]))
    return np.array(found)


def crossed(
    servable: EncoderServable,
    run,
    asked: dict[str, bytes],
    name: str,
    *,
    by: tuple[str, ...] | None = None,
) -> tuple[np.ndarray, int]:
    """As `ranks`, among the items with other modalities than the query's, by these alone; and how
    many such there are.

    Args:
      by: by which of them; None for all.
    """
    catalog = run.retrieval.embed_catalog(content_only=True)
    present = np.array(catalog.present)
    for column, modality in enumerate(servable.modalities):
        if modality == name or (by is not None and modality not in by):
            present[:, column] = False
    left = np.flatnonzero(present.any(axis=1))
    vectors = servable.space(catalog._replace(present=present)).numpy()[left]
    row_of = {item: row for row, item in enumerate(servable.item_id.numpy()[left].astype(str))}
    found = []
    for item, content in asked.items():
        if item in row_of:
            raw = [tf.constant([[content if n == name else b""]]) for n in servable.modalities]
            scores = vectors @ servable.space(servable._tower(raw, {})[0]).numpy()[0]
            found.append(int((scores > scores[row_of[item]]).sum()))
    return np.array(found), len(left)


def figures(place: np.ndarray, num_items: list[int]) -> dict[str, float]:
    """Recall, with a 95% interval (Wilson), and mean reciprocal rank, beside chance.

    Args:
      place: <int>[query].
      num_items: among how many items each fold looked.
    """
    n, hits = len(place), int((place < K).sum())
    z = 1.96
    center = (hits + z * z / 2) / (n + z * z)
    spread = z * np.sqrt(hits * (n - hits) / n + z * z / 4) / (n + z * z)
    return {
        "queries": n,
        f"recall@{K}": hits / n,
        "low": float(center - spread),
        "high": float(center + spread),
        "chance": float(np.mean([K / num for num in num_items])),
        "reciprocal_rank": float(np.mean(1 / (1 + place))),
        "chance_reciprocal_rank": float(
            np.mean([np.mean(1 / np.arange(1, num + 1)) for num in num_items])
        ),
    }


def fold_dataset(birds: pathlib.Path, work: pathlib.Path, fold: int) -> mm.Dataset:
    """The dataset of a fold, without what it withholds; prepared where it is not there."""
    items = read_items(birds)
    withheld = withhold(items, fold)
    folder = work / f"dataset-{fold}"
    if not (folder / "manifest.json").exists():
        write_items(items, withheld, work / f"items-{fold}.csv")
        failed = prepare(
            ["media-folder", "--out", str(folder), "--split", "given"]
            + ["--items", str(work / f"items-{fold}.csv")]
            + ["--interactions", str(birds / "interactions.csv.gz")]
            + ["--media-root", str(birds)]
        )
        if failed:
            raise SystemExit(failed)
    return mm.open_dataset(folder)


def ask_fold(birds: pathlib.Path, work: pathlib.Path, fold: int) -> dict:
    """The places of one fold's queries' own items, by way and modality, and the catalog's size."""
    items = read_items(birds)
    withheld = withhold(items, fold)
    dataset = fold_dataset(birds, work, fold)
    config = mm.load_config(ROOT / "examples/birds.json").override({"ranking.epochs": 0})
    path = work / f"run-{fold}"
    done = (path / "metrics.json").exists()
    run = mm.load_run(path) if done else train_run(dataset, config, path)
    servable = EncoderServable(run.retrieval, dataset.catalog.item_id, k=dataset.schema.num_items)
    places = {}
    for (way, modality), asked in queries(birds, items, withheld).items():
        places[way, modality] = ranks(servable, asked, modality), dataset.schema.num_items
        if way == "withheld":
            places["crossing", modality] = crossed(servable, run, asked, modality)
    return {"places": places, "items": dataset.schema.num_items}


def main() -> None:
    """Trains without what is withheld, and asks for it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--birds", type=pathlib.Path, required=True, metavar="DIR")
    parser.add_argument("--work", type=pathlib.Path, required=True, metavar="DIR")
    parser.add_argument(
        "--out", type=pathlib.Path, metavar="FILE", help="all folds, not just valid"
    )
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    splits = {"valid": [0], "test": list(range(1, FOLDS))} if options.out else {"valid": [0]}
    table: dict[str, dict] = {}
    for split, folds in splits.items():
        told = [ask_fold(options.birds, options.work, fold) for fold in folds]
        table[split] = {}
        for way, modality in told[0]["places"]:
            some = [one["places"][way, modality] for one in told]
            figure = figures(np.concatenate([place for place, _ in some]), [n for _, n in some])
            table[split].setdefault(way, {})[modality] = figure
            print(split, way, modality, figure, flush=True)
    if options.out is not None:
        command = "python -m benchmarks.bench_search --birds BIRDS --work WORK --out FILE"
        head = facts("Do words, a picture or a sound find their own species?", command=command)
        write_json(options.out, {**head, "items": told[0]["items"], **table})


if __name__ == "__main__":
    main()
