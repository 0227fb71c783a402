"""`python -m data.inspect`: what it counts, and what it warns of, on datasets of a few items."""

import json
import subprocess
import sys

import numpy as np
import pytest
from support import small_world

from data import inspect
from mmrec_tf.records import DatasetWriter
from mmrec_tf.records.inspection import inspect_dataset, long_tail
from mmrec_tf.schema import ModalitySpec, Schema

USERS = ("anna", "7", "u42")
TRAIN, VALID, TEST = [[0, 1], [1, 2], [2, 0]], [[2], [0], [1]], [[3], [3], [3]]


def write(folder, *, texts=(), times=(100, 200, 300)):
    """Three users, four items; `times` in seconds of each split, one more for each next item."""
    with DatasetWriter(folder) as writer:
        for item in range(4):
            text = texts[item] if item < len(texts) else f"Item number {item}"
            writer.write_item(f"i{item}", content={"text": text} if text else {})
        for user in USERS:
            writer.write_user(user)
        for split, users, time in zip(
            ("train", "valid", "test"), (TRAIN, VALID, TEST), times, strict=True
        ):
            for user, items in enumerate(users):
                steps = list(range(len(items))) if times[0] != times[1] else [0] * len(items)
                writer.write_interactions(
                    split, user, item=items, timestamp=[time + step for step in steps]
                )
        writer.finish(
            Schema(num_users=3, num_items=4, modalities={"text": ModalitySpec("text")}),
            source={"name": "test"},
            split_rule="given",
        )
    return folder


def warned(folder, **how):
    return inspect_dataset(write(folder / "d", **how))["warnings"]


def test_nothing_to_warn_of(tmp_path):
    assert warned(tmp_path) == []


def test_a_text_that_holds_a_user_is_a_leak(tmp_path):
    (said,) = warned(tmp_path, texts=["Bought by u42."])
    assert "hold the ids of users, such as 'u42' in that of item number 0; 1 of them met" in said


def test_a_word_or_a_number_that_is_also_a_user_is_none(tmp_path):
    """Of "anna" and "7" one pair each is a true one, as chance has it."""
    assert warned(tmp_path, texts=["anna karenina", "season 7"]) == []


def test_many_true_pairs_of_plain_words_are_a_leak(tmp_path):
    (said,) = warned(tmp_path, texts=["for anna", "anna 7", "of 7", "nobody"])
    assert "the texts of 3 items" in said and "4 of them met" in said


def test_one_time_for_all_orders_nothing(tmp_path):
    (said,) = warned(tmp_path, times=(9, 9, 9))
    assert "all 12 interactions have the same time, 9 s since 1970" in said


def test_no_times_at_all_are_no_leak(tmp_path):
    assert warned(tmp_path, times=(0, 0, 0)) == []


def test_test_before_train_is_told_by_user(tmp_path):
    (said,) = warned(tmp_path, times=(100, 200, 50))
    assert said.startswith("3 of 3 test interactions, of 3 users, are older than a train")


def test_the_long_tail_by_hand():
    """Ten items, of which one has 6 of 10 interactions; 4 others have one each."""
    found = long_tail(np.array([0, 1, 0, 6, 1, 0, 1, 1, 0, 0]))
    assert (found["never"], found["half"], found["top_tenth"]) == (5, 1, 0.6)
    # Ascending 0*5, 1*4, 6: sum of (2 i - 11) x_i = (1 + 3 + 5 + 7) + 9 * 6 = 70, by 10 * 10.
    assert found["gini"] == pytest.approx(0.7)


def test_it_says_what_the_reader_of_training_reads(dataset):
    found = inspect_dataset(dataset.directory)
    assert found["counts"]["users"] == small_world.NUM_USERS
    present = dataset.catalog.present.sum(axis=0).tolist()
    assert [said["items"] for said in found["modalities"].values()] == present
    assert sum(found["combinations"].values()) == small_world.NUM_ITEMS
    assert found["combinations"]["nothing"] == 1
    image, audio = found["modalities"]["image"], found["modalities"]["audio"]
    assert (image["width"]["max"], image["height"]["max"]) == (40, 24)
    assert audio["seconds"]["median"] == 0.25
    train = dataset.interactions("train")
    assert found["counts"]["interactions"]["train"] == len(train.user)
    assert [sample["item"] for sample in found["samples"]] == [f"i{n}" for n in range(5)]


def test_the_command_prints_both_ways_and_loads_no_tensorflow(tmp_path):
    folder = write(tmp_path / "d", texts=["Bought by u42."])
    code = (
        "import sys; from data.inspect import main; status = main(sys.argv[1:]); "
        "sys.exit(status or any(name.startswith('tensorflow') for name in sys.modules))"
    )
    for options in ([], ["--json"]):
        done = subprocess.run(
            [sys.executable, "-c", code, str(folder), *options],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        if options:
            assert json.loads(done.stdout)["counts"]["items"] == 4
        else:
            assert "\nwarning        the texts of 1 items" in done.stdout


def test_damage_is_named(tmp_path, capsys):
    folder = write(tmp_path / "d")
    (path,) = (folder / "users").iterdir()
    data = bytearray(path.read_bytes())
    data[20] ^= 1
    path.write_bytes(data)
    assert inspect.main([str(folder)]) == 1
    assert "users-00000-of-00001.tfrecord: damaged at record 1 of 3" in capsys.readouterr().err
