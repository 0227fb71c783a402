import gzip
import json
import pathlib

import cv2
import numpy as np
import pytest

import mmrec_tf as mm
from data.items.shards import runner
from data.prepare import main
from data.sources import amazon
from mmrec_tf import records


def review_2018(user: str, item: str, seconds: int, **more) -> dict:
    return {
        "overall": 5.0,
        "verified": True,
        "reviewTime": "01 1, 2018",
        "reviewerID": user,
        "asin": item,
        "style": {"Size:": " 9 oz"},
        "reviewerName": "A. Customer",
        "reviewText": "REVIEWTEXT",
        "summary": "SUMMARY",
        "unixReviewTime": seconds,
    } | more


def review_2023(user: str, item: str, milliseconds: int, **more) -> dict:
    return {
        "rating": 5.0,
        "title": "SUMMARY",
        "text": "REVIEWTEXT",
        "images": [{"small_image_url": "https://example.com/s.jpg", "attachment_type": "IMAGE"}],
        "asin": f"{item}-red",
        "parent_asin": item,
        "user_id": user,
        "timestamp": milliseconds,
        "helpful_vote": 0,
        "verified_purchase": True,
    } | more


META_2018 = [
    {
        "category": ["Clothing, Shoes &amp; Jewelry", "Women"],
        "tech1": "",
        "description": ["A dress.", "<b>Soft</b> and warm"],
        "fit": "",
        "title": "Dress",
        "also_buy": ["A2"],
        "image": [],
        "tech2": "",
        "brand": "Wren &amp; Owl",
        "feature": ["Cotton", "Made here"],
        "rank": ["1,234 in Clothing"],
        "also_view": [],
        "details": {"Shipping Weight:": "9 oz"},
        "main_cat": "AMAZON FASHION",
        "similar_item": "",
        "date": "",
        "price": "$9.99 - $14.99",
        "asin": "A1",
        "imageURL": [],
        "imageURLHighRes": [],
    },
    {"title": "var aPageStart = (new Date()).getTime();", "price": ".a-box{x}", "asin": "A2"},
    {"category": [], "title": "Hat", "brand": "", "price": "$1,012.50", "asin": "A3"},
    {"title": "Dress again", "asin": "A1"},
]
META_2023 = [
    {
        "main_category": "AMAZON FASHION",
        "title": "Dress",
        "average_rating": 4.8,
        "rating_number": 10,
        "features": ["Cotton", "Made here"],
        "description": ["A dress.", "<b>Soft</b> and warm"],
        "price": 9.99,
        "images": [{"thumb": "t.jpg", "large": "l.jpg", "variant": "MAIN", "hi_res": None}],
        "videos": [],
        "store": "Wren & Owl",
        "categories": ["Clothing, Shoes & Jewelry", "Women"],
        "details": {"Department": "womens"},
        "parent_asin": "A1",
        "bought_together": None,
    },
    {
        "main_category": None,
        "title": "",
        "features": [],
        "description": [],
        "price": None,
        "store": None,
        "categories": [],
        "parent_asin": "A2",
    },
    {"title": "Hat", "price": "1,012.50", "categories": [], "parent_asin": "A3"},
]
TIMES = [("u", "A1", 1577836800), ("u", "A2", 1577836900), ("u", "A3", 1577837000)]


def write(path: pathlib.Path, values) -> pathlib.Path:
    text = "".join(f"{json.dumps(value)}\n" for value in values)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.fixture
def of_2018(tmp_path) -> dict[str, str]:
    reviews = [review_2018(*row) for row in TIMES] + [review_2018("v", "A1", 1577836800, overall=2)]
    return {
        "reviews": str(write(tmp_path / "AMAZON_FASHION_5.json.gz", reviews)),
        "metadata": str(write(tmp_path / "meta_AMAZON_FASHION.json.gz", META_2018)),
    }


@pytest.fixture
def of_2023(tmp_path) -> dict[str, str]:
    reviews = [review_2023(user, item, seconds * 1000 + 7) for user, item, seconds in TIMES]
    reviews += [review_2023("v", "A1", 1577836800999, rating=2.0)]
    return {
        "reviews": str(write(tmp_path / "Amazon_Fashion.jsonl.gz", reviews)),
        "metadata": str(write(tmp_path / "meta_Amazon_Fashion.jsonl.gz", META_2023)),
    }


def prepare(files: dict[str, str], **options) -> tuple[dict, pathlib.Path]:
    out = pathlib.Path(files["reviews"]).parent / "d"
    options = amazon.Amazon(**{**files, **options})
    return amazon.prepare(options, out, overwrite=True, run=runner(0)), out


def texts(directory: pathlib.Path) -> dict[str, str | None]:
    found = records.read_items(directory, records.read_schema(directory))
    return {item.item_id: item.content.get("text", [None])[0] for item in found}


@pytest.mark.parametrize("release", ["of_2018", "of_2023"])
def test_both_releases_become_the_same_dataset(release, request):
    files = request.getfixturevalue(release)
    manifest, out = prepare(files)
    # Reviews' words, ratings' averages and scraps of the page stand nowhere.
    assert texts(out) == {"A1": "Dress. A dress. Soft and warm. Cotton Made here", "A2": None} | {
        "A3": "Hat"
    }
    assert manifest["source"]["arguments"] == files
    schema = records.read_schema(out)
    features = schema.item_features
    assert features["categories"].vocabulary == ("Clothing, Shoes & Jewelry", "Women")
    assert features["brand"].vocabulary == ("Wren & Owl",)
    assert features["main_category"].vocabulary == ("AMAZON FASHION",)
    # 9.99 and 1012.5: a range counts as its lower end.
    assert (features["price"].mean, features["price"].std) == pytest.approx((511.245, 501.255))
    dataset = mm.open_dataset(out)
    assert (dataset.schema.num_users, dataset.schema.num_items) == (2, 3)
    assert list(dataset.schema.modalities) == ["text"]
    train = dataset.interactions("train")
    assert train.timestamp.tolist() == [1577836800, 1577836800]
    assert train.rating.tolist() == [5, 2]
    assert dataset.interactions("test").timestamp.tolist() == [1577837000]


