"""Writes the README's table of figures from their rows: `python docs/generate_figures.py`.

A test holds the README against what this would write.
"""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bnhead.census.figures import FIGURES, NEEDS  # noqa: E402

README = ROOT / "README.md"


def readme(text: str) -> str:
    """The text of the README, with the table as the rows have it now."""
    lines = (f"| `{row.name}` | {row.meaning} | {NEEDS[row.needs]} |".replace("  ", " ") for row in FIGURES)
    table = "\n".join(["| figure | meaning | needs |", "|---|---|---|", *lines, ""])
    return re.sub(r"\| figure \|.*\n(\|.*\n)+", lambda _: table, text)


if __name__ == "__main__":
    README.write_text(readme(README.read_text()))
