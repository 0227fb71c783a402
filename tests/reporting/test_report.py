"""The report of a run: one file that asks for nothing and shows text as text."""

import html.parser
import re

import numpy as np
import pytest
from support import small_world, tiny_dataset

import mmrec_tf
from mmrec_tf.__main__ import main
from mmrec_tf.errors import RunError
from mmrec_tf.records import DatasetWriter
from mmrec_tf.reporting import figures, page, report
from mmrec_tf.reporting.sections import calibration, embedding_map
from mmrec_tf.reporting.showcase import Categories, Showcase
from mmrec_tf.runs.train import train_run
from mmrec_tf.schema import FeatureSpec, ModalitySpec, Schema

EVIL = "<script>alert(1)</script> & Co"


class Reader(html.parser.HTMLParser):
    """What a page would load, and its headings, links and ids."""

    def __init__(self):
        super().__init__()
        self.loads, self.headings, self.links, self.ids, self._at = [], [], [], [], ""
        self.tags, self.open = [], []

    def handle_starttag(self, tag, attributes):
        self._at = tag
        self.tags.append(tag)
        if tag not in ("meta", "img", "br", "input"):
            self.open.append(tag)
        for name, value in attributes:
            if name in ("src", "srcset", "data", "action", "poster") or (
                name.endswith("href") and tag != "a"
            ):
                self.loads.append((tag, value))
            elif name == "href":
                self.links.append(value)
            elif name == "id":
                self.ids.append(value)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        if self._at == "h2" and text.strip():
            self.headings.append(text)
        self._at = ""


def read(path):
    """A page, checked to be whole and to ask for nothing."""
    text = path.read_text("utf-8")
    reader = Reader()
    reader.feed(text)
    assert reader.open == [], "every element is closed"
    for tag, value in reader.loads:
        assert value.startswith(("data:", "#")), f"{tag} asks for {value[:60]}"
    assert not re.search(r"@import|url\((?!#)|fetch\(|XMLHttpRequest|import\(", text)
    assert len(set(reader.ids)) == len(reader.ids), "an id twice"
    assert {link.removeprefix("#") for link in reader.links} <= set(reader.ids)
    return text, reader


def titles():
    return [getattr(module, "TITLE", None) or module.section.__doc__ for module in report.SECTIONS]


