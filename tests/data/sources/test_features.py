import csv
import pathlib

import numpy as np
import pytest
import scipy.sparse

import mmrec_tf as mm
from data.items.shards import runner
from data.prepare import main
from data.sources import features
from mmrec_tf import records


def save(path: pathlib.Path, entries: list[tuple[int, int]], shape=(3, 4), values=None) -> str:
    user, item = np.array(entries, np.int64).reshape(-1, 2).T
    values = np.ones(len(entries)) if values is None else values
    scipy.sparse.save_npz(path, scipy.sparse.coo_matrix((values, (user, item)), shape))
    return str(path)


def save_vectors(path: pathlib.Path, rows=4, dim=2) -> str:
    np.save(path, np.arange(1, rows * dim + 1, dtype=np.float16).reshape(rows, dim))
    return str(path)


def interactions(directory, split) -> list[tuple[int, int, float]]:
    found = records.read_interactions(directory, records.read_schema(directory), split)
    columns = (found.user, found.item, found.weight)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def test_matrices_become_a_dataset(tmp_path):
    options = features.Features(
        train=save(tmp_path / "train.npz", [(2, 1), (0, 3), (0, 0)]),
        valid=save(tmp_path / "valid.npz", [(0, 1)]),
        vectors={"image": save_vectors(tmp_path / "image.npy")},
    )
    manifest = features.prepare(options, tmp_path / "d", run=runner(0))

    schema = records.read_schema(tmp_path / "d")
    assert (schema.num_users, schema.num_items) == (3, 4)
    assert schema.modalities["image"].kind == "vector" and schema.modalities["image"].dim == 2
    assert not schema.ordered and not schema.ratings
    items = list(records.read_items(tmp_path / "d", schema))
    assert [item.item_id for item in items] == ["0", "1", "2", "3"]
    np.testing.assert_array_equal(
        [item.content["image"][0] for item in items], [[1, 2], [3, 4], [5, 6], [7, 8]]
    )
    assert items[0].content["image"].dtype == np.float32
    assert [user.user_id for user in records.read_users(tmp_path / "d", schema)] == ["0", "1", "2"]
    # Without times, the order of the matrix's entries within a user stays.
    assert interactions(tmp_path / "d", "train") == [(0, 3, 1), (0, 0, 1), (2, 1, 1)]
    assert interactions(tmp_path / "d", "valid") == [(0, 1, 1)]
    assert interactions(tmp_path / "d", "test") == []
    assert manifest["source"]["tables"]["vector image"]["file"] == "image.npy"


def test_a_pair_in_train_and_valid_stays_in_train(tmp_path):
    options = features.Features(
        train=save(tmp_path / "train.npz", [(0, 1), (0, 1), (1, 1)]),
        valid=save(tmp_path / "valid.npz", [(0, 1), (0, 2)]),
    )
    manifest = features.prepare(options, tmp_path / "d", run=runner(0))
    assert interactions(tmp_path / "d", "train") == [(0, 1, 1), (1, 1, 1)]
    assert interactions(tmp_path / "d", "valid") == [(0, 2, 1)]
    assert manifest["counts"]["duplicates"] == {"interactions": 2}


def test_values_are_weights_and_zeros_nothing(tmp_path):
    options = features.Features(
        train=save(tmp_path / "train.npz", [(0, 1), (0, 2), (1, 1)], values=[0.5, 0, 1])
    )
    features.prepare(options, tmp_path / "d", run=runner(0))
    assert interactions(tmp_path / "d", "train") == [(0, 1, 0.5), (1, 1, 1)]


def test_vectors_that_say_nothing_are_not_present(tmp_path):
    matrix = np.ones([4, 2], np.float32)
    matrix[1] = 0
    matrix[3, 0] = np.nan
    np.save(tmp_path / "image.npy", matrix)
    np.save(tmp_path / "audio.npy", np.zeros([4, 2]))
    options = features.Features(
        train=save(tmp_path / "train.npz", [(0, 1)]),
        vectors={name: str(tmp_path / f"{name}.npy") for name in ("image", "audio")},
    )
    manifest = features.prepare(options, tmp_path / "d", run=runner(0))
    schema = records.read_schema(tmp_path / "d")
    assert tuple(schema.modalities) == ("image",)  # no item has audio
    present = ["image" in item.content for item in records.read_items(tmp_path / "d", schema)]
    assert present == [True, False, True, False]
    assert manifest["quarantine"] == {
        "audio": {"all zeros": 4},
        "image": {"all zeros": 1, "numbers that are not finite": 1},
    }
    with (tmp_path / "d" / "quarantine.csv").open(newline="") as file:
        assert ["3", "image", "image.npy[3]", "numbers that are not finite", ""] in csv.reader(file)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"valid": "small"}, "wanted 3 users x 4 items, as in .*train.npz; got 2 x 4"),
        ({"train": "missing"}, "wanted a sparse matrix; there is no such file"),
        ({"train": "vectors"}, "wanted a sparse matrix as scipy.sparse.save_npz writes it"),
        ({"train": "negative"}, "some are negative or not finite"),
        ({"vectors": {"image": "few"}}, "wanted 4 rows, one an item; got the shape 3 x 2"),
        ({"vectors": {"image": "missing"}}, "wanted a matrix of vectors; there is no such"),
        ({"vectors": {"image": "train"}}, "wanted one matrix of numbers"),
        ({"vectors": {"image": "pickled"}}, "wanted a matrix as numpy.save writes it"),
    ],
)
def test_matrices_that_do_not_fit_are_refused(tmp_path, change, message):
    np.save(tmp_path / "pickled.npy", np.array([{}, {}, {}, {}]), allow_pickle=True)
    paths = {
        "train": save(tmp_path / "train.npz", [(0, 1)]),
        "small": save(tmp_path / "small.npz", [(0, 1)], shape=(2, 4)),
        "negative": save(tmp_path / "negative.npz", [(0, 1)], values=[-1]),
        "vectors": save_vectors(tmp_path / "vectors.npy"),
        "few": save_vectors(tmp_path / "few.npy", rows=3),
        "pickled": str(tmp_path / "pickled.npy"),
        "missing": str(tmp_path / "missing.npz"),
    }
    arguments = {"train": paths["train"]}
    for name, value in change.items():
        vectors = isinstance(value, dict)
        arguments[name] = {k: paths[v] for k, v in value.items()} if vectors else paths[value]
    with pytest.raises(mm.DatasetError, match=message):
        features.prepare(features.Features(**arguments), tmp_path / "d", run=runner(0))
    assert not (tmp_path / "d").exists()


