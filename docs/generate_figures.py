"""Writes the table of figures in docs/census.md from their rows: `python docs/generate_figures.py`.

A test compares the page with the rows.
"""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bnhead.census.figures import FIGURES, NEEDS  # noqa: E402

PAGE = ROOT / "docs" / "census.md"


def with_table(text: str) -> str:
    """The page with the table replaced by one of the present rows."""
    lines = (f"| `{row.name}` | {row.meaning} | {NEEDS[row.needs]} |".replace("  ", " ") for row in FIGURES)
    table = "\n".join(["| figure | meaning | needs |", "|---|---|---|", *lines, ""])
    return re.sub(r"\| figure \|.*\n(\|.*\n)+", lambda _: table, text)


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text()))
