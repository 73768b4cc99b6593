"""The command `bnhead diff RUN RUN`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from bnhead import texts
from bnhead.census import keys
from bnhead.census.figures import FIGURES, UNITS
from bnhead.cli.flags import Command
from bnhead.cli.tables import table
from bnhead.errors import UsageError
from bnhead.runs.diff import Differences, diff_runs


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
    print(texts.printable(format_differences(*pair.runs, diff_runs(*pair.runs))))
    return 0


def format_differences(first: str, second: str, differences: Differences) -> str:
    """A table for each section. Shares are in percent and differ by points."""
    lines = [texts.labelled([("first", first), ("second", second)], 8, whole=True)]
    for section, values in differences.values.items():
        # a run's diagram follows from its settings
        rows = [
            _difference_row(key, *pair)
            for key, pair in values.items()
            if (section, key) != ("result", "head")
        ]
        headings = [section, "first", "second", *(["difference"] if section == "result" else [])]
        text = table(headings, [row[: len(headings)] for row in rows]) if rows else f"{section}  the same"
        lines += ["", text]
    for key, counts in differences.values.get("result", {}).items():
        if keys.is_key(key) and keys.parts(key)[1] == "inputs" and None not in counts:
            numbers = " and ".join(f"{n:,.0f}" for n in counts)
            note = f"counted on {numbers} inputs; dead units are comparable on equally many"
            lines += ["", texts.wrapped(f"{keys.parts(key)[0]}: {note}", hanging=2)]
    return "\n".join([*lines, "", texts.wrapped(f"history: {differences.history}", hanging=2)])


def _difference_row(key: str, first: Any, second: Any) -> list[str]:
    """The cells of a value that differs: key, both values, and the difference second minus first.

    A figure is in percent if the summary of a run shows it in percent.
    """
    name = keys.parts(key)[1] if keys.is_key(key) else ""
    form = next((UNITS[row.unit] for row in FIGURES if row.name == name and row.unit == "share"), ".6g")
    form = ".2%" if key.endswith("accuracy") else form
    cells = []
    for value in (first, second):
        text = format(value, form) if isinstance(value, float) else str(value)
        text = text[:12] if key.endswith("sha256") else text
        cells.append("-" if value is None else text)
    difference = ""
    if all(isinstance(x, int | float) and not isinstance(x, bool) for x in (first, second)):
        points = form.endswith("%")
        difference = f"{100 * (second - first):+.2f} points" if points else f"{second - first:+{form}}"
    return [key, *cells, difference]
