import pathlib

import cv2
import numpy as np
import pytest

import mmrec_tf as mm
from data.interactions.options import SelectionOptions
from data.items.shards import runner
from data.prepare import main
from data.sources import movielens
from mmrec_tf import records

RATINGS = """userId,movieId,rating,timestamp
1,1,4.0,964982703
1,3,4.5,964982224
1,6,0.5,964981247
2,1,5.0,964983815
"""
MOVIES = """movieId,title,genres
1,Toy Story (1995),Adventure|Animation|Children
3,"Shawshank Redemption, The (1994)",Crime|Drama
6,Untitled,(no genres listed)
"""
TAGS = "userId,movieId,tag,timestamp\n2,1,pixar,1445714994\n"
RATINGS_1M = "1::1::5::978300760\n1::3::3::978302109\n1::4::4::978301968\n2::1::4::978298413\n"
MOVIES_1M = (
    "1::Toy Story (1995)::Animation|Children's|Comedy\n"
    "3::Misérables, Les (1995)::Drama|Musical\n"
    "4::Waiting to Exhale (1995)::Comedy|Drama\n"
)
USERS_1M = "1::F::1::10::48067\n2::M::56::16::70072\n"
RATINGS_10M = "1::1::4.5::838985046\n1::3::5::838983525\n1::4::0.5::838983392\n"


def write(folder: pathlib.Path, encoding: str = "utf-8", **files: str) -> pathlib.Path:
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text, encoding=encoding)
    return folder


@pytest.fixture
def latest(tmp_path) -> pathlib.Path:
    """As ml-latest-small, ml-20m, ml-25m and ml-32m unpack."""
    return write(
        tmp_path / "ml-latest-small",
        ratings_csv=RATINGS,
        movies_csv=MOVIES,
        tags_csv=TAGS,
        links_csv="movieId,imdbId,tmdbId\n1,0114709,862\n",
    )


def prepare(folder: pathlib.Path, **options) -> tuple[dict, pathlib.Path]:
    options = movielens.MovieLens(folder=str(folder), **options)
    out = folder.parent / "d"
    return movielens.prepare(options, out, overwrite=True, run=runner(0)), out


def texts(directory: pathlib.Path) -> dict[str, str | None]:
    found = records.read_items(directory, records.read_schema(directory))
    return {item.item_id: item.content.get("text", [None])[0] for item in found}


def item_features(directory: pathlib.Path, name: str) -> dict[str, object]:
    """Names of categories, or numbers on their own scale."""
    schema = records.read_schema(directory)
    spec = schema.item_features[name]
    found = {}
    for item in records.read_items(directory, schema):
        value = item.features.get(name)
        if spec.kind == "categorical":
            found[item.item_id] = [spec.vocabulary[i - 2] for i in value]
        elif value is not None:
            found[item.item_id] = round(value * spec.std + spec.mean)
    return found


def test_an_archive_with_a_header_becomes_a_dataset(latest):
    manifest, out = prepare(latest)

    assert texts(out) == {
        "1": "Toy Story (1995)",
        "3": "The Shawshank Redemption (1994)",
        "6": "Untitled",
    }
    # The tag of movie 1 stands nowhere.
    assert item_features(out, "genres") == {
        "1": ["Adventure", "Animation", "Children"],
        "3": ["Crime", "Drama"],
        "6": [],
    }
    assert manifest["source"]["name"] == "movielens"
    assert manifest["source"]["arguments"] == {"folder": str(latest)}
    assert {table["file"] for table in manifest["source"]["tables"].values()} == {
        "ratings.csv",
        "movies.csv",
    }
    dataset = mm.open_dataset(out)
    assert (dataset.schema.num_users, dataset.schema.num_items) == (2, 3)
    assert list(dataset.schema.modalities) == ["text"] and dataset.schema.ratings
    # User 1 rated 6, then 3, then 1.
    for split, item, rating in (("train", 2, 0.5), ("valid", 1, 4.5), ("test", 0, 4.0)):
        found = dataset.interactions(split)
        first = found.user == 0
        assert (found.item[first], found.rating[first]) == ([item], [rating])
    assert dataset.interactions("test").timestamp == [964982703]


