"""Everything that a study's report says, as plain data; both pages are written from it."""

import hashlib
import json
from typing import Any

from bnhead.census import keys
from bnhead.census.figures import figures_at
from bnhead.report import figures, format
from bnhead.report.limits import limits
from bnhead.report.provenance import command, machine
from bnhead.report.study import Study

_STEPS = {  # key of the flow -> its word, and whether it is told where it is 0
    "planned": ("planned", True),
    "started": ("started", True),
    "finished": ("finished", True),
    "diverged": ("diverged", True),
    "failed_to_learn": ("failed to learn", False),
    "failed": ("failed", False),
    "missing": ("missing", False),
    "analysed": ("analysed", True),
}


def content(study: Study) -> dict[str, Any]:
    """What the pages say, in their order."""
    plan, verdict = study.plan, study.verdict
    told = {one["run"] for one in verdict["exclusions"]}
    return {
        "study": plan["study"],
        "question": plan["question"],
        "word": verdict["word"],
        "tone": figures.TONES.get(verdict["word"], "bad"),
        "sentence": verdict["sentence"],
        "exploratory": verdict["exploratory"],
        "edited": is_edited(plan),
        "stale": verdict["plan_sha256"] != plan["sha256"],
        "metric": format.metric(plan["primary"]),
        "unit": format.unit(plan["primary"]),
        "delta": format.points(plan["delta"], plan["primary"]),
        "level": f"{100 * (1 - plan['alpha']):g}",
        "tost_level": f"{100 * (1 - 2 * plan['alpha']):g}",
        "seeds": len(plan["seeds"]),
        "rule": plan["exclusions"],
        "differences": figures.differences(study),
        "roles": figures.roles(study),
        "curves": figures.learning_curves(study),
        "dead": figures.dead_units(study.runs, study.of_cell, figures.groups(study)),
        "width": figures.against_width(study),
        "heads": figures.head_diagrams(study),
        "cells": cells(study),
        "flow": [
            (word, verdict["flow"].get(key, 0))
            for key, (word, always) in _STEPS.items()
            if always or verdict["flow"].get(key)
        ],
        "exclusions": verdict["exclusions"],
        "unread": [run for run in study.runs if run.problem and run.id not in told],
        "limits": list(limits(study)),
        "commands": [(run.cell, run.seed, run.id, command(study, run)) for run in study.runs],
        "machine": machine(study.runs),
        "code": {**plan["code"], "plan": plan["sha256"]},
        "settings": plan["settings"],
    }


def is_edited(plan: dict[str, Any]) -> bool:
    """Whether a plan is not what was hashed before the first run (`studies.plan.digest`)."""
    rest = {key: value for key, value in plan.items() if key != "sha256"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest() != plan["sha256"]


def cells(study: Study) -> dict[str, Any]:
    """The table of cells: headings, the figures of dead units among them, and a row of texts for each."""
    primary = study.plan["primary"]
    planned = {cell["name"]: cell for cell in study.plan["cells"]}
    there = dict.fromkeys(key for cell in study.verdict["cells"] for key in cell["dead"])
    shares = {row.name: row for row in figures_at("charts")}
    counted = [key for key in there if keys.short_parts(key)[1] in shares]
    split = [keys.short_parts(key) for key in counted]
    several = len({layer for layer, _ in split}) > 1
    headings = [f"{layer} " * several + shares[figure].heading for layer, figure in split]
    rows = []
    for cell in study.verdict["cells"]:
        plan = planned[cell["name"]]
        about = [] if cell["name"].startswith(plan["head"]) else [plan["head"]]
        about += [plan["placement"]] if plan.get("placement") else []
        dead = [cell["dead"].get(key) or {} for key in counted]
        rows.append(
            {
                "name": cell["name"],
                "about": ", ".join(about),
                "texts": [
                    str(cell.get("n", format.NONE)),
                    format.score(cell.get("mean"), primary),
                    format.spread(cell.get("sd"), primary),
                    format.score(cell.get("min"), primary),
                    format.score(cell.get("max"), primary),
                    *(_counted(own, cell.get("n")) for own in dead),
                ],
            }
        )
    return {
        "headings": ["n", "mean", "sd", "least", "most", *headings],
        "shares": [shares[name] for name in dict.fromkeys(figure for _, figure in split)],
        "rows": rows,
    }


def _counted(dead: dict[str, Any], runs: int | None) -> str:
    """The mean share, and of how many runs it is where that is not all: the others' counts are unknown."""
    some = f" ({dead['n']} of {runs})" if dead.get("n", runs) != runs else ""
    return format.share(dead.get("mean")) + some
