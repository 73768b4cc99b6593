import json
import math
import pathlib
import subprocess
import sys

import pytest

from bnhead.cli.diff import main
from bnhead.runs.diff import diff_runs, differing_values, first_differing_epoch

pytestmark = pytest.mark.quick


def write(folder, settings, result, rows, environment=None):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(settings))
    result = {"status": "finished", "epochs": 2, **result}
    (folder / "result.json").write_text(json.dumps(result))
    (folder / "environment.json").write_text(json.dumps(environment or {"keras": "3.15", "started": "now"}))
    if rows:
        lines = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
        (folder / "history.csv").write_text("\n".join(lines) + "\n")
    return str(folder)


@pytest.fixture
def runs(tmp_path):
    rows = [
        {"epoch": 1, "loss": 0.5, "images_per_second": 3},
        {"epoch": 2, "loss": 0.4, "images_per_second": 3},
    ]
    second = [{**rows[0], "images_per_second": 9}, {**rows[1], "loss": 0.3}]
    result = {"test_accuracy": 0.5, "dead": None, "data": {"name": "digits", "train": 7, "test": 3}}
    first = write(tmp_path / "one", {"head": "fc", "seed": 1}, result, rows)
    settings, result = (
        {"head": "bn_fc", "seed": 1},
        {**result, "test_accuracy": 0.75, "data": {"name": "cifar10", "test": 3}},
    )
    return first, write(tmp_path / "other", settings, result, second, {"keras": "3.16", "started": "then"})


def test_every_section_has_what_differs_and_nothing_else(runs):
    differences = diff_runs(*runs)
    assert differences.values == {
        "settings": {"head": ("fc", "bn_fc")},
        "ran on": {"keras": ("3.15", "3.16")},
        "result": {
            "test_accuracy": (0.5, 0.75), "data.name": ("digits", "cifar10"), "data.train": (7, None)
        },
    }  # fmt: skip
    assert differences.history == "they part in epoch 2: loss differ"


def test_a_run_equals_itself(runs):
    differences = diff_runs(runs[0], runs[0])
    assert not any(differences.values.values())
    assert differences.history == "the same in all 2 epochs"


def test_nan_equals_nan_and_types_count():
    assert differing_values({"a": math.nan, "b": 1}, {"a": math.nan, "b": 1.0}) == {"b": (1, 1.0)}


def test_first_difference():
    rows = [{"epoch": 1.0, "loss": 1.0, "x": 1.0}, {"epoch": 2.0, "loss": 2.0, "x": 2.0}]
    assert first_differing_epoch(rows, rows[:1]) == "the same for 1 epochs; one has 2, the other 1"
    assert (
        first_differing_epoch([{**rows[0], "x": 0.0, "loss": 3.0}], rows)
        == "they part in epoch 1: loss and 1 more differ"
    )


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([], 2, "diff takes two run directories, got 0"),
        (["a", "b", "c"], 2, "diff takes two run directories, got 3"),
        (["nowhere", "nowhere"], 3, "nowhere holds no run: there is no config.json"),
        (["--x=1", "a", "b"], 2, "flag --x is not known"),
    ],
)
def test_bad_arguments(arguments, status, message, capsys):
    assert main(arguments) == status
    printed = capsys.readouterr().err
    assert printed.startswith(f"bnhead diff: {message}") and printed.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe,1\n", "history.csv cannot be read: "),
        (b"epoch\nx\n", "history.csv cannot be read: could not convert string to float: 'x'"),
        (b"loss\n1\n", "it has no column epoch"),
        (None, "Is a"),
    ],
)
def test_a_damaged_history_is_said(runs, content, message, capsys):
    path = pathlib.Path(runs[1]) / "history.csv"
    path.unlink()
    path.mkdir() if content is None else path.write_bytes(content)
    assert main(runs) == 3
    printed = capsys.readouterr().err
    assert message in printed and printed.count("\n") == 1


def test_no_tensorflow_is_needed(runs):
    code = (
        "import sys; from bnhead.__main__ import main; main(sys.argv[1:]); "
        "sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, "diff", *runs], check=True, capture_output=True)