def test_a_year_is_a_number_and_may_be_missing(latest):
    _, out = prepare(latest)
    schema = records.read_schema(out)
    years = {i.item_id: i.features.get("year") for i in records.read_items(out, schema)}
    # Of 1994 and 1995 the mean is 1994.5 and the standard deviation 0.5.
    assert (years["1"], years["3"]) == (1, -1)
    assert years["6"] is None


@pytest.mark.parametrize(
    ("title", "text"),
    [
        ("American President, The (1995)", "The American President (1995)"),
        (
            "City of Lost Children, The (Cité des enfants perdus, La) (1995)",
            "The City of Lost Children (La Cité des enfants perdus) (1995)",
        ),
        (
            "Good, the Bad and the Ugly, The (Buono, il brutto, il cattivo, Il) (1966)",
            "The Good, the Bad and the Ugly (Il Buono, il brutto, il cattivo) (1966)",
        ),
        ("Enfer, L' (1994)", "L'Enfer (1994)"),
        ("Beautiful Mind, A (2001)", "A Beautiful Mind (2001)"),
        ("Avengers, The", "The Avengers"),
        ("Kid, The (a.k.a. Disney's Kid, The) (2000)", "The Kid (a.k.a. The Disney's Kid) (2000)"),
        ("Crouching Tiger, Hidden Dragon (2000)", "Crouching Tiger, Hidden Dragon (2000)"),
        ("Seven (a.k.a. Se7en) (1995)", "Seven (a.k.a. Se7en) (1995)"),
        ("(500) Days of Summer (2009)", "(500) Days of Summer (2009)"),
        ("Girls, Then and Now (1995)", "Girls, Then and Now (1995)"),
    ],
)
def test_articles_move_to_the_front(latest, title, text):
    write(latest, movies_csv=f'movieId,title,genres\n1,"{title}",Drama\n')
    _, out = prepare(latest)
    assert texts(out)["1"] == text


@pytest.mark.parametrize(
    ("title", "year"),
    [
        ("Fawlty Towers (1975-1979)", 1975),
        ("Glee (2009– )", 2009),
        ("2001: A Space Odyssey (1968)", 1968),
        ("Movie (2005) (Part 2) (2006)", 2006),
    ],
)
def test_the_year_is_that_at_the_end(latest, title, year):
    write(latest, movies_csv=f"movieId,title,genres\n1,{title},Drama\n3,B (1900),Drama\n")
    _, out = prepare(latest)
    assert item_features(out, "year")["1"] == year


def test_ml_1m_has_users_and_latin_1_titles(tmp_path):
    folder = write(
        tmp_path / "ml-1m",
        encoding="latin-1",
        ratings_dat=RATINGS_1M,
        movies_dat=MOVIES_1M,
        users_dat=USERS_1M,
    )
    _, out = prepare(folder)
    assert texts(out)["3"] == "Les Misérables (1995)"
    assert item_features(out, "genres")["1"] == ["Animation", "Children's", "Comedy"]
    schema = records.read_schema(out)
    assert {name: spec.vocabulary for name, spec in schema.user_features.items()} == {
        "gender": ("F", "M"),
        "age": ("1", "56"),
        "occupation": ("10", "16"),
    }
    assert [user.user_id for user in records.read_users(out, schema)] == ["1", "2"]
    assert mm.open_dataset(out).schema.num_users == 2


