"""Opening what is inspected: the model, and the test images it is counted on."""

import pathlib
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

import bnhead.layers  # noqa: F401 - files may hold them
from bnhead import models
from bnhead.cli.request import Request
from bnhead.data import DataSet, load
from bnhead.errors import ResourcesError, RunDirectoryError, UsageError
from bnhead.models import pixels
from bnhead.runs.directory import RunDirectory


@dataclass(frozen=True)
class Source:
    """A model and its data.

    Attributes:
        model: a Keras model.
        dataset: the opened data set.
        pixels: how pixels from 0 to 255 become what the model reads, in words.
        scaling: the layer that does it before the model; None where the model does, or nothing is to be done.
        task: what the labels are: "classification", "multilabel" or "regression".
    """

    model: keras.Model
    dataset: DataSet
    pixels: str
    task: str
    scaling: keras.layers.Layer | None = None

    def batches(self, batch_size: int, examples: int) -> Any:
        """`tf.data.Dataset` of `(images, labels)`, the first test images, scaled as the model reads them.

        Labels are class numbers, one-hot where each class is a yes or no of its own, or numbers.
        """
        found = self.dataset.test.evaluation_batches(batch_size, examples)

        def prepare(images, labels):
            if self.scaling is not None:
                images = tf.cast(images, "float32") * self.scaling.scale + self.scaling.offset
            if self.task == "multilabel":
                labels = keras.ops.one_hot(labels, self.dataset.outputs)
            return images, labels

        return found.map(prepare)


def open_source(request: Request) -> Source:
    """Opens the model and the data set that a request names.

    Raises:
        RunDirectoryError: the directory holds no finished run.
        UsageError: a file that cannot be loaded, or a model that does not take the images.
        ResourcesError: a model that needs more memory than there is.
        DataError: the data set is not there.
    """
    if request.is_run:
        return _run(request)
    from_file = request.model.endswith(".keras")
    model = _load(pathlib.Path(request.model)) if from_file else None
    size = request.image_size or (_side(model) if from_file else 0)
    task = request.task or "classification"
    dataset = load(request.dataset, request.data_dir or None, task=task, image_size=size)
    scaling, said = pixels.decide_scaling(request.model, dataset.shape[-1], request.pixels, request.weights)
    if model is None:
        options = {"weights": request.weights, "seed": request.seed, "preprocessing": scaling}
        model = models.build(request.model, dataset.shape, request.head, dataset.outputs, **options)
    source = Source(model, dataset, said, task, scaling if from_file else None)
    _check(source, request.model)
    return source


def _run(request: Request) -> Source:
    path = pathlib.Path(request.model)
    settings = RunDirectory(path).read("config.json")
    if settings is None or not (path / "model.keras").is_file():
        raise RunDirectoryError(f"{path} holds no finished run; give a run directory or a .keras file")
    name = request.dataset or settings.get("dataset")
    if not name:
        raise RunDirectoryError(f"{path / 'config.json'} names no dataset; give --dataset")
    size = request.image_size or settings.get("image_size", 0)
    task = request.task or settings.get("task", "classification")
    dataset = load(name, request.data_dir or None, task=task, image_size=size)
    source = Source(_load(path / "model.keras"), dataset, "by the model itself", task)
    _check(source, request.model)
    return source


def _load(path: pathlib.Path) -> keras.Model:
    try:
        return keras.saving.load_model(path, compile=False)
    except (MemoryError, tf.errors.ResourceExhaustedError) as error:
        raise ResourcesError(f"model {path} needs more memory than there is") from error
    except Exception as error:  # a damaged file, or one from elsewhere, can end in any
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UsageError(f"model {path} cannot be loaded: {why}") from error


def _side(model: keras.Model) -> int:
    """Height of the images a model wants, where it wants squares of one size; else 0."""
    shape = model.inputs[0].shape if len(getattr(model, "inputs", None) or ()) == 1 else ()
    return shape[1] if len(shape) == 4 and shape[1] is not None and shape[1] == shape[2] else 0


def _check(source: Source, name: str) -> None:
    inputs = getattr(source.model, "inputs", None) or ()
    if len(inputs) != 1 or len(inputs[0].shape) != 4:
        raise UsageError(f"model {name} must take one image, (batch, height, width, channels)")
    wanted, there = inputs[0].shape[1:], source.dataset.shape
    if any(size not in (None, other) for size, other in zip(wanted, there, strict=True)):
        hint = f"{source.dataset.name} has images of {' x '.join(map(str, there))}"
        raise UsageError(f"model {name} takes images of {' x '.join(map(str, wanted))}, and {hint}")
