"""What a run is fed with: the config's data set and its batches."""

import contextlib
from collections.abc import Callable, Iterator

import keras
import tensorflow as tf

from bnhead.data import DataSet, load
from bnhead.data.pipelines import InMemory, Recipe, Streamed
from bnhead.errors import DataError
from bnhead.heads import needs_labels
from bnhead.training.config import TrainConfig
from bnhead.training.distribution import Replicas
from bnhead.training.tasks import batches

_PICTURES = ("picture", "image", "jpeg", "png", "gif", "webp", "bmp")  # what a message about one says

Feed = Callable[[int, int], tf.data.Dataset]  # (epoch, step of it) -> the batches from there to the end


def open_data(config: TrainConfig) -> DataSet:
    """The config's data set with its splits and shifts."""
    return load(
        config.dataset,
        config.data_dir or None,
        task=config.task,
        image_size=config.image_size,
        crop=config.augment == "imagenet",
        validation=config.validation,
        imbalance=config.imbalance,
        label_noise=config.label_noise,
        test_corruption=config.test_corruption,
    )


def recipe(config: TrainConfig, dataset: DataSet) -> Recipe:
    """How the config's training batches are made."""
    return Recipe(config.augment, config.cutout, config.mixup, len(dataset.classes))


def training(config: TrainConfig, dataset: DataSet, replicas: Replicas) -> Feed:
    """This process's part of the training batches, as the model takes them, from any step on.

    They are made on the host, also for a GPU: on an H200 an epoch of CIFAR-10 took 1.60 s so, and 1.66 s with
    the images kept on the GPU and the batches made inside the step.
    """
    return lambda epoch, step: replicas.part(examples(config, dataset, epoch, step))


def examples(config: TrainConfig, dataset: DataSet, epoch: int, step: int) -> tf.data.Dataset:
    """The training batches from a step of an epoch on, as inputs and targets, made by `tf.data`."""
    how, epochs = recipe(config, dataset), config.epochs - epoch
    data = dataset.train.training_batches(config.batch_size, epochs, config.seed, how, epoch, step)
    return as_targets(config, dataset, data)


def evaluation(
    config: TrainConfig, dataset: DataSet, split: InMemory | Streamed, replicas: Replicas
) -> tf.data.Dataset:
    """This process's part of a split's batches, in order, for `evaluate`."""
    data = split.evaluation_batches(replicas.evaluation_batch)
    return replicas.evaluation(as_targets(config, dataset, data), split.size)


def probe(config: TrainConfig, dataset: DataSet) -> tf.data.Dataset:
    """The test examples on which dead units are counted, in batches of 256; all of them in every process."""
    return as_targets(config, dataset, dataset.test.evaluation_batches(256, config.probe_examples))


def one_epoch(config: TrainConfig, dataset: DataSet) -> tf.data.Dataset:
    """The images of the first epoch, augmented, for statistics."""
    how = Recipe(config.augment, config.cutout)
    return dataset.train.training_batches(config.batch_size, 1, config.seed, how)


def as_targets(config: TrainConfig, dataset: DataSet, data: tf.data.Dataset) -> tf.data.Dataset:
    """Batches as the model takes them, from batches of images and labels."""
    labels, soft = needs_labels(config.head), config.mixup > 0
    return batches(data, config.task, dataset.outputs, with_labels=labels, soft=soft)


def build_metrics(model: keras.Model, config: TrainConfig, dataset: DataSet) -> None:
    """Makes the metrics' variables, which Keras otherwise does at the first batch that it is fed with."""
    batch = next(iter(as_targets(config, dataset, dataset.test.evaluation_batches(2, 2))))
    # JAX, which has no 64-bit numbers unless it is told to, warns where one is asked for
    batch = tf.nest.map_structure(lambda x: tf.cast(x, tf.int32) if x.dtype == tf.int64 else x, batch)
    model._symbolic_build(data_batch=batch)  # Keras' own way, under tf.distribute and on JAX


@contextlib.contextmanager
def pictures_named(dataset: DataSet) -> Iterator[None]:
    """Tells which picture it is, when one that is read as it is used cannot be read or decoded."""
    try:
        yield
    except tf.errors.OpError as error:
        for split in (dataset.train, dataset.validation, dataset.test):
            if _may_be_a_file(error) and isinstance(split, Streamed) and (found := split.unreadable()):
                raise DataError(found) from error
        raise


def _may_be_a_file(error: tf.errors.OpError) -> bool:
    """Whether an error may be a file's fault: a step's own are of two kinds, and speak of no picture."""
    if isinstance(error, tf.errors.InvalidArgumentError):
        return any(kind in str(error).lower() for kind in _PICTURES)
    return not isinstance(error, tf.errors.ResourceExhaustedError)
