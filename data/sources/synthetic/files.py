"""The planted world as anyone's own data would lie there: tables, pictures and sounds."""

import csv
import json
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.sources.synthetic import media as synthetic_media
from data.sources.synthetic.ceiling import Outcomes
from data.sources.synthetic.world import (
    Context,
    Met,
    Truth,
    World,
    draw_context,
    draw_interactions,
    draw_truth,
)
from mmrec_tf.records.progress import show_progress
from mmrec_tf.schema import SPLITS

_DAY_SECONDS = 86_400
_START_SECONDS = 1_704_067_200  # 2024-01-01
# In days from the start: train, then valid, then test.
_DAYS = {"train": (0, 180), "valid": (180, 200), "test": (200, 220)}
_MAKERS_PER_STYLE = 4


def write_source(
    world: World, folder: pathlib.Path
) -> tuple[Truth, list[Met], dict[str, Outcomes] | None]:
    """Writes a world as tables, pictures and sounds, as anyone's own data would lie there.

    `items.csv`, `interactions.csv`, `triples.csv`, `images/` and `audio/`, and `users.csv` where
    there is a context effect; `truth.csv` beside them is what no model may read, and `names.json`
    what people call the items.

    Returns:
      The truth, what `draw_interactions` yielded, and by split which interactions are liked; None
      where they are not rated.
    """
    # Apart, so that a change to how pictures are drawn leaves the interactions as they were.
    seeds = np.random.SeedSequence(world.seed).spawn(5)
    truth_seed, met_seed, media_seed, triple_seed, context_seed = seeds
    truth = draw_truth(world, np.random.default_rng(truth_seed))
    drawn = list(draw_interactions(truth, np.random.default_rng(met_seed)))
    meetings = _meetings(drawn, np.random.default_rng(met_seed.spawn(1)[0]))
    outcomes = None
    if world.context_effect:
        rng = np.random.default_rng(context_seed)
        outcomes = _write_rated(folder, meetings, draw_context(world, truth, rng), rng)
    else:
        _write_table(
            folder / "interactions.csv",
            ("user", "item", "timestamp", "split"),
            (row for meeting in meetings for row in _rows(meeting)),
        )
    _write_items(world, truth, folder, np.random.default_rng(media_seed))
    _write_table(
        folder / "truth.csv",
        ("item", "cluster", "topic", "style", "timbre", "popularity", "cold"),
        (
            (f"i{i}", c, *world.attributes(c), repr(float(p)), int(cold))
            for i, (c, p, cold) in enumerate(
                zip(truth.cluster.tolist(), truth.popularity, truth.cold, strict=True)
            )
        ),
    )
    _write_table(
        folder / "triples.csv",
        ("head", "relation", "tail"),
        _triple_rows(world, truth, np.random.default_rng(triple_seed)),
    )
    return truth, drawn, outcomes


def _write_items(
    world: World, truth: Truth, folder: pathlib.Path, rng: np.random.Generator
) -> None:
    for name in ("images", "audio"):
        (folder / name).mkdir()
    header = ("item", "title", "description", "image", "audio")
    names: dict[str, dict[str, str]] = {}
    _write_table(folder / "items.csv", header, _item_rows(world, truth, folder, rng, names))
    (folder / "names.json").write_text(json.dumps(names, indent=1) + "\n", encoding="utf-8")


