"""The content of the page of a single run, from the same parts as a study's."""

import base64
import pathlib
import shlex
from typing import Any

from bnhead.census import keys
from bnhead.census.figures import figures_at
from bnhead.census.reading import read_layer
from bnhead.errors import RunDirectoryError
from bnhead.mechanisms.figures import tables_of
from bnhead.report import dead_units, study_figures
from bnhead.report.event_pictures import last_pictures
from bnhead.report.study_page import machine_rows, run_dates
from bnhead.runs.run_files import RunFiles, read_run_files
from bnhead.studies import wording
from bnhead.studies.commands import changed, train_command

_CAPTIONS = {
    "ends": "dead units (red) and always-on units (blue) of each layer; the line is silent per input",
    "classes": "on which classes each unit is active; units that never are, are red",
    "activity": "units by the share of inputs on which they are active; the red bar counts the dead",
    "accumulation": "units silent on each of the first n inputs; blue: without those alive at least",
    "raster": "the share of inputs on which each unit was active, by epoch; red is none",
    "codeath": "which units are silent on the same inputs",
}
_METRICS = ("accuracy", "r2")  # the first one in a history is drawn


def read_single_run(directory: pathlib.Path) -> RunFiles:
    """The run in a directory.

    Raises:
        RunDirectoryError: its settings do not exist or cannot be read.
    """
    run = read_run_files(directory)
    if not run.config:
        raise RunDirectoryError(f"{directory} holds no run that can be read: {run.problem}")
    return run


def run_content(run: RunFiles, directory: str = "DIR") -> dict[str, Any]:
    """The content of the pages, in their order.

    Args:
        run: the run.
        directory: its directory, as the commands of the page name it.
    """
    title = "{} on {} with {}, seed {}".format(
        *(run.config.get(key) for key in ("head", "dataset", "backbone", "seed"))
    )
    description = run.result.get("head")
    counts = []
    for layer in keys.layers_of(run.result):
        values = keys.figures(run.result, layer)
        rows = [row for row in figures_at("summaries") if row.name in values]
        counts.append((layer, [(row.meaning, wording.as_figure(values[row.name], row)) for row in rows]))
    activation = str(run.config.get("fc_activation", ""))
    readings = [
        (
            layer,
            read_layer(keys.figures(run.result, layer), activation if layer.startswith("head_fc") else ""),
        )
        for layer, _ in counts
    ]
    differing = changed(run.config)
    return {
        "title": title,
        "date": run_dates([run]),
        "sentence": f"{title}: {_ending(run)}",
        "tone": "even" if run.result.get("status") == "finished" else "bad",
        "problem": run.problem,
        "readings": [f"{layer}: {sentence}" for layer, sentence in readings if sentence],
        "curves": _curves(run),
        "dead": dead_units.dead_unit_charts(lambda _: [run], [("", [("treatment", "this run")])]),
        "pictures": _pictures(run),
        "heads": [study_figures.head_diagram(str(run.config.get("head", "")), description)],
        "counts": counts,
        "mechanisms": tables_of(run.result),
        "changed": differing,
        "defaults": {key: value for key, value in run.config.items() if key not in differing},
        "again": [
            ("the run (--overwrite)", train_command({**run.config, "workdir": directory})),
            ("this page", f"bnhead report {shlex.quote(directory)}"),
            ("the units of every layer", f"bnhead inspect {shlex.quote(directory)}"),
            ("its curves in TensorBoard", f"tensorboard --logdir {shlex.quote(directory)}"),
        ],
        "machine": machine_rows([run]),
    }


def _pictures(run: RunFiles) -> list[dict[str, Any]]:
    """The last pictures of the run's units, as in TensorBoard."""
    pictures = []
    for (layer, kind), (epoch, png) in last_pictures(run.path).items():
        if kind in _CAPTIONS:
            source = base64.b64encode(png).decode()
            caption = f"{layer or 'all layers'} after epoch {epoch}: {_CAPTIONS[kind]}"
            pictures.append({"source": source, "caption": caption, "rank": list(_CAPTIONS).index(kind)})
    return sorted(pictures, key=lambda picture: picture["rank"])


def _ending(run: RunFiles) -> str:
    epochs, planned = len(run.history.get("epoch", [])), run.config.get("epochs")
    if not run.result:
        return f"not finished, {epochs} of {planned} epochs."
    primary = next((f"test_{name}" for name in _METRICS if f"test_{name}" in run.result), None)
    if run.result.get("status") != "finished" or primary is None:
        return f"{run.result.get('status')} in epoch {epochs} of {planned}."
    data = run.result.get("data")
    size = data.get("test") if isinstance(data, dict) else None
    examples = f" of {size:,} examples" if isinstance(size, int) else ""
    return f"{wording.metric_name(primary)} {wording.as_score(run.result[primary], primary)}{examples}."


def _curves(run: RunFiles) -> dict[str, Any] | None:
    """The metric on training and test examples by epoch."""
    metric = next((name for name in _METRICS if name in run.history), None)
    if metric is None:
        return None
    columns = {"training": metric, "test": f"test_{metric}"}
    lines = [("control", "training"), ("treatment", "test")]

    def of_split(split: str) -> list[RunFiles]:
        return [RunFiles(run.path, history={"value": run.history.get(columns[split], [])})]

    chart = study_figures.by_epoch(
        of_split, [("", lines)], "value", **study_figures.score_forms(columns["test"])
    )
    return chart and {"metric": wording.metric_name(metric), **chart}
