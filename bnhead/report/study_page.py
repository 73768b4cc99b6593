"""The content of a study's report as plain data, from which both pages are written."""

import shlex
from collections.abc import Iterable, Iterator
from typing import Any

from bnhead.census import keys
from bnhead.census.figures import figures_at
from bnhead.heads.grammar import PLACEMENTS
from bnhead.report import dead_units, provisional, study_figures
from bnhead.report.limits import study_limits
from bnhead.runs.run_files import RunFiles
from bnhead.studies import wording
from bnhead.studies.commands import study_command, train_command
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


_VERDICTS = {
    provisional.WORD: "not all runs have a result, and nothing is judged",
    "HELPS": "the treatment is better, and chance is no likely reason",
    "HURTS": "the treatment is worse, and chance is no likely reason",
    "NO MATERIAL DIFFERENCE": "any difference is likely to be smaller than what is material",
    "UNDECIDED": "these seeds show neither a difference nor that there is none",
    "NOT JUDGED": "one head is as good as can be at every value; only the other one could improve",
    "UNSTABLE": "runs of the treatment did not train",
    "INVALID": "the runs cannot be compared; the sentence says why",
    "MIXED": "the comparisons have different verdicts",
}


_CLAIM_WORDS = {
    "CONFIRMED": "the interval of what a claim says is above 0 is above 0",
    "REFUTED": "that interval is below the margin: nothing material is above 0",
}


def study_content(study: StudyFiles, directory: str = "DIR") -> dict[str, Any]:
    """The content of the pages, in their order.

    Args:
        study: the study.
        directory: its directory, as the commands of the page name it.
    """
    plan, verdict = study.plan, study.verdict
    excluded = {exclusion["run"] for exclusion in verdict["exclusions"]}
    return {
        "study": plan.study,
        "directory": directory,
        "question": plan.question,
        "date": run_dates(study.runs.values()),
        "facts": list(_subtitle(study)),
        "word": verdict["word"],
        "tone": study_figures.TONES.get(verdict["word"], "bad"),
        "badges": _badges(study),
        "sentence": verdict["sentence"],
        "lines": _lines(study),
        "exploratory": verdict["exploratory"],
        "edited": study.is_edited,
        "stale": verdict["plan_sha256"] != study.plan_sha256,
        "metric": wording.metric_name(plan.primary),
        "unit": wording.unit(plan.primary),
        "delta": wording.as_margin(plan.delta, plan.measures[0].name),
        "level": f"{100 * (1 - plan.alpha):g}",
        "outcome": wording.metric_name(plan.measures[0].name),
        "seeds": len(plan.seeds),
        "rule": plan.exclusions,
        "summary": dead_units.dead_summary(study),
        "sentences": [row["sentence"] for row in _secondary(study)],
        "causes": study_figures.cause_forests(study),
        "claims": study_figures.claim_forests(study),
        "classes": study_figures.class_table(study),
        "forests": study_figures.forests(study),
        "raw": study_figures.raw_values(study),
        "roles": study_figures.line_roles(study),
        "curves": study_figures.learning_curves(study),
        "dead": dead_units.dead_unit_charts(study.of_cell, study_figures.panel_groups(study)),
        "width": dead_units.width_charts(study),
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
            for run in study.judged_runs
            if study.runs[run.id].problem and run.id not in excluded and verdict["word"] != provisional.WORD
        ],
        "words": list(_words(study)),
        "limits": list(study_limits(study)),
        "again": list(_again(study, directory)),
        "commands": [
            (run.cell, run.seed, run.id, run_command(study, run, directory)) for run in study.judged_runs
        ],
        "machine": machine_rows(study.runs.values()),
        "code": code_rows(study),
        "settings": plan.settings,
    }


def _badges(study: StudyFiles) -> list[tuple[str, str, str]]:
    """Word, tone and outcome of each verdict in the headline; the outcome is empty if there is one only."""
    verdict = study.verdict
    words = [(verdict["word"], "")]
    if len(verdict["comparisons"]) == 1 and not verdict["trends"] and verdict["word"] != provisional.WORD:
        rows = wording.leading_rows(verdict)
        words = [(row["word"], wording.metric_name(row["outcome"]) * (len(rows) > 1)) for row in rows]
    return [(word, study_figures.TONES.get(word, "bad"), outcome) for word, outcome in words]


def _lines(study: StudyFiles) -> list[str]:
    """The headline in lines; in one if it is not that of the verdict's numbers, as in an edited file."""
    sentence = study.verdict["sentence"]
    if study.verdict["word"] == provisional.WORD or not study.verdict["comparisons"]:
        return [sentence]
    lines = wording.headline_lines(study.plan, study.verdict)
    return lines if " ".join(lines) == sentence else [sentence]


def run_dates(runs: Iterable[RunFiles]) -> str:
    """The days on which the runs began, in UTC: "2026-11-28 to 2026-11-30"; empty if unknown."""
    starts = [run.environment.get("started") for run in runs]
    days = sorted({start[:10] for start in starts if isinstance(start, str)})
    return " to ".join(dict.fromkeys([days[0], days[-1]])) if days else ""


def _secondary(study: StudyFiles) -> list[dict[str, Any]]:
    """The secondary rows of a study of a single comparison, except the first, which is in the headline."""
    comparisons = study.verdict["comparisons"]
    return list(comparisons[0].get("secondary", ()))[1:] if len(comparisons) == 1 else []


