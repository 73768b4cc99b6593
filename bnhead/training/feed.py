"""The data of a run: its batches as the model takes them, and its fingerprints."""

import functools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bnhead import seeds
from bnhead.data import DataSet
from bnhead.data.split import Recipe, Split
from bnhead.devices.replicas import Replicas
from bnhead.errors import DataError
from bnhead.training.adaptation import MIXING
from bnhead.training.backbone import images_of
from bnhead.training.config import TrainConfig
from bnhead.training.tasks import model_inputs, task_batches

# Training examples that give population statistics: their means are off by 1 % of a deviation.
REFERENCE_EXAMPLES = 8_192


@dataclass(frozen=True)
class Feed:
    """All batches of a run, from one data set.

    They are made on the host, also for a GPU: on an H200 an epoch of CIFAR-10 took 1.60 s, and 1.66 s with
    the images kept on the GPU and the batches made inside the step.

    Attributes:
        data: the data set.
        recipe: how training batches are made.
        task: a name of `tasks.TASKS`.
        with_labels: whether the model reads the labels too, as its second input.
        batch_size: of the whole batch, of all replicas.
        epochs: of the whole training.
        seed: of the order of the examples and of the augmentation.
        probe_examples: test examples on which dead units are counted, at most.
        replicas: the copies of the model, which share each batch.
        checks: as of `build.Reuse.checks`.
        reads_target: whether training batches are `((images, target images), (labels, target indices))`.
        first_epoch: the first of the epochs, after those of a frozen stage.
        class_weights: the weights of the classes in the training loss, as of `imbalance.class_weights`.
        logit_adjustment: added to the logits in the training loss, times the log prior of the classes.
    """

    data: DataSet
    recipe: Recipe
    task: str
    with_labels: bool
    batch_size: int
    epochs: int
    seed: int
    probe_examples: int
    replicas: Replicas
    checks: dict = field(default_factory=dict)
    first_epoch: int = 0
    class_weights: str = "none"
    logit_adjustment: float = 0.0
    reads_target: bool = False

    @classmethod
    def of(
        cls,
        config: TrainConfig,
        data: DataSet,
        replicas: Replicas,
        checks: Mapping[str, Any] = MappingProxyType({}),
    ) -> "Feed":
        """The feed of a config's run on a data set, with the results of its checks."""
        recipe = Recipe(config.augment, config.cutout, config.mixup, len(data.classes))
        if config.freeze_backbone:  # the images of a further pass are augmented before the backbone
            recipe = Recipe(classes=len(data.classes))
        return cls(
            data,
            recipe,
            config.task,
            config.parsed_head.needs_labels,
            config.batch_size,
            config.epochs,
            config.seed,
            config.probe_examples,
            replicas,
            dict(checks),
            config.unfreeze_at,
            config.class_weights,
            config.logit_adjustment,
            config.adaptation in MIXING,
        )

    @property
    def steps(self) -> int:
        """Optimizer steps per epoch."""
        return self.data.train.size // self.batch_size

    @property
    def first_step(self) -> int:
        """Steps of the epochs before `first_epoch`."""
        return self.first_epoch * self.steps

    def train(self, epoch: int, step: int, epochs: int | None = None) -> tf.data.Dataset:
        """This process's part of the training batches, from a step of an epoch on.

        They end with the last epoch, or after so many `epochs`.
        """
        epochs = self.epochs - epoch if epochs is None else epochs
        processes = self.replicas.processes
        # mixup mixes rows of all processes, so each of them makes whole batches
        rows = None if processes.number == 1 or self.recipe.mixup else processes.rows(self.batch_size)
        data = self.data.train.training_batches(
            self.batch_size, epochs, self.seed, self.recipe, epoch, step, rows
        )
        if self.reads_target:
            number = epochs * self.steps - step
            return _paired(data, self.target_batches(epoch * self.steps + step, number))
        return self._as_targets(data) if rows else processes.part(self._as_targets(data))

    def target_batches(self, first: int = 0, number: int | None = None) -> tf.data.Dataset:
        """Batches of the target's training images, augmented, with their indices.

        Args:
            first: step of the whole training to begin with.
            number: of batches; None for an epoch of the target.

        Raises:
            DataError: the target has fewer images than a batch.
        """
        target, size = self.data.target, self.batch_size
        steps = target.size // size
        if not steps:
            raise DataError(f"batch_size must be at most the {target.size} images of the target, got {size}")
        epoch, step = divmod(first, steps)
        number = steps if number is None else number
        recipe, seed = Recipe(self.recipe.augmentation, self.recipe.cutout), seeds.stream(self.seed, "target")
        epochs = -(-(step + number) // steps)
        return target.training_batches(size, epochs, seed, recipe, epoch, step).take(number)

    def raw_epoch(self) -> tf.data.Dataset:
        """Batches of the first epoch, augmented and not mixed, for statistics."""
        recipe = Recipe(self.recipe.augmentation, self.recipe.cutout)
        return self.data.train.training_batches(self.batch_size, 1, self.seed, recipe)

    def prior_logits(self) -> np.ndarray:
        """`(classes,)`: the logits of the classes' shares of the training split.

        A class without examples counts as if it had half of one.
        """
        counts = np.maximum(self.data.class_counts(), 0.5)
        others = counts.sum() - counts if self.task == "multilabel" else counts.sum()
        return np.log(counts / others)

    def reference(self) -> tf.data.Dataset:
        """First batches of `raw_epoch` as the model takes them, with labels, for population statistics."""
        batches = -(-REFERENCE_EXAMPLES // self.batch_size)
        return model_inputs(self.raw_epoch().take(batches), with_labels=self.with_labels)

    def test(self) -> tf.data.Dataset:
        """This process's part of the test split's batches, in order, for `evaluate`."""
        return self._evaluation(self.data.test)

    def validation(self) -> tf.data.Dataset:
        """The same for the validation split."""
        return self._evaluation(self.data.validation)

    @property
    def probes_every_test_image(self) -> bool:
        """Whether dead units are counted on the whole test split, by the one process that evaluates it."""
        return self.probe_examples >= self.data.test.size and self.replicas.number == 1

    def probe(self) -> tf.data.Dataset:
        """Test examples on which dead units are counted, in batches of at most 256; all in every process."""
        examples = min(self.probe_examples, self.data.test.size)
        # as equal as can be, since every size of batch is traced
        size = math.ceil(examples / math.ceil(examples / 256))
        return self._as_targets(self.data.test.evaluation_batches(size, examples))

    def every_test_image(self) -> tf.data.Dataset:
        """Batches of `(inputs, labels)` of the whole test split, in order; all of them in every process."""
        data = self.data.test.evaluation_batches(self.replicas.evaluation_batch)
        return model_inputs(data, with_labels=self.with_labels)

    def sample(self, examples: int) -> tuple[Any, Any]:
        """`(inputs, targets)` of the first test examples."""
        return next(iter(self._as_targets(self.data.test.evaluation_batches(examples, examples))))

    def sample_images(self, examples: int) -> Any:
        """The first test images as the whole net takes them, even if the trained model reads features."""
        images = images_of(self.data).test.evaluation_batches(examples, examples)
        return next(iter(model_inputs(images, with_labels=self.with_labels)))[0]

    def build_metrics(self, model: keras.Model) -> None:
        """Makes the metrics' variables, which a checkpoint restores; Keras makes them at the first batch."""
        if model._compile_metrics.built:  # in an earlier run
            return
        # JAX warns of 64-bit numbers, which it has only on request
        batch = tf.nest.map_structure(
            lambda x: tf.cast(x, tf.int32) if x.dtype == tf.int64 else x, self.sample(2)
        )
        model._symbolic_build(data_batch=batch)  # Keras' own way, under tf.distribute and on JAX

    def _evaluation(self, split: Split) -> tf.data.Dataset:
        data = split.evaluation_batches(self.replicas.evaluation_batch)
        return self.replicas.evaluation(self._as_targets(data), split.size)

    def _as_targets(self, data: tf.data.Dataset) -> tf.data.Dataset:
        soft = self.recipe.mixup > 0
        return task_batches(data, self.task, self.data.outputs, with_labels=self.with_labels, soft=soft)


def _paired(data: tf.data.Dataset, target: tf.data.Dataset) -> tf.data.Dataset:
    """Batches of a source and of a target as one: `((images, images), (labels, labels))`."""
    return tf.data.Dataset.zip((data, target)).map(lambda a, b: ((a[0], b[0]), (a[1], b[1]))).prefetch(1)


class DataUsed:
    """The fingerprints of a run's data. A run does not resume on other data.

    Attributes:
        feed: the run's batches.
    """

    def __init__(self, feed: Feed):
        self.feed = feed

    @functools.cached_property
    def fingerprints(self) -> dict[str, str]:
        """SHA-256 of each split, by name."""
        data = self.feed.data
        splits = {"train": data.train, "test": data.test, "validation": data.validation}
        splits["target"] = data.target
        return {name: split.fingerprint() for name, split in splits.items() if split is not None}

    def state(self) -> dict:
        """The state for a checkpoint."""
        return {"checks": self.feed.checks, "fingerprints": self.fingerprints}

    def resume(self, state: dict) -> None:
        """Checks that the data are those of a checkpoint's state.

        The summary of the checks names the difference; the fingerprints also differ where no summary does, as
        with swapped labels.

        Raises:
            DataError: they are not.
        """
        saved, current = state["checks"], json.loads(json.dumps(self.feed.checks))
        differ = [key for key in {**saved, **current} if saved.get(key) != current.get(key)]
        differ += [
            f"the content of the {split} split"
            for split, digest in state["fingerprints"].items()
            if digest != self.fingerprints.get(split)
        ]
        if differ:
            raise DataError(
                f"the run began on other data, which differ in {', '.join(differ)}; it cannot go on with "
                "these (--overwrite removes it)"
            )
