"""Opens a run directory, a .keras file or a named backbone: the model, and test images for it."""

import os
import pathlib
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

import bnhead.layers  # noqa: F401 - files may hold them
from bnhead import models
from bnhead.data import DataSet, load
from bnhead.errors import ResourcesError, RunDirectoryError, UsageError
from bnhead.models import pixels as scalings
from bnhead.runs.directory import RunDirectory


@dataclass(frozen=True)
class Source:
    """A model and its data.

    Attributes:
        model: a Keras model.
        dataset: the opened data set.
        pixels: how pixels from 0 to 255 become the model's input, in words.
        task: of the labels: "classification", "multilabel" or "regression".
        scaling: the layer that scales pixels before the model; None if the model does or nothing does.
    """

    model: keras.Model
    dataset: DataSet
    pixels: str
    task: str
    scaling: keras.layers.Layer | None = None

    def batches(self, batch_size: int, examples: int) -> Any:
        """`tf.data.Dataset` of `(images, labels)`, the first test images, scaled as the model's input.

        Labels are class numbers, for multilabel tasks one-hot, for regression numbers.
        """

        def prepare_batch(images, labels):
            if self.scaling is not None:
                images = tf.cast(images, "float32") * self.scaling.scale + self.scaling.offset
            if self.task == "multilabel":
                labels = keras.ops.one_hot(labels, self.dataset.outputs)
            return images, labels

        return self.dataset.test.evaluation_batches(batch_size, examples).map(prepare_batch)


def open_source(
    model: str,
    dataset: str = "",
    *,
    task: str = "",
    data_dir: str | None = None,
    image_size: int = 0,
    pixels: str = "auto",
    head: str = "out",
    weights: str = "",
    seed: int = 0,
) -> Source:
    """Opens a model and a data set.

    Args:
        model: a run directory, a .keras file, or the name of a backbone.
        dataset: its name; "" for that of the run.
        task: of the labels; "" for that of the run, else "classification".
        data_dir: the TFDS directory; None for the default.
        image_size: height and width of the images; 0 for those of the run or the file, else as they are.
        pixels: "auto", "signed", "unit" or "raw", for a file or a named backbone.
        head: of a named backbone.
        weights: pre-trained weights of a named backbone.
        seed: of a named backbone's initial weights.

    Raises:
        RunDirectoryError: the directory holds no finished run.
        UsageError: a file cannot be loaded, or the model cannot read the images.
        ResourcesError: the model needs too much memory.
        DataError: the data set is missing.
    """
    path = pathlib.Path(model)
    if os.path.isdir(model):  # False also for an impossible path
        settings = RunDirectory(path).trained_settings()
        dataset = dataset or settings.get("dataset")
        if not dataset:
            raise RunDirectoryError(f"{path / 'config.json'} names no dataset; give --dataset")
        task = task or settings.get("task", "classification")
        image_size = image_size or settings.get("image_size", 0)
        images = load(dataset, data_dir, task=task, image_size=image_size)
        source = Source(_load_model(path / "model.keras"), images, "by the model itself", task)
    else:
        task = task or "classification"
        net = _load_model(path) if model.endswith(".keras") else None
        images = load(dataset, data_dir, task=task, image_size=image_size or _square_side(net))
        scaling, description = scalings.decide_scaling(model, images.shape[-1], pixels, weights)
        if net is None:
            options = {"weights": weights, "seed": seed, "preprocessing": scaling}
            net = models.build(model, images.shape, head, images.outputs, **options)
            scaling = None
        source = Source(net, images, description, task, scaling)
    inputs = getattr(source.model, "inputs", None) or ()
    if len(inputs) != 1 or len(inputs[0].shape) != 4:
        raise UsageError(f"model {model} must take one image, (batch, height, width, channels)")
    expected, shape = inputs[0].shape[1:], images.shape
    if any(size not in (None, actual) for size, actual in zip(expected, shape, strict=True)):
        hint = f"{images.name} has images of {' x '.join(map(str, shape))}"
        raise UsageError(f"model {model} takes images of {' x '.join(map(str, expected))}, and {hint}")
    return source


def _load_model(path: pathlib.Path) -> keras.Model:
    try:
        return keras.saving.load_model(path, compile=False)
    except (MemoryError, tf.errors.ResourceExhaustedError) as error:
        raise ResourcesError(f"model {path} needs more memory than there is") from error
    except Exception as error:  # a damaged or foreign file can raise any error
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UsageError(f"model {path} cannot be loaded: {reason}") from error


def _square_side(model: keras.Model | None) -> int:
    """The height of a model's input if it is a square of fixed size, else 0."""
    shape = model.inputs[0].shape if len(getattr(model, "inputs", None) or ()) == 1 else ()
    return shape[1] if len(shape) == 4 and shape[1] is not None and shape[1] == shape[2] else 0