def test_cut_and_damaged_matrices_are_named(tmp_path):
    whole = pathlib.Path(save(tmp_path / "train.npz", [(0, 1), (2, 3)])).read_bytes()
    options = features.Features(train=str(tmp_path / "train.npz"))
    damaged = [whole[:length] for length in range(0, len(whole), 97)]
    # Bytes of a compressed block, and of a method of compression that nobody has.
    for at in range(40, len(whole), 61):
        damaged.append(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
    seen = 0
    for data in damaged:
        (tmp_path / "train.npz").write_bytes(data)
        try:
            features.prepare(options, tmp_path / "d", overwrite=True, run=runner(0))
        except mm.DatasetError as error:
            assert "train.npz: wanted" in str(error)
            seen += 1
    assert seen > len(damaged) / 2


@pytest.mark.parametrize("value", [-3.4028235e38, 1e30, np.inf])
def test_vectors_that_no_model_can_square_are_not_present(tmp_path, value):
    matrix = np.random.default_rng(0).normal(size=[8, 4])
    matrix[5] = value
    np.save(tmp_path / "image.npy", matrix)
    options = features.Features(
        train=save(tmp_path / "train.npz", [(0, 1), (1, 2)], shape=(3, 8)),
        vectors={"image": str(tmp_path / "image.npy")},
    )
    manifest = features.prepare(options, tmp_path / "d", run=runner(0))
    assert manifest["counts"]["present"] == {"image": 7}
    reason = (
        "numbers too large to be squared" if np.isfinite(value) else "numbers that are not finite"
    )
    assert manifest["quarantine"] == {"image": {reason: 1}}


def test_a_vector_and_a_weight_beside_which_all_others_are_nothing(tmp_path):
    matrix = np.random.default_rng(0).normal(size=[8, 4])
    matrix[5] *= 1e6
    np.save(tmp_path / "image.npy", matrix)
    pairs = [(user, item) for user in range(3) for item in range(8)]
    weights = np.random.default_rng(1).uniform(1, 2, len(pairs))
    weights[7] = 1e9
    options = features.Features(
        train=save(tmp_path / "train.npz", pairs, shape=(3, 8), values=weights),
        vectors={"image": str(tmp_path / "image.npy")},
    )
    said = features.prepare(options, tmp_path / "d", run=runner(0))["warnings"]
    assert "row 6 of image.npy (item '5')" in said[0] and "such as 1000000000;" in said[1]
    # No float32 holds it, and no cast makes it one.
    options = features.Features(train=save(tmp_path / "huge.npz", [(0, 1)], values=[1e39]))
    with pytest.raises(mm.DatasetError, match="huge.npz: wanted weights .* not finite"):
        features.prepare(options, tmp_path / "e", run=runner(0))


def test_a_modality_that_says_the_same_of_all_is_warned_of(tmp_path, capsys):
    np.save(tmp_path / "image.npy", np.ones([4, 2], np.float32))
    arguments = ["features", "--train", save(tmp_path / "train.npz", [(0, 1)]), "--workers", "0"]
    arguments += ["--vector", f"image={tmp_path / 'image.npy'}", "--out", str(tmp_path / "d")]
    assert main([*arguments, "--dry-run"]) == 0
    assert "vector image  4 x 2\n" in capsys.readouterr().out and not (tmp_path / "d").exists()
    assert main(arguments) == 0
    assert "warning       image: all 4 items that have it have the same" in capsys.readouterr().out


def test_tiktok(tmp_path, shared, capsys):
    folder = shared / "data" / "tiktok"
    if not folder.is_dir():
        pytest.skip("needs shared/data/tiktok")
    arguments = ["features", "--train", str(folder / "train.npz"), "--out", str(tmp_path / "d")]
    arguments += ["--valid", str(folder / "val.npz")]
    for name in ("image", "audio"):
        arguments += ["--vector", f"{name}={folder / f'{name}_feat.npy'}"]
    assert main(arguments) == 0
    counts = records.verify(tmp_path / "d", full=True)["counts"]
    assert (counts["users"], counts["items"]) == (9308, 6710)
    assert counts["interactions"] == {"train": 59541, "valid": 3051, "test": 0}
    assert counts["present"] == {"image": 6710, "audio": 6710}
    assert "59541 train, 3051 valid, 0 test" in capsys.readouterr().out
