"""One training run, from the config to the run directory."""

import contextlib
import datetime
import importlib.metadata
import math
import platform
import time
from collections.abc import Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf

from bnhead import models
from bnhead.census import DeadUnits, count
from bnhead.data import DataSet, load
from bnhead.data.checks import inspect
from bnhead.data.pipelines import InMemory, Recipe, Streamed
from bnhead.errors import DataError, UsageError
from bnhead.heads import describe, feature_shape, needs_labels
from bnhead.layers import plain, recompute_batch_stats
from bnhead.models.existing import pixel_preprocessing
from bnhead.models.weights import TWINS
from bnhead.training.config import TrainConfig
from bnhead.training.logs import HistoryFile, Pace, Scalars
from bnhead.training.records import RunDirectory
from bnhead.training.tasks import TASKS, batches, compiled, example_maker
from bnhead.training.workshop import Workshop
from bnhead.version import __version__

_PACKAGES = ("tensorflow", "keras", "tensorflow-datasets", "numpy")
RENORM_SHARE = (
    40_000 / 130_000
)  # of the training, until batch renorm's bounds are final: Ioffe 2017, section 4


def train(
    config: TrainConfig,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    workshop: Workshop | None = None,
) -> dict:
    """Trains one model and leaves a run directory; a run that is finished there is not done again.

    Args:
        config: the run's settings.
        callbacks: Keras callbacks of the caller's own; they see all figures, those of dead units included.
        workshop: keeps what the next run with it can use: data, and on a CPU the traced graph.

    Returns:
        What `result.json` holds: `status` ("finished", or "diverged" when a loss or weight is not finite),
        `test_accuracy` (of a regression `test_r2` and `test_mae`) and `test_loss` after the last epoch,
        `dead/<layer>/...` (`Counts.figures`, with `inputs` and `bound`), the head's diagram, the number of
        parameters, the data's fingerprint. Figures that are not finite are NaN here and null in the file.

    Raises:
        UsageError: the config asks for a layer or a head that the net cannot have.
        DataError: the data set is not there, or has fewer images than a batch.
        RunDirectoryError: the directory holds another run, or cannot be written.
    """
    directory = RunDirectory(config.directory)
    finished = finished_result(config)
    if finished is not None:
        return finished
    workshop = workshop or Workshop()
    dataset = workshop.data(config, open_data)
    checked = inspect(dataset, config.batch_size)
    steps = checked["batches"]["steps"]
    device = gpu()  # there the seed is part of the graph, which makes the batches
    model = build(config, dataset) if device else workshop.model(config, dataset, build)
    training, test, probe = _data(config, dataset)
    if device and isinstance(dataset.train, InMemory) and recipe(config, dataset).compiles:
        training = feed_indices(model, config, dataset, device)
    layers = config.dead_layers.split(",") if config.dead_layers else None
    dead_units = DeadUnits(
        probe,
        layers,
        # the figures are among the others, in `Scalars`
        log_dir=str(directory.path / "tensorboard" / "units"),
        log_scalars=False,
    )
    diagram = describe_head(config, model)
    dead_units.set_model(model)  # a layer that is not there is said before anything is written

    directory.begin(config.settings())
    start = time.perf_counter()
    environment = _environment()
    directory.write("environment.json", environment)
    recompute_batch_stats(model, _one_epoch(config, dataset), "frozen")
    with _pictures_named(dataset):
        history = model.fit(
            training,
            epochs=config.epochs,
            steps_per_epoch=steps,
            validation_data=test,
            shuffle=False,
            verbose=0,
            callbacks=[
                dead_units,
                Pace(steps * config.batch_size),
                HistoryFile(directory),
                Scalars(
                    str(directory.path / "tensorboard"),
                    f"`{config.backbone}`, head `{config.head}`: {diagram}",
                    histograms=config.weight_histograms,
                ),
                keras.callbacks.TerminateOnNaN(),
                *callbacks,
            ],
        ).history
    figures, census = {name: values[-1] for name, values in history.items()}, dead_units.census
    finite = _is_finite(model, history)
    if config.recompute_batch_stats != "none" and finite:
        recompute_batch_stats(model, _one_epoch(config, dataset), config.recompute_batch_stats)
        evaluated = model.evaluate(test, verbose=0, return_dict=True)
        figures |= {f"val_{name}": value for name, value in evaluated.items()}
        census = count(model, probe, layers)
    result = _result(config, dataset, model, figures, census)
    if dataset.validation is not None:
        held_out = _targets(config, dataset, dataset.validation.evaluation_batches(256))
        validated = model.evaluate(held_out, verbose=0, return_dict=True)
        result |= {f"validation_{name}": value for name, value in validated.items()}
    result["data"]["checks"] = checked
    result = {"status": "finished" if finite else "diverged", "epochs": len(history["loss"]), **result}
    result["head"] = diagram
    directory.replace("model.keras", plain(model).save)
    directory.write("environment.json", {**environment, "seconds": round(time.perf_counter() - start, 2)})
    directory.write("result.json", result)
    return result


