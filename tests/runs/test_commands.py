"""The `mmrec-tf` command: what stands on stdout, what on stderr, and with which status it ends."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest
from support import small_world

from mmrec_tf.__main__ import main

ROOT = pathlib.Path(__file__).resolve().parents[2]


def command(*arguments):
    """In a process of its own, as typed."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("TF_", "TQDM"))}
    return subprocess.run(
        [sys.executable, "-m", "mmrec_tf", *map(str, arguments)],
        cwd=ROOT,
        env={**environment, "CUDA_VISIBLE_DEVICES": "-1"},
        capture_output=True,
        text=True,
        timeout=180,
    )


@pytest.fixture
def call(capsys):
    """In this process: its status, stdout and stderr."""

    def call(*arguments):
        status = main([str(argument) for argument in arguments])
        return status, *capsys.readouterr()

    return call


def failed(call, *arguments):
    status, out, err = call(*arguments)
    assert out == "" and err.count("\n") == 1 and "Traceback" not in err
    return status, err


# What succeeds


def test_evaluate_json_is_one_object_and_nothing_else(run, capfd):
    """On the file descriptors: what TensorFlow's own C++ prints counts too."""
    arguments = ["evaluate", run.directory, "--split", "test", "--k", "10,5", "--json"]
    assert main([str(argument) for argument in arguments]) == 0
    out = capfd.readouterr().out
    assert out.count("\n") == 1
    found = json.loads(out)
    assert list(found)[:5] == ["split", "history", "users", "model", "popularity"]
    assert (found["split"], found["users"]) == ("test", small_world.NUM_USERS)
    metrics = ("recall", "precision", "ndcg", "map", "mrr", "hit_rate")
    for part in ("model", "popularity", "id_only"):
        assert set(found[part]) == {f"{metric}@{k}" for metric in metrics for k in (5, 10)}
        assert all(0 <= value <= 1 for value in found[part].values())


def test_a_fresh_process_prints_it_just_so(run):
    done = command("evaluate", run.directory / "twin", "--split", "valid", "--json")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    found = json.loads(done.stdout)
    assert found["split"] == "valid" and found["id_only"] is None
    assert {"recall@10", "recall@20"} <= set(found["model"])
    assert not re.search("Traceback|Warning|deprecated", done.stderr), done.stderr


def tables(out):
    """The tables of an output, blank lines between them, as lists of lines."""
    return [part.splitlines() for part in out.strip("\n").split("\n\n")]


def test_evaluate_prints_tables(run, call):
    status, out, _ = call("evaluate", run.directory, "--k", "10", "--stage", "recommender")
    (title, header, *rows), differences, candidates, funnel, *others = tables(out)
    intervals, beyond, (verdict,) = others
    said = "test split, history train"
    assert status == 0 and f"{said}, {small_world.NUM_USERS} users" in title
    for table in (differences, candidates, funnel, intervals, beyond):
        assert said in table[0]
    assert header.split()[:1] == ["recall@10"]
    assert [row.split()[0] for row in rows] == ["model", "popularity", "id_only"]
    assert all(len(row.split()) == 7 for row in rows)
    assert differences[0] == f"the model minus each, {said}, with 95% intervals"
    assert differences[1].split() == ["recall@10", "ndcg@10"]
    number = r"[+-]0\.\d{4}"
    for row, name in zip(differences[2:], ["popularity", "id_only"], strict=True):
        assert re.fullmatch(rf"{name}( +{number} \({number} to {number}\)){{2}}", row)
    assert beyond[0] == f"beyond accuracy, {said}; diversity of content"
    assert [row.split()[0] for row in beyond[2:]] == ["model", "popularity", "id_only"]
    assert "candidates, 12 a user" in candidates[0]
    assert {"auc", "gauc", "log_loss", "ece", "f1"} <= set(candidates[1].split())
    assert [row.split()[0] for row in candidates[2:]] == ["ranking", "retrieval"]
    assert re.match(r"the funnel, .*: 0\.\d{4} of what was chosen is among the 12", funnel[0])
    stages = ["retrieval", "ranking", "recommended"]
    assert [row.split()[0] for row in funnel[2:]] == stages
    assert [row.split()[0] for row in intervals[2:]] == stages[1:]
    assert verdict.startswith("ranking ") and "ndcg@10" in verdict and said in verdict


