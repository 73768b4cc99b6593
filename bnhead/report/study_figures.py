"""The figures of a study: captions, numbers as texts, and coordinates."""

import base64
import re
from collections.abc import Callable, Sequence
from typing import Any

from bnhead import heads
from bnhead.heads.diagram import svg
from bnhead.report import charts
from bnhead.report.curves import Band, at_most, band
from bnhead.runs.run_files import RunFiles
from bnhead.studies import causes, claims, wording
from bnhead.studies.directory import StudyFiles

TONES = {
    "HELPS": "good",
    "HURTS": "bad",
    "NO MATERIAL DIFFERENCE": "even",
    "CONFIRMED": "good",
    "REFUTED": "bad",
    "NOT JUDGED": "open",
    "INCOMPLETE": "open",
    "UNDECIDED": "open",
    "MIXED": "open",
}
_MAX_COLUMNS = 6  # epochs in the table beside a chart
Groups = Sequence[tuple[str, list[tuple[str, str]]]]


def forests(study: StudyFiles) -> list[dict[str, Any]]:
    """The judged rows, outcome by outcome, the primary one first; slopes before differences.

    Returns:
        For each outcome `title`, `role` ("primary", "secondary"), the name of its `file`, `unit`, `margin`
        and `level` (texts), the `better` direction, the `chart` of all rows, and `rows` with texts and
        coordinates.
        Slopes of single heads have neither direction nor margin (0 and ""): they compare nothing.
    """
    verdict = study.verdict
    forests = []
    if trends := verdict.get("trends"):
        title = f"{wording.metric_name(trends[0]['outcome'])} per doubling of {trends[0]['per']}"
        differences = [row for row in trends if row["control"]]
        forests.append(_forest(study, f"{title}, difference", "primary", differences) | {"file": "slopes"})
        of_heads = [row for row in trends if not row["control"]]
        forests.append(_forest(study, f"{title}, each head", "", of_heads, compares=False))
        forests[-1]["file"] = "slopes_of_heads"
    comparisons = verdict["comparisons"]
    rows = [*comparisons, *(row for comparison in comparisons for row in comparison.get("secondary", ()))]
    for name in dict.fromkeys(row["outcome"] for row in rows):
        of_outcome = [row for row in rows if row["outcome"] == name]
        forests.append(
            _forest(study, wording.metric_name(name), "secondary" if forests else "primary", of_outcome)
        )
    return forests


def cause_forests(study: StudyFiles) -> list[dict[str, Any]]:
    """The cause tables: for each outcome a forest and the `sentence` that sums it up.

    Its rows have a `part`, a `meaning`, a `share`, and `differs`: whether the interval excludes 0. A table
    without numbers has no rows.
    """
    plan, forests = study.plan, []
    for table in study.verdict.get("causes", ()):
        comparison = plan.comparisons[0]
        sentence = causes.cause_sentence(table, comparison.control, comparison.treatment)
        common = {key: table[key] for key in ("outcome", "seeds", "n", "images", "level")}
        common |= {"word": "", "per": "", "treatment": ""}
        rows = [{**common, **row, "name": causes.OF_NAME[row["name"]].title} for row in table["rows"]]
        title = wording.metric_name(table["outcome"])
        forest = (
            _forest(study, title, "causes", rows, compares=False) if rows else {"title": title, "rows": []}
        )
        for text, row in zip(forest["rows"], table["rows"], strict=True):
            share = causes.as_share(row).replace("-", "\N{MINUS SIGN}")
            meaning = causes.OF_NAME[row["name"]].meaning
            text |= {"part": row["part"], "meaning": meaning, "share": share, "differs": causes.is_clear(row)}
        forests.append({**forest, "file": f"causes_{table['outcome']}", "sentence": sentence})
    return forests