def _data(config: TrainConfig, dataset: DataSet) -> tuple[tf.data.Dataset, tf.data.Dataset, tf.data.Dataset]:
    """Batches for training, for testing and for counting dead units, as the model takes them."""
    training = dataset.train.training_batches(
        config.batch_size, config.epochs, config.seed, recipe(config, dataset)
    )
    test = dataset.test.evaluation_batches(256)
    probe = dataset.test.evaluation_batches(256, config.probe_examples)
    return tuple(_targets(config, dataset, data) for data in (training, test, probe))


def _targets(config: TrainConfig, dataset: DataSet, data: tf.data.Dataset) -> tf.data.Dataset:
    """Batches as the model takes them, from batches of images and labels."""
    labels, soft = needs_labels(config.head), config.mixup > 0
    return batches(data, config.task, dataset.outputs, with_labels=labels, soft=soft)


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


def gpu() -> str | None:
    """The device that a data set in memory is kept on: the first GPU, if there is one."""
    found = tf.config.list_logical_devices("GPU")
    return found[0].name if found else None


def feed_indices(model: keras.Model, config: TrainConfig, dataset: DataSet, device: str) -> tf.data.Dataset:
    """Keeps the training images on `device` and makes the model's batches there, inside the training step.

    What travels is indices. The batches are of the same examples as `training_batches`', and
    the same byte for byte unless XLA compiles the step and draws other numbers for the augmentation.

    Returns:
        What `fit` is to be fed with.
    """
    gather = dataset.train.gather_on(device, config.seed, recipe(config, dataset))
    prepare = example_maker(
        config.task, dataset.outputs, with_labels=needs_labels(config.head), soft=config.mixup > 0
    )
    order = dataset.train.order(config.batch_size, config.epochs, config.seed)
    # Keras builds metrics from the first element it is fed with, which here is no images: build them before
    one = next(iter(_targets(config, dataset, dataset.test.evaluation_batches(2, 2))))
    model.test_on_batch(*one)
    model.reset_metrics()
    step = model.train_step
    model.train_step = lambda fed: step(prepare(*gather(*fed)))
    return order


@contextlib.contextmanager
def _pictures_named(dataset: DataSet) -> Iterator[None]:
    """Tells which picture it is, when one that is read during training cannot be decoded."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        about_pictures = any(kind in str(error).lower() for kind in ("jpeg", "png", "image"))
        for split in (dataset.train, dataset.test):
            if about_pictures and isinstance(split, Streamed) and (found := split.unreadable()):
                raise DataError(found) from error
        raise


def _one_epoch(config: TrainConfig, dataset: DataSet) -> tf.data.Dataset:
    """The images of the first epoch, augmented, for statistics."""
    how = Recipe(config.augment, config.cutout)
    return dataset.train.training_batches(config.batch_size, 1, config.seed, how)


def finished_result(config: TrainConfig) -> dict | None:
    """The result of a run of exactly these settings that is finished in the config's directory, else None."""
    directory = RunDirectory(config.directory)
    if directory.read("config.json") != config.settings():
        return None
    result = directory.read("result.json")
    return result and {key: math.nan if value is None else value for key, value in result.items()}