def test_evaluate_prints_baselines_and_slices(run, call):
    asked = ["evaluate", run.directory, "--k", "5,10", "--baselines", "ease,item_knn", "--slices"]
    status, out, _ = call(*asked)
    figures, differences, _, slices = tables(out)
    assert status == 0
    names = ["popularity", "id_only", "ease", "item_knn"]
    assert [row.split()[0] for row in figures[2:]] == ["model", *names]
    assert [row.split()[0] for row in differences[2:]] == names
    empty = int(
        re.fullmatch(r"recall@10 by slice of items, test .* \((\d+) slices .*\)", slices[0])[1]
    )
    assert slices[1].split() == ["items", "users", "model", *names]
    _, out, _ = call(*asked, "--json")
    found = json.loads(out)["slices"]
    assert len(slices[2:]) + empty == len(found) and empty > 0
    want = found["cold, with image"]
    (row,) = [row for row in slices if row.startswith("cold, with image ")]
    assert row.removeprefix("cold, with image").split() == [
        str(want["items"]),
        str(want["users"]),
        *(f"{want[name]['recall@10']:.4f}" for name in ("model", *names)),
    ]


@pytest.mark.slow
def test_evaluate_names_what_is_known(run, call):
    asked = ("evaluate", run.directory, "--k", "10", "--stage", "recommender", "--json")
    status, out, _ = call(*asked, "--history", "train+valid")
    found = json.loads(out)
    assert status == 0
    assert found["history"] == found["ranking"]["history"] == "train+valid"
    stage = found["ranking"]["funnel"]["recommended"]
    assert stage["recall@10"] == pytest.approx(found["model"]["recall@10"])
    status, err = failed(call, *asked, "--split", "valid", "--history", "train+valid")
    assert status == 2 and "history: wanted train on the valid split" in err
    metrics = json.loads((run.directory / "metrics.json").read_text())
    assert metrics["history"] == metrics["ranking"]["history"] == "train"


def test_ablate(run, call, tmp_path):
    status, out, _ = call("ablate", run.directory, "--out", tmp_path / "a", "--json")
    (found,) = map(json.loads, out.splitlines())
    assert status == 0 and found == json.loads((tmp_path / "a/ablation.json").read_text())
    status, out, _ = call("ablate", run.directory)
    (title, header, *rows), verdicts = tables(out)
    assert status == 0
    said = "valid split, history train"
    assert f"{said}, {small_world.NUM_USERS} users, 95% intervals" in title
    assert header.split() == ["ndcg@10", "minus", "the", "model"]
    assert rows[0].split() == ["model", f"{found['model']:.4f}"]
    ways = ("absent", "shuffled", "noise")
    assert [row.split()[:2] for row in rows[1:13]] == [
        [name, how] for name in small_world.MODALITIES for how in ways
    ]
    assert len(rows) == 1 + 12 + 5 and "25% of all content absent" in rows[14]
    assert verdicts == [f"{name}: {text}" for name, text in found["verdicts"].items()]


def test_the_table_of_a_planted_world_shows_its_ceiling(run, call, tmp_path):
    """It knows fewer metrics than are measured."""
    dataset = shutil.copytree(run.dataset.directory, tmp_path / "dataset")
    best = {"users": 40, "recall@10": 0.8125, "ndcg@10": 0.625}
    (dataset / "ceiling.json").write_text(json.dumps({"test": best}))
    asked = ("evaluate", run.directory / "twin", "--k", "10", "--dataset", dataset)
    status, out, err = call(*asked)
    assert status == 0
    assert "0.8125" in [row for row in out.splitlines() if row.startswith("ceiling")][0]
    # As of a world that was prepared before there was a knowable one.
    assert not any(row.startswith("knowable") for row in out.splitlines())
    assert "no knowable ceiling: the dataset was prepared before it was measured" in err
    found = {"test": best, "knowable": {"test": best | {"recall@10": 0.6875}}}
    (dataset / "ceiling.json").write_text(json.dumps(found))
    status, out, err = call(*asked)
    rows = [row.split() for row in out.splitlines() if row.startswith(("knowable", "ceiling"))]
    assert [row[0] for row in rows] == ["knowable", "ceiling"] and rows[0][1] == "0.6875"
    assert status == 0 and "knowable" not in err
    asked = ("evaluate", run.directory / "twin", "--k", "10", "--dataset", dataset)
    _, out, err = call(*asked, "--history", "train+valid")
    assert "ceiling" not in out and err == (
        "no ceiling: that of the dataset is of the history train\n"
    )


def test_recommend(run, call):
    asked = ["recommend", run.directory, "--user", "u1", "--user", "ü7", "--k", 3]
    status, out, _ = call(*asked)
    rows = [line.split("\t") for line in out.splitlines()]
    want = run.recommender().recommend(["u1", "ü7"], k=3)
    assert status == 0
    assert [row[:3] for row in rows] == [
        [user, str(rank + 1), want.item_id[n, rank]]
        for n, user in enumerate(["u1", "ü7"])
        for rank in range(3)
    ]
    status, out, _ = call(*asked, "--json")
    (found,) = map(json.loads, out.splitlines())
    assert [user["user"] for user in found["users"]] == ["u1", "ü7"]
    assert [user["item_id"] for user in found["users"]] == want.item_id.tolist()
    assert found["users"][0]["score"] == pytest.approx(want.score[0].tolist(), rel=1e-4)


