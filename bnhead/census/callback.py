"""The Keras callback `DeadUnits`."""

import math
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras

from bnhead import notebook, seeds
from bnhead.census import keys
from bnhead.census.census import Census
from bnhead.census.changes import History
from bnhead.census.figures import DEAD, FIGURES, SILENT
from bnhead.census.labels import Labels
from bnhead.census.plots import TensorBoardWriter
from bnhead.census.probe import Probe
from bnhead.census.revival import Revival, revive_layers
from bnhead.census.step import StepCounter
from bnhead.errors import UsageError, nearest
from bnhead.graph import require_keras
from bnhead.graph.inputs import arrays_of, check_data
from bnhead.texts import counted

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes

ALL = "all"


class DeadUnits(keras.callbacks.Callback):
    """Counts units while a model trains, on a fixed set of inputs or on the training batches.

    Two figures enter `logs`: the share of dead units and the share of silent units on an input. Those of one
    layer are `dead/<layer>/dataset` and `dead/<layer>/per_input`; of several layers the shares among all
    their units enter, `dead/dataset` and `dead/per_input`, since Keras' progress bar prints everything in
    `logs`. `figures` chooses others. Keras' own `History` runs after all callbacks and records them; every
    callback *after* this one in the list sees them, such as `EarlyStopping`, `CSVLogger` or `TensorBoard`.

        model.fit(x, y, callbacks=[DeadUnits(x_val), keras.callbacks.TensorBoard("logs")])

    Every figure of every layer at every count is in `histories` and `to_frame`, and with `log_dir` in
    TensorBoard, whatever enters `logs`. `logs` never holds NaN: a figure that is not defined is left out.

    With `data` it counts at the end of an epoch, in evaluation mode. Without, it counts the first
    `inputs_per_step` inputs of each training batch inside the compiled step, in training mode, without an
    extra forward pass; figures that need labels, magnitudes or gradients are then omitted.

    Args:
        data: the probe set: an array, a tuple `(x, y)`, or a batched `tf.data.Dataset`; with labels it counts
            by class. None counts on the training batches.
        layers: None for the last activation before the output, "all" for every activation, "norms" for every
            batch norm, or a sequence of names; see `bnhead.census.sites`.
        every: count in the first, every `every`-th and the last epoch; in all others nothing enters `logs`.
            If a callback later in the list stops the training, the last epoch's count is in `census`,
            `histories` and TensorBoard, but not in `logs`.
        batch_size: number of inputs per batch, if `data` is arrays.
        eps: a unit is silent if its absolute output is at most this; 0 is right for ReLU.
        by, gradients, together, clones, classes: as for `bnhead.census.Probe`.
        figures: what enters `logs`: None for the two figures above, "all" for every figure of every layer, or
            a sequence of names, of every layer (`"dataset"`) or of one (`"fc/dataset"`); empty for none.
        prefix: prefix of the figures' names, to distinguish several of these callbacks in one training: with
            "val_" they are `val_dead/<layer>/<figure>`.
        log_dir: TensorBoard directory for figures and plots, a separate run; None writes none.
        log_scalars: whether the figures are written there too.
        pictures_every: plot in the first and every so-many-th count (a plot takes about 0.1 s), and at the
            end of the training; None for the end alone.
        inputs_per_step: number of inputs of each training batch to count, if `data` is None; None for all.
        alert: share in [0, 1]; a `UserWarning` names each layer as soon as more of its units are dead, and
            again if that happens after fewer were. None never warns.
        revive: threshold tau up to which dormant units are revived, after each count except the last epoch's
            (`bnhead.census.revival`); the paper uses 0.025 and 0.1. None disables revival.
        revive_seed: seed of the revived units' incoming weights.

    Attributes:
        census: the latest `Census`; None before the first count.
        histories: name of the layer -> `History`: the activity of its units and all figures at each count.
        revivals: `(epoch, Revival)` of each revived layer.

    Raises:
        UsageError: at once for data or arguments out of range; when `fit` begins for a layer or a model that
            cannot be counted. (A Sequential model that is not built yet raises it at the first count.)
    """

    def __init__(
        self,
        data: Any = None,
        layers: Sequence[str] | str | None = None,
        *,
        every: int = 1,
        batch_size: int = 256,
        eps: float = 0.0,
        by: str = "output",
        gradients: bool = False,
        together: bool = False,
        clones: bool = False,
        classes: int | None = None,
        figures: Sequence[str] | str | None = None,
        prefix: str = "",
        log_dir: str | None = None,
        log_scalars: bool = True,
        pictures_every: int | None = 10,
        inputs_per_step: int | None = 16,
        alert: float | None = None,
        revive: float | None = None,
        revive_seed: int = 0,
    ):
        super().__init__()
        if data is not None:
            check_data(data, batch_size, again=True)
            arrays = arrays_of(data)
            if classes is not None and arrays is not None:
                Labels.of(arrays[1], classes, strict=True)  # raises now instead of after an epoch
        for name, value in (
            ("every", every),
            ("pictures_every", 1 if pictures_every is None else pictures_every),
        ):
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise UsageError(f"{name} must be a whole number of at least 1, got {value!r}")
        figures = [figures] if isinstance(figures, str) and figures != ALL else figures
        for figure in () if figures in (None, ALL) else figures:
            names = [row.name for row in FIGURES]
            if (name := keys.short_parts(figure)[1]) not in names:
                raise UsageError(f"figures: {figure!r} is not known{nearest(name, names)}")
        if data is None and (gradients or together or clones or revive is not None or by != "output"):
            raise UsageError("gradients, together, clones, by and revive need data to count on")
        if revive is not None and not 0 <= revive < 1:
            raise UsageError(f"revive must be a threshold in [0, 1), got {revive}")
        if alert is not None and not 0 <= alert <= 1:
            raise UsageError(f"alert must be a share in [0, 1], got {alert}")
        self.alert = alert
        self.data, self.layers, self.every, self.batch_size = data, layers, every, batch_size
        self.prefix, self.figures, self.revive, self.revive_seed = prefix, figures, revive, revive_seed
        optional = {"gradients": gradients, "together": together, "clones": clones, "classes": classes}
        self._options = {"eps": eps, "by": by, **optional}
        self._step_options = {"eps": eps, "inputs_per_step": inputs_per_step}
        self._log_dir, self._log_scalars, self._pictures_every = log_dir, log_scalars, pictures_every
        self._probe: Probe | None = None
        self._step: StepCounter | None = None
        self._training = False
        self._writer: TensorBoardWriter | None = None
        self._clear()

    def _clear(self) -> None:
        self.census: Census | None = None
        self.histories: dict[str, History] = {}
        self.revivals: list[tuple[int, Revival]] = []
        self._counts, self._drawn = 0, True
        self._alerted: set[str] = set()
        self._uncounted: int | None = None  # the latest epoch, if it was not counted

    def __getstate__(self) -> dict[str, Any]:
        """State for copies and pickles, without compiled and open objects; they are recreated when needed."""
        return {**vars(self), "_probe": None, "_step": None, "_writer": None}

    def set_model(self, model: keras.Model) -> None:
        """Selects the layers to count; called by Keras when `fit` begins."""
        require_keras(model)
        if model is not self.model:
            self._probe, self._step = None, None
            self._clear()
        super().set_model(model)
        if self.data is not None and model.built:
            self._prepare()

    def set_params(self, params: dict[str, Any] | None) -> None:
        """Makes the step count; called by Keras after `set_model` and before it builds its functions."""
        super().set_params(params)
        if self.data is None and self.model is not None:
            self._step = self._step or StepCounter(self.model, self.layers, **self._step_options)
            self._step.attach(session=params)
            self._training = False

    def state(self) -> dict[str, Any]:
        """The counts so far as plain data for JSON, to continue the training in another process.

        Excludes `revivals` and the training batches of an unfinished epoch.
        """
        return {
            "census": None if self.census is None else self.census.to_dict(),
            "histories": {name: history.to_dict() for name, history in self.histories.items()},
            "counts": self._counts,
            "drawn": self._drawn,
        }

    def resume(self, state: dict[str, Any]) -> None:
        """Restores the result of `state`; call it after `set_model`."""
        self.census = None if state["census"] is None else Census.from_dict(state["census"])
        self.histories = {name: History.from_dict(plain) for name, plain in state["histories"].items()}
        self._counts, self._drawn = state["counts"], state["drawn"]

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Notes that this is a training, not an evaluation."""
        self._training = True

    def on_test_end(self, logs: dict | None = None) -> None:
        """Restores the model's step after an evaluation without training."""
        if self._step is not None and not self._training:
            self._step.detach()

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Discards the previous epoch's training batches."""
        if self._step is not None:
            self._step.reset()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Counts, and adds the figures to `logs`."""
        last = epoch + 1 == self.params.get("epochs") or bool(getattr(self.model, "stop_training", False))
        if self._counts and (epoch + 1) % self.every and not last:
            self._uncounted = epoch
            return
        self._uncounted = None
        self.census = self._count()
        for name, counts in self.census.layers.items():
            self.histories.setdefault(name, History()).add(epoch + 1, counts)
        self._counts, self._drawn = self._counts + 1, False
        if self.alert is not None:
            self._warn()
        if logs is not None:
            logs.update({name: value for name, value in self._logged().items() if math.isfinite(value)})
        if self._log_dir is not None:
            self._writer = self._writer or TensorBoardWriter(self._log_dir)
            if self._log_scalars:
                self._writer.write_figures(self._all_figures(), epoch + 1)
            if self._pictures_every and (self._counts == 1 or self._counts % self._pictures_every == 0):
                self._draw(epoch + 1)
        if self.revive is not None and not last:
            self._revive(epoch + 1)

    def on_train_end(self, logs: dict | None = None) -> None:
        """Draws the last count unless it is drawn, and restores the model's step."""
        self._training = False
        if self._uncounted is not None:  # a callback later in the list stopped the training
            self.on_epoch_end(self._uncounted)
        if self._step is not None:
            self._step.detach()
        if self._log_dir is not None and not self._drawn:
            self._writer = self._writer or TensorBoardWriter(self._log_dir)
            self._draw(next(iter(self.histories.values())).epochs[-1])
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    @property
    def latest(self) -> dict[str, float]:
        """Every figure of the latest count by its key, `dead/<layer>/<figure>`; NaN if it is not defined."""
        return {
            keys.key(layer, name): value
            for layer, history in self.histories.items()
            for name, value in history.latest.items()
        }

    def to_frame(self) -> "pandas.DataFrame":
        """All figures as a pandas data frame: a row for each layer and count, indexed by `layer`, `epoch`.

        Raises:
            UsageError: pandas is not installed.
        """
        rows = [{"layer": layer, **row} for layer, h in self.histories.items() for row in h.rows()]
        return notebook.frame(rows, ("layer", "epoch"))

    def plot_raster(self, layer: str | None = None, ax: "Axes | None" = None) -> "Axes":
        """Draws when each unit died and came back: a row per unit, a column per count.

        Args:
            layer: name of the layer; None for the last one counted.
            ax: Matplotlib axes to draw on; None makes a new figure. They are returned.

        Raises:
            UsageError: the layer was not counted.
        """
        if not self.histories:
            raise UsageError("nothing was counted yet: fit the model with this callback")
        name = list(self.histories)[-1] if layer is None else layer
        self._require_counted("layer", name)
        return self.histories[name].plot_raster(ax, title=name)

    def _count(self) -> Census:
        """The counts of this epoch."""
        if self._step is not None:
            return self._step.census()
        return self._prepare().count(self.data, batch_size=self.batch_size)

    def _prepare(self) -> Probe:
        """The probe, built once per model, so that its pass is traced once."""
        if self._probe is None:
            self._probe = Probe(self.model, self.layers, **self._options)
            self._probe.prepare(self.data, self.batch_size)
        return self._probe

    def _all_figures(self) -> dict[str, float]:
        """Every figure of the latest count by its name in `logs`; of several layers also the overall ones."""
        overall = self.census.overall() if len(self.census.layers) > 1 else {}
        return {f"{self.prefix}{name}": value for name, value in {**overall, **self.latest}.items()}

    def _logged(self) -> dict[str, float]:
        """The figures that `figures` selects for `logs`, by name."""
        figures = self._all_figures()
        if self.figures == ALL:
            return figures
        if self.figures is not None:
            for layer in filter(None, (keys.short_parts(name)[0] for name in self.figures)):
                self._require_counted("figures: layer", layer)
            names = [n for n in self.latest if {keys.short(n), keys.parts(n)[1]} & set(self.figures)]
        elif len(self.census.layers) > 1:
            names = list(self.census.overall())
        else:
            names = [keys.key(layer, row.name) for layer in self.census.layers for row in (DEAD, SILENT)]
        return {self.prefix + name: figures[self.prefix + name] for name in names}

    def _require_counted(self, argument: str, layer: str) -> None:
        if layer not in self.histories:
            raise UsageError(f"{argument} {layer!r} was not counted{nearest(layer, self.histories)}")

    def _warn(self) -> None:
        shares = self.census.more_dead_than(self.alert)
        for layer in shares.keys() - self._alerted:
            counts = self.census.layers[layer]
            warnings.warn(
                f"{layer}: {int(counts.dead.sum())} of {counted(counts.units, 'unit')} are dead "
                f"({shares[layer]:.1%}) on {counted(counts.inputs, 'input')}, more than alert={self.alert:g}",
                stacklevel=2,
            )
        self._alerted = set(shares)

    def _draw(self, epoch: int) -> None:
        self._writer.write_plots(self.census, self.histories, epoch)
        self._drawn = True

    def _revive(self, epoch: int) -> None:
        dormant = [
            (site, counts.dormant(self.revive))
            for site in self._prepare().sites
            if not (counts := self.census.layers[site.name]).unknown and counts.dormant(self.revive).any()
        ]
        revivals = revive_layers(self.model, dormant, seeds.stream(self.revive_seed, "revival", epoch))
        self.revivals += [(epoch, revival) for revival in revivals]
        if self._writer is not None and revivals:
            self._writer.write_text("dead/revived", "\n\n".join(map(str, revivals)), epoch)
