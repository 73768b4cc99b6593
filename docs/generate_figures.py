"""The tables of figures in docs/census.md and docs/mechanisms.md, from their rows."""

from bnhead.census.figures import FIGURES, NEEDS
from bnhead.mechanisms.figures import FIGURES_BY_GROUP, INITIAL, PREJUDICED


def table() -> str:
    """A row for each figure: name, meaning, and what it needs."""
    rows = (f"| `{row.name}` | {row.meaning} | {NEEDS[row.needs]} |".replace("  ", " ") for row in FIGURES)
    return "\n".join(["| figure | meaning | needs |", "|---|---|---|", *rows])


def mechanisms() -> str:
    """A row for each figure of the mechanisms: its group, name and meaning."""
    rows = [(group, row) for group, figures in FIGURES_BY_GROUP.items() for row in figures]
    rows += [("guess", row) for row in (*INITIAL, PREJUDICED)]
    cells = (f"| {group} | `{row.name}` | {row.meaning.replace('|', '&#124;')} |" for group, row in rows)
    return "\n".join(["| group | figure | meaning |", "|---|---|---|", *cells])
