"""The commands that do a run or a study again, with the flags that differ from their defaults."""

import shlex
import types
from collections.abc import Mapping
from typing import Any

from bnhead.studies.plan import Plan
from bnhead.studies.study import STUDIES
from bnhead.training.config import changed

DEFAULTS = {"seeds": 10, "delta": 0.01, "alpha": 0.05}  # of `bnhead study`
_ALWAYS = ("head", "seed")  # a command names them also at their defaults


def train_command(settings: Mapping[str, Any]) -> str:
    """The `bnhead train` command of a run: head, seed, and the other settings that differ from the defaults.

    Args:
        settings: fields of `TrainConfig`.
    """
    differing = changed(settings)
    used = {key: value for key, value in settings.items() if key in differing or key in _ALWAYS}
    return _command("train", used)


def study_command(plan: Plan, directory: str) -> str:
    """The `bnhead study` command of a plan; empty if no command makes this plan.

    Args:
        plan: the plan.
        directory: the study's directory, as in the command.
    """
    study = STUDIES.get(plan.study)
    if study is None or not plan.cells:
        return ""
    cells = [dict(cell.stratum) for cell in plan.cells[:: len(study.heads)]]
    # A setting that varies with the strata and is a flag all the same, as the learning rate in `batch_size`,
    # is known by the strata that it leads to.
    free = [key for key in cells[0] if key not in study.varies]
    candidates = [{key: cell[key] for key in free} for cell in cells] if free else [{}]
    for values in candidates:
        settings = {**plan.settings, **values}
        base = types.SimpleNamespace(**settings)  # a config would look for the data
        if [dict(stratum) for stratum in study.strata(base)] == cells:
            asked = {
                key: getattr(plan, key) for key in ("delta", "alpha") if getattr(plan, key) != DEFAULTS[key]
            }
            flags = {**changed(settings), "seeds": len(plan.seeds), **asked, "dir": directory}
            return _command(f"study {plan.study}", flags)
    return ""


def _command(start: str, flags: Mapping[str, Any]) -> str:
    words = [
        (f"--{name}" if value else f"--no{name}")
        if isinstance(value, bool)
        else shlex.quote(f"--{name}={value}")
        for name, value in flags.items()
    ]
    return " ".join(["bnhead", start, *words])
