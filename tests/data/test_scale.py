"""One value must not set the scale of all: numbers of items and users, weights, vectors."""

import numpy as np
import pytest
from support.tables import prepare, write, write_interactions, write_items

import mmrec_tf as mm
from data.interactions.options import SelectionOptions
from data.tables.scale import far_off
from data.tables.side_features import FeatureColumns
from mmrec_tf import records


def prices(number: int = 200) -> np.ndarray:
    return np.arange(number) + 0.99


@pytest.mark.parametrize(
    ("values", "far"),
    [
        (prices(), []),
        (np.where(np.arange(200) == 3, 999_999_999, prices()), [3]),
        # A value for "missing" may come often.
        (np.where(np.arange(200) % 20 == 3, -1e9, prices()), list(range(3, 200, 20))),
        # Half of all are no exception, and where the rest does not vary there is no scale to lose.
        (np.where(np.arange(200) % 2 == 1, 1e9, prices()), []),
        ([1] * 99 + [1e9], []),
        ([0, 1, 5], []),
        ([], []),
        # Long tails are nothing odd.
        (np.exp(1.5 * np.random.default_rng(0).normal(size=5000)), []),
    ],
)
def test_which_set_the_scale(values, far):
    assert np.flatnonzero(far_off(np.asarray(values, np.float64))).tolist() == far


def test_one_price_does_not_flatten_the_others(tmp_path):
    values = [f"{price:.2f}" for price in prices()]
    for name, third in (("plain", values[3]), ("odd", "999999999")):
        rows = [f"{n},{third if n == 3 else value}" for n, value in enumerate(values)]
        write(tmp_path, "items.csv", "item,price", *rows)
        write_interactions(tmp_path, range(5))
        manifest = prepare(tmp_path, name, item_features=FeatureColumns(numeric=("price",)))
        schema = records.read_schema(tmp_path / name)
        spec = schema.item_features["price"]
        read = records.read_items(tmp_path / name, schema)
        found = {int(item.item_id): item.features["price"] for item in read}
        assert np.std(list(found.values())) == pytest.approx(1, abs=0.02)
        said = [text for text in manifest["warnings"] if text.startswith("price")]
        if name == "plain":
            assert spec.low is None and said == []
            continue
        # It counts as the highest of the others, here and in requests.
        assert (spec.low, spec.high) == (0.99, 199.99)
        assert found[3] == found[199] == pytest.approx((199.99 - spec.mean) / spec.std)
        assert "1 of 200 numbers" in said[0] and "999999999 (" in said[0] and "line 5)" in said[0]


@pytest.mark.parametrize("cell", ["1.7976931348623157e308", "3.5e38", "-1e39", "inf"])
def test_a_number_that_no_float32_holds_is_named(tmp_path, cell):
    write(tmp_path, "items.csv", "item,price", "0,1", f"1,{cell}", "2,3", "3,4")
    write_interactions(tmp_path, range(4))
    features = FeatureColumns(numeric=("price",))
    with pytest.raises(mm.DatasetError, match="items.csv: line 3: price: wanted a number or"):
        prepare(tmp_path, item_features=features)
    manifest = prepare(tmp_path, item_features=features, skip_bad_rows=True)
    assert manifest["counts"]["skipped_rows"]["items"] == {"price: wanted a number or nothing": 1}


@pytest.mark.parametrize("column", ["weight", "rating"])
def test_weights_and_ratings(tmp_path, column):
    write_items(tmp_path, range(4))
    header = f"user,item,timestamp,{column}"
    rows = [f"u{u},{n},{10**9 + n},{1 + n % 3}" for u in range(9) for n in range(4)]
    write(tmp_path, "interactions.csv", header, *rows, f"u9,1,{10**9},1e39")
    with pytest.raises(mm.DatasetError, match=f"line 38: {column}: wanted a number; got '1e39'"):
        prepare(tmp_path)
    write(tmp_path, "interactions.csv", header, *rows, f"u9,1,{10**9},1e9")
    (said,) = prepare(tmp_path)["warnings"]
    assert said.startswith(f"{column}: 1 of 37 numbers") and "1000000000; the others" in said


def test_weights_of_types_stay_what_a_float32_holds(tmp_path):
    with pytest.raises(mm.ConfigError, match="event_weights: wanted types with weights of 0 or"):
        SelectionOptions(event_weights={"view": 1e39})
    write_items(tmp_path, range(4))
    header = "user,item,timestamp,weight,event"
    write(tmp_path, "interactions.csv", header, *(f"u,{n},1{n},1e30,buy" for n in range(4)))
    with pytest.raises(mm.DatasetError, match="weight: wanted products of weights and event weigh"):
        prepare(tmp_path, selection=SelectionOptions(event_weights={"buy": 1e10}))


def test_vectors_beside_which_all_others_are_nothing(tmp_path):
    write_items(tmp_path, range(8))
    write_interactions(tmp_path, range(8))
    matrix = np.random.default_rng(0).normal(size=[8, 4])
    vectors = {"style": str(tmp_path / "v.npy")}
    for scale, told in ((1.0, False), (1e6, True)):
        np.save(tmp_path / "v.npy", matrix * np.where(np.arange(8) == 5, scale, 1)[:, None])
        said = prepare(tmp_path, vectors=vectors)["warnings"]
        assert bool(said) is told
        assert not told or "row 6 of v.npy (item '5') with a length of" in said[0]
    matrix[2] = 1e30
    np.save(tmp_path / "v.npy", matrix)
    with pytest.raises(mm.DatasetError, match=r"row 3 of 8 \(item '2'\): .* too large to be sq"):
        prepare(tmp_path, vectors=vectors)
