"""The command `bnhead report DIR`."""

import pathlib
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field

from bnhead import texts
from bnhead.cli.flags import Command


@dataclass(frozen=True)
class ReportSettings:
    """The study or run to report on."""

    dir: str = field(
        default="",
        metadata={"help": "Directory of a study, with plan.json, verdict.json and runs/, or of a run."},
    )


COMMAND = Command(
    "bnhead report",
    ReportSettings,
    "Writes the report of a study again, from its files alone: report.md, report.html, runs.csv (a row per "
    "run), figures/ (SVG) and tensorboard/. The same files give the same report. Missing and damaged runs "
    "are listed in it. For a run: report.md and report.html.",
    "Exit status: 0 ok, 2 usage, 3 DIR holds neither study nor run, or cannot be written.",
    positional="dir",
)


def main(arguments: Sequence[str]) -> int:
    """Runs the command and returns its exit status."""
    return COMMAND.run(arguments, write_report)


def write_report(settings: ReportSettings) -> int:
    """Writes the pages and prints their paths."""
    from bnhead import report

    directory = pathlib.Path(settings.dir)
    report.build(directory)
    is_study = (directory / "plan.json").exists()
    events, command = (directory / "tensorboard", "verify") if is_study else (directory, "inspect")
    names = ["report.html", "report.md", *(["runs.csv", "figures"] if is_study else [])]
    rows = [
        *((name, str(directory / name)) for name in names),
        ("next", f"tensorboard --logdir {shlex.quote(str(events))}"),
        ("", f"{texts.command()} {command} {shlex.quote(str(directory))}"),
    ]
    print(texts.printable(texts.labelled(rows, 13, whole=True)))
    return 0
