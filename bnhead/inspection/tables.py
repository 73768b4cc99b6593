"""What was counted, as plain data, as CSV and as a table for the terminal."""

import csv
import io
from collections.abc import Callable
from typing import Any

from rich.table import Table
from rich.text import Text

from bnhead.census.counters import FIGURES, Census, Counts
from bnhead.texts import one_line


def _share(counts: Counts, figure: str) -> str:
    return f"{counts.figures()[figure]:.1%}"


def _range(counts: Counts) -> str:
    return f"{_share(counts, 'per_input_p05')} to {_share(counts, 'per_input_p95')}"


def _runs(counts: Counts) -> str:
    figures = counts.figures()
    return f"{figures['runs']:.0f} ({figures['runs_expected']:.1f}), {figures['runs_p']:.2g}"


COLUMNS: dict[str, tuple[str, Callable[[Counts], str]]] = {  # figure it needs -> heading, text
    "per_input": ("silent per input", lambda c: _share(c, "per_input")),
    "per_input_p95": (
        "5 % to 95 %",
        lambda c: f"{_share(c, 'per_input_p05')} to {_share(c, 'per_input_p95')}",
    ),
    "dataset": ("dead", lambda c: f"{c.dead.sum()} ({_share(c, 'dataset')})"),
    "rarely_active": ("rarely active", lambda c: _share(c, "rarely_active")),
    "dormant_0025": ("dormant 0.025", lambda c: _share(c, "dormant_0025")),
    "always_on": ("always on", lambda c: _share(c, "always_on")),
    "class_dead": ("class-dead", lambda c: _share(c, "class_dead")),
    "gradient_dead": ("gradient-dead", lambda c: _share(c, "gradient_dead")),
    "constant": ("constant", lambda c: _share(c, "constant")),
    "runs_p": ("runs (expected), p", _runs),
    "patterns": ("patterns", lambda c: f"{c.figures()['patterns']:.1f}"),
}


def rows(census: Census) -> tuple[list[str], list[tuple[str, str, list[str], str]]]:
    """Headings, and per layer its name, its units, its texts and why it is unknown (or "")."""
    figures = {name for counts in census.layers.values() for name in counts.figures()}
    shown = {name: column for name, column in COLUMNS.items() if name in figures}
    table = []
    for name, counts in census.layers.items():
        there = {} if counts.unknown else counts.figures()
        texts = [text(counts) if figure in there else "" for figure, (_, text) in shown.items()]
        table.append((name, str(counts.units), texts, counts.unknown))
    return [heading for heading, _ in shown.values()], table


def terminal(census: Census) -> Table:
    """The table for `rich`, a row per layer."""
    headings, body = rows(census)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("layer", "units", *headings):
        table.add_column(heading, justify="left" if heading == "layer" else "right", overflow="fold")
    for name, units, texts, unknown in body:
        cells = ["unknown", *[""] * (len(headings) - 1)] if unknown else texts
        # as Text a name is never markup
        table.add_row(*(Text(one_line(cell)) for cell in (name, units, *cells)))
    return table


def as_csv(census: Census) -> str:
    """CSV with a row per layer: layer, units, inputs, bound, every figure, unknown."""
    text = io.StringIO()
    fields = ["layer", "units", "inputs", "bound", *FIGURES, "unknown"]
    table = csv.DictWriter(text, fields, restval="", lineterminator="\n")
    table.writeheader()
    for name, counts in census.layers.items():
        figures = {} if counts.unknown else counts.figures()
        head = {"layer": name, "units": counts.units, "inputs": counts.inputs, "bound": counts.bound}
        table.writerow({**head, **figures, "unknown": counts.unknown})
    return text.getvalue()


def as_data(census: Census) -> dict[str, Any]:
    """Plain data: what `Census.to_dict` gives, and for each layer its figures and why it is unknown."""
    layers = {
        name: {"figures": counts.figures(), "unknown": counts.unknown, "counts": counts.to_dict()}
        for name, counts in census.layers.items()
    }
    return {**census.to_dict(), "layers": layers}
