"""A run's measurements on the test split: after each epoch, and of the trained model."""

import dataclasses
import functools
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bnhead.census import Census, DeadUnits, Probe
from bnhead.runs.predictions import Predictions, of_outputs
from bnhead.training.feed import Feed
from bnhead.training.tasks import find_task


class Evaluation(DeadUnits):
    """Counts dead units after each epoch and, if it counts on the whole test split, evaluates it as well.

    A test split that is counted completely is read once: loss and metrics are computed from the outputs of
    the same pass and enter the logs as `val_...`, as those of Keras do. Otherwise Keras evaluates the split
    (`keras_batches`), and units are counted on its first images.

    Args:
        feed: the run's batches.
        probe: counts the model's units. Its pass is traced once, also for several runs of the same model.
        log_dir: TensorBoard directory for plots; None writes none.
        plots_often: whether to plot during training, too, and not at its end alone.
    """

    def __init__(self, feed: Feed, probe: Probe, log_dir: str | None, *, plots_often: bool = True):
        how = {"log_dir": log_dir, "log_scalars": False} | ({} if plots_often else {"pictures_every": None})
        super().__init__(feed.probe(), figures="all", **how)
        self._feed, self._shared = feed, probe
        self._outputs: list[np.ndarray] | None = None  # outputs and silent shares of all test images
        self._variants: dict[str, Predictions] = {}
        # Keras' loss has a penalty of activations, which cannot be computed from outputs
        layers = probe.model._flatten_layers()
        penalized = any(getattr(layer, "activity_regularizer", None) for layer in layers)
        self._evaluates = feed.probes_every_test_image and not penalized

    def keras_batches(self) -> tf.data.Dataset | None:
        """The batches that `fit` evaluates after each epoch; None if this callback evaluates."""
        return None if self._evaluates else self._feed.test()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Counts, evaluates, and adds the figures to `logs`."""
        super().on_epoch_end(epoch, logs)
        if self._evaluates:
            logs.update({f"val_{name}": value for name, value in self._scores().items()})

    def repeat(self) -> dict[str, float]:
        """Counts and evaluates again, after a change of the model; returns the figures as `test_...`."""
        self.census = self._count()
        if self._evaluates:
            figures = self._scores()
        else:
            figures = self.model.evaluate(self._feed.test(), verbose=0, return_dict=True)
        return {f"test_{name}": value for name, value in figures.items()}

    def of_variant(self, name: str) -> dict[str, float]:
        """Measures the model while it is changed, and keeps this with the earlier measurements.

        Args:
            name: one of `bnhead.runs.predictions.VARIANTS`, which `predictions` have from now on.

        Returns:
            The changed model's figures, `test_...` and `dead/...`.
        """
        kept = self.census, self._outputs
        figures = {**self.repeat(), **self.census.figures(with_sample=True)}
        self._variants[name] = dataclasses.replace(self.predictions(), population=None, without_norms=None)
        self.census, self._outputs = kept
        return figures

    def forget(self) -> None:
        """Discards the outputs of the last evaluation, after a change of the model."""
        self._outputs = None

    def predictions(self) -> Predictions:
        """The model's output and the silent shares of the counted layers for every test image."""
        if self._outputs is None and self._evaluates:
            self._count()  # the same pass again, so that a resumed run gives the same bits
        outputs, silent = self._outputs or self._shared.per_input(self._feed.every_test_image())[:2]
        layers = tuple(site.name for site in self._shared.sites)
        predictions = of_outputs(outputs, self._feed.data.test.labels, silent, layers, self._feed.task)
        return dataclasses.replace(predictions, **self._variants)

    def _prepare(self) -> Probe:
        return self._shared

    def _count(self) -> Census:
        if not self._evaluates:
            return super()._count()
        census, *self._outputs = self._shared.count_per_input(self.data, batch_size=self.batch_size)
        return census

    def _scores(self) -> dict[str, float]:
        """Loss and metrics of the test split, as `model.evaluate` returns them."""
        outputs = keras.ops.convert_to_tensor(self._outputs[0])
        self.model.reset_metrics()
        metrics = self.model.compute_metrics(None, self._targets, outputs)
        loss = self.model.compute_loss(None, self._targets, outputs, training=False)
        return {name: float(value) for name, value in {**metrics, "loss": loss}.items()}

    @functools.cached_property
    def _targets(self) -> Any:
        """The targets of all test images, as a tensor."""
        task = find_task(self._feed.task, soft=self._feed.recipe.mixup > 0)
        targets = task.targets(tf.constant(self._feed.data.test.labels), self._feed.data.outputs)
        return keras.ops.convert_to_tensor(targets.numpy())
