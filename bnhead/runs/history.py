"""`history.csv`: the figures of a run, a row per epoch."""

import csv
import io
import math
import pathlib
from collections.abc import Sequence

from bnhead.runs import atomic

NAME = "history.csv"


def format_history(rows: Sequence[dict]) -> str:
    """The rows as CSV; a key that a row lacks is an empty cell."""
    text, names = io.StringIO(), dict.fromkeys(name for row in rows for name in row)
    table = csv.DictWriter(text, list(names), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()


def read_history(folder: pathlib.Path) -> list[dict[str, float]]:
    """The rows of a run's history, keyed by the names in its first line. An empty cell is NaN.

    Raises:
        OSError: the file cannot be read.
        ValueError: a row is cut off, or a cell is not a number.
    """

    def parse_cell(text: str) -> float:
        value = float(text or "nan")
        return atomic.parse_number(text) if math.isfinite(value) else value

    try:
        lines = list(csv.reader(atomic.read_text(folder / NAME).splitlines()))
    except csv.Error as error:
        raise ValueError(str(error)) from None
    if not lines:
        raise ValueError("it is empty")
    header, *rows = lines
    if any(len(row) != len(header) for row in rows):
        raise ValueError("a row of it is cut off")
    return [dict(zip(header, map(parse_cell, row), strict=True)) for row in rows]
