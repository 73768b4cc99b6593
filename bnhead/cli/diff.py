"""The command `bnhead diff RUN RUN`."""

from collections.abc import Sequence

from bnhead import texts
from bnhead.cli import flags
from bnhead.errors import UsageError
from bnhead.runs.diff import describe_differences

_USAGE = """usage: bnhead diff RUN RUN

Compares two runs: settings, environment, results, and the epoch from which they part.

Exit status: 0 ok, 2 usage, 3 run directory."""


def main(arguments: Sequence[str]) -> int:
    """Runs the command and returns its exit status."""
    if flags.asks_for_help(arguments):
        return flags.told(_USAGE)
    return flags.reported("bnhead diff", _diff, arguments)


def _diff(arguments: Sequence[str]) -> int:
    _, places = flags.split(arguments, {})
    if len(places) != 2:
        raise UsageError(f"diff takes two run directories, got {len(places)}")
    print(texts.printable(describe_differences(*places)))
    return 0
