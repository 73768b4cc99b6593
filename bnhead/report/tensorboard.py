"""A study in TensorBoard: HParams, a curve for each run, bands over the seeds of each cell.

TensorBoard's own protocol buffers and record writer, without TensorFlow. Times are of no clock: what
belongs to epoch e happened at second e.
"""

import math
import pathlib
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar import metadata as layout_metadata
from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2, summary_v2
from tensorboard.plugins.hparams import metadata as hparams_metadata
from tensorboard.plugins.scalar import metadata as scalar_metadata
from tensorboard.summary.writer.record_writer import RecordWriter
from tensorboard.util.tensor_util import make_tensor_proto

from bnhead.census import keys
from bnhead.census.figures import figures_at, meaning_of
from bnhead.report.curves import band
from bnhead.report.study import Run, Study

_FILE = "events.out.tfevents.0.study"


def write(study: Study, directory: pathlib.Path) -> None:
    """Writes event files: the experiment at the top, `runs/<cell>/seed<seed>` and `bands/<cell>` below."""
    columns = _columns(study)
    _write(directory, [(0, _experiment(study, columns)), (0, _layout(columns))])
    for cell in study.plan["cells"]:
        folder = _folder(cell["name"])
        for run in study.of_cell(cell["name"]):
            _write(directory / "runs" / folder / f"seed{run.seed}", _session(study, cell, run, columns))
        _write(directory / "bands" / folder, _bands(study.of_cell(cell["name"]), columns))


def _columns(study: Study) -> list[str]:
    """What is shown by epoch: the metric, and of every layer the figures that are drawn as charts."""
    names = {row.name for row in figures_at("charts")}
    there = dict.fromkeys(name for run in study.runs for name in run.history if keys.is_key(name))
    return [study.plan["primary"], *(name for name in there if keys.parts(name)[1] in names)]


def _folder(name: str) -> str:
    """A cell's name as one folder, never `.` or `..`."""
    return quote(name, safe=" ,").replace(".", "%2E") if set(name) <= {"."} else quote(name, safe=" ,")


def _experiment(study: Study, columns: list[str]) -> Summary:
    cells = study.plan["cells"]
    varied = dict.fromkeys(key for cell in cells for key in cell["settings"] if key != "head")
    known = [
        summary_v2.HParam("cell", summary_v2.Discrete([cell["name"] for cell in cells])),
        summary_v2.HParam("head", summary_v2.Discrete(sorted({cell["head"] for cell in cells}))),
        *(
            _hparam(key, [cell["settings"][key] for cell in cells if key in cell["settings"]])
            for key in varied
        ),
        summary_v2.HParam("seed", summary_v2.Discrete([str(seed) for seed in study.plan["seeds"]])),
    ]
    metrics = [summary_v2.Metric(name, display_name=name) for name in columns]
    return summary_v2.hparams_config_pb(known, metrics, time_created_secs=0)


def _hparam(name: str, values: list[Any]) -> summary_v2.HParam:
    kinds = {type(value) for value in values}
    same = sorted(set(values)) if len(kinds) == 1 else sorted({str(value) for value in values})
    return summary_v2.HParam(name, summary_v2.Discrete(same))


def _session(
    study: Study, cell: dict[str, Any], run: Run, columns: list[str]
) -> Iterator[tuple[int, Summary]]:
    if not run.history:
        return
    chosen = {"cell": cell["name"], "head": cell["head"], **cell["settings"], "seed": str(run.seed)}
    start = summary_v2.hparams_pb(chosen, trial_id=run.id, start_time_secs=0)
    own = start.value[0].metadata.plugin_data  # it holds a map, whose order would be the hash seed's
    data = plugin_data_pb2.HParamsPluginData.FromString(own.content)
    own.content = data.SerializeToString(deterministic=True)
    yield 0, start
    for name in columns:
        for epoch, value in enumerate(run.history.get(name, []), 1):
            if math.isfinite(value):
                yield epoch, _scalar(name, value)
    finished = run.result.get("status") == "finished"
    status = api_pb2.STATUS_SUCCESS if finished else api_pb2.STATUS_FAILURE
    end = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=0)
    data = plugin_data_pb2.HParamsPluginData(session_end_info=end)
    about = hparams_metadata.create_summary_metadata(data)
    yield 0, _summary(hparams_metadata.SESSION_END_INFO_TAG, hparams_metadata.NULL_TENSOR, about)


def _bands(runs: list[Run], columns: list[str]) -> Iterator[tuple[int, Summary]]:
    for name in columns:
        for b in band([run.history[name] for run in runs if name in run.history]):
            for part, value in (("median", b.middle), ("lowest", b.low), ("highest", b.high)):
                yield b.epoch, _scalar(f"bands/{name}/{part}", value)


def _layout(columns: list[str]) -> Summary:
    charts = []
    for name in columns:
        series = layout_pb2.MarginChartContent.Series(
            value=f"bands/{name}/median", lower=f"bands/{name}/lowest", upper=f"bands/{name}/highest"
        )
        margin = layout_pb2.MarginChartContent(series=[series])
        charts.append(layout_pb2.Chart(title=f"{name}: median and range over seeds", margin=margin))
    category = layout_pb2.Category(title="study", chart=charts)
    content = layout_pb2.Layout(category=[category]).SerializeToString()
    about = layout_metadata.create_summary_metadata()
    return _summary(layout_metadata.CONFIG_SUMMARY_TAG, make_tensor_proto(content), about)


def _scalar(tag: str, value: float) -> Summary:
    about = scalar_metadata.create_summary_metadata(display_name="", description=meaning_of(tag))
    return _summary(tag, make_tensor_proto(value, dtype="float32"), about)


def _summary(tag: str, tensor: Any, about: SummaryMetadata) -> Summary:
    return Summary(value=[Summary.Value(tag=tag, tensor=tensor, metadata=about)])


def _write(directory: pathlib.Path, events: Any) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    with open(directory / _FILE, "wb") as file:
        writer = RecordWriter(file)
        writer.write(Event(wall_time=0, step=0, file_version="brain.Event:2").SerializeToString())
        for step, summary in events:
            writer.write(
                Event(wall_time=step, step=step, summary=summary).SerializeToString(deterministic=True)
            )
