"""Executes notebooks, all by default, and stores their outputs: `python examples/execute.py [NOTEBOOK]`."""

import os
import re
import sys
import tempfile
from pathlib import Path

import nbclient
import nbformat

HERE = Path(__file__).resolve().parent
TIMEOUT = 900  # seconds for one cell
# TensorFlow's start-up messages, which depend on the machine
MACHINE = re.compile(
    r"([IWE]\d{4} \d\d:.*|WARNING: All log messages before absl.*|To enable the following.*)\n"
)


def execute(path: Path, folder: Path) -> nbformat.NotebookNode:
    """Returns the notebook with the outputs of this checkout.

    Args:
        path: the notebook.
        folder: where it runs, and leaves runs and studies.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell fails.
    """
    notebook = nbformat.read(path, as_version=4)
    commands = folder / "commands"
    commands.mkdir()
    command = commands / "bnhead"  # of this checkout and this Python, whatever is installed
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m bnhead "$@"\n')
    command.chmod(0o755)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "PATH": os.pathsep.join([str(commands), os.environ["PATH"]]),
        "CUDA_VISIBLE_DEVICES": "-1",
        "COLUMNS": "80",
    }
    client = nbclient.NotebookClient(
        notebook,
        timeout=TIMEOUT,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        coalesce_streams=True,
        record_timing=False,
    )
    client.execute(env=environment)
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            if output.get("name") == "stderr":
                output.text = MACHINE.sub("", output.text)
        if "outputs" in cell:
            cell.outputs = [output for output in cell.outputs if output.get("text", "present")]
    return notebook


def main(names: list[str]) -> None:
    """Executes the named notebooks, or all, in place."""
    for path in map(Path, names) if names else sorted(HERE.glob("*.ipynb")):
        with tempfile.TemporaryDirectory() as folder:
            nbformat.write(execute(path, Path(folder)), path)
        print(path)


if __name__ == "__main__":
    main(sys.argv[1:])