def claim_forests(study: StudyFiles) -> list[dict[str, Any]]:
    """The published claims, a forest for each place of the norm; none for a study without them.

    Its rows have a `number`, a `meaning`, and `gains`, the texts of the means that are subtracted.
    """
    drawn = []
    rows = study.verdict.get("claims", {}).get("rows", ())
    for head in dict.fromkeys(row["head"] for row in rows):
        of_head = [row for row in rows if row["head"] == head]
        if not any(row["differences"] for row in of_head):  # all INVALID
            continue
        outcome = {"outcome": of_head[0]["outcome"], "per": "", "treatment": ""}
        named = [{**row, **outcome, "name": claims.OF_NAME[row["claim"]].title} for row in of_head]
        forest = _forest(study, f"{head} against {claims.CONTROL}", "claims", named)
        for text, row in zip(forest["rows"], of_head, strict=True):
            claim = claims.OF_NAME[row["claim"]]
            gains = [wording.as_difference(gain, row["outcome"]) for gain in row["gains"]]
            text |= {"number": claim.number, "meaning": claim.meaning, "gains": gains}
        drawn.append({**forest, "file": f"claims_{head}"})
    return drawn


def class_table(study: StudyFiles) -> dict[str, Any] | None:
    """The recall of each class: headings, and for each cell two rows of texts; None without figures."""
    classes = study.verdict.get("classes") or {}
    if not classes.get("rows"):
        return None
    columns = range(len(classes["counts"]))
    rows = []
    for row in classes["rows"]:
        for key, about in (("recall", ""), ("adjusted_recall", "without the prior")):
            known = [value for value in row[key] if value is not None]
            mean = wording.as_share(sum(known) / len(known) if known else None)
            rows.append((row["cell"], about, [*(wording.as_share(row[key][c]) for c in columns), mean]))
    return {
        "headings": [*(f"{c}" for c in columns), "mean"],
        "counts": [f"{count:,}" for count in classes["counts"]],
        "minority": [str(c) for c in columns if classes["minority"][c]],
        "rows": rows,
    }


def _forest(
    study: StudyFiles, title: str, role: str, rows: Sequence[dict[str, Any]], *, compares: bool = True
) -> dict[str, Any]:
    name = rows[0]["outcome"]
    factor = 100 if wording.is_share(name) else 1

    def scaled(value: float | None) -> float | None:
        return factor * value if wording.is_number(value) else None

    in_units = [
        {
            "seeds": row["seeds"],
            "differences": [scaled(value) for value in row["differences"]],
            "mean": scaled(row.get("mean")),
            "interval": [scaled(value) for value in row.get("interval") or []],
            "inner": [scaled(value) for value in row.get("interval_seeds") or []],
        }
        for row in rows
    ]
    margins = [row["margin"] for row in rows if wording.is_number(row.get("margin"))]
    margin = min(margins, default=next((m.margin for m in study.plan.measures if m.name == name), 0.01))
    chart = charts.difference_chart(in_units, factor * margin if compares else 0.0, whole=not compares)
    texts = []
    for row, strip in zip(rows, chart.pop("rows"), strict=True):
        strip["dots"] = [
            (x, level, f"seed {seed}: {wording.as_difference(value / factor, name)}")
            for x, level, seed, value in strip["dots"]
        ]
        placement = study.plan.cell(row["treatment"]).placement if "per" not in row else ""
        texts.append({**_row_texts(row), "place": placement, "chart": strip})
    chart["ticks"] = [(x, f"{tick:+g}".replace("-", "\N{MINUS SIGN}") if tick else "0")
                      for x, tick in chart["ticks"]]  # fmt: skip
    levels = [row["level"] for row in rows if wording.is_number(row.get("level"))]
    return {
        "title": title,
        "role": role,
        "file": name,
        "unit": wording.unit(name),
        "margin": wording.as_margin(margin, name) if compares else "",
        "level": f"{100 * max(levels, default=0):.4g}",
        "better": next((m.better for m in study.plan.measures if m.name == name), 1) if compares else 0,
        "has_images": any(row.get("images") for row in rows),
        "chart": chart,
        "rows": texts,
    }


