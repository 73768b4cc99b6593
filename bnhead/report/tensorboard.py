"""A study in TensorBoard: verdict, HParams, a curve for each run, bands over the seeds for each comparison.

Uses TensorBoard's own protocol buffers and record writer, without TensorFlow. No clock is read: the events of
epoch e have the time stamp of second e.
"""

import math
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.plugins.custom_scalar import layout_pb2, metadata as layout_metadata
from tensorboard.plugins.hparams import api_pb2, metadata as hparams_metadata, plugin_data_pb2, summary_v2
from tensorboard.plugins.scalar import metadata as scalar_metadata
from tensorboard.plugins.text import metadata as text_metadata
from tensorboard.summary.writer.record_writer import RecordWriter
from tensorboard.util.tensor_util import make_tensor_proto

from bnhead.census import keys
from bnhead.census.figures import figures_at, meaning_of
from bnhead.report.curves import band
from bnhead.report.dead_units import dead_summary
from bnhead.runs.run_files import RunFiles
from bnhead.studies import wording
from bnhead.studies.directory import StudyFiles
from bnhead.studies.plan import Cell, PlannedRun
from bnhead.texts import printable

_FILE = "events.out.tfevents.0.study"


def write_event_files(study: StudyFiles, directory: pathlib.Path) -> None:
    """Writes event files: the experiment at the top, `runs/<cell>/seed<seed>` and `bands/<cell>` below."""
    # the metric, and of every layer the figures that are drawn as charts
    layers = keys.layers_of(name for run in study.runs.values() for name in run.history)
    columns = {study.plan.primary: wording.metric_name(study.plan.primary)}
    for layer in layers:
        columns |= {keys.key(layer, row.name): f"{row.heading}, {layer}" for row in figures_at("charts")}
    summaries = (_experiment(study, columns), _layout(study, columns), _text(study))
    _write_events(directory, [(0, summary) for summary in summaries])
    for cell in study.plan.cells:
        folder = folder_name(cell.name)
        for run in study.judged_runs:
            if run.cell == cell.name:
                session = _session(cell, run, study.runs[run.id], columns)
                _write_events(directory / "runs" / folder / f"seed{run.seed}", session)
        _write_events(directory / "bands" / folder, _bands(study, cell, columns))


def is_ours(path: pathlib.Path) -> bool:
    """Whether a file in the folder is an event file of a report."""
    return path.name == _FILE


def folder_name(cell: str) -> str:
    """A cell's name as one folder, never `.` or `..`."""
    folder = quote(cell, safe=" ,")
    return folder.replace(".", "%2E") if set(cell) <= {"."} else folder


def _experiment(study: StudyFiles, columns: Mapping[str, str]) -> Summary:
    cells = study.plan.cells
    hparams = {"head": sorted({cell.head for cell in cells})}
    for key in dict.fromkeys(key for cell in cells for key in cell.settings if key != "head"):
        values = [cell.settings[key] for cell in cells if key in cell.settings]
        # values of several types cannot be sorted
        hparams[key] = sorted(set(values) if len(set(map(type, values))) == 1 else set(map(str, values)))
    hparams["seed"] = [str(seed) for seed in study.plan.seeds]
    metrics = [summary_v2.Metric(name, display_name=title) for name, title in columns.items()]
    return summary_v2.hparams_config_pb(
        [summary_v2.HParam(name, summary_v2.Discrete(values)) for name, values in hparams.items()],
        metrics,
        time_created_secs=0,
    )


def _session(
    cell: Cell, run: PlannedRun, files: RunFiles, columns: Iterable[str]
) -> Iterator[tuple[int, Summary]]:
    if not files.history:
        return
    hparams = {"head": cell.head, **cell.settings, "seed": str(run.seed)}
    start = summary_v2.hparams_pb(hparams, trial_id=f"{cell.name}, seed {run.seed}", start_time_secs=0)
    # It holds a map, which would be serialised in an order that depends on the hash seed.
    plugin = start.value[0].metadata.plugin_data
    data = plugin_data_pb2.HParamsPluginData.FromString(plugin.content)
    plugin.content = data.SerializeToString(deterministic=True)
    yield 0, start
    for name in columns:
        for epoch, value in enumerate(files.history.get(name, []), 1):
            if math.isfinite(value):
                yield epoch, _scalar(name, value)
    if not files.result:  # it goes on
        return
    is_finished = files.result.get("status") == "finished"
    status = api_pb2.STATUS_SUCCESS if is_finished else api_pb2.STATUS_FAILURE
    end = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=0)
    data = plugin_data_pb2.HParamsPluginData(session_end_info=end)
    metadata = hparams_metadata.create_summary_metadata(data)
    yield 0, _tensor_summary(hparams_metadata.SESSION_END_INFO_TAG, hparams_metadata.NULL_TENSOR, metadata)


