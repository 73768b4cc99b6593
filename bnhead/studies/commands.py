"""The commands that do a run or a study again, with the flags that differ from their defaults."""

import shlex
import types
from collections.abc import Mapping
from typing import Any

from bnhead.studies.chain import CAUSES, DEFAULT_HEAD, FIXED
from bnhead.studies.custom import usual_question
from bnhead.studies.measures import measures_of
from bnhead.studies.plan import Plan, head_as_given
from bnhead.studies.study import STUDIES, Study
from bnhead.training.config import changed

DEFAULTS = {"seeds": "10,20,40", "delta": 0.0, "alpha": 0.05, "name": "heads"}  # of `bnhead study`
_ALWAYS = ("head", "seed")  # a command names them also at their defaults


def train_command(settings: Mapping[str, Any]) -> str:
    """The `bnhead train` command of a run: head, seed, and the other settings that differ from the defaults.

    Args:
        settings: fields of `TrainConfig`.
    """
    differing = changed(settings)
    used = {key: value for key, value in settings.items() if key in differing or key in _ALWAYS}
    return _command_line("train", used)


def study_command(plan: Plan, directory: str) -> str:
    """The `bnhead study` command of a plan; empty if no command makes this plan.

    Args:
        plan: the plan.
        directory: the study's directory, as in the command.
    """
    if not plan.cells or "backbone" not in {**plan.settings, **plan.cells[0].settings}:  # of `compare`
        return ""
    if plan.causes and plan.study == CAUSES:
        treatment = plan.comparisons[0].treatment
        settings = {key: value for key, value in plan.settings.items() if key not in FIXED}
        start, flags = "diagnose", {"head": treatment} if treatment != DEFAULT_HEAD else {}
    elif plan.study in STUDIES:
        settings = _named_settings(plan, STUDIES[plan.study])
        start, flags = f"study {plan.study}", {}
    else:
        settings, start = dict(plan.settings), "study"
        heads = list(dict.fromkeys(head_as_given(cell) for cell in plan.cells))
        flags = {"heads": ",".join(heads)}
        if plan.question != usual_question(heads):
            flags["question"] = plan.question
        strata = [dict(cell.stratum) for cell in plan.cells if cell.stratum]
        if strata and len(strata[0]) > 1:
            return ""
        if strata:
            (key,) = strata[0]
            values = ",".join(dict.fromkeys(str(stratum[key]) for stratum in strata))
            flags["vary"] = f"{key}={values}"
        if plan.measures[0].name != measures_of(plan.task)[0]:
            flags["outcome"] = plan.measures[0].name
        if plan.study != DEFAULTS["name"]:
            flags["name"] = plan.study
    if settings is None:
        return ""
    numbers = {
        "seeds": ",".join(map(str, plan.looks)),
        "first_seed": plan.seeds[0],
        "delta": 0.0 if plan.delta == plan.measures[0].measure.margin else plan.delta,
        "alpha": plan.alpha,
    }
    asked = {key: value for key, value in numbers.items() if value != DEFAULTS.get(key, 0)}
    return _command_line(start, {**flags, **changed(settings), **asked, "dir": directory})


def _named_settings(plan: Plan, study: Study) -> dict[str, Any] | None:
    """The settings of the flags of a named study; None if they lead to no such plan.

    A setting that varies with the strata and is a flag all the same, as the learning rate in `batch_size`, is
    known by the strata that it leads to.
    """
    if study.checks or study.rivals:
        fixed = {*study.varies, *study.settings}
        return {
            key: value
            for key, value in plan.settings.items()
            if key not in fixed and (key, value) not in study.defaults.items()
        }
    if study.arms:  # the first arm is the base, but for its own settings
        control = plan.cells[0]
        of_base = types.SimpleNamespace(**plan.settings, **control.settings, has_own_weights=False)
        hidden = {*study.arms(of_base)[control.arm], *study.varies}
        return {key: v for key, v in {**plan.settings, **control.settings}.items() if key not in hidden}
    cells = [dict(cell.stratum) for cell in plan.cells[:: len(study.heads)]]
    not_varied = [key for key in cells[0] if key not in study.varies]
    for values in [{key: cell[key] for key in not_varied} for cell in cells] if not_varied else [{}]:
        settings = {**plan.settings, **values}
        base = types.SimpleNamespace(**settings)  # a config would look for the data
        if [dict(stratum) for stratum in study.strata(base)] == cells:
            return settings
    return None


def _command_line(start: str, flags: Mapping[str, Any]) -> str:
    words = [
        (f"--{name}" if value else f"--no{name}")
        if isinstance(value, bool)
        else shlex.quote(f"--{name}={value}")
        for name, value in flags.items()
    ]
    return " ".join(["bnhead", start, *words])
