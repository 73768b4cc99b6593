"""The figures of a study: what each shows, with caption, in numbers and as coordinates."""

import base64
import re
from collections.abc import Callable, Sequence
from typing import Any

from bnhead import heads
from bnhead.census import keys
from bnhead.census.figures import figures_at
from bnhead.heads.diagram import svg
from bnhead.report import charts, format
from bnhead.report.curves import Band, at_most, band
from bnhead.report.study import Run, Study

TONES = {
    "HELPS": "good",
    "HURTS": "bad",
    "NO MATERIAL DIFFERENCE": "even",
    "UNDECIDED": "open",
    "MIXED": "open",
}
_EPOCHS_TOLD = 6  # columns of a table that stands for a chart


def differences(study: Study) -> dict[str, Any]:
    """Paired differences with intervals: `chart` for the whole, `rows` with texts for each comparison."""
    plan, primary = study.plan, study.plan["primary"]
    factor = 100 if format.is_share(primary) else 1
    compared = study.verdict["comparisons"]
    chart = charts.differences([_scaled(one, factor) for one in compared], factor * plan["delta"])
    places = {cell["name"]: cell.get("placement") or "" for cell in plan["cells"]}
    rows = [{**_compared(one, primary), "place": places[one["treatment"]]} for one in compared]
    for row, drawn in zip(rows, chart.pop("rows"), strict=True):
        row["chart"] = drawn
        for dot, (_, _, seed, value) in enumerate(drawn["dots"]):
            told = format.difference(value / factor, primary)
            drawn["dots"][dot] = (*drawn["dots"][dot][:2], f"seed {seed}: {told}")
    chart["ticks"] = [(x, f"{tick:+g}".replace("-", "\N{MINUS SIGN}") if tick else "0")
                      for x, tick in chart["ticks"]]  # fmt: skip
    return {"chart": chart, "rows": rows}


def _scaled(one: dict[str, Any], factor: float) -> dict[str, Any]:
    def scaled(value: float | None) -> float | None:
        return factor * value if format.known(value) else None

    return {
        "seeds": one["seeds"],
        "differences": [scaled(value) for value in one["differences"]],
        "mean": scaled(one.get("mean")),
        "interval": [scaled(value) for value in one.get("interval") or []],
    }


def _compared(one: dict[str, Any], primary: str) -> dict[str, Any]:
    lost = {side: n for side, n in (one.get("diverged") or {}).items() if n}
    converged = one.get("converged") or {}
    return {
        "name": one["name"],
        "control": one["control"],
        "treatment": one["treatment"],
        "word": one["word"],
        "tone": TONES.get(one["word"], "bad"),
        "sentence": one["sentence"],
        "mean": format.difference(one.get("mean"), primary),
        "interval": format.interval(one.get("interval"), primary),
        "n": one.get("n", format.NONE),
        "sd": format.spread(one.get("sd"), primary),
        "p": format.probability(one.get("p")),
        "p_holm": format.probability(one.get("p_holm")),
        "p_tost": format.probability(one.get("p_tost")),
        "p_holm_tost": format.probability(one.get("p_holm_tost")),
        "interval_tost": format.interval(one.get("interval_tost"), primary),
        "more": one.get("more_seeds"),
        "diverged": format.listed([f"{n} of the {side}" for side, n in lost.items()]),
        "converged": converged and {
            "mean": format.difference(converged.get("mean"), primary),
            "interval": format.interval(converged.get("interval"), primary),
            "n": converged.get("n", format.NONE),
        },
    }  # fmt: skip


def groups(study: Study) -> list[tuple[str, list[tuple[str, str]]]]:
    """The panels of a chart by epoch: a title, and (role, cell) of its lines.

    One for each comparison; cells that no comparison names have one of their own.
    """
    compared = [
        (one["name"], [("control", one["control"]), ("treatment", one["treatment"])])
        for one in study.verdict["comparisons"]
    ]
    named = {cell for _, lines in compared for _, cell in lines}
    alone = [cell["name"] for cell in study.plan["cells"] if cell["name"] not in named]
    return compared + [(name, [("control", name)]) for name in alone]


