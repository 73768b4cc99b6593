"""The command `bnhead runs DIR`."""

import contextlib
import os
import pathlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from bnhead import texts
from bnhead.census import keys
from bnhead.cli.flags import Command
from bnhead.cli.tables import table
from bnhead.errors import RunDirectoryError
from bnhead.runs import lock
from bnhead.runs.directory import RunDirectory
from bnhead.studies.wording import is_number

_OF_RUNS = ("checkpoints", "tensorboard", "census")  # folders that hold no other runs


@dataclass(frozen=True)
class Folder:
    """The folder to list."""

    dir: str = field(
        default=".",
        metadata={"help": "A folder with runs and studies, or the directory of a study. Default: this one."},
    )


COMMAND = Command(
    "bnhead runs",
    Folder,
    "Lists all runs and studies below a folder, from their files alone: status, test score and dead units of "
    "a run, finished runs and verdict of a study. The directory of a study lists its runs too.",
    "Exit status: 0 ok, 2 usage, 3 DIR is not a directory.",
    positional="dir",
    optional=True,
    examples=(
        ("runs/", "All runs of the default folder."),
        ("studies/bn_before_fc", "A study with each of its runs."),
    ),
)


class Run(NamedTuple):
    """A run in a row of the list; `head` is the cell of a study's run. Before the end it has no score."""

    path: pathlib.Path
    head: str
    seed: str
    status: str
    score: str
    dead: str


class Study(NamedTuple):
    """A study in a row of the list: its runs with a result, the seeds that were judged, and its verdict."""

    path: pathlib.Path
    name: str
    runs: str
    seeds: str
    verdict: str


def main(arguments: Sequence[str]) -> int:
    """Runs the command and returns its exit status."""
    return COMMAND.run(arguments, list_runs)


def list_runs(folder: Folder) -> int:
    """Prints a table of the studies and one of the runs."""
    root = pathlib.Path(folder.dir)
    if not root.is_dir():
        raise RunDirectoryError(f"dir {folder.dir} is not a directory")
    entries = list(entries_below(root))
    studies = [entry for entry in entries if isinstance(entry, Study)]
    runs = [entry for entry in entries if isinstance(entry, Run)]
    parts = []
    if studies:
        parts.append(
            table(
                ["study", "name", "runs", "seeds", "verdict"], _rows(studies, root), right=("runs", "seeds")
            )
        )
    if runs:
        headings = ["run", "head", "seed", "status", "test", "dead"]
        parts.append(table(headings, _rows(runs, root), right=("seed", "test", "dead")))
    print(texts.printable("\n\n".join(parts) or f"no runs and no studies in {folder.dir}"))
    return 0


def _rows(entries: Sequence[Run | Study], root: pathlib.Path) -> list[list[str]]:
    return [[str(entry.path.relative_to(root)), *entry[1:]] for entry in entries]


def entries_below(root: pathlib.Path) -> Iterator[Run | Study]:
    """The runs and studies in a folder and its folders, by path.

    The runs of a study come only if `root` is its directory, in the order of the plan. A folder whose files
    cannot be read is an entry too, with the reason in the place of the status.
    """
    for path, folders, files in os.walk(root):
        folder = pathlib.Path(path)
        folders[:] = sorted(name for name in folders if name not in _OF_RUNS and not name.startswith("."))
        if "plan.json" in files:
            yield read_study(folder)
            if folder == root:
                yield from _runs_of_study(folder)
            folders.clear()
        elif "config.json" in files:
            yield read_run(folder)
            folders.clear()


def read_study(path: pathlib.Path) -> Study:
    """The row of the study in a directory."""
    try:
        plan = RunDirectory(path).read("plan.json")
    except RunDirectoryError as error:
        return Study(path, "", "", "", str(error))
    if "looks" not in plan:
        return Study(path, plan["study"], "", "", "of earlier rules")
    planned = {run["id"] for run in plan["runs"]}
    ended = sum(run.parent.name in planned for run in (path / "runs").glob("*/result.json"))
    at_looks = [seeds * len(plan["cells"]) for seeds in plan["looks"]]
    asked = next((runs for runs in at_looks if runs >= ended), len(planned))
    try:
        verdict = RunDirectory(path).read("verdict.json") or {"word": "INCOMPLETE"}
    except RunDirectoryError as error:
        verdict = {"word": str(error)}
    seeds = str(verdict.get("look", {}).get("seeds", ""))
    return Study(path, plan["study"], f"{ended} of {asked}", seeds, verdict["word"])


def _runs_of_study(path: pathlib.Path) -> Iterator[Run]:
    with contextlib.suppress(RunDirectoryError):  # `read_study` has the reason
        for planned in RunDirectory(path).read("plan.json")["runs"]:
            if (directory := path / "runs" / planned["id"]).is_dir():
                yield read_run(directory)._replace(head=planned["cell"])


def read_run(path: pathlib.Path) -> Run:
    """The row of the run in a directory."""
    files = RunDirectory(path)
    try:
        config, status, result = (
            files.read(name) or {} for name in ("config.json", "status.json", "result.json")
        )
    except RunDirectoryError as error:
        return Run(path, "", "", str(error), "", "")
    word = result.get("status") or status.get("status", "not started")
    if word == "running" and not lock.is_held(path):
        word = "interrupted"  # the process was killed and could not say so
    layers = keys.layers_of(result, "dataset")
    dead = result.get(keys.key(layers[0], "dataset")) if layers else None
    return Run(
        path,
        str(config.get("head", "")),
        str(config.get("seed", "")),
        word.replace("_", " "),
        _score(result),
        f"{dead:.1%}" if is_number(dead) else "",
    )


def _score(result: dict[str, Any]) -> str:
    if is_number(result.get("test_accuracy")):
        return f"{result['test_accuracy']:.2%}"
    numbers = [value for key, value in result.items() if key.startswith("test_") and key != "test_loss"]
    return f"{numbers[0]:.4f}" if numbers and is_number(numbers[0]) else ""
