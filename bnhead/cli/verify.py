"""The command `bnhead verify DIR`."""

import pathlib
from collections.abc import Sequence

from bnhead.cli import flags
from bnhead.errors import RunDirectoryError, UsageError

EXIT_MISMATCH = 3
_USAGE = """usage: bnhead verify DIR

Recomputes everything that a study states from the files of its runs, and lists what differs.

Exit status: 0 everything agrees, 2 usage, 3 something does not."""


def main(arguments: Sequence[str]) -> int:
    """Runs the command and returns its exit status."""
    if flags.asks_for_help(arguments):
        return flags.told(_USAGE)
    return flags.reported("bnhead verify", _verify, arguments)


def _verify(arguments: Sequence[str]) -> int:
    given, others = flags.split(arguments, {})
    if given or len(others) != 1:
        raise UsageError(f"DIR must be one directory, got {len(others)}")
    directory = pathlib.Path(others[0])
    if not directory.is_dir():
        raise RunDirectoryError(f"dir {directory} is not there")
    from bnhead.report.verify import verify

    found = verify(directory)
    print("\n".join(found) or f"{directory}: all numbers agree with the runs")
    return EXIT_MISMATCH if found else 0