def _subtitle(study: StudyFiles) -> Iterator[str]:
    """The parts of the line above the title: data, backbone, epochs, seeds, runs."""
    settings, plan = study.plan.settings, study.plan
    yield from (str(settings[key]) for key in ("dataset", "backbone") if key in settings)
    for number, noun in (
        (settings.get("epochs"), "epoch"),
        (study.verdict.get("look", {}).get("seeds", len(plan.seeds)), "seed"),
        (study.verdict["flow"].get("started"), "run"),
    ):
        if number is not None:
            yield f"{number} {noun}{'' if number == 1 else 's'}"


def _words(study: StudyFiles) -> Iterator[tuple[str, str]]:
    """The words of the page that need an explanation."""
    plan = study.plan
    yield "head", "all layers after the backbone's feature map; its text names them in order"
    yield "FC", "fully connected; an FC layer is a Dense layer with an activation"
    yield "cell", "one head with one choice of settings, trained once with every seed"
    if study.verdict["comparisons"]:
        yield (
            "control, treatment",
            "the head that others are compared with, and the head that is compared with it",
        )
        margin = wording.as_margin(plan.delta, plan.measures[0].name)
        yield "material", f"a difference of at least {margin}, which was fixed before the first run"
    if study.verdict.get("classes"):
        yield "recall", "the share of a class's test images that get the right answer"
        yield (
            "without the prior",
            "with the log of the classes' shares of the training examples subtracted from the trained "
            "logits; what an adjusted or weighted loss has removed already is not subtracted again",
        )
        yield "minority class", "a class with fewer training examples than the mean of the classes"
    if rows := study.verdict.get("claims", {}).get("rows"):
        words = {row["word"] for row in rows}
        yield from ((word, meaning) for word, meaning in _CLAIM_WORDS.items() if word in words)
    if any(keys.is_key(key) for run in study.runs.values() for key in run.result):
        yield (
            "silent",
            "a unit is silent on an input if its output there is 0; about half is usual for a ReLU",
        )
        yield "dead", "a unit is dead if it is silent on every input counted"
    places = {place for cell in plan.cells for place in cell.placement.split(", ")}
    for place, meaning in PLACEMENTS.items():
        if place in places:
            yield place, f"the place of a batch norm, or of a part of one: {meaning}"
    words = {study.verdict["word"], *(comparison["word"] for comparison in study.verdict["comparisons"])}
    yield from ((word, meaning) for word, meaning in _VERDICTS.items() if word in words)


def _again(study: StudyFiles, directory: str) -> Iterator[tuple[str, str]]:
    """What can be done again, and its command."""
    path = shlex.quote(directory)
    if command := study_command(study.plan, directory):
        yield "the study; runs with a result are kept", command
    yield "this page and its files", f"bnhead report {path}"
    yield "every number, from the runs", f"bnhead verify {path}"
    yield "the study in TensorBoard", f"tensorboard --logdir {shlex.quote(f'{directory}/tensorboard')}"


def code_rows(study: StudyFiles) -> dict[str, str]:
    """The hashes of plan and code; the version is among those of the runs, if they recorded one."""
    recorded = {name for run in study.runs.values() for name in run.environment}
    rows = {name: value for name, value in study.plan.code.items() if name not in recorded}
    return {**rows, "plan_sha256": study.plan_sha256}


def cell_table(study: StudyFiles) -> dict[str, Any]:
    """The table of cells: headings, its figures of dead units (`shares`), and a row of texts per cell."""
    primary = study.plan.primary
    shares = {row.name: row for row in figures_at("charts")}
    names = dict.fromkeys(key for cell in study.verdict["cells"] for key in cell["dead"])
    columns = [key for key in names if keys.short_parts(key)[1] in shares]
    layers = list(dict.fromkeys(keys.short_parts(key)[0] for key in columns))
    ranks = {figure: rank for rank, figure in enumerate(shares)}
    columns.sort(key=lambda key: (layers.index(keys.short_parts(key)[0]), ranks[keys.short_parts(key)[1]]))
    parts = [keys.short_parts(key) for key in columns]
    several_layers = len({layer for layer, _ in parts}) > 1
    headings = [f"{layer} " * several_layers + shares[figure].heading for layer, figure in parts]
    rows = []
    for cell in study.verdict["cells"]:
        planned = study.plan.cell(cell["name"])
        head = "" if planned.name.startswith(planned.head) else planned.head
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
        rows.append({"name": planned.name, "about": head, "texts": texts})
    return {
        "headings": ["n", "mean", "sd", "min", "max", *headings],
        "shares": [shares[name] for name in dict.fromkeys(figure for _, figure in parts)],
        "rows": rows,
    }


def run_command(study: StudyFiles, run: PlannedRun, directory: str = "DIR") -> str:
    """The command of one run, on as many threads as in the study."""
    threads = study.plan.threads
    threads_fixed = f"TF_NUM_INTRAOP_THREADS={threads} TF_NUM_INTEROP_THREADS={threads} " if threads else ""
    settings = study.runs[run.id].config or study.plan.run_settings(run)
    return threads_fixed + train_command({**settings, "workdir": f"{directory}/runs/{run.id}"})


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