@pytest.mark.slow
def test_recommend_knows_what_it_is_told(run, call):
    asked = ("recommend", run.directory, "--user", "u1", "--k", 30, "--json")
    _, out, _ = call(*asked)
    _, less, _ = call(*asked, "--stored-history", "train")
    lists = [set(json.loads(said)["users"][0]["item_id"]) - {""} for said in (out, less)]
    held_out = [run.dataset.interactions(split) for split in ("valid", "test")]
    items = {f"i{n}" for data in held_out for n in data.item[data.user == 1]}
    assert items and not lists[0] & items and lists[1] == lists[0] | items


@pytest.mark.slow
def test_recommend_takes_a_history(run, call):
    asked = ["recommend", run.directory, "--user", "nobody", "--k", 5, "--json"]
    _, without, _ = call(*asked)
    _, given, _ = call(*asked, "--history", "i3,i6,unheard of")
    want = run.recommender().recommend(["nobody"], history=[["i3", "i6"]], k=5)
    assert json.loads(given)["users"][0]["item_id"] == want.item_id[0].tolist()
    assert given != without


@pytest.mark.slow
def test_recommend_takes_lists_as_people_type_them(run, call):
    asked = ("recommend", run.directory, "--user", "u1", "--k", "30", "--json")
    _, out, _ = call(*asked)
    first = [one for one in json.loads(out)["users"][0]["item_id"] if one][:3]
    status, out, err = call(*asked, "--exclude", f"{first[0]}, {first[1]} ,{first[2]},, ")
    assert (status, err) == (0, "")
    assert not set(first) & set(json.loads(out)["users"][0]["item_id"])


@pytest.mark.slow
def test_recommend_names_ids_that_nobody_has(run, call):
    asked = ("recommend", run.directory, "--user", "u1", "--user", "stranger")
    status, _, err = call(*asked, "--exclude", "nope, i 9", "--history", "never")
    assert status == 0
    assert err.splitlines() == [
        "--history: no item has the id 'never'.",
        "--exclude: no item has the id 'nope', 'i 9'.",
        "--user: the dataset has no 'stranger'; answered by what is popular.",
    ]
    _, _, err = call(*asked, "--history", "i1")
    assert err == "--user: the dataset has no 'stranger'; answered by the history.\n"


@pytest.mark.slow
def test_recommend_leaves_out_what_it_is_told(run, call, tmp_path):
    (tmp_path / "gone").write_text("i4\n\ni7\n", encoding="utf-8")
    asked = ("--exclude", "i1,i2", "--allow", "genre=night", "--deny", "genre=day", "--time", 7200)
    status, out, _ = call(
        *("recommend", run.directory, "--user", "u1", *asked, "--k", 4, "--json"),
        *("--unavailable", tmp_path / "gone"),
    )
    assert status == 0
    want = run.recommender(unavailable=["i4", "i7"]).recommend(
        ["u1"],
        exclude=[["i1", "i2"]],
        allow=[["genre=night"]],
        deny=[["genre=day"]],
        time=[7200],
        k=4,
    )
    (found,) = json.loads(out)["users"]
    assert found["item_id"] == want.item_id[0].tolist()
    assert found["history_item"] == want.history_item[0].tolist()
    assert found["probability"] == pytest.approx(want.probability[0].tolist(), rel=1e-4)
    status, err = failed(call, "recommend", run.directory, "--user", "u1", "--allow", "genre=x")
    assert status == 2 and "category 'genre=x'" in err
    status, err = failed(
        call, "recommend", run.directory, "--user", "u1", "--unavailable", tmp_path / "no"
    )
    assert status == 1 and "No such file" in err
    (tmp_path / "gone").write_bytes(b"i4\n\xe9\n")
    status, err = failed(
        call, "recommend", run.directory, "--user", "u1", "--unavailable", tmp_path / "gone"
    )
    assert status == 2 and "gone: wanted ids in UTF-8, one a line" in err


@pytest.mark.slow
def test_similar(run, call):
    asked = ["similar", run.directory, "--item", "i4", "--item", "i9", "--k", 3]
    status, out, _ = call(*asked)
    want = run.recommender().similar_items(["i4", "i9"], k=3)
    rows = [line.split("\t") for line in out.splitlines()]
    assert status == 0 and [row[:3] for row in rows] == [
        [item, str(rank + 1), want.item_id[n, rank]]
        for n, item in enumerate(["i4", "i9"])
        for rank in range(3)
    ]
    _, out, _ = call(*asked, "--json")
    assert [item["item_id"] for item in json.loads(out)["items"]] == want.item_id.tolist()
    status, err = failed(call, "similar", run.directory, "--item", "unheard of")
    assert status == 2 and "'unheard of'" in err