def _bands(study: StudyFiles, cell: Cell, columns: Iterable[str]) -> Iterator[tuple[int, Summary]]:
    runs = study.of_cell(cell.name)
    for name in columns:
        for b in band([run.history[name] for run in runs if name in run.history]):
            for number, comparison in enumerate(study.plan.comparisons, 1):
                if cell.name in (comparison.control, comparison.treatment):
                    for part, value in (("median", b.middle), ("lowest", b.low), ("highest", b.high)):
                        yield b.epoch, _scalar(_band_tag(number, name, part), value)


def _band_tag(comparison: int, column: str, part: str) -> str:
    """A chart shows every run that has its tags, so each comparison has tags. They sort after the metrics."""
    return f"variation/{comparison}/{column}/{part}"


def _layout(study: StudyFiles, columns: Mapping[str, str]) -> Summary:
    """For each comparison a chart of each column: both medians and ranges over the seeds."""
    categories = []
    for number, comparison in enumerate(study.plan.comparisons, 1):
        charts = []
        for name, title in reversed(columns.items()):  # TensorBoard shows the last chart first
            value, lower, upper = (_band_tag(number, name, part) for part in ("median", "lowest", "highest"))
            series = layout_pb2.MarginChartContent.Series(value=value, lower=lower, upper=upper)
            margin = layout_pb2.MarginChartContent(series=[series])
            charts.append(layout_pb2.Chart(title=f"{title}: median and range over seeds", margin=margin))
        categories.append(layout_pb2.Category(title=comparison.name, chart=charts))
    content = layout_pb2.Layout(category=categories).SerializeToString()
    metadata = layout_metadata.create_summary_metadata()
    return _tensor_summary(layout_metadata.CONFIG_SUMMARY_TAG, make_tensor_proto(content), metadata)


def _text(study: StudyFiles) -> Summary:
    """The verdict, for the Text tab, as Markdown."""
    comparisons = study.verdict["comparisons"]
    if len(comparisons) == 1:
        rows, headline = (*comparisons, *comparisons[0].get("secondary", ())), ()
    else:
        rows, headline = comparisons, (study.verdict["sentence"],)
    lines = [f"# {study.verdict['word']}", *headline, f"*{study.plan.question}*"]
    lines += [f"- {row['sentence']}" for row in rows if row["sentence"]]
    for summary in dead_summary(study):
        shares = [
            f"{stratum}{': ' if stratum else ''}"
            + ", ".join(f"{head} {text}" for head, text in zip(summary["heads"], texts, strict=True))
            for stratum, texts in summary["rows"]
        ]
        lines += [f"**{summary['figure'].heading}, {summary['layer']}**", *(f"- {text}" for text in shares)]
    lines += [f"- exploratory: {reason}" for reason in study.verdict["exploratory"]]
    tensor = make_tensor_proto(printable("\n\n".join(lines)).encode(), dtype="string")
    return _tensor_summary("verdict", tensor, text_metadata.create_summary_metadata("", ""))


def _scalar(tag: str, value: float) -> Summary:
    metadata = scalar_metadata.create_summary_metadata(display_name="", description=meaning_of(tag))
    return _tensor_summary(tag, make_tensor_proto(value, dtype="float32"), metadata)


def _tensor_summary(tag: str, tensor: Any, metadata: SummaryMetadata) -> Summary:
    return Summary(value=[Summary.Value(tag=tag, tensor=tensor, metadata=metadata)])


def _write_events(directory: pathlib.Path, events: Iterable[tuple[int, Summary]]) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    with open(directory / _FILE, "wb") as file:
        writer = RecordWriter(file)
        writer.write(Event(wall_time=0, step=0, file_version="brain.Event:2").SerializeToString())
        for step, summary in events:
            writer.write(
                Event(wall_time=step, step=step, summary=summary).SerializeToString(deterministic=True)
            )
