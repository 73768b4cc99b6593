"""The Keras callback."""

from collections.abc import Sequence
from typing import Any

import keras

from bnhead import seeds
from bnhead.census import keys
from bnhead.census.changes import History
from bnhead.census.counts import Census
from bnhead.census.figures import FIGURES, OF_CHANGES
from bnhead.census.labels import Labels
from bnhead.census.plots import TensorBoardWriter
from bnhead.census.probe import Probe
from bnhead.census.revival import Revival, revive_layers
from bnhead.census.step import StepCounter
from bnhead.errors import UsageError, nearest
from bnhead.graph import require_keras
from bnhead.graph.inputs import arrays_of, check_data


class DeadUnits(keras.callbacks.Callback):
    """Counts units while a model trains, on inputs that stay the same or on the training batches.

    The figures (`bnhead.census.figures`) enter `logs` as `dead/<layer>/per_input` and so on. Keras puts its
    own `History` behind all callbacks, so it has them; so has any callback that stands *behind* this one in
    the list, such as `keras.callbacks.TensorBoard`.

        model.fit(x, y, callbacks=[DeadUnits(x_val), keras.callbacks.TensorBoard("logs")])

    With `data` it counts at the end of an epoch, in evaluation mode. Without, it counts the first
    `inputs_per_step` inputs of each training batch inside the compiled step, in training mode, without an
    extra forward pass; what needs labels, magnitudes or gradients is not counted then.

    Args:
        data: the probe set: an array, a tuple `(x, y)`, or a batched `tf.data.Dataset`; labels let it count
            by class. None counts on the training batches.
        layers: None for the last activation before the output, "all" for every activation, "norms" for every
            batch norm, or a sequence of names; see `bnhead.census.sites`.
        every: count in the first epoch, in every `every`-th and in the last; the others' figures are NaN.
            Where another callback stops the training after this one in the list, the last epoch's count is in
            `census`, `histories` and TensorBoard, and not in `logs`.
        batch_size: inputs at a time, where `data` is arrays.
        eps: a unit is silent where its absolute output is at most this; 0 is right for ReLU.
        by, gradients, together, classes: as for `bnhead.census.Probe`.
        figures: which figures enter `logs`; None for all, an empty sequence for none. TensorBoard's `log_dir`
            gets the same.
        prefix: put before the names of the figures, where several of these callbacks count in one training:
            with "val_" they are `val_dead/<layer>/<figure>`.
        log_dir: TensorBoard directory for figures and pictures, a run of its own; None writes none.
        log_scalars: whether the figures are written there too; without, they are in `logs` alone.
        pictures_every: draw in the first and every so-many-th count (a picture takes 0.1 s or so), and at
            the end of the training.
        inputs_per_step: how many inputs of each training batch are counted, where `data` is None; None: all.
        revive: threshold tau up to which dormant units are revived after each count but the last epoch's
            (`bnhead.census.revival`); 0.025 and 0.1 are the paper's. None revives nobody.
        revive_seed: seed of the revived units' incoming weights.

    Attributes:
        census: the latest `Census`; None before the first.
        histories: name of the layer -> `History`, the activity of its units at each count.
        revivals: `(epoch, Revival)` of everything that `revive` did.

    Raises:
        UsageError: at once for data or arguments that make no sense; when `fit` begins for a layer or a model
            that cannot be counted. (A Sequential model that is not built yet says so at the first count.)
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
        classes: int | None = None,
        figures: Sequence[str] | None = None,
        prefix: str = "",
        log_dir: str | None = None,
        log_scalars: bool = True,
        pictures_every: int = 10,
        inputs_per_step: int | None = 16,
        revive: float | None = None,
        revive_seed: int = 0,
    ):
        super().__init__()
        if data is not None:
            check_data(data, batch_size, again=True)
            arrays = arrays_of(data)
            if classes is not None and arrays is not None:
                Labels.of(arrays[1], classes, given=True)  # said now, and not after an epoch
        for name, value in (("every", every), ("pictures_every", pictures_every)):
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise UsageError(f"{name} must be a whole number of at least 1, got {value!r}")
        for figure in figures or ():
            known = [row.name for row in FIGURES]
            if figure not in known:
                raise UsageError(f"figures: {figure!r} is not known{nearest(figure, known)}")
        if data is None and (gradients or together or revive is not None or by != "output"):
            raise UsageError("gradients, together, by and revive need data to count on")
        if revive is not None and not 0 <= revive < 1:
            raise UsageError(f"revive must be a threshold in [0, 1), got {revive}")
        self.data, self.layers, self.every, self.batch_size = data, layers, every, batch_size
        self.prefix, self.figures, self.revive, self.revive_seed = prefix, figures, revive, revive_seed
        counted = {"gradients": gradients, "together": together, "classes": classes}
        self._options = {"eps": eps, "by": by, **counted}
        self._step_options = {"eps": eps, "inputs_per_step": inputs_per_step}
        self._log_dir, self._log_scalars, self._pictures_every = log_dir, log_scalars, pictures_every
        self._probe: Probe | None = None
        self._step: StepCounter | None = None
        self._training = False
        self._writer: TensorBoardWriter | None = None
        self._forget()

    def _forget(self) -> None:
        self.census: Census | None = None
        self.histories: dict[str, History] = {}
        self.revivals: list[tuple[int, Revival]] = []
        self._counts, self._drawn, self._names = 0, True, []
        self._left_out: int | None = None  # the last epoch, where it was not counted

    def __getstate__(self) -> dict[str, Any]:
        """What a copy or a pickle holds: not what is compiled or open, which is made again when needed."""
        return {**vars(self), "_probe": None, "_step": None, "_writer": None}

    def set_model(self, model: keras.Model) -> None:
        """Finds the layers to count; called by Keras when `fit` begins."""
        require_keras(model)
        if model is not self.model:
            self._probe, self._step = None, None
            self._forget()
        super().set_model(model)
        if self.data is not None and model.built:
            self._prepare()

    def set_params(self, params: dict[str, Any] | None) -> None:
        """Makes the step count; called by Keras after `set_model`, before it makes its functions."""
        super().set_params(params)
        if self.data is None and self.model is not None:
            self._step = self._step or StepCounter(self.model, self.layers, **self._step_options)
            self._step.attach(session=params)
            self._training = False

    def state(self) -> dict[str, Any]:
        """What was counted so far, as plain data for JSON: for a training that goes on in another process.

        Revivals, which are a log, are not kept, nor the training batches of an epoch that is half done.
        """
        return {
            "census": None if self.census is None else self.census.to_dict(),
            "histories": {name: history.to_dict() for name, history in self.histories.items()},
            "counts": self._counts,
            "drawn": self._drawn,
            "names": self._names,
        }

    def resume(self, state: dict[str, Any]) -> None:
        """Goes on from what `state` gave; call it after `set_model`."""
        self.census = None if state["census"] is None else Census.from_dict(state["census"])
        self.histories = {name: History.from_dict(plain) for name, plain in state["histories"].items()}
        self._counts, self._drawn, self._names = state["counts"], state["drawn"], list(state["names"])

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Notes that the model trains, and is not only evaluated."""
        self._training = True

    def on_test_end(self, logs: dict | None = None) -> None:
        """Leaves a model that was evaluated alone as it was."""
        if self._step is not None and not self._training:
            self._step.detach()

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Forgets the last epoch's training batches."""
        if self._step is not None:
            self._step.reset()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Counts, and adds the figures to `logs`."""
        last = epoch + 1 == self.params.get("epochs") or bool(getattr(self.model, "stop_training", False))
        if self._counts and (epoch + 1) % self.every and not last:
            if logs is not None:
                logs.update(dict.fromkeys(self._names, float("nan")))
            self._left_out = epoch
            return
        self._left_out = None
        if self._step is not None:
            self.census = self._step.census()
        else:
            self.census = self._prepare().count(self.data, batch_size=self.batch_size)
        figures = self.census.figures(self.figures) | self._changed(epoch + 1)
        figures = {f"{self.prefix}{name}": value for name, value in figures.items()}
        self._names, self._counts, self._drawn = list(figures), self._counts + 1, False
        if logs is not None:
            logs.update(figures)
        self._write(figures, epoch + 1)
        if self.revive is not None and not last:
            self._revive(epoch + 1)

    def on_train_end(self, logs: dict | None = None) -> None:
        """Draws what is not drawn yet, and leaves the model as it was."""
        self._training = False
        if self._left_out is not None:  # a callback behind this one has stopped the training
            self.on_epoch_end(self._left_out)
        if self._step is not None:
            self._step.detach()
        if self._log_dir is not None and not self._drawn:
            self._writer = self._writer or TensorBoardWriter(self._log_dir)
            self._draw(next(iter(self.histories.values())).epochs[-1])
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _prepare(self) -> Probe:
        """The probe, built once for a model: a new one for each count would be traced for each count."""
        if self._probe is None:
            self._probe = Probe(self.model, self.layers, **self._options)
            self._probe.prepare(self.data, self.batch_size)
        return self._probe

    def _changed(self, epoch: int) -> dict[str, float]:
        """Births, deaths, revivals and persistence of every layer since the last count."""
        figures = {}
        for name, counts in self.census.layers.items():
            history = self.histories.setdefault(name, History())
            found = None
            if counts.unknown:
                history.skip(epoch, counts.units)
            else:
                found = history.add(epoch, counts.active, counts.inputs)
            values = found.figures() if found else {row.name: float("nan") for row in OF_CHANGES}
            figures |= {
                keys.key(name, figure): value
                for figure, value in values.items()
                if self.figures is None or figure in self.figures
            }
        return figures

    def _write(self, figures: dict[str, float], epoch: int) -> None:
        if self._log_dir is None:
            return
        self._writer = self._writer or TensorBoardWriter(self._log_dir)
        if self._log_scalars:
            self._writer.write_figures(figures, epoch)
        if self._counts == 1 or self._counts % self._pictures_every == 0:
            self._draw(epoch)

    def _draw(self, epoch: int) -> None:
        self._writer.write_plots(self.census, self.histories, epoch)
        self._drawn = True

    def _revive(self, epoch: int) -> None:
        dormant = [
            (site, counts.dormant(self.revive))
            for site in self._prepare().sites
            if not (counts := self.census.layers[site.name]).unknown and counts.dormant(self.revive).any()
        ]
        done = revive_layers(self.model, dormant, seeds.stream(self.revive_seed, "revival", epoch))
        self.revivals += [(epoch, revival) for revival in done]
        if self._writer is not None and done:
            self._writer.write_text("dead/revived", "\n\n".join(map(str, done)), epoch)
