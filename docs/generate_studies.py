"""The table of named studies in docs/studies.md, from their type and the times in docs/answer/times.json, and
what three of them found, from the plans and verdicts in docs/answer/."""

import json
import pathlib

import generate_answer

from bnhead.studies import wording
from bnhead.studies.commands import DEFAULTS
from bnhead.studies.directory import read_plan
from bnhead.studies.study import STUDIES, Study, named_study
from bnhead.training import TrainConfig

KEPT = ("placement", "summaries/controls", "summaries/width")  # folders in docs/answer/
TIMES = pathlib.Path(__file__).resolve().parent / "answer" / "times.json"
CORES = 2


def time_of(name: str, study: Study) -> str:
    """The time of the first look on two cores: half the CPU time that was measured, or its pace elsewhere.

    A study of other batch sizes, steps or data, or on frozen features, has no time by the pace of another.
    """
    strata = list(study.strata(TrainConfig()))
    runs = len(study.cells(TrainConfig())) * int(DEFAULTS["seeds"].partition(",")[0])
    times = json.loads(TIMES.read_text())
    if ("batch_size" in strata[0] or study.arms or study.rivals) and name not in times:
        return "\N{EN DASH}"
    measured = times.get(name, times["bn_before_fc"])
    about = "" if measured["runs"] == runs and name in times else "about "
    return f"{about}{measured['cpu_seconds'] / measured['runs'] * runs / CORES / 60:.1f} min"


def table() -> str:
    """A row for each study: its question, its heads (the control first), what it varies, and its time."""
    lines = [
        "| `bnhead study` | question | heads, the control first | varies | 10 seeds, 2 cores |",
        "|---|---|---|---|---|",
    ]
    for name in STUDIES:
        study = named_study(name)
        strata = [dict(stratum) for stratum in study.strata(TrainConfig())]
        varied = "; ".join(
            f"`{key}`: {', '.join(f'{stratum[key]:g}' for stratum in strata)}" for key in strata[0]
        )
        heads = ", ".join(f"`{head}`" for head in study.heads)
        heads += ", and the heads between" * study.chain
        heads += "".join(f", with `{key}={value}`" for rival in study.rivals for key, value in rival.items())
        heads += ", and [claims](imbalance.md#seven-claims)" * bool(study.checks)
        lines.append(
            f"| `{name}` | {study.question} | {heads} | {varied} | {time_of(name, study)} |".replace(
                "  ", " "
            )
        )
    return "\n".join(lines)


def findings() -> str:
    """A line for each kept study."""
    return "\n".join(f"- {finding(name)}" for name in KEPT)


def finding(name: str) -> str:
    """The command of a kept study, the number of its runs, and its headline."""
    directory = TIMES.parent / name
    plan = read_plan(directory)
    verdict = json.loads((directory / "verdict.json").read_text())
    runs = len(plan.cells) * verdict["look"]["seeds"]
    return f"`{generate_answer.command(plan)}`, {runs} runs. {wording.headline(plan, verdict)}"