def test_ml_10m_has_half_stars_and_utf_8_titles(tmp_path):
    folder = write(tmp_path / "ml-10M100K", ratings_dat=RATINGS_10M, movies_dat=MOVIES_1M)
    _, out = prepare(folder)
    assert texts(out)["3"] == "Les Misérables (1995)"
    dataset = mm.open_dataset(out)
    assert not dataset.schema.user_features
    ratings = [dataset.interactions(split).rating.tolist() for split in ("train", "valid", "test")]
    assert ratings == [[0.5], [5.0], [4.5]]


def test_posters_are_found_by_movie(latest, tmp_path):
    posters = tmp_path / "posters"
    posters.mkdir()
    picture = np.full([12, 16, 3], 90, np.uint8)
    cv2.imwrite(str(posters / "1.png"), picture)
    cv2.imwrite(str(posters / "3.jpg"), picture)
    (posters / "6.jpg").write_bytes(b"not a picture")
    manifest, out = prepare(latest, posters=str(posters))
    assert manifest["counts"]["present"]["image"] == 2
    assert sum(manifest["quarantine"]["image"].values()) == 1
    assert list(mm.open_dataset(out).schema.modalities) == ["text", "image"]


def test_damaged_rows_end_the_run_or_are_counted(latest):
    write(latest, ratings_csv=RATINGS + "2,3\n2,6,good,964983815\n")
    write(latest, movies_csv=MOVIES + "7,Heat (1995)\n")
    with pytest.raises(mm.DatasetError, match=r"movies.csv: line 5: wanted 3 cells; got 2. Mend"):
        prepare(latest)
    manifest, out = prepare(latest, skip_bad_rows=True)
    assert manifest["counts"]["skipped_rows"] == {
        "items": {"wanted 3 cells": 1},
        "interactions": {"wanted 4 cells": 1, "rating: wanted a number": 1},
    }
    assert sorted(texts(out)) == ["1", "3", "6"]


def test_folders_of_no_known_layout_are_refused(latest, tmp_path):
    with pytest.raises(mm.DatasetError, match="nowhere: wanted a folder with ratings.csv and"):
        prepare(tmp_path / "nowhere")
    with pytest.raises(mm.DatasetError, match=r"wanted ratings.csv and .*ml-1m\); got no ratings"):
        prepare(tmp_path)
    with pytest.raises(mm.DatasetError, match="posters: wanted a folder with posters named by mov"):
        prepare(latest, posters=str(tmp_path / "posters"))
    write(latest, ratings_dat=RATINGS_1M)
    with pytest.raises(mm.DatasetError, match="got both kinds of ratings"):
        prepare(latest)
    (latest / "ratings.dat").unlink()
    (latest / "movies.csv").unlink()
    with pytest.raises(mm.DatasetError, match="there is no movies.csv"):
        prepare(latest)


def test_a_table_that_is_another_is_refused(latest):
    write(latest, movies_csv="id,title,genres\n1,Heat (1995),Drama\n")
    with pytest.raises(mm.DatasetError, match="movies.csv: wanted the columns movieId, title, gen"):
        prepare(latest)


def test_interactions_are_selected(latest):
    selection = SelectionOptions(split="time", valid_from=964982000, test_from=964982500)
    manifest, out = prepare(latest, selection=selection)
    assert manifest["split_rule"] == "time"
    assert manifest["source"]["arguments"]["selection"] == {
        "split": "time",
        "valid_from": 964982000,
        "test_from": 964982500,
    }
    dataset = mm.open_dataset(out)
    ratings = [dataset.interactions(split).rating.tolist() for split in mm.schema.SPLITS]
    assert ratings == [[0.5], [4.5], [4.0, 5.0]]


def test_the_command_makes_a_dataset(latest, tmp_path):
    arguments = ["--folder", str(latest), "--out", str(tmp_path / "d"), "--workers", "0"]
    assert main(["movielens", *arguments, "--min-rating", "4"]) == 0
    arguments = records.read_manifest(tmp_path / "d")["source"]["arguments"]
    assert arguments == {"folder": str(latest), "selection": {"min_rating": 4.0}}
