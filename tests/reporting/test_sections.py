"""Sections of a report that the small run's own report does not show, or not in figures."""

import io
import json
import types

import numpy as np
import PIL.Image
import pytest
from support.small_world import NUM_USERS

import mmrec_tf as mm
from mmrec_tf.reporting.page import Markup
from mmrec_tf.reporting.sections import ablation, dataset, exposure, groups

FIGURE = {"value": 0.2, "difference": -0.1, "low": -0.15, "high": -0.05}


def ablated(folder, value):
    (folder / "ablation.json").write_text(json.dumps(value))
    retrieval = types.SimpleNamespace(modalities=("text",))
    return types.SimpleNamespace(run=types.SimpleNamespace(directory=folder, retrieval=retrieval))


def test_what_content_is_worth_is_shown_where_the_run_was_ablated(tmp_path):
    found = {
        **{"split": "valid", "history": "train", "metric": "ndcg@10", "users": 7, "model": 0.3},
        "knock_outs": {"text": {"absent": FIGURE, "shuffled": FIGURE, "noise": FIGURE}},
        "missing": [{"removed": share, **FIGURE} for share in (0.0, 0.5, 1.0)],
        "retrained": {"without text": FIGURE},
        "verdicts": {"text": "helps (+0.1000, 0.0500 to 0.1500)"},
    }
    shown = ablation.section(ablated(tmp_path, found)).body
    assert "helps (+0.1000" in shown and shown.count("<svg") == 2 and "-0.1000" in shown
    with pytest.raises(mm.RunError, match="Run ablate again"):
        ablation.section(ablated(tmp_path, {"metric": 3}))
    material = ablated(tmp_path, found)
    (tmp_path / "ablation.json").unlink()
    assert "mmrec-tf ablate" in ablation.section(material).body


def test_users_are_grouped_by_thirds_and_by_who_has_none(dataset_of):
    material = types.SimpleNamespace(dataset=dataset_of, users=np.arange(NUM_USERS))
    found = groups.user_groups(material, "age")
    # Every fifth user has no age; the others are split into equal thirds.
    assert list(found)[-1] == "not known" and found["not known"].sum() == NUM_USERS / 5
    np.testing.assert_allclose([m.sum() for m in found.values()], [11, 10, 11, 8], atol=1)
    assert np.stack(list(found.values())).sum(axis=0).tolist() == [1] * NUM_USERS


def test_an_interval_holds_its_mean_and_narrows():
    values = np.random.default_rng(0).random(400)
    mean, low, high = groups.interval(values)
    assert low < mean < high and high - low < 0.08
    few = groups.interval(values[:20])
    assert few[2] - few[1] > 2 * (high - low)


def test_exposure_by_group_goes_by_the_place():
    """Two lists of item 0 of the first group, then item 1 of both: 1 each, then 1 / log2(3), of
    which each group has half."""
    member = np.array([[True, False], [True, True], [False, True]])
    parts = exposure.exposure_by_place(np.array([[0, 1], [0, 1], [-1, -1]]), member)
    half = 1 / np.log2(3)
    np.testing.assert_allclose(parts, [2 + half, half])


def test_items_are_grouped_by_whose_they_are(dataset_of):
    name, names, member = exposure.item_groups(dataset_of, None)
    assert name == "genre" and names == ["night", "day"]
    assert member[1].tolist() == [False, True] and not member[0].any()
    with pytest.raises(mm.ConfigError, match="one of genre; got 'price'"):
        exposure.item_groups(dataset_of, "price")


def test_what_was_set_aside_is_shown_as_far_as_it_goes(tmp_path):
    out = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, [64, 64, 3]).astype(np.uint8)
    PIL.Image.fromarray(noise).save(out, "JPEG")
    (tmp_path / "half.jpg").write_bytes(out.getvalue()[: len(out.getvalue()) // 2])
    (tmp_path / "none.jpg").write_bytes(b"nothing")
    rows = [
        {"item": "<i>1", "file": str(tmp_path / name), "reason": "cut", "modality": "image"}
        for name in ("half.jpg", "none.jpg", "gone.jpg")
    ]
    found = {"quarantine": {"image": {"cut": 3}}, "quarantined_files": rows}
    shown = Markup("".join(dataset._quarantine(found)))
    assert shown.count("data:image/jpeg") == 1 and "half.jpg" in shown and "&lt;i&gt;1" in shown
    assert "cannot be shown" in shown and "no longer there" in shown


@pytest.fixture
def dataset_of(request):
    return request.getfixturevalue("dataset")
