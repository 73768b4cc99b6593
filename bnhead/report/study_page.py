"""The content of a study's report as plain data, from which both pages are written."""

import shlex
from collections.abc import Iterable
from typing import Any

from bnhead.census import keys
from bnhead.census.figures import figures_at
from bnhead.report import study_figures
from bnhead.report.limits import study_limits
from bnhead.runs.run_files import RunFiles
from bnhead.studies import wording
from bnhead.studies.directory import StudyFiles
from bnhead.studies.plan import PlannedRun

_STEPS = {  # key of the flow -> its word, and whether it is listed at 0
    "planned": ("planned", True),
    "started": ("started", True),
    "finished": ("finished", True),
    "diverged": ("diverged", True),
    "failed_to_learn": ("failed to learn", False),
    "failed": ("failed", False),
    "missing": ("missing", False),
    "analysed": ("analysed", True),
}
_UNIQUE = ("started", "seconds", "sessions")  # of environment.json: these differ between any two runs


def study_content(study: StudyFiles) -> dict[str, Any]:
    """The content of the pages, in their order."""
    plan, verdict = study.plan, study.verdict
    excluded = {exclusion["run"] for exclusion in verdict["exclusions"]}
    return {
        "study": plan.study,
        "question": plan.question,
        "word": verdict["word"],
        "tone": study_figures.TONES.get(verdict["word"], "bad"),
        "sentence": verdict["sentence"],
        "exploratory": verdict["exploratory"],
        "edited": study.is_edited,
        "stale": verdict["plan_sha256"] != study.plan_sha256,
        "metric": wording.metric_name(plan.primary),
        "unit": wording.unit(plan.primary),
        "delta": wording.as_margin(plan.delta, plan.primary),
        "level": f"{100 * (1 - plan.alpha):g}",
        "tost_level": f"{100 * (1 - 2 * plan.alpha):g}",
        "seeds": len(plan.seeds),
        "rule": plan.exclusions,
        "differences": study_figures.paired_differences(study),
        "roles": study_figures.line_roles(study),
        "curves": study_figures.learning_curves(study),
        "dead": study_figures.dead_unit_charts(study.of_cell, study_figures.panel_groups(study)),
        "width": study_figures.width_charts(study),
        "heads": study_figures.head_diagrams(study),
        "cells": cell_table(study),
        "flow": [
            (word, verdict["flow"].get(key, 0))
            for key, (word, always) in _STEPS.items()
            if always or verdict["flow"].get(key)
        ],
        "exclusions": verdict["exclusions"],
        "unread": [
            {"id": run.id, "cell": run.cell, "seed": run.seed, "problem": study.runs[run.id].problem}
            for run in plan.runs
            if study.runs[run.id].problem and run.id not in excluded
        ],
        "limits": list(study_limits(study)),
        "commands": [(run.cell, run.seed, run.id, run_command(study, run)) for run in plan.runs],
        "machine": machine_rows(study.runs.values()),
        "code": {**plan.code, "plan": study.plan_sha256},
        "settings": plan.settings,
    }


def cell_table(study: StudyFiles) -> dict[str, Any]:
    """The table of cells: headings, its figures of dead units (`shares`), and a row of texts per cell."""
    primary = study.plan.primary
    shares = {row.name: row for row in figures_at("charts")}
    names = dict.fromkeys(key for cell in study.verdict["cells"] for key in cell["dead"])
    columns = [key for key in names if keys.short_parts(key)[1] in shares]
    parts = [keys.short_parts(key) for key in columns]
    several_layers = len({layer for layer, _ in parts}) > 1
    headings = [f"{layer} " * several_layers + shares[figure].heading for layer, figure in parts]
    rows = []
    for cell in study.verdict["cells"]:
        planned = study.plan.cell(cell["name"])
        head = [] if planned.name.startswith(planned.head) else [planned.head]
        placement = [planned.placement] if planned.placement else []
        texts = [
            str(cell.get("n", wording.NONE)),
            wording.as_score(cell.get("mean"), primary),
            wording.as_spread(cell.get("sd"), primary),
            wording.as_score(cell.get("min"), primary),
            wording.as_score(cell.get("max"), primary),
        ]
        for key in columns:
            dead = cell["dead"].get(key) or {}
            # A figure may be unknown in some runs; its mean is then over the other runs.
            is_partial = dead.get("n", cell.get("n")) != cell.get("n")
            partial = f" ({dead['n']} of {cell.get('n')})" if is_partial else ""
            texts.append(wording.as_share(dead.get("mean")) + partial)
        rows.append({"name": planned.name, "about": ", ".join(head + placement), "texts": texts})
    return {
        "headings": ["n", "mean", "sd", "least", "most", *headings],
        "shares": [shares[name] for name in dict.fromkeys(figure for _, figure in parts)],
        "rows": rows,
    }


def run_command(study: StudyFiles, run: PlannedRun) -> str:
    """The command of one run, with every setting, on as many threads as in the study."""
    threads = study.plan.threads
    fixed = f"TF_NUM_INTRAOP_THREADS={threads} TF_NUM_INTEROP_THREADS={threads} " if threads else ""
    settings = study.runs[run.id].config or study.plan.run_settings(run)
    return fixed + train_command(settings, f"DIR/runs/{run.id}")


def train_command(settings: dict[str, Any], workdir: str) -> str:
    """`python train.py` with a flag for each setting."""
    flags = []
    for name, value in settings.items():
        if isinstance(value, bool):
            flags.append(f"--{name}" if value else f"--no{name}")
        else:
            flags.append(shlex.quote(f"--{name}={value}"))
    return " ".join(["python train.py", *flags, f"--workdir={workdir}"])


def machine_rows(runs: Iterable[RunFiles]) -> list[tuple[str, list[tuple[str, int]]]]:
    """Versions and devices: name -> each value with its number of runs, most frequent first."""
    environments = [run.environment for run in runs if run.environment]
    names = dict.fromkeys(name for environment in environments for name in environment)
    rows = []
    for name in names:
        if name not in _UNIQUE:
            values = [environment[name] for environment in environments if name in environment]
            texts = [", ".join(map(str, v)) if isinstance(v, list) else str(v) for v in values]
            counts = {text: texts.count(text) for text in texts}
            rows.append((name, sorted(counts.items(), key=lambda item: (-item[1], item[0]))))
    return rows