def _item_rows(
    world: World,
    truth: Truth,
    folder: pathlib.Path,
    rng: np.random.Generator,
    names: dict[str, dict[str, str]],
) -> Iterator[list[str]]:
    """Draws the rows of the items table and their media, and fills `names`."""
    present = rng.random([world.num_items, 3]) >= world.missing_share
    _, num_styles, num_timbres = world.num_attributes
    progress = show_progress(truth.cluster.tolist(), desc="drawing", unit="item")
    for item, cluster in enumerate(progress):
        topic, style, timbre = world.attributes(cluster)
        # Drawn even where they are then left out, so that gaps do not change the other items.
        title, description = synthetic_media.words(topic, rng)
        image = synthetic_media.picture(style, num_styles, rng)
        audio = synthetic_media.sound(timbre, num_timbres, rng)
        has_text, has_image, has_audio = present[item]
        about = synthetic_media.describe(
            topic, style, timbre, num_styles=num_styles, num_timbres=num_timbres
        )
        names[f"i{item}"] = {"title": title, "description": about}
        row = [f"i{item}", "", "", "", ""]
        if has_text:
            row[1:3] = title, description
        if has_image:
            row[3] = f"images/i{item}.jpg"
            (folder / row[3]).write_bytes(image)
        if has_audio:
            row[4] = f"audio/i{item}.wav"
            (folder / row[4]).write_bytes(audio)
        yield row


class _Meeting(NamedTuple):
    """What one user meets in one split: items <int64>[n], and when, <int64>[n] seconds since 1970
    UTC, oldest first."""

    user: int
    split: str
    items: NDArray[Any]
    seconds: NDArray[Any]


def _meetings(drawn: Iterable[Met], rng: np.random.Generator) -> Iterator[_Meeting]:
    """All that is met in the order of users and time; within a split, time is chance."""
    for met in drawn:
        for row, user in enumerate(range(met.users.start, met.users.stop)):
            for split in SPLITS:
                of = met.items[split]
                items = rng.permutation(of.indices[of.indptr[row] : of.indptr[row + 1]])
                first, last = (day * _DAY_SECONDS for day in _DAYS[split])
                seconds = np.sort(rng.integers(first, last, len(items))) + _START_SECONDS
                yield _Meeting(user, split, items, seconds)


def _rows(meeting: _Meeting) -> Iterator[tuple[str, str, int, str]]:
    for item, second in zip(meeting.items.tolist(), meeting.seconds.tolist(), strict=True):
        yield f"u{meeting.user}", f"i{item}", second, meeting.split


def _write_rated(
    folder: pathlib.Path,
    meetings: Iterable[_Meeting],
    context: Context,
    rng: np.random.Generator,
) -> dict[str, Outcomes]:
    """Writes users, and interactions with ratings.

    Returns:
      By split, which interactions are liked, and how probable that was.
    """
    shift = ("late" if side < 0 else "early" for side in context.user.tolist())
    _write_table(
        folder / "users.csv",
        ("user", "shift"),
        ((f"u{user}", name) for user, name in enumerate(shift)),
    )
    drawn: dict[str, list[Outcomes]] = {split: [] for split in SPLITS}

    def rows() -> Iterator[tuple[object, ...]]:
        for meeting in meetings:
            probability = context.probability(meeting.user, meeting.items, meeting.seconds)
            liked = rng.random(len(probability)) < probability
            drawn[meeting.split].append(Outcomes(liked, probability))
            for row, good in zip(_rows(meeting), liked.tolist(), strict=True):
                yield *row, 5 if good else 1

    header = ("user", "item", "timestamp", "split", "rating")
    _write_table(folder / "interactions.csv", header, rows())
    return {
        split: Outcomes(*map(np.concatenate, zip(*parts, strict=True)))
        for split, parts in drawn.items()
    }


def _triple_rows(
    world: World, truth: Truth, rng: np.random.Generator
) -> Iterator[tuple[str, str, str]]:
    """Each item's topic, and a maker, who knows one style: together they name the cluster."""
    maker = rng.integers(_MAKERS_PER_STYLE, size=world.num_items).tolist()
    for item, cluster in enumerate(truth.cluster.tolist()):
        topic, style, _ = world.attributes(cluster)
        yield f"i{item}", "has_topic", f"topic{topic}"
        yield f"i{item}", "made_by", f"maker{style * _MAKERS_PER_STYLE + maker[item]}"


def _write_table(
    path: pathlib.Path, header: Sequence[str], rows: Iterable[Sequence[object]]
) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
