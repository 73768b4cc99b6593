"""The command `bnhead report DIR`: the pages of a study or a run, written anew from its files."""

import pathlib
from collections.abc import Sequence

from bnhead import texts
from bnhead.cli.flags import asks_for_help, reported, told
from bnhead.errors import UsageError

_USAGE = """usage: bnhead report DIR

Writes the report of a study anew, from its files alone: report.md, report.html and tensorboard/.
The same files give the same report. Runs that are missing or damaged are listed in it. For the
directory of a single run, report.md and report.html of that run.

  DIR                     directory of a study, with plan.json, verdict.json and runs/, or of a run

Exit status: 0 ok, 2 usage, 3 DIR holds neither study nor run, or cannot be written.
"""


def main(arguments: Sequence[str]) -> int:
    """Runs the command and returns its exit status."""
    if asks_for_help(arguments):
        return told(_USAGE)
    return reported("bnhead report", lambda: _report(parse(arguments)))


def parse(arguments: Sequence[str]) -> pathlib.Path:
    """The directory that a command line names.

    Raises:
        UsageError: a flag, no directory or more than one.
    """
    for argument in arguments:
        if argument.startswith("-"):
            raise UsageError(f"flag {argument} is not known (there are none but --help)")
    if len(arguments) != 1:
        got = " ".join(arguments) or "none"
        raise UsageError(f"one directory must be named, as in bnhead report DIR; got {got}")
    return pathlib.Path(arguments[0])


def _report(directory: pathlib.Path) -> int:
    from bnhead import report

    report.build(directory)
    for name in ("report.html", "report.md"):
        print(texts.printable(f"{name:<12} {directory / name}"))
    print(texts.printable(f"{'look':<12} tensorboard --logdir {directory / 'tensorboard'}"))
    return 0
