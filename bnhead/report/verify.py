"""Recomputes all statements of a study from its runs and compares them with its files."""

import functools
import html
import itertools
import pathlib
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

from bnhead import report
from bnhead.errors import RunDirectoryError
from bnhead.runs.directory import RunDirectory
from bnhead.runs.run_files import MISSING
from bnhead.studies.directory import read_failures, read_plan
from bnhead.studies.outcomes import read_outcomes
from bnhead.studies.plan import run_id
from bnhead.studies.verdict import judge

REPORTS = ("report.md", "report.html")


def verify(
    directory: pathlib.Path, build_report: Callable[[pathlib.Path], object] | None = None
) -> list[str]:
    """The disagreements: of ids with settings, results with histories, verdict and report with the runs.

    Args:
        directory: the study's directory.
        build_report: writes the report of a study into its directory; None is `bnhead.report.build`.

    Returns:
        A line for each disagreement; empty if all agree.

    Raises:
        RunDirectoryError: plan or verdict does not exist or cannot be read.
    """
    records, missing = RunDirectory(directory), f"{directory} holds no study with a verdict"
    if records.read("plan.json") is None:
        raise RunDirectoryError(f"{missing}: plan.json is missing")
    plan = read_plan(directory)  # before the verdict: it knows a study of earlier rules
    if (written := records.read("verdict.json")) is None:
        raise RunDirectoryError(f"{missing}: verdict.json is missing")
    if build_report is None:
        build_report = functools.partial(report.build, name=_written_name(directory))
    outcomes = read_outcomes(plan, directory, read_failures(directory))
    lines, unhashed = [], []
    for run, outcome in zip(plan.runs, outcomes, strict=True):
        if run_id(plan.run_settings(run)) != run.id:
            lines.append(f"plan.json: run {run.id} has settings of another id")
        if outcome.status == "damaged":
            lines.append(f"runs/{run.id}: {outcome.reason}")
        is_status_readable = outcome.files.problems.get("status.json", MISSING) == MISSING
        has_result = not outcome.files.lacks("result.json")
        if has_result and is_status_readable and not outcome.files.status.get("sha256"):
            unhashed.append(run.id)
    if unhashed:
        lines.append(
            f"runs/{unhashed[0]}: status.json has no SHA-256 of its files, as in earlier versions, so that "
            f"some changes cannot be detected ({len(unhashed)} of {len(plan.runs)} runs)"
        )
    verdict = judge(plan, outcomes)
    lines += [f"verdict.json: {text}" for text in disagreements(written, verdict)]
    return [*lines, *_report_disagreements(directory, verdict, build_report)]


def disagreements(written: Any, computed: Any, path: str = "") -> Iterator[str]:
    """The differences of two JSON values: `"comparisons/0/mean is 0.1, the runs give 0.2"`."""
    if isinstance(written, dict) and isinstance(computed, dict):
        for key in {**computed, **written}:
            yield from disagreements(written.get(key), computed.get(key), f"{path}/{key}")
    elif isinstance(written, list) and isinstance(computed, list) and len(written) == len(computed):
        for index, pair in enumerate(zip(written, computed, strict=True)):
            yield from disagreements(*pair, f"{path}/{index}")
    elif written != computed:
        yield f"{path.lstrip('/')} is {written!r:.80}, the runs give {computed!r:.80}"


def _report_disagreements(
    directory: pathlib.Path, verdict: dict[str, Any], build_report: Callable[[pathlib.Path], object]
) -> Iterator[str]:
    """Builds the report in a temporary directory and compares its files with those of the study."""
    with tempfile.TemporaryDirectory() as folder:
        copy = pathlib.Path(folder) / directory.resolve().name
        copy.mkdir()
        (copy / "runs").symlink_to((directory / "runs").resolve(), target_is_directory=True)
        shutil.copy(directory / "plan.json", copy)
        RunDirectory(copy).write("verdict.json", verdict)
        build_report(copy)
        names = [name for name in REPORTS if (copy / name).is_file()]
        for name in [*names, *sorted(_tensorboard_files(copy) | _tensorboard_files(directory))]:
            if not (directory / name).is_file():
                yield f"{name} does not exist; `bnhead report` writes it"
            elif not (copy / name).is_file():
                yield f"{name} does not belong to this study"
            else:
                written, computed = ((root / name).read_bytes() for root in (directory, copy))
                if written != computed:
                    difference = _first_differing_line(written, computed)
                    yield f"{name}: {difference}" if name in REPORTS else f"{name} differs"


def _written_name(directory: pathlib.Path) -> str:
    """The study's directory as its page calls it; it may have been moved since."""
    try:
        text = (directory / "report.html").read_text(encoding="utf-8")
    except (OSError, ValueError):
        text = ""
    match = re.search('<meta name="study-directory" content="(.*?)">', text)
    return html.unescape(match[1]) if match else str(directory)


def _tensorboard_files(directory: pathlib.Path) -> set[str]:
    paths = (path for path in directory.glob("tensorboard/**/*") if path.is_file())
    return {path.relative_to(directory).as_posix() for path in paths}


def _first_differing_line(written: bytes, computed: bytes) -> str:
    """The first line in which two different texts differ."""
    lines = (text.decode(errors="surrogateescape").split("\n") for text in (written, computed))
    numbered = enumerate(itertools.zip_longest(*lines), 1)
    number, pair = next((number, pair) for number, pair in numbered if pair[0] != pair[1])
    return f"line {number} is {pair[0]!r:.80}, the runs give {pair[1]!r:.80}"
