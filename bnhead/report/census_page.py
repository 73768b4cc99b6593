"""The page of a census: one file that contains everything and loads nothing."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from bnhead.census.census import Census
from bnhead.census.figures import ALWAYS_ON, DEAD, SILENT
from bnhead.census.plots import as_svg, layer_drawings
from bnhead.mechanisms.figures import PREFIX, effect_headings, effect_rows, tables_of
from bnhead.report.census_remarks import conclusion, remarks, worst_layers
from bnhead.report.charts import ends_chart
from bnhead.report.inspected import INITIAL, Inspected
from bnhead.report.net_diagram import Step, diagram
from bnhead.report.pages import html_page

_MOST_OPEN = 6  # so many layers show their pictures at once
_CAPTIONS = {
    "activity": (
        "How often the units are active",
        "A bar counts the units that are active on this share of the inputs; the red bar, the dead ones.",
    ),
    "accumulation": (
        "How the dead depend on the number of inputs",
        "Red: units that are silent on each of the first n inputs. If the line still falls at its right end, "
        "fewer units are dead on more inputs. Blue: the dead units without those that are alive at least, by "
        "Chao's lower bound with its 95 % interval.",
    ),
    "classes": (
        "Activity by class",
        "A row is a class, a column a unit: light on the classes that it answers, red on those that leave it "
        "silent; a column that is red from top to bottom is a dead unit.",
    ),
    "codeath": (
        "Units that are silent together",
        "Red squares on the diagonal are units that are silent on the same inputs; blue marks units that are "
        "silent in turn.",
    ),
}


def census_html(
    census: Census,
    inspected: Inspected,
    *,
    about: Mapping[str, str],
    classes: Sequence[str] = (),
    steps: Sequence[Step] = (),
    mechanisms: Mapping[str, Any] | None = None,
) -> str:
    """HTML in a light or dark theme, as the reader's system is set, with all pictures inside.

    Args:
        census: the counts.
        inspected: the subject of the counts. Like every name it is escaped.
        about: rows of facts.
        classes: names of the classes.
        steps: the calls of the net (`graph.outline.steps_of`), for its diagram.
        mechanisms: the content of `mechanisms.json`; None if nothing was measured.
    """
    content = census_content(census, inspected, about, classes, steps)
    return html_page({**content, "mechanisms": _mechanisms(mechanisms or {})}, "census.html")


def census_content(
    census: Census,
    inspected: Inspected,
    about: Mapping[str, str],
    classes: Sequence[str] = (),
    steps: Sequence[Step] = (),
) -> dict[str, Any]:
    """The content of the page, in its order: summary, both ends by depth, the net, the layers.

    Args:
        census, inspected, about, classes, steps: as of `census_html`.
    """
    layers = [_layer(census, name, number, classes) for number, name in enumerate(census.layers, start=1)]
    *others, head = layers
    notable = [layer for layer in others if layer["is_notable"]]
    notable.sort(key=lambda layer: -layer["figures"].get(DEAD.name, 0))
    for layer in (head, *notable[:_MOST_OPEN]):
        layer["is_open"] = True
    return {
        "title": inspected.title,
        "origin": inspected.origin,
        "is_trained": inspected.weights != INITIAL,
        "conclusion": conclusion(census),
        "worst": [layers[list(census.layers).index(name)] for name in worst_layers(census)],
        "about": about,
        "ends_chart": ends_chart([layer["figures"] for layer in layers]),
        "net": diagram(steps, census),
        "head": head,
        "notable": notable,
        "flat": [layer for layer in others if not layer["is_notable"]],
        "layers": layers,
        "main": (DEAD, SILENT),
        "in_chart": (DEAD, ALWAYS_ON, SILENT),
        "columns": census.table_figures(),
        "captions": _CAPTIONS,
    }


def _mechanisms(content: Mapping[str, Any]) -> dict[str, Any]:
    """The part of the page about the norm of the head; empty without measurements."""
    if not content:
        return {}
    effects = list(content.get("interventions", {}).values())
    counts_dead = any(effect["dead"] is not None for effect in effects)
    return {
        "norm": content.get("norm", ""),
        "training_batch": content["training_batch"],
        "tables": tables_of({PREFIX + name: value for name, value in content.get("figures", {}).items()}),
        "headings": effect_headings(counts_dead=counts_dead),
        "effects": effect_rows(effects, counts_dead=counts_dead),
    }


def _layer(census: Census, name: str, number: int, classes: Sequence[str]) -> dict[str, Any]:
    """The part of the page about one layer."""
    counts = census.layers[name]
    figures = {} if counts.unknown else counts.figures()
    notes = remarks(counts, len(census.layers), classes)
    drawings = layer_drawings(counts, classes=classes)
    return {
        "name": name,
        "number": number,
        "units": f"{counts.units:,}",
        "unknown": counts.unknown,
        "figures": figures,
        "cells": {
            figure.name: figure.table_cell(figures, counts.units)
            for figure in census.table_figures()
            if figure.name in figures
        },
        "remarks": notes,
        "is_notable": bool(notes or counts.unknown or counts.dead.any()),
        "is_open": False,
        "pictures": {plot: Markup(as_svg(*drawing)) for plot, drawing in drawings.items()},
    }
