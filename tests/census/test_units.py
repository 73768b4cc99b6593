import csv
import io
import json

import numpy as np
import pytest

from bnhead.census import units
from bnhead.census.census import Census
from bnhead.census.counts import Counts
from bnhead.errors import UsageError
from tests.census.batches import counts_of_batch
from tests.census.test_accumulation import part

pytestmark = pytest.mark.quick

# three inputs, four units: 0 is dead, 1 always on, 2 on input 1, 3 on inputs 0 and 1
ACTIVE = np.array([[0, 1, 0, 1], [0, 1, 1, 1], [0, 1, 0, 0]], bool)


@pytest.fixture
def census():
    extra = counts_of_batch(np.array([1]), np.array([1, 0]), np.array([1, 0]), gradient=np.array([2.0, 0]))
    return Census({"block/fc": part(ACTIVE), "void": Counts.empty(2), "out": extra})


def test_csv_has_a_row_per_unit(census, tmp_path):
    census.save_units(tmp_path / "units.csv")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "units.csv").read_text())))
    assert [row["layer"] for row in rows] == ["block/fc"] * 4 + ["out"] * 2
    assert [row["unit"] for row in rows] == ["0", "1", "2", "3", "0", "1"]
    assert [row["inputs"] for row in rows] == ["3"] * 4 + ["1"] * 2
    assert [row["active"] for row in rows] == ["0", "3", "1", "2", "1", "0"]
    assert [row["first_active"] for row in rows] == ["-1", "0", "1", "0", "", ""]
    assert [row["dead"] for row in rows] == ["1", "0", "0", "0", "0", "1"]
    assert [row["always_on"] for row in rows] == ["0", "1", "0", "0", "1", "0"]
    assert [row["gradient_dead"] for row in rows] == [""] * 4 + ["0", "1"]


def test_json_has_indices_and_the_reason_of_a_void_count(census, tmp_path):
    census.save_units(str(tmp_path / "units.json"))
    layers = json.loads((tmp_path / "units.json").read_text())
    assert layers["block/fc"] == {
        "units": 4, "inputs": 3, "dead": [0], "rarely_active": [0], "always_on": [1],
    }  # fmt: skip
    assert layers["void"] == {"units": 2, "inputs": 0, "unknown": "no inputs were counted"}
    assert layers["out"]["gradient_dead"] == [1]


def test_npz_has_masks(census, tmp_path):
    census.save_units(tmp_path / "units.npz")
    with np.load(tmp_path / "units.npz") as arrays:
        assert {name.rpartition("/")[0] for name in arrays} == {"block/fc", "out"}
        assert arrays["block/fc/dead"].dtype == bool and arrays["block/fc/inputs"] == 3
        assert arrays["block/fc/dead"].tolist() == [True, False, False, False]
        np.testing.assert_array_equal(arrays["block/fc/active"], ACTIVE.sum(0))
    assert units.encoded(census, ".npz") == units.encoded(census, ".npz")


def test_other_formats_are_refused(census, tmp_path):
    for name in ("units.jsn", "units"):
        with pytest.raises(UsageError, match=r"units must be a file that ends in \.csv, \.json, \.npz, got"):
            census.save_units(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_layers_with_more_dead_units_than_a_share(census):
    assert census.more_dead_than(0.2) == {"block/fc": 0.25, "out": 0.5}
    assert census.more_dead_than(0.25) == {"out": 0.5} and census.more_dead_than(1) == {}