def build(config: TrainConfig, dataset: DataSet) -> keras.Model:
    """The config's compiled model for a data set: raw pixels in, logits out."""
    steps = dataset.train.size // config.batch_size
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16" if config.mixed_precision else "float32")
    try:
        model = models.build(
            config.backbone,
            dataset.shape,
            config.head,
            dataset.outputs,
            weights=config.weights,
            preprocessing=pixel_scaling(config, dataset.shape[-1]),
            seed=config.seed,
            fc_units=config.fc_units,
            fc_activation=config.fc_activation,
            renorm_steps=max(1, round(RENORM_SHARE * config.epochs * steps)),
            class_counts=dataset.class_counts() if needs_labels(config.head) else None,
        )
    finally:
        keras.config.set_dtype_policy(policy)
    sgd = optimizer(config, model, steps)
    return compiled(model, config.task, dataset, sgd, soft=config.mixup > 0)


def pixel_scaling(config: TrainConfig, channels: int) -> keras.layers.Layer | None:
    """The layer from pixels, 0 to 255, to what the config's backbone reads; None where it reads pixels.

    Raises:
        UsageError: keras.applications' preprocessing, which is for colour, and images that have none.
    """
    name = TWINS.get(config.backbone) if config.weights == "imagenet" else None
    if config.backbone.startswith("keras:"):
        name = config.backbone.removeprefix("keras:")
    if config.pixels == "auto" and name:
        layer = pixel_preprocessing(name)
        if channels != 3:
            reads = f"{name}'s own preprocessing reads 3 channels, the images have {channels}"
            raise UsageError(f"pixels: {reads} (--pixels=signed takes any number)")
        return layer
    scale, offset = {"raw": (1, 0.0), "unit": (1 / 255, 0.0)}.get(config.pixels, (1 / 127.5, -1.0))
    return None if scale == 1 else keras.layers.Rescaling(scale, offset=offset, name="scale_pixels")


def optimizer(config: TrainConfig, model: keras.Model, steps: int) -> keras.optimizers.Optimizer:
    """SGD with Nesterov momentum; linear warm-up, then a cosine to 0; decay of kernels only.

    Args:
        config: the run's settings.
        model: the model whose variables will be trained.
        steps: optimizer steps per epoch.
    """
    warmup = min(round(config.warmup_epochs * steps), config.epochs * steps // 2)
    peak = config.learning_rate
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0 if warmup else peak,
        config.epochs * steps - warmup,
        warmup_target=peak if warmup else None,
        warmup_steps=warmup,
    )
    sgd = keras.optimizers.SGD(
        schedule,
        momentum=config.momentum,
        nesterov=config.momentum > 0,
        weight_decay=config.weight_decay or None,
    )
    sgd.exclude_from_weight_decay([v for v in model.trainable_variables if v.name != "kernel"])
    return sgd


def describe_head(config: TrainConfig, model: keras.Model) -> str:
    """The head's diagram with the shapes it has in `model`."""
    return describe(
        config.head,
        feature_shape(model),
        model.output.shape[-1],
        fc_units=config.fc_units,
        fc_activation=config.fc_activation,
    )


def _is_finite(model: keras.Model, history: dict[str, list[float]]) -> bool:
    """Whether losses and weights are: TensorFlow's fused kernels can turn NaN into 0, hidden in a loss."""
    losses = np.isfinite(history["loss"] + history["val_loss"]).all()
    return bool(losses and all(np.isfinite(weight).all() for weight in model.get_weights()))


def _result(config, dataset, model, figures, census) -> dict:
    counted = {
        f"dead/{name}/{key}": value
        for name, counts in census.layers.items()
        for key, value in {**counts.figures(), "inputs": counts.inputs, "bound": counts.bound}.items()
    }
    tested = {f"test_{k.removeprefix('val_')}": v for k, v in figures.items() if k.startswith("val_")}
    first = f"test_{TASKS[config.task].primary}"
    return {
        first: tested.pop(first),
        **tested,
        **counted,
        "parameters": model.count_params(),
        "data": {
            "name": dataset.name,
            "train": dataset.train.size,
            "test": dataset.test.size,
            "train_sha256": dataset.train.fingerprint(),
            "test_sha256": dataset.test.fingerprint(),
        },
    }


def devices() -> list[str]:
    """Names of the GPUs, or of the CPU where there is none."""
    found = tf.config.list_physical_devices("GPU")
    return [tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name) for gpu in found] or [
        "CPU"
    ]


def _environment() -> dict:
    return {
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "bnhead": __version__,
        **{package: importlib.metadata.version(package) for package in _PACKAGES},
        "backend": keras.backend.backend(),
        "devices": devices(),
        "platform": platform.platform(),
    }