def roles(study: Study) -> list[tuple[str, str]]:
    """What the two kinds of lines mean, with the cells' names where there is one pair only."""
    compared = study.verdict["comparisons"]
    if len(compared) != 1:
        return [("control", "control"), ("treatment", "treatment")]
    return [(role, f"{compared[0][role]} ({role})") for role in ("control", "treatment")]


def by_epoch(
    runs: Callable[[str], Sequence[Run]],
    panels: Sequence[tuple[str, list[tuple[str, str]]]],
    column: str,
    form: Callable[[float], str],
    *,
    tick: Callable[[float], str],
    whole: bool = False,
) -> dict[str, Any] | None:
    """One column of the histories by epoch, as panels and as a table; None where no run has it.

    Args:
        runs: name of a cell -> its runs.
        panels: as `groups` gives them.
        column: name in `history.csv`.
        form, tick: a value -> its text; a label of the axis.
        whole: as for `charts.panels`.
    """
    cells = list(dict.fromkeys(cell for _, lines in panels for _, cell in lines))
    bands = {
        cell: band([run.history[column] for run in runs(cell) if column in run.history]) for cell in cells
    }
    if not any(bands.values()):
        return None
    drawn = charts.panels([[bands[cell] for _, cell in lines] for _, lines in panels], tick, whole=whole)
    for panel, (title, lines) in zip(drawn, panels, strict=True):
        panel["title"] = title
        for line, (role, cell) in zip(panel["lines"], lines, strict=True):
            line |= {"role": role, "cell": cell, "last": _last(bands[cell], form)}
        panel["label"] = " ".join(
            [f"{title}:"] * bool(title)
            + [f"{line['cell']}: {line['last']} at the end." for line in panel["lines"]]
        )
    epochs = [b.epoch for b in at_most(max(bands.values(), key=len), _EPOCHS_TOLD)]
    return {
        "panels": drawn,
        "epochs": epochs,
        "rows": [(cell, [_told(bands[cell], epoch, form) for epoch in epochs]) for cell in cells],
        "seeds": max(b.n for own in bands.values() for b in own),
        "largest": max(b.high for own in bands.values() for b in own),
    }


def _last(bands: Sequence[Band], form: Callable[[float], str]) -> str:
    return _range(bands[-1], form) if bands else "no history"


def _told(bands: Sequence[Band], epoch: int, form: Callable[[float], str]) -> str:
    return next((_range(b, form) for b in bands if b.epoch == epoch), format.NONE)


def _range(b: Band, form: Callable[[float], str]) -> str:
    return form(b.middle) if b.n == 1 else f"{form(b.middle)} ({form(b.low)} to {form(b.high)})"


def learning_curves(study: Study) -> dict[str, Any] | None:
    """The metric by epoch."""
    primary = study.plan["primary"]
    return by_epoch(study.of_cell, groups(study), primary, lambda v: format.score(v, primary),
                    tick=lambda v: score_tick(v, primary))  # fmt: skip


def score_tick(value: float, primary: str) -> str:
    """A label of an axis of the metric."""
    return f"{100 * value:.4g}%" if format.is_share(primary) else f"{value:.3g}"


def dead_units(
    runs: Sequence[Run],
    of_cell: Callable[[str], Sequence[Run]],
    panels: Sequence[tuple[str, list[tuple[str, str]]]],
) -> list[dict[str, Any]]:
    """The dead units by epoch: for each layer and figure a chart, or a note where all is 0."""
    columns = dict.fromkeys(column for run in runs for column in run.history)
    drawn = []
    for layer in keys.layers_of(columns):
        for row in figures_at("charts"):
            chart = by_epoch(of_cell, panels, keys.key(layer, row.name), format.share,
                             tick=lambda v: f"{100 * v:.3g}%", whole=True)  # fmt: skip
            if chart is not None:
                drawn.append({"layer": layer, "figure": row.name, "title": row.meaning, **chart})
    return drawn