@pytest.fixture(scope="module")
def written(run, tmp_path_factory):
    """The report of the small run, which has all modalities, ranking and a twin."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    return report.write_report(run, out=path)


def test_it_asks_for_nothing_and_names_every_section(written):
    text, reader = read(written)
    assert reader.headings == titles()
    assert reader.tags.count("svg") >= 8 and "img" in reader.tags and "audio" in reader.tags
    assert len(text) < 15e6
    assert "default-src 'none'" in text
    assert [path.name for path in written.parent.iterdir()] == ["report.html"]


def test_its_figures_are_those_of_valid(run, written):
    text = written.read_text("utf-8")
    measured = run.metrics["valid"]
    for name in ("recommender", "popularity"):
        assert f"<td>{measured[name]['recall@10']:.4f}</td>" in text
    assert "its id-only twin" in text and "EASE" in text
    assert "measured on the valid split" in text and "test split" not in text


def write(folder, *, items=6, users=4, image=False):
    """Items with titles that are HTML, of categories that are, too."""
    kinds = {"text": ModalitySpec("text")} | ({"image": ModalitySpec("image")} if image else {})
    genre = FeatureSpec("categorical", vocabulary=(f"<b>{EVIL}", "plain"), width=1)
    with DatasetWriter(folder) as writer:
        for item in range(items):
            content = {"text": f"{EVIL} {item}. More of it."}
            if image:
                content["image"] = b"\x89PNG no picture"
            writer.write_item(f"<i>{item}", content=content, features={"genre": [2 + item % 2]})
        for user in range(users):
            writer.write_user(f"<u>{user}")
        for split, shift in (("train", 0), ("valid", 1), ("test", 2)):
            for user in range(users):
                item = (user + shift) % items
                writer.write_interactions(split, user, item=[item], timestamp=[shift])
        writer.finish(
            Schema(
                num_users=users, num_items=items, modalities=kinds, item_features={"genre": genre}
            ),
            source={"name": EVIL},
            split_rule="given",
        )
    return mmrec_tf.open_dataset(folder)


def train(dataset, folder, **settings):
    """A run of ids alone, without ranking."""
    settings = {"modalities": [], "ranking__epochs": 0, "training__epochs": 1, **settings}
    config = small_world.config(schema=dataset.schema, user__profile=False, **settings)
    return train_run(dataset, config, folder)


def test_titles_ids_and_categories_are_text(tmp_path):
    run = train(write(tmp_path / "d", image=True), tmp_path / "run")
    text, reader = read(report.write_report(run, out=tmp_path / "r.html", baselines=[]))
    assert reader.headings == titles()
    assert EVIL not in text and "<b>" + EVIL[:8] not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; Co 0" in text
    # The map's data and its script, nothing of the dataset's.
    assert reader.tags.count("script") == 2 and reader.tags.count("img") == 0
    assert "no picture" in text
    for said in (
        "This run has no ranking model.",
        "ranking: no ranking_history.csv in this run.",
        "This run reads no modality",
        "No file was set aside",
    ):
        assert said in text
    assert "measured on the valid split" in text and "on the test split" not in text
    path = report.write_report(run, out=tmp_path / "r.html", split="test", baselines=[])
    text, _ = read(path)
    assert "measured on the test split" in text and "on the valid split" not in text


@pytest.mark.slow
def test_one_user_two_items_of_nothing_and_no_test_split(tmp_path):
    dataset = tiny_dataset.write(tmp_path / "d", train=[[0]], valid=[[1]], num_items=2)
    run = train(dataset, tmp_path / "run")
    assert report.report_training(run, seconds=5.0) == tmp_path / "run/report.html"
    text, reader = read(tmp_path / "run/report.html")
    assert reader.headings == titles()
    assert "2 items make no map." in text and "Items have no content" in text
    assert "img" not in reader.tags and "audio" not in reader.tags
    assert "5 s, of the process that ended the training" in text
    # What came after training is no part of what it wrote: the run still opens.
    mmrec_tf.load_run(tmp_path / "run")
    path = report.write_report(run, out=tmp_path / "r.html", split="test")
    text, reader = read(path)
    assert reader.headings == titles()
    assert text.count("the test split has no interactions") >= 4
    assert "The test split has no users to show." in text


# The command


@pytest.mark.slow
def test_the_command_names_the_file_and_writes_the_same_again(run, written, tmp_path, capsys):
    assert main(["report", str(run.directory), "--out", str(tmp_path / "r.html")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'r.html'}\n"
    assert (tmp_path / "r.html").read_bytes() == written.read_bytes()


@pytest.mark.parametrize("options", [[], ["--no-report"]])
def test_training_ends_with_a_report_unless_told_not_to(run, monkeypatch, options):
    called = []
    monkeypatch.setattr("mmrec_tf.runs.train.train_run", lambda *_, **__: run)
    monkeypatch.setattr(report, "report_training", lambda run, seconds: called.append(run))
    asked = ["train", "--dataset", str(run.dataset.directory), "--out", "nowhere", *options]
    assert main(asked) == 0
    assert called == ([] if options else [run])


def test_a_report_that_fails_does_not_fail_the_training(run, monkeypatch, capsys):
    def fail(*_, **__):
        raise ValueError("no\nroom")

    monkeypatch.setattr(report, "write_report", fail)
    monkeypatch.setattr(report, "write_json", lambda *_: None)
    monkeypatch.setattr(report, "write_card", lambda run: run.directory)
    assert report.report_training(run, seconds=1.0) is None
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "not written, the run is whole; ValueError: no room" in err


def test_a_folder_that_is_not_there_is_refused_before_anything_is_measured(run, tmp_path):
    with pytest.raises(RunError, match="wanted a file in a folder that is there"):
        report.write_report(run, out=tmp_path / "none/r.html")


# Its parts


def test_bins_hold_what_was_said_and_what_came_true():
    """Four examples in two bins would be (0.1, 0.2) and (0.6, 0.9); here each has its own."""
    found = calibration.reliability_bins(np.array([0.9, 0.1, 0.6, 0.2]), np.array([1, 0, 1, 0]))
    assert found == [(0.1, 0.0, 1), (0.2, 0.0, 1), (0.6, 1.0, 1), (0.9, 1.0, 1)]


@pytest.mark.parametrize("number, how", [(3, "PCA"), (50, "t-SNE")])
def test_a_map_keeps_what_is_alike_together(number, how):
    rng = np.random.default_rng(0)
    side = np.arange(number) % 2
    vectors = np.eye(8)[side * 5] + 0.01 * rng.normal(size=(number, 8))
    places, said = embedding_map.project(vectors)
    assert said == how and places.min() >= 0 and np.isfinite(places).all()
    centers = [places[side == s].mean(axis=0) for s in (0, 1)]
    apart = np.linalg.norm(places[:, None] - np.array(centers), axis=2)
    assert (apart.argmin(axis=1) == side).all()


def test_equal_vectors_make_a_map_too():
    places, _ = embedding_map.project(np.ones([45, 4]))
    assert np.isfinite(places).all()


@pytest.mark.parametrize(
    "text, title",
    [
        ("Toy Story (1995). A cowboy doll.", "Toy Story (1995)"),
        ("Dr. Dolittle (1998). He hears.", "Dr. Dolittle (1998)"),
        ("Alien 3 (a.k.a. Alien). More.", "Alien 3 (a.k.a. Alien)"),
        ("J. Edgar. A life.", "J. Edgar"),
        ("No stop", "No stop"),
        ("One line\nand another.", "One line"),
    ],
)
def test_a_title_is_the_first_sentence(tmp_path, text, title):
    with DatasetWriter(tmp_path / "d") as writer:
        writer.write_item("i0", content={"text": text})
        writer.write_item("i1")
        writer.write_user("u0")
        writer.write_interactions("train", 0, item=[0], timestamp=[0])
        writer.finish(
            Schema(num_users=1, num_items=2, modalities={"text": ModalitySpec("text")}),
            source={"name": "test"},
            split_rule="given",
        )
    showcase = Showcase(mmrec_tf.open_dataset(tmp_path / "d"))
    showcase.read(np.array([0, 1]))
    assert [showcase.title(0), showcase.title(1)] == [title, "i1"]


def test_categories_are_those_of_the_items(dataset):
    found = Categories(dataset)
    assert found.name == "genre"
    genres = dataset.catalog.features["genre"]
    for item in range(small_world.NUM_ITEMS):
        named = found.names[found.of[item]]
        has = {dataset.schema.item_features["genre"].vocabulary[n - 2] for n in genres[item] if n}
        assert named in has if has else named == "other"


def test_numbers_and_text_of_a_page():
    assert page.number(0.5) == "0.5000" and page.number(12345) == "12,345"
    assert page.number(None) == "&ndash;"
    assert page.escape("<a>&\"'") == "&lt;a&gt;&amp;&quot;&#x27;"
    assert 'class="good"' in page.interval([1, 0.5, 2]) and "bad" in page.interval([-1, -2, -0.5])
    assert page.element("p", "<", class_='"') == '<p class="&quot;">&lt;</p>'


def test_a_drawing_shows_dollars_and_angles_as_they_are():
    drawn = figures.bars(["a $b$ <c>"], {"x": [1.0]}, unit="y")
    assert "a $b$ &lt;c&gt;" in drawn and "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"', "", drawn)
