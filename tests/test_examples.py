"""The notebooks run, show what they would show today, and link to pages that exist."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bnhead.cli import study

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = {path.stem: path for path in (ROOT / "examples").glob("*.ipynb")}
# Their outputs are still to be stored, by examples/execute.py; until then they only have to run.
WITHOUT_OUTPUTS: set[str] = set()
LARGEST = 250_000  # bytes of a notebook with its outputs
NUMBER = re.compile(r"[-+\N{MINUS SIGN}]?\d[\d.,]*(?:e[-+]?\d+)?(?: ?ms| ?s\b| min)?")
# colours, and the progress bar, which is redrawn as often as there is time
BAR = re.compile(r"\x1b\[[\d;?]*[A-Za-z]|[\N{BOX DRAWINGS HEAVY HORIZONTAL}\u2578\u257a]+|^runs .*$", re.M)


def cells_of(name, kind):
    cells = json.loads(NOTEBOOKS[name].read_text())["cells"]
    return [cell for cell in cells if cell["cell_type"] == kind]


def shape_of(output):
    """An output without its numbers, which differ from processor to processor, and without its pictures."""
    if "text" in output:
        texts = {output["name"]: "".join(output["text"])}
    else:
        texts = {kind: "".join(data) for kind, data in output["data"].items() if kind.startswith("text/")}
        texts |= {kind: "" for kind in output["data"] if kind not in texts}
    plain = {kind: NUMBER.sub("#", BAR.sub("", text)) for kind, text in texts.items()}
    return {kind: " ".join(text.replace("about # left", "").split()) for kind, text in plain.items()}


@pytest.fixture(scope="module")
def examples():
    """The module `examples/execute.py`."""
    pytest.importorskip("nbclient", reason="notebooks are executed where the extra `test` is installed")
    spec = importlib.util.spec_from_file_location("execute", ROOT / "examples" / "execute.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "name",
    ["dead_units_in_any_keras_model",
     pytest.param("does_a_batch_norm_help_on_my_data", marks=pytest.mark.slow)],
)  # fmt: skip
def test_a_notebook_shows_what_the_code_shows_today(examples, name, tmp_path, data_dir, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", data_dir)
    executed = [cell for cell in examples.execute(NOTEBOOKS[name], tmp_path).cells if "outputs" in cell]
    kept = [] if name in WITHOUT_OUTPUTS else zip(cells_of(name, "code"), executed, strict=True)
    for stored, cell in kept:
        shapes = [[shape_of(output) for output in outputs] for outputs in (stored["outputs"], cell.outputs)]
        assert shapes[0] == shapes[1], f"{cell.source}\nrun python examples/execute.py examples/{name}.ipynb"


@pytest.mark.quick
def test_notebooks_are_kept_with_their_outputs_and_without_noise():
    assert set(NOTEBOOKS) == {"dead_units_in_any_keras_model", "does_a_batch_norm_help_on_my_data"}
    for name in set(NOTEBOOKS) - WITHOUT_OUTPUTS:
        assert NOTEBOOKS[name].stat().st_size < LARGEST
        cells = cells_of(name, "code")
        assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
        outputs = [output for cell in cells for output in cell["outputs"]]
        assert {"stream", "execute_result", "display_data"} == {output["output_type"] for output in outputs}
        assert not [output["text"] for output in outputs if output.get("name") == "stderr"]


@pytest.mark.quick
def test_no_link_of_a_notebook_is_dead():
    for name, path in NOTEBOOKS.items():
        text = "\n".join("".join(cell["source"]) for cell in cells_of(name, "markdown"))
        links = re.findall(r"\]\(([^)#]+)[^)]*\)", text)
        assert any(link.endswith(".ipynb") for link in links) and len(links) > 1
        for link in links:
            assert link.startswith("https://") or (path.parent / link).is_file(), link


@pytest.mark.quick
def test_the_command_in_the_text_of_a_notebook_is_taken():
    text = "\n".join("".join(cell["source"]) for name in NOTEBOOKS for cell in cells_of(name, "markdown"))
    (command,) = re.findall(r"```sh\nbnhead study (.*)\n```", text)
    assert len(study.plan_of(command.split())[1].seeds) == 20


def test_a_failing_cell_ends_the_execution(examples, tmp_path):
    cell = {"cell_type": "code", "source": "1 / 0", "metadata": {}, "outputs": [], "execution_count": None}
    text = json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 4})
    (tmp_path / "broken.ipynb").write_text(text)
    command = [sys.executable, ROOT / "examples" / "execute.py", tmp_path / "broken.ipynb"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and "ZeroDivisionError" in done.stderr
    assert (tmp_path / "broken.ipynb").read_text() == text, "it is left as it was"
