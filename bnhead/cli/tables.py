"""Tables of text for the terminal."""

import io
from collections.abc import Collection, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bnhead import texts


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, right: Collection[str] = ()) -> str:
    """The rows in aligned columns under their headings. Cells fold only if the terminal is too narrow.

    Args:
        headings: of the columns.
        rows: a cell for each heading.
        right: headings of the columns that are aligned on the right.
    """
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in headings:
        grid.add_column(Text(heading), justify="right" if heading in right else "left", overflow="fold")
    for row in rows:
        grid.add_row(*(Text(cell) for cell in row))
    console = Console(file=io.StringIO(), width=texts.columns(200), color_system=None)
    console.print(grid)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())