@pytest.mark.parametrize("release", ["of_2018", "of_2023"])
def test_pictures_are_found_by_product(release, request, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    cv2.imwrite(str(folder / "A1.png"), np.full([12, 16, 3], 90, np.uint8))
    manifest, _ = prepare(request.getfixturevalue(release), images=str(folder))
    assert manifest["counts"]["present"]["image"] == 1


def test_plain_files_are_read_as_well(of_2023, tmp_path):
    files = {name: path.removesuffix(".gz") for name, path in of_2023.items()}
    for name, path in of_2023.items():
        pathlib.Path(files[name]).write_bytes(gzip.decompress(pathlib.Path(path).read_bytes()))
    plain, _ = prepare(files)
    packed, _ = prepare(of_2023)
    assert plain["files"] == packed["files"]


@pytest.mark.parametrize(
    ("price", "wanted"),
    [("$12.99", 12.99), ("from 5", 5), ("$1,000 - $2,000", 1000), ("", None), ("— 3", None)],
)
def test_prices(of_2018, price, wanted):
    write(pathlib.Path(of_2018["metadata"]), [{"title": "Hat", "price": price, "asin": "A1"}])
    _, out = prepare(of_2018)
    spec = records.read_schema(out).item_features["price"]
    assert spec.mean == pytest.approx(wanted or 0.0)


def test_a_stroke_in_a_name_does_not_split_it(of_2018):
    write(
        pathlib.Path(of_2018["metadata"]),
        [{"title": "Hat", "brand": "a|b", "price": "", "asin": "A1"}],
    )
    _, out = prepare(of_2018)
    assert records.read_schema(out).item_features["brand"].vocabulary == ("a/b",)


def test_damaged_lines_end_the_run_or_are_counted(of_2023, tmp_path):
    good = pathlib.Path(of_2023["reviews"])
    bad = tmp_path / "Amazon_Fashion.jsonl"
    seconds = json.dumps(review_2023("w", "A1", 1577836800))
    nobody = json.dumps(review_2023("", "A1", 1577836800000))
    nowhen = json.dumps(review_2023("w", "A1", 0) | {"timestamp": None})
    damaged = ['{"rating": 5.0, "tit', seconds, nobody, nowhen, ""]
    bad.write_bytes(gzip.decompress(good.read_bytes()) + "\n".join(damaged).encode())
    with pytest.raises(mm.DatasetError, match=r"Fashion.jsonl: line 5: wanted one JSON object"):
        prepare(of_2023, reviews=str(bad))
    metadata = write(tmp_path / "meta.jsonl", [*META_2023, {"title": {"en": "A"}}])
    manifest, _ = prepare(of_2023, reviews=str(bad), metadata=str(metadata), skip_bad_rows=True)
    assert manifest["counts"]["skipped_rows"] == {
        "items": {"title: wanted text, a number or a list of them": 1},
        "interactions": {
            "wanted one JSON object a line": 1,
            "timestamp: wanted milliseconds since 1970, not seconds": 1,
            "no user id": 1,
            "timestamp: wanted milliseconds since 1970": 1,
        },
    }


def test_files_of_no_known_release_are_refused(of_2018, of_2023, tmp_path):
    for name in ("reviews", "metadata"):
        with pytest.raises(mm.DatasetError, match="nowhere.json: wanted a table; there is no such"):
            prepare(of_2018, **{name: str(tmp_path / "nowhere.json")})
    with pytest.raises(mm.DatasetError, match="wanted metadata of 2023, as .*; got that of 2018"):
        prepare(of_2023, metadata=of_2018["metadata"])
    with pytest.raises(mm.DatasetError, match=r"unixReviewTime \(2018\); the first has author"):
        other = write(tmp_path / "other.jsonl", [{"author": "a", "asin": "A1"}])
        prepare(of_2023, reviews=str(other))
    with pytest.raises(mm.DatasetError, match=r"parent_asin, title, price \(2023\) or asin"):
        prepare(of_2023, metadata=of_2023["reviews"])
    legacy = tmp_path / "meta_Beauty.json"
    legacy.write_text("{'asin': 'A1', 'title': 'Hat'}\n")
    with pytest.raises(mm.DatasetError, match="meta_Beauty.json: line 1: .*got a dict of Python"):
        prepare(of_2018, metadata=str(legacy))
    with pytest.raises(
        mm.DatasetError, match="images: wanted a folder with pictures named by asin"
    ):
        prepare(of_2018, images=str(tmp_path / "images"))


def test_the_command_makes_a_dataset(of_2018, tmp_path):
    (tmp_path / "images").mkdir()
    arguments = [f"--{name}={path}" for name, path in of_2018.items()]
    arguments += ["--images", str(tmp_path / "images"), "--out", str(tmp_path / "d")]
    assert main(["amazon", *arguments, "--workers", "0"]) == 0
    arguments = records.read_manifest(tmp_path / "d")["source"]["arguments"]
    assert arguments == {**of_2018, "images": str(tmp_path / "images")}