@pytest.mark.slow
def test_train_and_export(dataset, call, tmp_path):
    config = small_world.config(**small_world.VECTORS, training__epochs=9)
    (tmp_path / "config.json").write_text(json.dumps(config.to_json()))
    status, out, err = call(
        *("train", "--dataset", dataset.directory, "--out", tmp_path / "run"),
        *("--config", tmp_path / "config.json"),
        *("--set", "training.epochs=1", "--set", "modalities=[]", "--set", "ranking.epochs=0"),
    )
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()[2:]] == ["retrieval", "popularity"]
    assert err.splitlines()[-1] == f"report: {tmp_path / 'run/report.html'}"
    assert (tmp_path / "run/report.html").read_text("utf-8").endswith("</html>\n")
    stored = json.loads((tmp_path / "run/config.json").read_text())
    assert (stored["training"]["epochs"], stored["modalities"], stored["dim"]) == (1, [], 8)
    status, out, err = call("export", tmp_path / "run", "--out", tmp_path / "e", "--version", 2)
    counts = [len(dataset.interactions(split).user) for split in ("train", "valid", "test")]
    said = "history all: {} train, {} valid, {} test interactions\n".format(*counts)
    assert said in err
    assert (status, out) == (0, f"{tmp_path / 'e/recommender/2'}\n")
    # A model of ids has nothing to encode.
    assert [path.name for path in (tmp_path / "e").iterdir()] == ["recommender"]
    status, err = failed(call, "export", tmp_path / "run", "--out", tmp_path / "e", "--version", 2)
    assert status == 1 and err.startswith("ExportError: ") and "above 2" in err


# What fails


def test_a_failure_is_one_line_and_no_traceback(tmp_path):
    done = command("train", "--dataset", tmp_path / "nowhere", "--out", tmp_path / "run")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("DatasetError: ") and done.stderr.count("\n") == 1
    assert "data.prepare" in done.stderr and not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["evaluate", "ablate", "recommend", "export", "report"])
def test_a_missing_run_ends_with_1(call, tmp_path, name):
    options = {"recommend": ["--user", "u"], "export": ["--out", tmp_path / "e", "--version", 1]}
    status, err = failed(call, name, tmp_path / "nowhere", *options.get(name, []))
    assert status == 1 and err.startswith("RunError: ")


@pytest.mark.parametrize(
    "setting, message",
    [
        ("training.epoch=5", "did you mean 'epochs'"),
        ("training.epochs=many", "training.epochs: wanted int; got 'many'"),
        ("training.epochs=0", "training.epochs: wanted at least 1"),
        ("training.epochs", "wanted PATH=VALUE such as training.epochs=5"),
        ("modalities=smell", "the dataset has no 'smell'; it has text, image, audio, vector"),
    ],
)
def test_a_wrong_setting_ends_with_2(dataset, call, tmp_path, setting, message):
    status, err = failed(
        call,
        *("train", "--dataset", dataset.directory, "--out", tmp_path / "run", "--set", setting),
    )
    assert status == 2 and err.startswith("ConfigError: ") and message in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["evaluate", "--k", "ten"], "--k: wanted numbers of 1 to 2147483647 such as 10,20"),
        (["evaluate", "--k", "9" * 25], "; got '9999"),
        (["evaluate", "--k", "0"], "got '0'"),
        (["evaluate", "--k", ""], "got ''"),
        (["evaluate", "--baselines", "eas"], "unknown baseline 'eas'; did you mean 'ease'"),
        (["ablate", "--retrain"], "--retrain: wanted a folder for the runs; name one with --out"),
        (["recommend", "--user", "u1", "--k", "0"], "k: wanted at least 1; got 0"),
        (["export", "--out", "e", "--version", "0"], "at least 1"),
    ],
)
def test_a_wrong_number_ends_with_2(run, call, arguments, message):
    name, *rest = arguments
    status, err = failed(call, name, run.directory / "twin", *rest)
    assert status == 2 and message in err


@pytest.mark.parametrize("arguments", [[], ["evaluate"], ["evaluate", "r", "--split", "train"]])
def test_wrong_usage_ends_with_2(arguments):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2


def test_a_finished_run_is_refused(run, call):
    path = run.directory / "config.json"
    status, err = failed(
        call,
        *("train", "--dataset", run.dataset.directory, "--out", run.directory, "--config", path),
    )
    assert status == 1 and "a finished run stands there" in err
