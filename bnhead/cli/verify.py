"""The command `bnhead verify DIR`."""

import pathlib
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field

from bnhead import texts
from bnhead.cli.flags import Command
from bnhead.errors import RunDirectoryError

EXIT_MISMATCH = 3


@dataclass(frozen=True)
class Verification:
    """The study to verify."""

    dir: str = field(default="", metadata={"help": "Directory of a study, with plan.json and runs/."})


COMMAND = Command(
    "bnhead verify",
    Verification,
    "Recomputes everything that a study states from the files of its runs, and lists the differences.",
    "Exit status: 0 everything agrees, 2 usage, 3 there are differences.",
    positional="dir",
)


def main(arguments: Sequence[str]) -> int:
    """Runs the command and returns its exit status."""
    return COMMAND.run(arguments, verify_study)


def verify_study(settings: Verification) -> int:
    """Prints the differences between a study's files and its runs."""
    directory = pathlib.Path(settings.dir)
    if not directory.is_dir():
        raise RunDirectoryError(f"dir {directory} does not exist")
    from bnhead.report.verify import verify

    differences = verify(directory)
    print("\n".join(differences) or f"{directory}: all numbers agree with the runs")
    if differences:
        print(f"\nnext  {texts.command()} report {shlex.quote(str(directory))}   writes the pages again")
    return EXIT_MISMATCH if differences else 0
