"""The command `bnhead diff RUN RUN`."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from bnhead import texts
from bnhead.cli.flags import Command
from bnhead.errors import UsageError
from bnhead.runs.diff import describe_differences


@dataclass(frozen=True)
class Pair:
    """The two runs to compare."""

    runs: tuple = field(default=(), metadata={"help": "Two run directories.", "metavar": "RUN RUN"})

    def __post_init__(self):
        if len(self.runs) != 2:
            raise UsageError(f"diff takes two run directories, got {len(self.runs)}")


COMMAND = Command(
    "bnhead diff",
    Pair,
    "Compares two runs: settings, environment, results, and the epoch from which they differ.",
    "Exit status: 0 ok, 2 usage, 3 run directory.",
    positional="runs",
)


def main(arguments: Sequence[str]) -> int:
    """Runs the command and returns its exit status."""
    return COMMAND.run(arguments, compare_runs)


def compare_runs(pair: Pair) -> int:
    """Prints the differences between two runs."""
    print(texts.printable(describe_differences(*pair.runs)))
    return 0
