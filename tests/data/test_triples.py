"""The knowledge graph of a source: items by their ids, all else entities, nothing lost unsaid."""

import csv
import gzip
import pathlib

import numpy as np
import pytest
import scipy.sparse

import mmrec_tf as mm
from data.interactions.options import SelectionOptions
from data.items.shards import runner
from data.prepare import main
from data.sources import features, media_folder
from data.sources.media_folder import MediaFolder
from data.sources.synthetic import Synthetic
from data.sources.synthetic import prepare as prepare_synthetic
from data.sources.synthetic.world import World
from mmrec_tf import records

TRIPLES = """head,relation,tail
a,made_by,Brehm
b,made_by,Brehm
Brehm,lives_in,Jena
b,like,a
b,made_by,Brehm
x,made_by,Gould
"""
WANTED = [
    ("a", "made_by", "Brehm"),
    ("b", "like", "a"),
    ("b", "made_by", "Brehm"),
    ("Brehm", "lives_in", "Jena"),
    ("x", "made_by", "Gould"),
]


@pytest.fixture
def root(tmp_path) -> pathlib.Path:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "items.csv").write_text("item,title\na,Wren\nb,Owl\nc,Gull\n")
    # x is no item of the table, but one of the interactions.
    (folder / "interactions.csv").write_text(
        "user,item,timestamp\nu,a,1\nv,a,2\nu,b,3\nv,b,4\nu,x,5\n"
    )
    (folder / "triples.csv").write_text(TRIPLES)
    return folder


def prepare(root: pathlib.Path, out: str = "d", *, triples: str | None = "triples.csv", **options):
    manifest = media_folder.prepare(
        MediaFolder(
            items=str(root / "items.csv"),
            interactions=str(root / "interactions.csv"),
            triples=None if triples is None else str(root / triples),
            **options,
        ),
        root.parent / out,
        run=runner(0),
    )
    return manifest, root.parent / out


def by_name(directory: pathlib.Path) -> list[tuple[str, str, str]]:
    dataset = mm.open_dataset(directory)
    found = dataset.triples
    assert dataset.schema.num_entities == len(found.entity_id)
    assert dataset.schema.num_relations == len(found.relation_id)
    nodes = [*dataset.catalog.item_id, *found.entity_id]
    return [
        (nodes[head], found.relation_id[relation], nodes[tail])
        for head, relation, tail in zip(found.head, found.relation, found.tail, strict=True)
    ]


def test_triples_become_a_graph_of_items_and_entities(root):
    manifest, directory = prepare(root)
    assert sorted(by_name(directory)) == sorted(WANTED)
    triples = mm.open_dataset(directory).triples
    # In the order of the table; items, c included, come before them.
    assert triples.entity_id.tolist() == ["Brehm", "Jena", "Gould"]
    assert triples.relation_id.tolist() == ["made_by", "lives_in", "like"]
    assert triples.head.tolist() == [0, 1, 1, 3, 4]
    assert triples.tail.tolist() == [4, 4, 0, 6, 5]
    counts = manifest["counts"]
    assert (counts["triples"], counts["entities"], counts["relations"]) == (5, 3, 3)
    assert counts["duplicates"]["triples"] == 1 and counts["dropped"]["triples left_out"] == 0
    assert manifest["source"]["tables"]["triples"]["file"] == "triples.csv"
    assert records.verify(directory, full=True) == manifest


def test_without_the_table_nothing_is_said_of_it(root):
    manifest, directory = prepare(root, triples=None)
    assert by_name(directory) == []
    said = {**manifest["counts"], **manifest["counts"]["dropped"], **manifest["files"]}
    assert not [name for name in said if "triples" in name or "graph" in name]
    assert "triples" not in manifest["counts"]["duplicates"]


def test_triples_go_with_items_that_are_left_out(root):
    manifest, directory = prepare(root, selection=SelectionOptions(k_core=2))
    assert mm.open_dataset(directory).catalog.item_id.tolist() == ["a", "b"]
    assert sorted(by_name(directory)) == sorted(WANTED[:4])
    # x was an item, and so is no entity now; nobody else names Gould.
    assert mm.open_dataset(directory).triples.entity_id.tolist() == ["Brehm", "Jena"]
    assert manifest["counts"]["dropped"]["triples left_out"] == 1


def test_a_graph_of_which_nothing_is_left_is_empty(root):
    (root / "triples.csv").write_text("head,relation,tail\nc,made_by,Brehm\nBrehm,knows,x\n")
    manifest, directory = prepare(root, selection=SelectionOptions(k_core=2))
    assert by_name(directory) == []
    counts = manifest["counts"]
    assert (counts["triples"], counts["entities"], counts["relations"]) == (0, 0, 0)
    assert counts["dropped"]["triples left_out"] == 2
    (root / "triples.csv").write_text("head,relation,tail\n")
    manifest, directory = prepare(root, "e")
    assert by_name(directory) == [] and manifest["counts"]["triples"] == 0


def test_forms_and_the_order_of_columns_make_no_difference(root):
    prepare(root)
    rows = [row.split(",") for row in TRIPLES.split()]
    with gzip.open(root / "triples.tsv.gz", "wt") as file:
        file.writelines(f"7\t{tail}\t{head}\t{relation}\n" for head, relation, tail in rows)
    prepare(root, "gz", triples="triples.tsv.gz")
    names = [f"graph/{n}" for n in ("entities", "relations", "triples")]
    for name in names:
        (one,), (other,) = (sorted((root.parent / out / name).iterdir()) for out in ("d", "gz"))
        assert one.read_bytes() == other.read_bytes()


