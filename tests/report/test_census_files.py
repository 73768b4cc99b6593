import dataclasses
import json

import pytest

from bnhead.errors import RunDirectoryError
from bnhead.report.census_files import add_mechanisms, census_in, check_directory, page_of, write_census
from bnhead.report.inspected import INITIAL, Inspected
from bnhead.runs.directory import CENSUS_FILES, RunDirectory
from tests.report.test_census_tables import census

FIRST = Inspected("resnet20", "resnet20", "out", INITIAL, 0, "", "digits")
SECOND = dataclasses.replace(FIRST, model="resnet32", net="resnet32")


def write(path, inspected):
    write_census(RunDirectory(path), census(), inspected, {"model": inspected.model}, ["cat", "dog"])


def content(path):
    return {name: (path / name).read_bytes() for name in CENSUS_FILES}


def test_the_file_says_whose_weights_were_counted(tmp_path):
    write(tmp_path / "new" / "folder", FIRST)
    record = json.loads((tmp_path / "new" / "folder" / "census.json").read_text())
    assert record["inspected"] == dataclasses.asdict(FIRST)
    assert record["weights"] == "initial, seed 0; nothing was trained" and record["classes"] == ["cat", "dog"]
    assert record["layers"]["[red]fc"]["figures"]["dataset"] == 1 / 3


def test_the_page_can_be_made_again_from_the_counts(tmp_path):
    steps = [("x", "Input", ()), ("[red]fc", "Dense", (0,))]
    write_census(RunDirectory(tmp_path), census(), FIRST, {"model": "net"}, ["cat", "dog"], steps)
    content = json.loads((tmp_path / "census.json").read_text())
    assert list(census_in(content).layers) == list(census().layers)
    assert page_of(content) == (tmp_path / "index.html").read_text()
    assert '<svg class="lanes"' in page_of(content)


MEASURED = {
    "training_batch": 16,
    "norm": "head_bn",
    "figures": {"noise_flipped": 0.25, "nc1": float("nan")},
    "interventions": {
        "none": {"name": "none", "accuracy": 0.5, "loss": 1.25, "dead": float("nan"), "flipped": 0.0},
        "folded": {"name": "folded", "accuracy": 0.75, "loss": 2.0, "dead": float("nan"), "flipped": 0.125},
    },
}


def test_what_was_measured_of_the_mechanisms_is_on_the_page(tmp_path):
    write(tmp_path, FIRST)
    before = (tmp_path / "index.html").read_text()
    add_mechanisms(RunDirectory(tmp_path), MEASURED)
    page, kept = (tmp_path / "index.html").read_text(), json.loads((tmp_path / "mechanisms.json").read_text())
    assert kept["figures"] == {"noise_flipped": 0.25, "nc1": None} and 'id="mechanisms"' not in before
    assert "What the norm <code>head_bn</code> of the head does" in page and "batch of 16" in page
    assert "share of the answers that random batch-mates change</dt><dd>25.00%</dd>" in page
    assert "<td>75.00%</td><td>2</td><td>12.50%</td>" in page
    assert 'flipped</th><th scope="col" class="meaning">meaning' in page
    counted = {
        **MEASURED,
        "norm": "",
        "interventions": {"none": MEASURED["interventions"]["none"] | {"dead": 0.5}},
    }
    add_mechanisms(RunDirectory(tmp_path), counted)
    page = (tmp_path / "index.html").read_text()
    assert "The head has no norm: what one would meet" in page and "<td>50.0%</td>" in page


def test_other_data_in_a_file_of_the_same_name_are_another_inspection(tmp_path):
    arrays = dataclasses.replace(FIRST, dataset="held.npz", data_sha256="12")
    write(tmp_path, arrays)
    check_directory(RunDirectory(tmp_path), arrays)
    with pytest.raises(RunDirectoryError, match="another census: data_sha256 '12' there, '34' now"):
        check_directory(RunDirectory(tmp_path), dataclasses.replace(arrays, data_sha256="34"))


def test_the_same_inspection_replaces_its_files(tmp_path):
    write(tmp_path, FIRST)
    (tmp_path / "notes.txt").write_text("mine")
    before = content(tmp_path)
    check_directory(RunDirectory(tmp_path), FIRST)
    write(tmp_path, FIRST)
    assert content(tmp_path) == before and (tmp_path / "notes.txt").read_text() == "mine"


def test_another_inspection_is_refused_with_the_difference(tmp_path):
    write(tmp_path, FIRST)
    with pytest.raises(RunDirectoryError) as caught:
        check_directory(RunDirectory(tmp_path), SECOND)
    assert str(caught.value) == (
        f"out {tmp_path} holds another census: model 'resnet20' there, 'resnet32' now "
        "(--overwrite replaces it, --out=DIR writes elsewhere)"
    )
    trained = dataclasses.replace(FIRST, weights="file", weights_sha256="12")
    write(tmp_path, trained)
    with pytest.raises(RunDirectoryError, match="another census: weights_sha256 '12' there, '34' now"):
        check_directory(RunDirectory(tmp_path), dataclasses.replace(trained, weights_sha256="34"))


@pytest.mark.parametrize("name", CENSUS_FILES)
@pytest.mark.parametrize("text", ["", "{}", '{"inspected": 3}', "not JSON"])
def test_files_of_an_unknown_model_are_refused(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(RunDirectoryError, match=f"holds {name} of an unknown model"):
        check_directory(RunDirectory(tmp_path), FIRST)
    write(tmp_path, FIRST)  # on request
    check_directory(RunDirectory(tmp_path), FIRST)


def test_other_files_do_not_matter(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    check_directory(RunDirectory(tmp_path), FIRST)
    check_directory(RunDirectory(tmp_path / "missing"), FIRST)


def test_two_inspections_are_never_mixed(tmp_path, monkeypatch):
    write(tmp_path, FIRST)

    def fail(self, name, write):
        if name != "census.json":
            raise RunDirectoryError("the disk is gone")
        return replace(self, name, write)

    replace = RunDirectory.replace
    monkeypatch.setattr(RunDirectory, "replace", fail)
    with pytest.raises(RunDirectoryError, match="gone"):
        write(tmp_path, SECOND)
    assert [path.name for path in tmp_path.iterdir()] == ["census.json"]
    assert json.loads((tmp_path / "census.json").read_text())["inspected"]["net"] == "resnet32"


def test_a_file_is_no_directory(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(RunDirectoryError, match="cannot be written: it is a file"):
        check_directory(RunDirectory(tmp_path / "out"), FIRST)


def test_a_directory_that_cannot_be_written_is_refused_before_the_count(tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: path != tmp_path)
    with pytest.raises(RunDirectoryError, match=f"cannot be written: {tmp_path} is read-only; give --out"):
        check_directory(RunDirectory(tmp_path / "new" / "census"), FIRST)
