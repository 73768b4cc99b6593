"""What the page of a single run says: the same pieces as a study's, of one run."""

import pathlib
from typing import Any

from bnhead.census import keys
from bnhead.census.figures import figures_at
from bnhead.errors import RunDirectoryError
from bnhead.report import format, study_figures
from bnhead.report.study import Run, read_run
from bnhead.report.study_page import machine, train_command

_METRICS = ("accuracy", "r2")  # what a history may have, of which the first that it has is drawn


def read(directory: pathlib.Path) -> Run:
    """The run in a directory.

    Raises:
        RunDirectoryError: its settings are not there or cannot be read.
    """
    run = read_run(directory)
    if not run.config:
        raise RunDirectoryError(f"{directory} holds no run that can be read: {run.problem}")
    return run


def content(run: Run) -> dict[str, Any]:
    """What the pages say, in their order."""
    told = run.result.get("head") if isinstance(run.result.get("head"), str) else ""
    return {
        "title": _title(run),
        "sentence": _sentence(run),
        "tone": "even" if run.result.get("status") == "finished" else "bad",
        "problem": run.problem,
        "curves": _curves(run),
        "dead": study_figures.dead_units([run], lambda _: [run], [("", [("treatment", "this run")])]),
        "heads": [study_figures.head_diagram(str(run.config.get("head", "")), told)],
        "counts": _counts(run),
        "settings": run.config,
        "command": train_command(run.config, "DIR"),
        "machine": machine([run]),
    }


def _title(run: Run) -> str:
    names = [run.config.get(key) for key in ("head", "dataset", "backbone", "seed")]
    return "{} on {} with {}, seed {}".format(*names)


def _sentence(run: Run) -> str:
    epochs, planned = len(run.history.get("epoch", [])), run.config.get("epochs")
    if not run.result:
        return f"{_title(run)}: not finished, {epochs} of {planned} epochs."
    data = run.result.get("data")
    size = data.get("test") if isinstance(data, dict) else None
    examples = f" of {size:,} examples" if isinstance(size, int) else ""
    primary = next((f"test_{name}" for name in _METRICS if f"test_{name}" in run.result), None)
    if run.result.get("status") != "finished" or primary is None:
        return f"{_title(run)}: {run.result.get('status')} in epoch {epochs} of {planned}."
    value = format.score(run.result[primary], primary)
    return f"{_title(run)}: {format.metric(primary)} {value}{examples}."


def _curves(run: Run) -> dict[str, Any] | None:
    """The metric on training and test examples by epoch."""
    name = next((name for name in _METRICS if name in run.history), None)
    if name is None:
        return None
    columns = {"training": name, "test": f"test_{name}"}
    lines = [("control", "training"), ("treatment", "test")]

    def of(split: str) -> list[Run]:
        return [Run(run.id, split, 0, history={"value": run.history.get(columns[split], [])})]

    chart = study_figures.by_epoch(of, [("", lines)], "value", lambda v: format.score(v, columns["test"]),
                             tick=lambda v: study_figures.score_tick(v, columns["test"]))  # fmt: skip
    return chart and {"metric": format.metric(name), **chart}


def _counts(run: Run) -> list[tuple[str, list[tuple[str, str]]]]:
    """For each layer, the meaning of each figure and its value."""
    counts = []
    for layer in keys.layers_of(run.result):
        own = keys.figures(run.result, layer)
        rows = [row for row in figures_at("summaries") if row.name in own]
        counts.append((layer, [(row.meaning, format.figure(own[row.name], row)) for row in rows]))
    return counts
