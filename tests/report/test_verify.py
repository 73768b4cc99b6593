import json

import pytest

from bnhead.errors import RunDirectoryError
from bnhead.report import verify as verifying
from bnhead.report.verify import disagreements
from bnhead.studies.directory import read_plan
from tests.studies.fake import change_json, plan_of, study


def build(directory):
    """A report of two lines."""
    verdict = json.loads((directory / "verdict.json").read_text())
    for name in ("report.md", "report.html"):
        (directory / name).write_text(f"# {directory.name}\n{verdict['sentence']}\n")
    (directory / "tensorboard" / "bands").mkdir(parents=True, exist_ok=True)
    (directory / "tensorboard" / "bands" / "events").write_bytes(b"\x00\xff")


def verify(directory):
    return verifying.verify(directory, build)


@pytest.fixture
def place(tmp_path):
    """A finished study with its report."""
    study(tmp_path / "study", plan_of())
    build(tmp_path / "study")
    return tmp_path / "study"


def test_all_agrees(place):
    assert verify(place) == []


def test_a_changed_verdict(place):
    before = json.loads((place / "verdict.json").read_text())["comparisons"][0]["mean"]
    change_json(place / "verdict.json", ("comparisons", 0, "mean"), 0.5)
    assert verify(place) == [f"verdict.json: comparisons/0/mean is 0.5, the runs give {before!r}"]


def test_a_changed_result_shows_everywhere(place):
    run = read_plan(place).runs[0].id
    change_json(place / "runs" / run / "result.json", ("test_accuracy",), 0.5)
    found = verify(place)
    assert found[0].startswith(f"runs/{run}: test_accuracy is ")
    assert any(text.startswith("verdict.json: word is 'HELPS', the runs give 'INVALID'") for text in found)


def test_a_changed_report(place):
    text = (place / "report.md").read_text()
    (place / "report.md").write_text(text.replace("HELPS", "HURTS"))
    (found,) = verify(place)
    assert found.startswith("report.md: line 2 is 'On digits") and "the runs give" in found


def test_a_report_that_is_not_there(place):
    (place / "report.md").unlink()
    assert verify(place) == ["report.md does not exist; `bnhead report` writes it"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (lambda text: text + "\n", "report.md: line 4 is '', the runs give None"),
        (lambda text: text.rstrip("\n"), "report.md: line 3 is None, the runs give ''"),
        (
            lambda text: text.replace("\n", "\r\n"),
            "report.md: line 1 is '# study\\r', the runs give '# study'",
        ),
        (lambda text: "\udcff" + text, "report.md: line 1 is '\\udcff# study', the runs give '# study'"),
    ],
)
def test_every_byte_of_a_report_counts(place, text, found):
    changed = text((place / "report.md").read_text())
    (place / "report.md").write_bytes(changed.encode(errors="surrogateescape"))
    assert verify(place) == [found]


def test_every_file_of_a_report_counts(place):
    (place / "report.html").unlink()
    (place / "tensorboard" / "bands" / "events").write_bytes(b"\x00")
    (place / "tensorboard" / "events").touch()
    assert verify(place) == [
        "report.html does not exist; `bnhead report` writes it",
        "tensorboard/bands/events differs",
        "tensorboard/events does not belong to this study",
    ]


def test_what_no_number_is_computed_from_counts_too(place):
    run = read_plan(place).runs[1].id
    change_json(place / "runs" / run / "result.json", ("data", "train"), 1438)
    found = [text for text in verify(place) if text.startswith("runs/")]
    assert found == [f"runs/{run}: result.json has another SHA-256 than in status.json"]


def test_runs_without_hashes_are_told(place):
    """As earlier versions left them, or where somebody took the hashes away."""
    for run in read_plan(place).runs[2:4]:
        (place / "runs" / run.id / "status.json").write_text('{"status": "finished"}')
    assert verify(place) == [
        f"runs/{read_plan(place).runs[2].id}: status.json has no SHA-256 of its files, as in earlier "
        "versions, so that some changes cannot be detected (2 of 8 runs)"
    ]


@pytest.mark.parametrize("name", ["plan.json", "verdict.json"])
def test_no_study_at_all(place, name):
    if name == "plan.json":
        for path in place.iterdir():
            path.rename(place.parent / path.name)
    else:
        (place / name).unlink()
    with pytest.raises(RunDirectoryError, match=f"holds no study with a verdict: {name} is missing"):
        verify(place)


def test_disagreements_have_a_path():
    written = {"a": [1, {"b": 2.0}], "c": None}
    assert list(disagreements(written, {"a": [1, {"b": 2.5}], "c": 3})) == [
        "a/1/b is 2.0, the runs give 2.5",
        "c is None, the runs give 3",
    ]
    assert list(disagreements({"a": [1]}, {"a": [1, 2]})) == ["a is [1], the runs give [1, 2]"]
    assert list(disagreements({"x": 1}, {"y": 1})) == [
        "y is None, the runs give 1",
        "x is 1, the runs give None",
    ]
