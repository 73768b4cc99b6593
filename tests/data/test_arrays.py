import zipfile

import numpy as np
import pytest

from bnhead.data.arrays import Arrays, check_npz, load_npz
from bnhead.errors import DataError, UsageError

pytestmark = pytest.mark.quick


def written(path, **arrays):
    np.savez(path / "held.npz", **arrays)
    return str(path / "held.npz")


def test_y_are_labels_and_all_others_inputs(tmp_path):
    held = load_npz(
        written(tmp_path, age=np.arange(6.0).reshape(3, 2), job=np.array(["a", "b", "c"]), y=np.ones(3))
    )
    assert held.name == "held.npz" and held.examples == 3 and held.labels.tolist() == [1, 1, 1]
    assert held.inputs["age"].tolist() == [[0, 1], [2, 3], [4, 5]] and held.inputs["job"].tolist() == [
        "a",
        "b",
        "c",
    ]
    assert load_npz(written(tmp_path, x=np.ones(2))).labels is None


def test_a_models_inputs_are_found_by_name_and_a_single_one_as_x():
    held = Arrays("a.npz", {"x": np.ones(2), "age": np.zeros(2)})
    assert held.read_by(["image"])["image"].tolist() == [1, 1]
    assert held.read_by(["age"])["age"].tolist() == [0, 0]
    both = held.read_by(["age", "job"], optional=["job"])
    assert list(both) == ["age", "job"] and both["job"] is None
    with pytest.raises(
        UsageError, match=r"a\.npz has no array 'ages'.*did you mean 'age'\? \(it holds x, age\)"
    ):
        held.read_by(["ages", "x"])
    with pytest.raises(UsageError, match=r"b\.npz has no array 'image' nor 'x', an input of the model"):
        Arrays("b.npz", {"z": np.ones(2)}).read_by(["image"])


def test_what_is_no_file_of_arrays(tmp_path):
    (tmp_path / "text.npz").write_text("no arrays")
    with pytest.raises(DataError, match=r"text\.npz must be an \.npz file, as numpy\.savez writes it"):
        check_npz(str(tmp_path / "text.npz"))
    with pytest.raises(
        DataError, match=r"held\.npz has no array of inputs: numpy\.savez\('held\.npz', x=\.\.\.\)"
    ):
        check_npz(written(tmp_path, y=np.ones(3)))
    for arrays, sizes in (({"x": np.ones(2), "y": np.ones(3)}, "x 2, y 3"), ({"x": np.ones((0, 4))}, "x 0")):
        with pytest.raises(DataError, match=f"must hold arrays of one length of at least 1, got {sizes}"):
            load_npz(written(tmp_path, **arrays))
    with pytest.raises(DataError, match=r"held\.npz cannot be read: Object arrays cannot be loaded"):
        load_npz(written(tmp_path, x=np.array([{}, "a"], object)))
    with zipfile.ZipFile(tmp_path / "damaged.npz", "w") as file:
        file.writestr("x.npy", b"\x93NUMPY damaged")
    with pytest.raises(DataError, match=r"damaged\.npz cannot be read: "):
        load_npz(str(tmp_path / "damaged.npz"))
