"""The model card of a run, as Hugging Face reads it."""

import json
import shutil

import huggingface_hub
import pytest

import mmrec_tf
from mmrec_tf.__main__ import main
from mmrec_tf.runs import model_card
from mmrec_tf.runs.evaluate import evaluate_run


@pytest.fixture(scope="module")
def card(run):
    return model_card.describe_run(run)


def test_its_figures_are_those_of_the_evaluation_with_intervals(run, card):
    found = evaluate_run(run, split="valid", ks=(10, 20), stage="recommender")
    assert {name: of["value"] for name, of in card["metrics"]["model"].items()} == found["model"]
    for of in card["metrics"]["model"].values():
        assert of["low"] <= of["value"] <= of["high"]
    recall = card["metrics"]["model"]["recall@10"]
    assert recall["low"] < recall["high"]
    assert card["metrics"]["compared"]["most popular"]["metrics"] == found["popularity"]


def test_it_says_what_it_was_made_of(run, card):
    schema, dataset = run.schema, run.dataset
    assert (card["data"]["users"], card["data"]["items"]) == (schema.num_users, schema.num_items)
    assert card["data"]["sha256"] == dataset.hash
    assert card["splits"]["interactions"]["train"] == len(dataset.interactions("train").user)
    assert card["model"]["config"] == run.config.to_json()
    assert card["slices"]["warm"]["items"] == int((dataset.catalog.train_count > 0).sum())
    assert set(card["model"]["encoders"]) == set(card["model"]["modalities"])
    assert card["reproduce"][1].startswith("mmrec-tf train ")


def test_hugging_face_reads_it(card):
    read = huggingface_hub.ModelCard(model_card.to_markdown(card))
    assert read.data.library_name == "mmrec_tf" and "recommendation" in read.data.tags
    results = {result.metric_type: result.metric_value for result in read.data.eval_results}
    assert results.keys() == card["metrics"]["model"].keys()
    assert results["recall@10"] == pytest.approx(card["metrics"]["model"]["recall@10"]["value"])
    for title in ("Intended use", "Data", "Splits", "Metrics", "Slices", "Limits"):
        assert f"\n## {title}\n" in read.text


@pytest.mark.parametrize(
    "stated, license_", [("license: mit\n", "mit"), ("", "unknown"), ("no license: x\n", "unknown")]
)
def test_a_license_that_a_folder_of_weights_states_is_told(tmp_path, stated, license_):
    (tmp_path / "README.md").write_text(f"---\nlanguage: en\n{stated}---\n\nlicense: gpl\n")
    assert model_card._license(str(tmp_path))["license"] == license_


def test_weights_that_are_drawn_here_need_no_license():
    assert model_card._license("random")["license"] == "none needed"
    assert model_card._license("somebody/bert")["license"] == "unknown"


def test_an_item_head_is_told(run, card):
    shown = model_card.to_markdown({**card, "model": {**card["model"], "item_head": {"l2": 0.5}}})
    assert "## Head of items against items" in shown and "| l2 | 0.5000 |" in shown
    assert "Head of items against items" not in model_card.to_markdown(card)


def test_where_cold_items_are_placed_is_told(card):
    placed = {"pull": 0.5, "without": {"hidden": 0.25}, "with_fit": {"hidden": 0.75}}
    told = model_card.to_markdown({**card, "model": {**card["model"], "cold_items": placed}})
    assert "## Items without train interactions" in told
    assert "| pull | 0.5000 |" in told and "| with_fit: hidden | 0.7500 |" in told
    assert "Items without train interactions" not in model_card.to_markdown(card)


@pytest.mark.slow
def test_the_command_writes_both_files(run, card, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(run.directory, copy)
    assert main(["card", str(copy)]) == 0
    assert capsys.readouterr().out == f"{copy / 'README.md'}\n"
    found = json.loads((copy / "model_card.json").read_text())
    assert found == {
        **json.loads(json.dumps(card)),
        "name": "copy",
        "reproduce": found["reproduce"],
    }
    mmrec_tf.load_run(copy)  # a card is no damage


def test_an_export_has_it_too(exported):
    for name in ("recommender", "encoder"):
        folder = exported / name / "1" / "assets.extra"
        read = huggingface_hub.ModelCard((folder / "README.md").read_text())
        assert read.data.library_name == "mmrec_tf"
        assert f"## Servable {name}" in read.text