def _row_texts(row: dict[str, Any]) -> dict[str, Any]:
    name = row["outcome"]
    untrained = {side: n for side, n in (row.get("diverged") or {}).items() if n}
    converged = row.get("converged") or {}
    return {
        "name": row["name"],
        "word": row["word"],
        "tone": TONES.get(row["word"], "bad"),
        "mean": wording.as_difference(row.get("mean"), name),
        "interval": wording.as_interval(row.get("interval"), name),
        "interval_seeds": wording.as_interval(row.get("interval_seeds"), name),
        "n": row.get("n", wording.NONE),
        "images": f"{row['images']:,}" if row.get("images") else wording.NONE,
        "sd": wording.as_spread(row.get("sd"), name),
        "scores": [
            wording.as_score(row[f"{side}_mean"], name)
            for side in ("control", "treatment")
            if wording.is_number(row.get(f"{side}_mean"))
        ],
        "diverged": wording.as_list([f"{n} of the {side}" for side, n in untrained.items()]),
        "converged": converged and {
            "mean": wording.as_difference(converged.get("mean"), name),
            "interval": wording.as_interval(converged.get("interval"), name),
            "n": converged.get("n", wording.NONE),
        },
    }  # fmt: skip


def raw_values(study: StudyFiles) -> list[dict[str, Any]]:
    """The primary outcome of each pair of runs: a panel for each comparison, with a line for each seed."""
    forms = score_forms(study.plan.measures[0].name)
    pairs, paired = [], []
    for comparison in study.verdict["comparisons"]:
        columns = [comparison.get(name) or [] for name in ("seeds", "control_scores", "treatment_scores")]
        complete = [pair for pair in zip(*columns, strict=False) if all(map(wording.is_number, pair))]
        if complete:
            pairs.append(complete)
            paired.append(comparison)
    panels = charts.slopes([[pair[1:] for pair in complete] for complete in pairs], forms["tick"])
    for panel, comparison, complete in zip(panels, paired, pairs, strict=True):
        texts = [
            f"seed {seed}: {forms['form'](before)} to {forms['form'](after)}"
            for seed, before, after in complete
        ]
        panel["pairs"] = [(*ends, text) for ends, text in zip(panel["pairs"], texts, strict=True)]
        panel |= {key: comparison[key] for key in ("control", "treatment")}
        panel |= {"title": comparison["name"], "label": f"{comparison['name']}, {'; '.join(texts)}."}
    return panels


def panel_groups(study: StudyFiles) -> Groups:
    """The panels of a chart by epoch: a title, and (role, cell) of its lines.

    One panel for each comparison, and one for each cell without a comparison.
    """
    groups = [
        (comparison["name"], [(role, comparison[role]) for role in ("control", "treatment")])
        for comparison in study.verdict["comparisons"]
    ]
    if study.plan.causes or study.plan.claims:
        return groups
    compared_cells = {cell for _, lines in groups for _, cell in lines}
    single = [cell.name for cell in study.plan.cells if cell.name not in compared_cells]
    return groups + [(name, [("control", name)]) for name in single]


def line_roles(study: StudyFiles) -> list[tuple[str, str]]:
    """The legend of the two kinds of lines, with the cells' names if there is only one comparison."""
    comparisons = study.verdict["comparisons"]
    if len(comparisons) != 1:
        return [("control", "control"), ("treatment", "treatment")]
    return [(role, f"{comparisons[0][role]} ({role})") for role in ("control", "treatment")]


