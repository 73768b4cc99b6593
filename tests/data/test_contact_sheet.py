import matplotlib.image
import pytest

from bnhead.data import load
from bnhead.data.contact_sheet import write_sheet
from bnhead.errors import DataError


@pytest.mark.parametrize("memory_limit", [0, 2**30])
def test_a_row_for_each_class(data_dir, tmp_path, memory_limit):
    write_sheet(load("digits", data_dir, memory_limit=memory_limit), tmp_path / "sheet.png")
    image = matplotlib.image.imread(tmp_path / "sheet.png")
    assert image.shape[0] > 10 * 90 and image.shape[1] == 950
    assert image[..., :3].min() < 0.05 and image.std() > 0.1


def test_numbers_and_names_without_an_ending(data_dir, tmp_path):
    write_sheet(load("digits_rotation", data_dir, task="regression"), tmp_path / "sheet")
    assert (tmp_path / "sheet").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["nowhere/sheet.png", "sheet.bad"])
def test_what_cannot_be_written(data_dir, tmp_path, name):
    with pytest.raises(DataError, match=f"sheet .*{name} cannot be written: ") as caught:
        write_sheet(load("digits", data_dir), tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_reason_is_never_empty(data_dir, tmp_path, monkeypatch):
    def fails(*_, **__):
        raise ValueError("\n")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", fails)
    with pytest.raises(DataError, match=r"sheet\.png cannot be written: ValueError$"):
        write_sheet(load("digits", data_dir), tmp_path / "sheet.png")
