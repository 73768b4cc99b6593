"""Copies the small files of a study to docs/answer/: `python docs/keep_study.py studies/bn_before_fc digits`.

Plan, verdict, and each run's settings, environment, history, predictions and result: what `bnhead report` and
`bnhead verify` read. Models, checkpoints and event files are left out, and so are their hashes.

Of a study of many runs only plan, verdict and `runs.csv` are kept, under a name such as
`summaries/imbalance_digits`. A net that was read from a file has the file's name in them, and no directory.
"""

import dataclasses
import json
import os
import pathlib
import shutil
import sys
from collections.abc import Mapping
from typing import Any

from bnhead.runs import atomic
from bnhead.studies.directory import read_plan
from bnhead.studies.plan import to_json, with_runs

ANSWER = pathlib.Path(__file__).resolve().parent / "answer"
OF_STUDY = ("plan.json", "verdict.json")
SUMMARY = (*OF_STUDY, "runs.csv")
OF_RUN = ("config.json", "environment.json", "history.csv", "predictions.npz", "result.json")


def keep(study: pathlib.Path, name: str) -> None:
    """Replaces docs/answer/<name> by the small files of a study, or by its summary (`summaries/<name>`)."""
    is_summary = name.startswith("summaries/")
    paths = [study / file for file in (SUMMARY if is_summary else OF_STUDY)]
    runs = [] if is_summary else sorted((study / "runs").iterdir())
    paths += [run / file for run in runs for file in OF_RUN]
    if missing := [path for path in paths if not path.is_file()]:
        raise SystemExit(f"{missing[0]} is missing; nothing was changed")
    shutil.rmtree(ANSWER / name, ignore_errors=True)
    for path in paths:
        target = ANSWER / name / path.relative_to(study)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    if is_summary:
        _name_nets(ANSWER / name)
    for run in runs:
        status = json.loads((run / "status.json").read_text())
        status["sha256"] = {file: digest for file, digest in status["sha256"].items() if file in OF_RUN}
        (ANSWER / name / "runs" / run.name / "status.json").write_text(json.dumps(status, indent=2) + "\n")


def _name_nets(folder: pathlib.Path) -> None:
    """Rewrites a kept plan without the directories of its nets, and with it the hashes in the other files."""
    plan = read_plan(folder)
    cells = tuple(dataclasses.replace(cell, settings=_named(cell.settings)) for cell in plan.cells)
    named = with_runs(dataclasses.replace(plan, settings=_named(plan.settings), cells=cells))
    if named == plan:
        return
    (folder / "plan.json").write_text(atomic.json_text(to_json(named)))
    text = (folder / "verdict.json").read_text()
    all_settings = (plan.settings, *(cell.settings for cell in plan.cells))
    for path in {path for settings in all_settings for path in _paths(settings).values()}:
        text = text.replace(path, os.path.basename(path))  # in sentences
    verdict = {**json.loads(text), "plan_sha256": named.sha256}
    (folder / "verdict.json").write_text(atomic.json_text(verdict))
    table = (folder / "runs.csv").read_text()
    for old, new in zip(plan.runs, named.runs, strict=True):
        table = table.replace(old.id, new.id)
    (folder / "runs.csv").write_text(table)


def _paths(settings: Mapping[str, Any]) -> dict[str, str]:
    """The settings that are paths of nets."""
    values = {key: settings.get(key, "") for key in ("backbone", "weights")}
    return {k: path for k, path in values.items() if path.endswith(".keras") or os.path.isabs(path)}


def _named(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {**settings, **{key: os.path.basename(path) for key, path in _paths(settings).items()}}


if __name__ == "__main__":
    keep(pathlib.Path(sys.argv[1]), sys.argv[2])