def by_epoch(
    runs: Callable[[str], Sequence[RunFiles]],
    groups: Groups,
    column: str,
    form: Callable[[float], str],
    *,
    tick: Callable[[float], str],
    from_zero: bool = False,
) -> dict[str, Any] | None:
    """One column of the histories by epoch, as panels and as a table; None if no run has the column.

    Args:
        runs: name of a cell -> its runs.
        groups: the panels, from `panel_groups`.
        column: name in `history.csv`.
        form, tick: a value -> its text; a value -> a label of the axis.
        from_zero: as for `charts.panels`.
    """

    def text(b: Band) -> str:
        return with_range(b.low, b.middle, b.high, form)

    cells = list(dict.fromkeys(cell for _, lines in groups for _, cell in lines))
    bands = {
        cell: band([run.history[column] for run in runs(cell) if column in run.history]) for cell in cells
    }
    if not any(bands.values()):
        return None
    panels = charts.panels(
        [[bands[cell] for _, cell in lines] for _, lines in groups], tick, from_zero=from_zero
    )
    for panel, (title, lines) in zip(panels, groups, strict=True):
        panel["title"] = title
        for line, (role, cell) in zip(panel["lines"], lines, strict=True):
            last = text(bands[cell][-1]) if bands[cell] else "no history"
            line |= {"role": role, "cell": cell, "last": last}
        panel["label"] = " ".join(
            [f"{title}:"] * bool(title)
            + [f"{line['cell']}: {line['last']} at the end." for line in panel["lines"]]
        )
    epochs = [b.epoch for b in at_most(max(bands.values(), key=len), _MAX_COLUMNS)]
    by_cell = {cell: {b.epoch: text(b) for b in bands[cell] if b.epoch in epochs} for cell in cells}
    return {
        "panels": panels,
        "epochs": epochs,
        "rows": [(cell, [by_cell[cell].get(epoch, wording.NONE) for epoch in epochs]) for cell in cells],
        "seeds": max(b.n for line in bands.values() for b in line),
        "cut": any(panel["cut"] for panel in panels),
        "largest": max(b.high for line in bands.values() for b in line),
    }


def with_range(low: float, middle: float, high: float, form: Callable[[float], str]) -> str:
    """A value and its range: "9.0% (8.6% to 9.4%)"; the value alone if the range would show nothing else."""
    texts = [form(value) for value in (middle, low, high)]
    return texts[0] if len(set(texts)) == 1 else "{} ({} to {})".format(*texts)


def score_forms(primary: str) -> dict[str, Callable[[float], str]]:
    """The arguments `form` and `tick` of `by_epoch` for the metric."""
    is_share = wording.is_share(primary)
    return {
        "form": lambda value: wording.as_score(value, primary),
        "tick": lambda value: f"{100 * value:.4g}%" if is_share else f"{value:.3g}",
    }


def learning_curves(study: StudyFiles) -> dict[str, Any] | None:
    """The metric by epoch."""
    primary = study.plan.primary
    return by_epoch(study.of_cell, panel_groups(study), primary, **score_forms(primary))


def head_diagrams(study: StudyFiles) -> list[dict[str, Any]]:
    """Each head once: its picture, its description, and its cells."""
    diagrams = []
    for text in dict.fromkeys(cell.head for cell in study.plan.cells):
        cells = [cell.name for cell in study.plan.cells if cell.head == text]
        results = (run.result.get("head") for cell in cells for run in study.of_cell(cell))
        description = next((head for head in results if isinstance(head, str)), "")
        diagrams.append({**head_diagram(text, description), "cells": cells})
    return diagrams


def head_diagram(text: str, description: object) -> dict[str, Any]:
    """One head's picture, and the head in words.

    Args:
        text: the head.
        description: the `head` of a result, which begins with the features' shape; not a string if there is
            none.
    """
    description = description if isinstance(description, str) else ""
    shape = re.match(r"(\d+(?:x\d+)*) ->", description)
    outputs = re.search(r"out\((\d+)", description)
    features = tuple(map(int, shape[1].split("x"))) if shape else (8, 8, 64)
    try:
        head = heads.parse(text)
        picture = svg(head, features, int(outputs[1]) if outputs else 10)
    except heads.HeadError:
        return {"text": text, "picture": "", "description": description, "meaning": ""}
    size = re.search(r'width="(\d+)" height="(\d+)"', picture)
    picture = picture.replace(" role=", f' viewBox="0 0 {size[1]} {size[2]}" role=', 1)
    return {
        "text": text,
        "picture": base64.b64encode(picture.encode()).decode(),
        "size": (int(size[1]), int(size[2])),
        "description": description or text,
        "meaning": head.explain(),
    }
