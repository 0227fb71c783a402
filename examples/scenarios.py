"""Made-up data of ten kinds of catalogs, as anyone's own data would lie there.

    python examples/scenarios.py shop --out work/shop_source

Writes `items.csv` and `interactions.csv`; pictures and sounds where the kind has such; `users.csv`
for social, and `triples.csv` for courses. Each user likes one or two categories, which titles,
descriptions, pictures and sounds show. The pages of docs/scenarios/ go on from there.
"""

import argparse
import csv
import math
import pathlib
import re
import wave
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

START_SECONDS = 1_735_689_600  # 2025-01-01
DAYS = 90
SIDE = 96  # pixels
SAMPLE_RATE_HZ = 16_000


class Scenario(NamedTuple):
    """One kind of catalog.

    Attributes:
      categories: by name, the nouns of its titles.
      adjectives: that come before them.
      sentence: a description; {noun} and {category} stand for themselves.
      column: what the column of categories is called.
      pictures: whether items have pictures.
      sounds: whether they have sounds.
    """

    categories: dict[str, str]
    adjectives: str
    sentence: str
    column: str = "category"
    pictures: bool = False
    sounds: bool = False


SCENARIOS = {
    "shop": Scenario(
        {
            "lighting": "lamp lantern chandelier spotlight nightlight",
            "kitchen": "mug kettle pan teapot cutlery",
            "seating": "chair stool sofa bench armchair",
            "bags": "backpack tote satchel suitcase purse",
            "garden": "planter rake hose trowel birdhouse",
        },
        "brass oak linen enamel woven steel",
        "A {adjective} {noun} for the home. Made by hand, and easy to clean.",
        pictures=True,
    ),
    "video": Scenario(
        {
            "cooking": "noodles sourdough curry dumplings pancakes",
            "travel": "island railway desert fjord market",
            "crafts": "pottery knitting woodwork origami weaving",
            "science": "volcano magnets comet fossil microscope",
        },
        "quick slow simple amazing first perfect",
        "We try {noun} today: a {adjective} {category} video with all the steps.",
        column="genre",
        pictures=True,
        sounds=True,
    ),
    "music": Scenario(
        {
            "ambient": "drift haze tide mist glow",
            "folk": "river barley lantern harvest wren",
            "techno": "circuit pulse grid voltage engine",
            "jazz": "corner midnight velvet alley brass",
        },
        "blue silent golden broken endless northern",
        "A {category} track.",
        column="genre",
        sounds=True,
    ),
    "news": Scenario(
        {
            "politics": "parliament election treaty budget minister",
            "sport": "marathon final transfer coach stadium",
            "economy": "inflation harvest exports wages bank",
            "science": "telescope vaccine glacier genome satellite",
        },
        "new disputed surprising delayed local historic",
        "The {adjective} {noun} is discussed in {category} circles. Reporters tell what is known.",
        column="section",
    ),
    "social": Scenario(
        {
            "pets": "kitten puppy parrot hamster rabbit",
            "fitness": "deadlift sprint yoga plank swim",
            "food": "ramen brunch taco cake salad",
            "hiking": "summit trail cabin meadow ridge",
        },
        "tiny cozy weekend early sunny proud",
        "Look at this {adjective} {noun}! #{category}",
        column="topic",
        pictures=True,
    ),
    "tourism": Scenario(
        {
            "beach": "bay lagoon pier dune cove",
            "mountains": "hut gorge peak glacier meadow",
            "museums": "gallery palace archive collection workshop",
            "food": "market vineyard dairy tavern bakery",
        },
        "old quiet royal hidden coastal northern",
        "Visit the {adjective} {noun}. Open all year, half a day.",
        column="kind",
        pictures=True,
    ),
    "games": Scenario(
        {
            "strategy": "empire outpost caravan dynasty frontier",
            "puzzle": "mosaic labyrinth cipher lattice marble",
            "racing": "circuit rally drift turbo speedway",
            "adventure": "ruins voyage cavern oracle island",
        },
        "last lost crystal iron hollow infinite",
        "A {category} game about a {adjective} {noun}, for one to four players.",
        column="genre",
        pictures=True,
    ),
    "courses": Scenario(
        {
            "programming": "python compilers databases networks testing",
            "languages": "spanish grammar pronunciation vocabulary writing",
            "mathematics": "algebra calculus probability geometry proofs",
            "design": "typography color layout sketching prototyping",
        },
        "practical gentle advanced short complete modern",
        "A {adjective} course in {noun}, with exercises after each lesson.",
        column="subject",
    ),
    "search": Scenario(
        {
            "owl": "owl owlet nightbird",
            "gull": "gull seabird tern",
            "finch": "finch songbird siskin",
            "duck": "duck mallard pond bird",
        },
        "grey small old young calm shy",
        "A {adjective} {noun}, seen and heard in the field.",
        column="family",
        pictures=True,
        sounds=True,
    ),
    "reviews": Scenario(
        {
            "praise": "bargain treasure delight gem triumph",
            "complaint": "letdown nuisance lemon disaster disgrace",
            "mixed": "gamble compromise puzzle curiosity tradeoff",
        },
        "cordless foldable copper second-hand heavy portable",
        "I bought this {adjective} kettle last month. It is a {noun}, and I would say so again.",
        column="sentiment",
    ),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Draws one kind of catalog into a folder."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("scenario", choices=tuple(SCENARIOS))
    parser.add_argument("--out", required=True, metavar="DIR", help="a new folder")
    parser.add_argument("--items", type=int, default=120)
    parser.add_argument("--users", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    folder = pathlib.Path(options.out)
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        parser.error(f"--out: {folder} is there already. Name a new folder.")
    rng = np.random.default_rng(options.seed)
    category = rng.permutation(np.arange(options.items) % len(_names(options.scenario)))
    _write_items(folder, options.scenario, category, rng)
    _write_interactions(folder, options.scenario, category, options.users, rng)
    print(f"{folder}: {options.items} items, {options.users} users")


def _names(name: str) -> list[str]:
    return list(SCENARIOS[name].categories)


def _write_items(
    folder: pathlib.Path, name: str, category: np.ndarray, rng: np.random.Generator
) -> None:
    scenario, names = SCENARIOS[name], _names(name)
    for medium in ("images",) * scenario.pictures + ("audio",) * scenario.sounds:
        (folder / medium).mkdir()
    rows = []
    for number, place in enumerate(category.tolist()):
        noun = str(rng.choice(scenario.categories[names[place]].split()))
        adjective = str(rng.choice(scenario.adjectives.split()))
        row = {
            "item": f"{name}-{number:03d}",
            "title": f"{adjective.capitalize()} {noun} {number}",
            "description": re.sub(
                r"\b([Aa]) (?=[aeiou])",
                r"\1n ",
                scenario.sentence.format(noun=noun, adjective=adjective, category=names[place]),
            ),
            scenario.column: names[place],
        }
        if name in ("shop", "tourism"):
            row["price"] = f"{math.exp(rng.normal(3, 0.6)):.2f}"
        if name == "social":
            row["author"] = f"author{rng.integers(20)}"
        if name == "courses":
            row["level"] = str(rng.choice(("beginner", "intermediate", "expert")))
        # Some lack a picture or a sound, as everywhere.
        if scenario.pictures and rng.random() < 0.9:
            row["image"] = f"images/{row['item']}.jpg"
            _picture(place, len(names), rng).save(folder / row["image"], quality=85)
        if scenario.sounds and rng.random() < 0.9:
            row["audio"] = f"audio/{row['item']}.wav"
            _sound(folder / row["audio"], place, rng)
        rows.append(row)
    header = list(dict.fromkeys(key for row in rows for key in row))
    _write(folder / "items.csv", header, ([row.get(key, "") for key in header] for row in rows))
    if name == "courses":
        _write(folder / "triples.csv", ("head", "relation", "tail"), _triples(rows, rng))


def _triples(rows: list[dict[str, str]], rng: np.random.Generator) -> Iterable[tuple[str, ...]]:
    """Who teaches a course, and what it builds on."""
    by_subject: dict[str, str] = {}
    for row in rows:
        yield row["item"], "taught_by", f"{row['subject']} teacher {rng.integers(3)}"
        if row["subject"] in by_subject:
            yield row["item"], "builds_on", by_subject[row["subject"]]
        by_subject[row["subject"]] = row["item"]


def _write_interactions(
    folder: pathlib.Path,
    name: str,
    category: np.ndarray,
    num_users: int,
    rng: np.random.Generator,
) -> None:
    count = len(_names(name))
    popularity = rng.permutation(np.arange(1, len(category) + 1) ** -0.7)
    # News is of its day: what appears later cannot have been read before.
    appears = np.sort(rng.uniform(0, DAYS * 0.9, len(category))) if name == "news" else None
    header = ["user", "item", "timestamp"]
    header += {"shop": ["event"], "games": ["rating"]}.get(name, [])
    rows, liked = [], []
    for user in range(num_users):
        likes = rng.choice(count, rng.integers(1, 3), replace=False)
        liked.append(likes)
        weight = popularity * np.where(np.isin(category, likes), 1.0, 0.03)
        number = int(rng.integers(8, 15))
        items = rng.choice(len(category), number, replace=False, p=weight / weight.sum())
        days = rng.uniform(0, DAYS, number)
        if appears is not None:
            days = np.minimum(appears[items] + rng.exponential(2, number), DAYS)
        for item, day in sorted(
            zip(items.tolist(), days.tolist(), strict=True), key=lambda p: p[1]
        ):
            fits = category[item] in likes
            row = [f"u{user}", f"{name}-{item:03d}", START_SECONDS + int(day * 86_400)]
            if name == "shop":
                row.append("purchase" if fits and rng.random() < 0.4 else "view")
            if name == "games":
                row.append(int(np.clip(round(rng.normal(4.4 if fits else 2.0, 0.7)), 1, 5)))
            rows.append(row)
    _write(folder / "interactions.csv", header, rows)
    if name == "social":
        bios = (" and ".join(_names(name)[n] for n in likes) for likes in liked)
        table = ((f"u{user}", f"I post about {bio}.") for user, bio in enumerate(bios))
        _write(folder / "users.csv", ("user", "profile"), table)


def _picture(place: int, count: int, rng: np.random.Generator) -> Image.Image:
    """A few shapes in the colors of a category."""
    hue = int(255 * (place / count + rng.normal(0, 0.02))) % 256
    image = Image.new("HSV", (SIDE, SIDE), (hue, 60, 235))
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(3, 7))):
        x, y = rng.integers(0, SIDE - 20, 2).tolist()
        size = int(rng.integers(14, 40))
        box = (x, y, x + size, y + size)
        fill = ((hue + int(rng.integers(-8, 9))) % 256, 170, int(rng.integers(110, 220)))
        if place % 2:
            draw.ellipse(box, fill=fill)
        else:
            draw.rectangle(box, fill=fill)
    return image.convert("RGB")


def _sound(path: pathlib.Path, place: int, rng: np.random.Generator) -> None:
    """A second of a tone whose pitch and tremolo are a category's, 16-bit mono."""
    time = np.arange(SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
    pitch_hz = 200 * 2 ** (place * 0.75 + rng.uniform(-0.04, 0.04))
    tone = sum(np.sin(2 * np.pi * pitch_hz * n * time) / n for n in range(1, 4))
    tone *= 1 + 0.5 * np.sin(2 * np.pi * (2 + 3 * place) * time)
    samples = tone / np.abs(tone).max() * 0.6 + rng.normal(0, 0.02, len(time))
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE_HZ)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())


def _write(path: pathlib.Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


if __name__ == "__main__":
    main()
