"""Everything a study says, computed again from its runs and compared with what it has written."""

import itertools
import pathlib
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

from bnhead.errors import RunDirectoryError
from bnhead.runs.directory import RunDirectory
from bnhead.studies import directory as files
from bnhead.studies.outcomes import damage
from bnhead.studies.plan import Plan, run_id
from bnhead.studies.runner import recomputed

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
    found += _unhashed(plan, directory)
    verdict = recomputed(plan, directory)
    found += [f"verdict.json: {text}" for text in disagreements(written, verdict)]
    return found + list(_reports(directory, verdict))


def _unhashed(plan: Plan, directory: pathlib.Path) -> Iterator[str]:
    """Tells of the runs that are finished and whose files have no hashes to be compared with."""
    places = [RunDirectory(directory / "runs" / run.id) for run in plan.runs]
    old = [place for place in places if (place.path / "result.json").exists() and not _hashed(place)]
    if old:
        yield (
            f"runs/{old[0].path.name}: status.json has no SHA-256 of its files, as in earlier versions, "
            f"so that what contradicts nothing is not seen ({len(old)} of {len(places)} runs)"
        )


def _hashed(run: RunDirectory) -> bool:
    try:
        return bool(run.hashes())
    except RunDirectoryError:  # `damage` tells
        return True


def disagreements(written: Any, computed: Any, path: str = "") -> Iterator[str]:
    """Where two JSON values differ: `"comparisons/0/mean is 0.1, the runs give 0.2"`."""
    if isinstance(written, dict) and isinstance(computed, dict):
        for key in {**computed, **written}:
            yield from disagreements(written.get(key), computed.get(key), f"{path}/{key}")
    elif isinstance(written, list) and isinstance(computed, list) and len(written) == len(computed):
        for index, pair in enumerate(zip(written, computed, strict=True)):
            yield from disagreements(*pair, f"{path}/{index}")
    elif written != computed:
        yield f"{path.lstrip('/')} is {written!r:.80}, the runs give {computed!r:.80}"


def _reports(directory: pathlib.Path, verdict: dict[str, Any]) -> Iterator[str]:
    """Builds the report anew, elsewhere, and compares its files."""
    from bnhead import report

    with tempfile.TemporaryDirectory() as folder:
        place = pathlib.Path(folder) / directory.resolve().name
        place.mkdir()
        (place / "runs").symlink_to((directory / "runs").resolve(), target_is_directory=True)
        shutil.copy(directory / "plan.json", place)
        RunDirectory(place).write("verdict.json", verdict)
        report.build(place)
        names = [name for name in REPORTS if (place / name).is_file()]
        for name in [*names, *sorted(_events(place) | _events(directory))]:
            if not (directory / name).is_file():
                yield f"{name} is not there; `bnhead report` writes it"
            elif not (place / name).is_file():
                yield f"{name} is not of this study"
            elif (found := [(root / name).read_bytes() for root in (directory, place)])[0] != found[1]:
                yield f"{name}: {_first_difference(*found)}" if name in REPORTS else f"{name} differs"


def _events(directory: pathlib.Path) -> set[str]:
    """The names of TensorBoard's files."""
    found = (path for path in directory.glob("tensorboard/**/*") if path.is_file())
    return {path.relative_to(directory).as_posix() for path in found}


def _first_difference(written: bytes, made: bytes) -> str:
    """The first line in which two texts differ, which are not the same."""
    lines = (text.decode(errors="surrogateescape").split("\n") for text in (written, made))
    pairs = enumerate(itertools.zip_longest(*lines), 1)
    number, (there, here) = next((n, pair) for n, pair in pairs if pair[0] != pair[1])
    return f"line {number} is {there!r:.80}, the runs give {here!r:.80}"
