"""The facts that a check knows: the net, the planned training, the labels, numbers of a few batches."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import keras
import numpy as np

from bnhead.graph.inputs import class_numbers, on_host
from bnhead.lint.findings import Finding
from bnhead.lint.measure import Measured
from bnhead.lint.net import Net
from bnhead.lint.rules import RULES, Rule

_REGRESSION = ("squared", "absolute", "mse", "mae", "msle", "mape", "huber", "log_cosh", "logcosh")  # losses


@dataclass(frozen=True)
class Training:
    """The training that is planned.

    Attributes:
        batch_size: training examples in a batch.
        size: training examples; 0 if unknown.
        epochs: 0 if unknown.
        drop_remainder: whether a last batch of fewer examples is left out.
    """

    batch_size: int
    size: int = 0
    epochs: int = 0
    drop_remainder: bool = False

    @property
    def remainder(self) -> int:
        """Examples in a last, smaller batch; 0 without one."""
        return 0 if self.drop_remainder else self.size % self.batch_size

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole training; 0 if unknown."""
        return self.epochs * (self.size // self.batch_size + (self.remainder > 0))


@dataclass(frozen=True, eq=False)
class Labels:
    """The labels of a check.

    Attributes:
        every: labels of all training examples that are known.
        batches: labels of the batches that were read, in their order.
        domains: domain numbers of the examples of each of these batches; () without domains.
        is_complete: whether `every` is all training examples.
    """

    every: np.ndarray
    batches: Sequence[np.ndarray] = ()
    domains: Sequence[np.ndarray] = ()
    is_complete: bool = False


@dataclass(frozen=True, eq=False)
class Evidence:
    """All that the rules read.

    Attributes:
        net: the calls of the model.
        training: the training that is planned.
        measured: the numbers of a few batches; None without data.
        labels: None without labels.
        task: "classification", "multilabel" or "regression"; "" if the labels and the loss decide.
    """

    net: Net
    training: Training
    measured: Measured | None = None
    labels: Labels | None = None
    task: str = ""

    @cached_property
    def outputs(self) -> int:
        """Size of the model's single output `(batch, outputs)`; 0 for other outputs."""
        shapes = [tuple(tensor.shape) for tensor in getattr(self.net.model, "outputs", None) or ()]
        if len(shapes) == 1 and len(shapes[0]) == 2:
            return shapes[0][1] or 0
        return 0 if self.measured is None or self.measured.outputs is None else self.measured.outputs.shape[1]

    @cached_property
    def is_regression(self) -> bool:
        """Whether the labels are numbers to predict."""
        if self.task:
            return self.task == "regression"
        loss = getattr(self.net.model, "loss", None)
        name = loss if isinstance(loss, str) else getattr(loss, "name", getattr(loss, "__name__", ""))
        if any(word in str(name) for word in _REGRESSION):
            return True
        return self.labels is not None and not name and self.numbers(self.labels.every) is None

    @property
    def classes(self) -> int:
        """Number of classes of the labels: outputs of the net, 2 for a single one."""
        return max(2, self.outputs)

    def numbers(self, labels: Any) -> np.ndarray | None:
        """Labels as class numbers; None for other labels."""
        labels = on_host(labels)
        if labels.dtype.kind in "iub" and labels.ndim == 1 and len(labels) and labels.min() >= 0:
            return labels.astype("int64")
        return class_numbers(labels, self.classes) if labels.dtype.kind != "f" or labels.ndim == 2 else None

    @cached_property
    def class_shares(self) -> np.ndarray | None:
        """`(classes,)`, shares of the classes among all known labels; None for other tasks."""
        if self.labels is None or self.is_regression:
            return None
        numbers = self.numbers(self.labels.every)
        if numbers is None:
            return None
        counts = np.bincount(numbers, minlength=self.classes)
        return counts / counts.sum()

    def has(self, need: str) -> bool:
        """Whether a rule with this need (`rules.NEEDS`) can be checked."""
        return {
            "model": bool(self.net.calls),
            "data": self.measured is not None,
            "labels": self.labels is not None,
            "epochs": self.training.steps > 0,
            "optimizer": self.optimizer is not None,
            "fitted": self._is_fitted,
        }[need]

    @property
    def optimizer(self) -> keras.optimizers.Optimizer | None:
        """The model's optimizer, of a loss scaling the one inside; None if the model is not compiled."""
        optimizer = getattr(self.net.model, "optimizer", None)
        return getattr(optimizer, "inner_optimizer", optimizer)

    @property
    def _is_fitted(self) -> bool:
        """Whether `fit` goes on with a step that it has traced. On other backends a change has effect."""
        is_traced = getattr(self.net.model, "train_function", None) is not None
        return keras.backend.backend() == "tensorflow" and is_traced and bool(self.optimizer.built)


def finding(rule: str, where: Sequence[str], what: str, value: float | None, fix: str = "") -> list[Finding]:
    """The finding in a list; an empty list if its number is not worth a line."""
    row = RULES[rule]
    if value is not None and not row.is_beyond(value, row.notable):
        return []
    value = None if value is None else float(value)
    return [Finding(row, tuple(dict.fromkeys(where)), what, value, fix or row.fix)]


@dataclass(frozen=True)
class Place:
    """The number of one layer.

    Attributes:
        path: of the layer.
        value: its number; None if it was not measured.
        what: the finding there, a clause.
    """

    path: str
    value: float | None
    what: str


def graded(rule: str, places: Sequence[Place]) -> list[Finding]:
    """Up to two findings of many layers: those beyond the threshold and the others, the worst layer first."""
    row: Rule = RULES[rule]
    notable = [p for p in places if p.value is None or row.is_beyond(p.value, row.notable)]
    notable.sort(key=lambda p: 0 if p.value is None else (-p.value if row.above else p.value))
    groups = {True: [], False: []}
    for p in notable:
        groups[row.severity_of(p.value) != "info"].append(p)
    results = []
    for group in groups.values():
        if group:
            worst = group[0]
            also = f"; {worst.path} is the worst" if len({p.value for p in group}) > 1 else ""
            results += finding(rule, [p.path for p in group], f"{worst.what}{also}", worst.value)
    return results