def against_width(study: Study) -> list[dict[str, Any]]:
    """The shares against the FC's width: a chart for each figure, a panel of it for each head and layer."""
    laws = [law for law in study.verdict["width_law"] if law.get("points")]
    by_figure = [
        (row, [law for law in laws if law.get("figure") == row.name]) for row in figures_at("charts")
    ]
    return [{"title": row.meaning, **_widths(study, own)} for row, own in by_figure if own]


def _widths(study: Study, laws: Sequence[dict[str, Any]]) -> dict[str, Any]:
    compared = study.verdict["comparisons"] or [{"control": ""}]
    heads_of = {cell["name"]: cell["head"] for cell in study.plan["cells"]}
    control = heads_of.get(compared[0]["control"])
    points = [[(p["fc_units"], p["seed"], p["share"]) for p in law["points"]] for law in laws]
    top = max(share for own in points for *_, share in own)
    drawn = []
    for law, own in zip(laws, points, strict=True):
        chart = charts.against_width(own, top)
        chart["dots"] = [
            (x, y, f"{width:g} units, seed {seed}: {format.share(share)}")
            for x, y, width, seed, share in chart["dots"]
        ]
        chart["x"] = [(x, f"{width:g}") for x, width in chart["x"]]
        chart["y"] = [(y, f"{100 * tick:.3g}%") for y, tick in chart["y"]]
        role = "control" if law["head"] == control else "treatment"
        drawn.append({**_law(law, own), **chart, "role": role})
    return {"panels": drawn, "widths": sorted({width for own in points for width, *_ in own})}


def _law(law: dict[str, Any], points: Sequence[tuple[float, int, float]]) -> dict[str, Any]:
    bounds = ", ".join(map(format.signed, law.get("interval") or []))
    by_width = {width: [[share] for w, _, share in points if w == width] for width, *_ in points}
    return {
        "head": law["head"],
        "layer": law["layer"],
        "slope": f"{format.signed(law.get('slope'))} [{bounds}]"
        if bounds
        else format.signed(law.get("slope")),
        "shares": {width: _range(band(own)[0], format.share) for width, own in by_width.items()},
    }


def head_diagrams(study: Study) -> list[dict[str, Any]]:
    """Each head once: its picture, what it is in words, and the cells that have it."""
    drawn = []
    for text in dict.fromkeys(cell["head"] for cell in study.plan["cells"]):
        cells = [cell for cell in study.plan["cells"] if cell["head"] == text]
        told = next((run.result["head"] for cell in cells for run in study.of_cell(cell["name"])
                     if isinstance(run.result.get("head"), str)), "")  # fmt: skip
        drawn.append({**head_diagram(text, told), "cells": [cell["name"] for cell in cells]})
    return drawn


def head_diagram(text: str, told: str) -> dict[str, Any]:
    """One head's picture.

    Args:
        text: the head.
        told: the diagram that a result holds, which begins with the features' shape; empty if there is none.
    """
    shape = re.match(r"(\d+(?:x\d+)*) ->", told)
    outputs = re.search(r"out\((\d+)", told)
    try:
        features = tuple(map(int, shape[1].split("x"))) if shape else (8, 8, 64)
        picture = svg(text, features, int(outputs[1]) if outputs else 10)
        places = heads.placement(text)
    except heads.HeadError:
        return {"text": text, "picture": "", "told": told, "places": ""}
    size = re.search(r'width="(\d+)" height="(\d+)"', picture)
    picture = picture.replace(" role=", f' viewBox="0 0 {size[1]} {size[2]}" role=', 1)
    return {
        "text": text,
        "picture": base64.b64encode(picture.encode()).decode(),
        "size": (int(size[1]), int(size[2])),
        "told": told or text,
        "places": format.listed(list(places)),
    }
