"""The table of figures in docs/census.md, from their rows."""

from bnhead.census.figures import FIGURES, NEEDS


def table() -> str:
    """A row for each figure: name, meaning, and what it needs."""
    rows = (f"| `{row.name}` | {row.meaning} | {NEEDS[row.needs]} |".replace("  ", " ") for row in FIGURES)
    return "\n".join(["| figure | meaning | needs |", "|---|---|---|", *rows])
