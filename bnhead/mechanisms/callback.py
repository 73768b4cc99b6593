"""`Measure`: the figures of the mechanisms after every epoch of a training."""

import inspect
import math
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import keras

from bnhead.errors import UsageError
from bnhead.graph.inputs import check_data
from bnhead.mechanisms.figures import FIGURES_BY_GROUP, INITIAL, PREFIX, PREJUDICED, check_groups, figures_of
from bnhead.mechanisms.guess import Guess, initial_guess
from bnhead.mechanisms.measurements import Measured, measure
from bnhead.mechanisms.split import Split

_INITIAL = {"guess", "initial"}  # groups with the guess before the first step


class Measure(keras.callbacks.Callback):
    """Measures the effect of the batch norm of a model's head after each epoch (`bnhead.mechanisms.measure`).

    The figures enter `logs` as `mechanisms/<name>`; those that are not defined do not. With the groups
    "guess" and "initial" the initial guess is measured before the first step, if the training starts from
    the beginning; "initial" measures nothing else.

    Args:
        data: `(x, y)` or batches of such tuples, to measure on; they are read after every epoch.
        train: training data, for population statistics and batch-mates; None for `data`.
        groups: names of `figures.GROUPS`, "all", or a text with names joined by commas.
        norm, batch_size: as for `measure`.
        options: `training_batch`, and as keywords `draws` and `seed` if not the defaults, as for `measure`.

    Attributes:
        measured: the latest `Measured`; None before the first.
        initial: the guess before the first step; None if it was not measured.
        prejudiced: epochs until the most frequent answer has less than twice the share of the most frequent
            label, measured as the initial guess; 0 if it has so from the beginning, None as long as it has
            not.

    Raises:
        UsageError: at once for data or groups that are not valid; when `fit` begins for a model without a
            head.
    """

    def __init__(
        self,
        data: Any,
        train: Any = None,
        groups: Iterable[str] | str = "all",
        *,
        norm: str | None = None,
        batch_size: int = 256,
        **options: int,
    ):
        super().__init__()
        inspect.signature(measure).bind(None, data, train, groups, **options)  # a TypeError at once
        for read in (data, train):
            if read is not None:
                check_data(read, batch_size, again=True)
        self.groups = check_groups(groups)
        if not self.groups:
            raise UsageError("measure must name at least one group of figures")
        self.data, self.train, self.norm = data, train, norm
        self._options = {"batch_size": batch_size, **options}
        self._split: Split | None = None
        self._clear()

    def _clear(self) -> None:
        self.measured: Measured | None = None
        self.initial: Guess | None = None
        self.prejudiced: int | None = None

    def set_model(self, model: keras.Model) -> None:
        """Cuts the model; called by Keras when `fit` begins."""
        if model is not self.model:
            self._split = Split(model, self.norm)
            self._clear()
        super().set_model(model)

    def state(self) -> dict[str, Any]:
        """The state for a checkpoint, plain data for JSON."""
        return {
            "initial": None if self.initial is None else asdict(self.initial),
            "prejudiced": self.prejudiced,
        }

    def resume(self, state: dict[str, Any]) -> None:
        """Restores the result of `state`; call it after `set_model`."""
        self.initial = None if state["initial"] is None else Guess(**state["initial"])
        self.prejudiced = state["prejudiced"]

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Measures the initial guess of a model that has not been trained yet."""
        steps = getattr(self.model.optimizer, "iterations", None)
        outputs = self._split.net.outputs[0].shape
        if not _INITIAL & {*self.groups} or len(outputs) != 2 or outputs[1] < 2:
            return
        if steps is None or int(keras.ops.convert_to_numpy(steps)) or self.initial is not None:
            return
        self.initial = self._guess()
        if "guess" in self.groups and not math.isnan(self.initial.prior):
            self.prejudiced = None if self.initial.is_prejudiced else 0

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Measures, and adds the figures to `logs`."""
        self.repeat()
        is_open = (
            "guess" in self.groups
            and self.initial is not None
            and self.prejudiced is None
            and not math.isnan(self.initial.prior)
        )
        if is_open and not self._guess().is_prejudiced:
            self.prejudiced = epoch + 1
        if logs is not None:
            logs.update({name: value for name, value in self.latest.items() if math.isfinite(value)})

    def _guess(self) -> Guess:
        """With batch statistics in every norm, so that the bias of moving averages does not count."""
        return initial_guess(self.model, self.data, batch_size=self._options["batch_size"])

    def repeat(self) -> Measured | None:
        """Measures the model as it is now; nothing with the group "initial" alone."""
        if self.groups == ("initial",):
            return None
        split = self._split if self._split.is_current else Split(self.model, self.norm)
        self.measured = measure(split, self.data, self.train, self.groups, **self._options)
        return self.measured

    @property
    def latest(self) -> dict[str, float]:
        """Every figure of the groups by its key, `mechanisms/<name>`; NaN if it is not defined."""
        values = {} if self.measured is None else figures_of(self.measured)
        names = [row.name for group in self.groups for row in FIGURES_BY_GROUP[group]]
        if _INITIAL & {*self.groups}:
            initial = self.initial
            values |= {} if initial is None else {row.name: row.formula(initial) for row in INITIAL}
            names += [row.name for row in INITIAL]
        if "guess" in self.groups:
            values[PREJUDICED.name] = float(PREJUDICED.formula(self))
            names.append(PREJUDICED.name)
        return {PREFIX + name: values.get(name, math.nan) for name in names}
