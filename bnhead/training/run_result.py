"""The result of a run as people use it: a mapping that prints, plots and shows itself in a notebook."""

import functools
import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bnhead import notebook
from bnhead.census import keys
from bnhead.census.figures import DEAD, SILENT, figures_at
from bnhead.errors import UsageError, nearest
from bnhead.runs.run_files import RunFiles, read_run_files
from bnhead.training.config import TrainConfig
from bnhead.training.summary import format_summary, scores

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes


class RunResult(dict):
    """The content of a run's `result.json`, with the run's settings and history.

    It is the dict that `json` writes; figures that are not finite are NaN here and null in the file. `print`
    shows the summary that the terminal shows.

    Args:
        content: the content of `result.json`.
        config: the run's settings.

    Attributes:
        config: the run's settings.
    """

    def __init__(self, content: Mapping[str, Any], config: TrainConfig):
        super().__init__(content)
        self.config = config

    @property
    def directory(self) -> pathlib.Path:
        """The run's directory."""
        return pathlib.Path(self.config.directory)

    @property
    def dead(self) -> dict[str, dict[str, float]]:
        """The figures of the counted units: layer -> figure -> value, with `inputs` and `bound`."""
        return {layer: keys.figures(self, layer) for layer in keys.layers_of(self)}

    @property
    def history(self) -> dict[str, list[float]]:
        """`history.csv`: column -> a value per epoch; NaN for an undefined figure."""
        return self._files.history

    @property
    def seconds(self) -> float | None:
        """Duration of the run, without the time between its sessions; None if it is not recorded."""
        return self._files.environment.get("seconds")

    def to_frame(self) -> "pandas.DataFrame":
        """The history as a pandas data frame: a row for each epoch, indexed by `epoch`, from 1.

        Raises:
            UsageError: pandas is not installed.
        """
        columns = self.history
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        return notebook.frame([{**row, "epoch": int(row["epoch"])} for row in rows], "epoch")

    def plot_history(self, metric: str | None = None, ax: "Axes | None" = None) -> "Axes":
        """Draws a metric on the training, test and validation images by epoch.

        Args:
            metric: "loss", "accuracy", "r2", "mae", as far as the history has it; None for accuracy or R^2.
            ax: Matplotlib axes to draw on; None makes a new figure. They are returned.

        Raises:
            UsageError: the history has no such metric.
        """
        metrics = [name.removeprefix("test_") for name in self.history if name.startswith("test_")]
        metric = next((name for name in metrics if name != "loss"), "loss") if metric is None else metric
        if metric not in metrics:
            raise UsageError(f"metric {metric!r} is not in the history{nearest(metric, metrics)}")
        names = {"training": metric, "test": f"test_{metric}", "validation": f"validation_{metric}"}
        lines = {label: self.history[name] for label, name in names.items() if name in self.history}
        ax = _plot_by_epoch(self.history["epoch"], lines, ax, share=metric == "accuracy")
        ax.set_ylabel(metric.replace("r2", "R\N{SUPERSCRIPT TWO}"))
        return ax

    def plot_dead(self, layer: str | None = None, ax: "Axes | None" = None) -> "Axes":
        """Draws the dead and the silent units of a layer by epoch.

        Args:
            layer: name of the layer; None for the last one counted.
            ax: Matplotlib axes to draw on; None makes a new figure. They are returned.

        Raises:
            UsageError: the layer was not counted.
        """
        layers = keys.layers_of(self.history, DEAD.name)
        if layer is None and layers:
            layer = layers[-1]
        if layer not in layers:
            raise UsageError(f"layer {layer!r} was not counted{nearest(str(layer), layers)}")
        lines = {row.heading: self.history[keys.key(layer, row.name)] for row in (SILENT, DEAD)}
        ax = _plot_by_epoch(self.history["epoch"], lines, ax, share=True)
        ax.set_ylim(0, 1)
        ax.set_ylabel(f"share of the units of {layer}")
        return ax

    def __str__(self) -> str:
        return format_summary(self.config, self, self.seconds)

    def __repr__(self) -> str:
        name, score = scores(self.config, self)[0]
        score = score.partition(" (")[0]  # without its interval
        text = f"{self.config.head} on {self.config.dataset}: {self['status']}, {name} {score}"
        for layer, figures in self.dead.items():
            text += f", {layer} {DEAD.text(figures.get(DEAD.name))} dead"
        return f"<RunResult: {text}>"

    def _repr_html_(self) -> str:
        rows = [row for row in figures_at("summaries") if any(row.name in f for f in self.dead.values())]
        headings = [("layer", ""), *((row.heading, row.meaning) for row in rows)]
        cells = [
            [layer, *(row.bar(figures.get(row.name)) for row in rows)] for layer, figures in self.dead.items()
        ]
        notes = [row.meaning for row in rows if row.display == "charts"]
        notes += [f"head: {self.get('head', '')}", f"run: {self.config.directory}"]
        return notebook.table(repr(self)[1:-1], headings, cells, notes)

    @functools.cached_property
    def _files(self) -> RunFiles:
        return read_run_files(self.directory)


def _plot_by_epoch(
    epochs: list[float], lines: Mapping[str, list[float]], ax: "Axes | None", *, share: bool
) -> "Axes":
    """One line per entry against the epochs; `share` writes the values in percent."""
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    ax = notebook.axes(ax, 4.8, 3.0)
    colors = {DEAD.heading: notebook.RED, "training": notebook.GREY, "validation": notebook.GREEN}
    for label, values in lines.items():
        ax.plot(epochs, values, label=label, color=colors.get(label, notebook.BLUE), marker=".")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    if share:
        ax.yaxis.set_major_formatter(PercentFormatter(1))
    ax.set_xlabel("epoch")
    ax.legend(frameon=False)
    return ax
