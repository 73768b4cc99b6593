"""A census as plain data, as CSV and as a table for the terminal."""

import csv
import io
from typing import Any

from rich.table import Table
from rich.text import Text

from bnhead.census.counts import Census
from bnhead.census.figures import OF_COUNTS
from bnhead.texts import one_line


def layer_rows(census: Census) -> list[tuple[str, str, list[str], str]]:
    """For each layer its name, its units, a text for each table figure, and why it is unknown or ""."""
    rows, shown = [], census.table_figures()
    for name, counts in census.layers.items():
        values = {} if counts.unknown else counts.figures()
        texts = [figure.table_cell(values, counts.units) if figure.name in values else "" for figure in shown]
        rows.append((name, str(counts.units), texts, counts.unknown))
    return rows


def terminal_table(census: Census) -> Table:
    """The table for `rich`, a row per layer."""
    headings = [figure.heading for figure in census.table_figures()]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("layer", "units", *headings):
        table.add_column(heading, justify="left" if heading == "layer" else "right", overflow="fold")
    for name, units, texts, unknown in layer_rows(census):
        cells = ["unknown", *[""] * (len(headings) - 1)] if unknown else texts
        # A plain string could contain markup of rich.
        table.add_row(*(Text(one_line(cell)) for cell in (name, units, *cells)))
    return table


def census_csv(census: Census) -> str:
    """CSV with a row per layer: layer, units, inputs, bound, every figure, unknown."""
    text = io.StringIO()
    fields = ["layer", "units", "inputs", "bound", *(row.name for row in OF_COUNTS), "unknown"]
    table = csv.DictWriter(text, fields, restval="", lineterminator="\n")
    table.writeheader()
    table.writerows(census.rows())
    return text.getvalue()


def census_data(census: Census) -> dict[str, Any]:
    """Plain data: `Census.to_dict`, and for each layer also its figures and why it is unknown."""
    layers = {
        name: {"figures": counts.figures(), "unknown": counts.unknown, "counts": counts.to_dict()}
        for name, counts in census.layers.items()
    }
    return {**census.to_dict(), "layers": layers}