def test_same_input_same_bytes(root):
    assert prepare(root)[0] == prepare(root, "again")[0]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (",made_by,Brehm", "no head"),
        ("a,,Brehm", "no relation"),
        ("a,made_by, ", "no tail"),
        ("a,made_by", "wanted 3 cells; got 2"),
    ],
)
def test_a_bad_row_is_named_or_counted(root, row, reason):
    (root / "triples.csv").write_text(f"{TRIPLES}{row}\n")
    with pytest.raises(mm.DatasetError, match=rf"triples.csv: line 8: {reason}\."):
        prepare(root)
    assert not (root.parent / "d").exists()
    manifest, directory = prepare(root, skip_bad_rows=True)
    assert manifest["counts"]["skipped_rows"] == {"triples": {reason.split("; got")[0]: 1}}
    assert sorted(by_name(directory)) == sorted(WANTED)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("head,tail\na,b\n", "there is no relation among head, tail"),
        ("head,relation,tail\nA,like,B\nA,like,C\n", "ids of items; got none in 2 triples"),
    ],
)
def test_a_table_that_is_no_graph_of_the_items_is_refused(root, text, message):
    (root / "triples.csv").write_text(text)
    with pytest.raises(mm.DatasetError, match=message):
        prepare(root)
    with pytest.raises(mm.DatasetError, match="there is no such file"):
        prepare(root, triples="elsewhere.csv")


def test_matrices_have_a_graph_too(tmp_path, capsys):
    scipy.sparse.save_npz(tmp_path / "train.npz", scipy.sparse.csr_matrix(np.eye(2, 3)))
    (tmp_path / "triples.csv").write_text("head,relation,tail\n0,like,2\n2,made_by,3\n2,,1\n")
    arguments = ["features", "--train", str(tmp_path / "train.npz"), "--out", str(tmp_path / "d")]
    arguments += ["--triples", str(tmp_path / "triples.csv")]
    assert main(arguments) == 1
    assert "triples.csv: line 4: no relation" in capsys.readouterr().err
    assert main([*arguments, "--skip-bad-rows"]) == 0
    # There are three items, so that "3" is none.
    assert by_name(tmp_path / "d") == [("0", "like", "2"), ("2", "made_by", "3")]
    said = capsys.readouterr().out
    assert "triples       2 (1 entities, 2 relations)\n" in said
    assert "dropped       1 triples (no relation)\n" in said
    settings = records.read_manifest(tmp_path / "d")["source"]
    assert settings["arguments"]["triples"] == str(tmp_path / "triples.csv")
    assert settings["tables"]["triples"]["file"] == "triples.csv"
    assert features.Features(train="t").triples is None


def test_a_published_dataset_takes_a_graph(tmp_path):
    folder = tmp_path / "ml"
    folder.mkdir()
    (folder / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,10,4,5\n1,20,3,6\n")
    (folder / "movies.csv").write_text(
        "movieId,title,genres\n10,Heat (1995),Crime\n20,Ran (1985),War\n"
    )
    (folder / "links.tsv").write_text("head\trelation\ttail\n10\tdirected_by\tMichael Mann\n")
    arguments = ["movielens", "--folder", str(folder), "--triples", str(folder / "links.tsv")]
    assert main([*arguments, "--out", str(tmp_path / "d"), "--workers", "0"]) == 0
    assert by_name(tmp_path / "d") == [("10", "directed_by", "Michael Mann")]


def test_a_killed_preparation_writes_its_graph_again(root):
    class Killed(Exception):
        pass

    def die(shards):
        shards.write(0, {}, lambda *said: None)
        raise Killed

    whole, _ = prepare(root)
    options = MediaFolder(
        items=str(root / "items.csv"),
        interactions=str(root / "interactions.csv"),
        triples=str(root / "triples.csv"),
    )
    with pytest.raises(Killed):
        media_folder.prepare(options, root.parent / "killed", run=die)
    assert media_folder.prepare(options, root.parent / "killed", run=runner(0)) == whole


def test_the_planted_graph_names_the_cluster(tmp_path):
    """By the topic and the style of the maker together, and by neither alone."""
    world = World(num_users=3, num_items=120, num_clusters=16, seed=2)
    options = Synthetic(world, str(tmp_path / "s"))
    manifest = prepare_synthetic(options, tmp_path / "d", run=runner(0))
    with (tmp_path / "s/truth.csv").open(newline="") as file:
        truth = {row["item"]: row for row in csv.DictReader(file)}
    tails = {
        relation: {head: tail for head, name, tail in by_name(tmp_path / "d") if name == relation}
        for relation in ("has_topic", "made_by")
    }
    assert manifest["counts"]["triples"] == 240
    assert all(one.keys() == truth.keys() for one in tails.values())
    style_of, clusters = {}, {}
    for item, row in truth.items():
        topic, maker = tails["has_topic"][item], tails["made_by"][item]
        assert topic == f"topic{row['topic']}"
        # A maker knows one style, and a style has several makers.
        assert style_of.setdefault(maker, row["style"]) == row["style"]
        clusters.setdefault((topic, row["style"]), set()).add(row["cluster"])
    assert len(style_of) > len(set(style_of.values())) == 6
    assert {len(found) for found in clusters.values()} == {1}
    for relation in tails:
        seen = {}
        for item, tail in tails[relation].items():
            seen.setdefault(tail, set()).add(truth[item]["cluster"])
        assert max(map(len, seen.values())) > 1
