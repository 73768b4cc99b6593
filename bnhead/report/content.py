"""Everything that a study's report says, as plain data; both pages are written from it."""

import shlex
from collections.abc import Iterator, Sequence
from typing import Any

from bnhead.report import figures, words
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
_OWN = ("started", "seconds")  # of environment.json: what differs between any two runs
_LIMITING = ("dataset", "backbone", "weights", "augment", "epochs", "batch_size", "learning_rate", "fc_units")


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
        "stale": verdict["plan_sha256"] != plan["sha256"],
        "metric": words.metric(plan["primary"]),
        "unit": words.unit(plan["primary"]),
        "delta": words.points(plan["delta"], plan["primary"]),
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


def cells(study: Study) -> dict[str, Any]:
    """The table of cells: headings, and a row of texts for each."""
    primary = study.plan["primary"]
    planned = {cell["name"]: cell for cell in study.plan["cells"]}
    there = dict.fromkeys(key for cell in study.verdict["cells"] for key in cell["dead"])
    counted = [key for key in there if key.rsplit("/", 1)[-1] in figures.FIGURES]
    names = {"per_input": "silent", "dataset": "dead"}
    several = len({key.rsplit("/", 1)[0] for key in counted}) > 1
    told = [(layer if several else "", names[figure])
            for layer, _, figure in (key.rpartition("/") for key in counted)]  # fmt: skip
    headings = [" ".join(filter(None, pair)) for pair in told]
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
                    str(cell.get("n", words.NONE)),
                    words.score(cell.get("mean"), primary),
                    words.spread(cell.get("sd"), primary),
                    words.score(cell.get("min"), primary),
                    words.score(cell.get("max"), primary),
                    *(words.share(own.get("mean")) for own in dead),
                ],
            }
        )
    return {"headings": ["n", "mean", "sd", "least", "most", *headings], "rows": rows}


def limits(study: Study) -> Iterator[str]:
    """What the study cannot say, derived from its plan."""
    plan, verdict = study.plan, study.verdict
    varied = {key for cell in plan["cells"] for key in cell["settings"]}
    fixed = {key: plan["settings"][key] for key in _LIMITING
             if key in plan["settings"] and key not in varied}  # fmt: skip
    one = []
    if "dataset" in fixed:
        one.append(f"one data set, {fixed['dataset']}")
    if "backbone" in fixed:
        start = f"from the weights {fixed['weights']}" if fixed.get("weights") else "from initial weights"
        one.append(f"one backbone, {fixed['backbone']}, trained {start}")
    schedule = [text.format(fixed[key]) for key, text in (
        ("epochs", "{} epochs"), ("batch_size", "batches of {}"), ("learning_rate", "a peak learning rate of {:g}"),
    ) if key in fixed]  # fmt: skip
    if schedule:
        one.append(f"one schedule: {words.listed(schedule)}")
    if one:
        yield f"It saw {'; '.join(one)}. What holds elsewhere, it cannot say."
    if varied:
        yield f"Only {words.listed(sorted(varied))} varied beside the head, over the values in the table of cells."
    yield from _of_the_test_split(study)
    yield (
        f"A replicate is a seed, and there are {len(plan['seeds'])}. The interval covers other seeds; it does not "
        "cover other test examples, data sets or nets."
    )
    halves = [(one["interval"][1] - one["interval"][0]) / 2 for one in verdict["comparisons"]
              if len(one["interval"]) == 2 and all(map(words.known, one["interval"]))]  # fmt: skip
    margin = words.points(plan["delta"], plan["primary"])
    if halves:
        least, most = (words.difference(v, plan["primary"])[1:] for v in (min(halves), max(halves)))
        width = f"\N{PLUS-MINUS SIGN}{least}" + (f" to \N{PLUS-MINUS SIGN}{most}" if most != least else "")
        unit = f" {words.unit(plan['primary'])}" if words.unit(plan["primary"]) else ""
        yield (
            f"The intervals reach {width}{unit} around the mean difference: smaller effects cannot be told "
            "from none."
        )
    yield f"That a difference below {margin} is immaterial was decided beforehand; who needs less must ask anew."
    if len(verdict["comparisons"]) > 1:
        yield (
            f"The {len(verdict['comparisons'])} comparisons are one family: p-values are adjusted by Holm's "
            "method, the intervals in the figure are not."
        )
    yield "Runs are judged at the last epoch. A head that learns faster and ends alike is no better here."
    if verdict["exploratory"]:
        yield "The plan changed after it was frozen: the result is a lead to be confirmed, not a confirmation."


def _of_the_test_split(study: Study) -> Iterator[str]:
    data = next((run.result["data"] for run in study.runs if isinstance(run.result.get("data"), dict)), {})
    if isinstance(data.get("test"), int) and data["test"] > 0:
        step = (
            f": one of them is {100 / data['test']:.2g} points"
            if words.is_share(study.plan["primary"])
            else ""
        )
        yield (
            f"All runs are tested on the same {data['test']:,} examples{step}. The test split was evaluated after "
            "every epoch for the curves; nothing was chosen by it."
        )
    counted = next((value for run in study.runs for key, value in run.result.items()
                    if key.endswith("/inputs") and words.known(value) and value > 0), None)  # fmt: skip
    if counted:
        yield (
            f"Dead means silent on the {counted:,.0f} inputs counted: such a unit fires on less than "
            f"{min(1, 3 / counted):.2%} of inputs, with 95 % confidence."
        )


def command(study: Study, run: Run) -> str:
    """The command that makes one run, with every setting."""
    cell = next(cell for cell in study.plan["cells"] if cell["name"] == run.cell)
    planned = {**study.plan["settings"], "head": cell["head"], **cell["settings"], "seed": run.seed}
    return train_command(run.config or planned, f"DIR/runs/{run.id}")


def train_command(settings: dict[str, Any], workdir: str) -> str:
    """`python train.py` with a flag for each setting."""
    return " ".join(["python train.py", *(_flag(*item) for item in settings.items()), f"--workdir={workdir}"])


def _flag(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return f"--{name}" if value else f"--no{name}"
    return shlex.quote(f"--{name}={value}")


def machine(runs: Sequence[Run]) -> list[tuple[str, list[tuple[str, int]]]]:
    """Versions and devices: name -> the values there are, each with its number of runs, most frequent first."""
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
