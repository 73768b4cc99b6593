"""Everything that a study's report says, as plain data; both pages are written from it."""

import hashlib
import json
import shlex
from collections.abc import Sequence
from typing import Any

from bnhead.census import keys
from bnhead.census.figures import figures_at
from bnhead.report import format, study_figures
from bnhead.report.limits import limits
from bnhead.report.study import Run, Study

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

_OWN = ("started", "seconds", "sessions")  # of environment.json: what differs between any two runs


def content(study: Study) -> dict[str, Any]:
    """What the pages say, in their order."""
    plan, verdict = study.plan, study.verdict
    told = {one["run"] for one in verdict["exclusions"]}
    return {
        "study": plan["study"],
        "question": plan["question"],
        "word": verdict["word"],
        "tone": study_figures.TONES.get(verdict["word"], "bad"),
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
        "differences": study_figures.differences(study),
        "roles": study_figures.roles(study),
        "curves": study_figures.learning_curves(study),
        "dead": study_figures.dead_units(study.runs, study.of_cell, study_figures.groups(study)),
        "width": study_figures.against_width(study),
        "heads": study_figures.head_diagrams(study),
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


def command(study: Study, run: Run) -> str:
    """The command that makes one run, with every setting, on as many threads as in the study."""
    cell = next(cell for cell in study.plan["cells"] if cell["name"] == run.cell)
    planned = {**study.plan["settings"], "head": cell["head"], **cell["settings"], "seed": run.seed}
    threads = study.plan.get("threads")
    fixed = f"TF_NUM_INTRAOP_THREADS={threads} TF_NUM_INTEROP_THREADS={threads} " if threads else ""
    return fixed + train_command(run.config or planned, f"DIR/runs/{run.id}")


def train_command(settings: dict[str, Any], workdir: str) -> str:
    """`python train.py` with a flag for each setting."""
    return " ".join(["python train.py", *(_flag(*item) for item in settings.items()), f"--workdir={workdir}"])


def _flag(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return f"--{name}" if value else f"--no{name}"
    return shlex.quote(f"--{name}={value}")


def machine(runs: Sequence[Run]) -> list[tuple[str, list[tuple[str, int]]]]:
    """Versions and devices: name, and the values there are with their number of runs, most frequent first."""
    environments = [run.environment for run in runs if run.environment]
    names = dict.fromkeys(name for own in environments for name in own if name not in _OWN)
    rows = []
    for name in names:
        values = [_text(own[name]) for own in environments if name in own]
        counts = {value: values.count(value) for value in values}
        rows.append((name, sorted(counts.items(), key=lambda item: (-item[1], item[0]))))
    return rows


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
