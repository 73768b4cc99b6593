"""Everything a study says, computed again from its runs and compared with what it has written."""

import pathlib
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

from bnhead.errors import RunDirectoryError
from bnhead.studies import directory as files
from bnhead.studies.conduct import recomputed
from bnhead.studies.outcomes import damage
from bnhead.studies.plan import run_id
from bnhead.training.records import RunDirectory

REPORTS = ("report.md", "report.html")


def verify(directory: pathlib.Path) -> list[str]:
    """What does not agree: ids with settings, results with histories, verdict and report with the runs.

    Args:
        directory: a study's.

    Returns:
        A line for each disagreement; none when all agree.

    Raises:
        RunDirectoryError: there is no plan or no verdict, or one that cannot be read.
    """
    plan = files.read_plan(directory)
    written = RunDirectory(directory).read("verdict.json")
    if plan is None or written is None:
        missing = "plan.json" if plan is None else "verdict.json"
        raise RunDirectoryError(f"dir {directory} holds no {missing}; `bnhead study` writes it")
    found = []
    for run in plan.runs:
        if run_id(plan.run_settings(run)) != run.id:
            found.append(f"plan.json: run {run.id} has settings of another id")
        if reason := damage(directory / "runs" / run.id, plan.run_settings(run), plan.primary):
            found.append(f"runs/{run.id}: {reason}")
    verdict = recomputed(plan, directory)
    found += [f"verdict.json: {text}" for text in disagreements(written, verdict)]
    return found + list(_reports(directory, verdict))


def disagreements(written: Any, computed: Any, path: str = "") -> Iterator[str]:
    """Where two JSON values differ: `"comparisons/0/mean is 0.1, the runs give 0.2"`."""
    if isinstance(written, dict) and isinstance(computed, dict):
        for key in {**computed, **written}:
            yield from disagreements(written.get(key), computed.get(key), f"{path}/{key}")
    elif isinstance(written, list) and isinstance(computed, list) and len(written) == len(computed):
        for index, pair in enumerate(zip(written, computed, strict=True)):
            yield from disagreements(*pair, f"{path}/{index}")
    elif written != computed:
        yield f"{path.lstrip('/')} is {written!r}, the runs give {computed!r}"


def _reports(directory: pathlib.Path, verdict: dict[str, Any]) -> Iterator[str]:
    """Builds the report anew, elsewhere, and compares its lines."""
    there = [name for name in REPORTS if (directory / name).is_file()]
    if not there:
        yield "report.md is not there; `bnhead report` writes it"
        return
    from bnhead import report

    with tempfile.TemporaryDirectory() as folder:
        place = pathlib.Path(folder) / directory.resolve().name
        place.mkdir()
        (place / "runs").symlink_to((directory / "runs").resolve(), target_is_directory=True)
        shutil.copy(directory / "plan.json", place)
        RunDirectory(place).write("verdict.json", verdict)
        report.build(place)
        for name in there:
            lines = [(root / name).read_text().splitlines() for root in (directory, place)]
            if lines[0] != lines[1]:
                pairs = zip(*(own + [""] * (max(map(len, lines)) - len(own)) for own in lines), strict=True)
                number, pair = next((n, pair) for n, pair in enumerate(pairs, 1) if pair[0] != pair[1])
                yield f"{name}: line {number} is {pair[0][:80]!r}, the runs give {pair[1][:80]!r}"
