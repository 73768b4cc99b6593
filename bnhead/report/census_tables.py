"""A census as plain data, as CSV and as a table for the terminal."""

import csv
import io
from collections.abc import Callable, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from bnhead.census.census import Census
from bnhead.census.counts import Counts
from bnhead.census.figures import OF_COUNTS, Figure
from bnhead.texts import one_line, shortened

FULL_WIDTH = 120  # columns of a terminal that shows more than the figures of the charts
_GAP = 2  # columns between two cells
_LEAST_NAME = 16  # a name is never shorter than this


def terminal_table(census: Census, width: int = 80, *, wide: bool = False) -> Table:
    """The table for `rich`. No cell is broken; a layer's name that does not fit is shortened in the middle.

    It has the figures of the charts, and from `FULL_WIDTH` columns on as many others as fit. Layers without
    dead units are one row, except the last layer.

    Args:
        census: the counts.
        width: of the terminal, in columns.
        wide: every figure and a row for each layer, at any width.
    """
    names = list(census.layers)
    flat = [] if wide else [name for name in names[:-1] if _has_no_dead(census.layers[name])]
    flat = flat if len(flat) > 1 else []
    figures = census.table_figures()
    rows = [_layer_row(name, census.layers[name], figures) for name in names if name not in flat]
    if flat:
        rows.insert(-1, _folded_row([census.layers[name] for name in flat], figures))
    headings = ["layer", "units", *(figure.heading for figure in figures)]
    columns = [[heading, *cells] for heading, cells in zip(headings, zip(*rows, strict=True), strict=True)]
    widths = [max(map(len, column)) for column in columns]
    numbers = [0, 1]
    for number, figure in enumerate(figures, start=2):
        needed = sum(widths[i] + _GAP for i in (*numbers, number)) - _GAP
        if wide or figure.display == "charts" or (width >= FULL_WIDTH and needed <= width):
            numbers.append(number)
    further_width = sum(widths[i] + _GAP for i in numbers[1:])
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, _GAP, 0, 0))
    for i in numbers:
        table.add_column(headings[i], justify="right" if i else "left", no_wrap=True)
    for cells in rows:
        name = cells[0] if wide else shortened(cells[0], max(_LEAST_NAME, width - further_width))
        # A plain string could contain markup of rich.
        table.add_row(*(Text(text) for text in (name, *(cells[i] for i in numbers[1:]))))
    return table


def _has_no_dead(counts: Counts) -> bool:
    return not counts.unknown and not counts.dead.any()


def _layer_row(name: str, counts: Counts, figures: Sequence[Figure]) -> list[str]:
    values = {} if counts.unknown else counts.figures()
    cells = [figure.table_cell(values, counts.units) if figure.name in values else "" for figure in figures]
    if counts.unknown:
        cells[0] = "unknown"
    return [one_line(text) for text in (name, f"{counts.units:,}", *cells)]


def _folded_row(layers: Sequence[Counts], figures: Sequence[Figure]) -> list[str]:
    """One row for several layers: a text that all have, or the range of a share."""
    units = [counts.units for counts in layers]
    cells = [f"{len(layers)} layers with no dead units", _range(min(units), max(units), "{:,}".format)]
    values = [counts.figures() for counts in layers]
    for figure in figures:
        texts = {figure.table_cell(v, n) for v, n in zip(values, units, strict=True) if figure.name in v}
        shares = [v[figure.name] for v in values if figure.name in v]
        if len(texts) == 1:
            cells.append(texts.pop())
        elif figure.cell or not texts:
            cells.append("")
        else:
            cells.append(_range(min(shares), max(shares), figure.text))
    return cells


def _range(low: float, high: float, form: Callable[[float], str]) -> str:
    return form(low) if form(low) == form(high) else f"{form(low)} to {form(high)}"


def census_csv(census: Census) -> str:
    """CSV with a row per layer: layer, units, inputs, bound, every figure, unknown."""
    text = io.StringIO()
    fields = ["layer", "units", "inputs", "bound", *(row.name for row in OF_COUNTS), "unknown"]
    table = csv.DictWriter(text, fields, restval="", lineterminator="\n")
    table.writeheader()
    table.writerows(census.rows())
    return text.getvalue()


def census_data(census: Census) -> dict[str, Any]:
    """Plain data: `Census.to_dict`, and for each layer also its figures, why it is unknown, and "dead_after".

    The last is dead(n), the number of units silent on each of the first n inputs, for n = 1, 2, 4, ... and N.
    """
    layers = {}
    for name, counts in census.layers.items():
        layers[name] = {"figures": counts.figures(), "unknown": counts.unknown, "counts": counts.to_dict()}
        if counts.accumulation is not None and not counts.unknown:
            inputs, dead = counts.accumulation.curve
            layers[name]["dead_after"] = {"inputs": inputs.tolist(), "dead": dead.tolist()}
    return {**census.to_dict(), "layers": layers}
