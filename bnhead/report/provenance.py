"""Where the numbers come from: the command of each run, versions and devices."""

import shlex
from collections.abc import Sequence
from typing import Any

from bnhead.report.study import Run, Study

_OWN = ("started", "seconds", "sessions")  # of environment.json: what differs between any two runs


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
