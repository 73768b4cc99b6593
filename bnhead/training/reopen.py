"""Opens a run directory, a .keras file or a named backbone: the model, and test images or arrays for it."""

import importlib
import os
import pathlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import tensorflow as tf

import bnhead.layers  # noqa: F401 - files may hold them
from bnhead import models
from bnhead.data import DataSet, load
from bnhead.data.arrays import Arrays, load_npz
from bnhead.data.split import Recipe
from bnhead.errors import ForeignCode, ResourcesError, RunDirectoryError, UsageError, nearest
from bnhead.frozen.extraction import joined
from bnhead.models import pixels as scalings
from bnhead.models.existing import load_keras_file
from bnhead.runs.directory import HEAD_FILES, RunDirectory
from bnhead.texts import first_line
from bnhead.training.backbone import extractor_of
from bnhead.training.config import TrainConfig

# settings of a run that change its data set
_SHIFTS = ("train_examples", "test_examples", "validation", "imbalance", "label_noise", "test_corruption")


@dataclass(frozen=True)
class Source:
    """A model and its data.

    Attributes:
        model: a Keras model.
        dataset: the opened data set, or the arrays of a file; None without data.
        pixels: how pixels from 0 to 255 become the model's input, or which arrays do, in words.
        task: of the labels: "classification", "multilabel" or "regression".
        scaling: the layer that scales pixels before the model; None if the model does or nothing does.
        recipe: how a run's training images were augmented; for other models not at all.
    """

    model: keras.Model
    dataset: DataSet | Arrays | None
    pixels: str
    task: str
    scaling: keras.layers.Layer | None = None
    recipe: Recipe = field(default_factory=Recipe)

    @property
    def classes(self) -> int | None:
        """Number of classes of the labels; None if the model's output decides."""
        is_file = isinstance(self.dataset, Arrays) and self.task != "regression"
        return None if is_file else len(self.dataset.classes)

    def batches(self, batch_size: int, examples: int) -> Any:
        """`(inputs, labels)` of the first test images or examples, as `census.count` takes them.

        Images are a `tf.data.Dataset`, scaled as the model's input; labels are class numbers, for multilabel
        tasks one-hot, for regression numbers. Arrays of a file are as they are, `(x, None)` without labels.
        """
        if isinstance(self.dataset, Arrays):
            labels = self.dataset.labels
            return _arrays_for(self.model, self.dataset, examples), None if labels is None else labels[
                :examples
            ]

        return self.dataset.test.evaluation_batches(batch_size, examples).map(self._prepare_batch)

    def training_batches(self, batch_size: int, recipe: str | Recipe = "none") -> Any:
        """`(inputs, labels)` of the training batches of an epoch, as `train` makes them.

        Arrays of a file are as they are, `(x, None)` without labels.

        Args:
            batch_size: examples in a batch, at most those of the split.
            recipe: augmentation, as of `--augment`, or a recipe such as that of a run.
        """
        if isinstance(self.dataset, Arrays):
            return _arrays_for(self.model, self.dataset, self.dataset.examples), self.dataset.labels
        batch_size = min(batch_size, self.dataset.train.size)
        return self.dataset.train.training_batches(batch_size, 1, 0, recipe).map(self._prepare_batch)

    def _prepare_batch(self, images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        if self.scaling is not None:
            images = tf.cast(images, "float32") * self.scaling.scale + self.scaling.offset
        if self.task == "multilabel":
            labels = keras.ops.one_hot(labels, self.dataset.outputs)
        return images, labels


def open_source(
    model: str,
    dataset: str = "",
    *,
    arrays: str = "",
    task: str = "",
    data_dir: str | None = None,
    image_size: int = 0,
    pixels: str = "auto",
    head: str = "out",
    weights: str = "",
    seed: int = 0,
    custom_objects: Sequence[str] = (),
    safe_mode: bool = True,
) -> Source:
    """Opens a model, checks that it can read the data, and opens them.

    Args:
        model: a run directory, a .keras file, or the name of a backbone.
        dataset: its name; "" for that of the run, which is opened as the run had it, with its limits,
            validation split, imbalance, label noise and corruption. For a file without data it is None.
        arrays: path of an .npz file that is read instead of a data set, for a run or a file.
        task: of the labels; "" for that of the run, else "classification".
        data_dir: the TFDS directory; None for the default.
        image_size: height and width of the images; 0 for those of the run or the file, else as they are.
        pixels: "auto", "signed", "unit" or "raw", for a file or a named backbone.
        head: of a named backbone.
        weights: pre-trained weights of a named backbone.
        seed: of a named backbone's initial weights.
        custom_objects: what the file needs and Keras does not have, as of `imported`.
        safe_mode: whether to refuse a file with Lambda layers.

    Raises:
        RunDirectoryError: the directory holds no finished run.
        UsageError: a file cannot be loaded, or the model cannot read the data.
        ResourcesError: the model needs too much memory.
        DataError: the data set is missing.
    """
    is_run = os.path.isdir(model)  # False also for an impossible path
    directory = RunDirectory(pathlib.Path(model))
    settings = directory.trained_settings() if is_run else {}
    task, net = task or settings.get("task", "classification"), None
    if is_run or model.endswith(".keras"):
        path = directory.model_file if is_run else pathlib.Path(model)
        net = _load_model(path, imported(custom_objects), safe_mode)
        if is_run and path.name in HEAD_FILES:
            net = _behind_backbone(net, settings)
        if arrays:
            dataset = load_npz(arrays)
            read = keras.tree.flatten(_arrays_for(net, dataset, 1))  # raises for an input that is missing
            shapes = (f"{array.shape[1:]} {array.dtype}" for array in read if array is not None)
            return Source(net, dataset, f"as in the file, {' and '.join(shapes)}", task)
        if not dataset and not is_run:
            return Source(net, None, "no data", task)
        _require_one_image(model, net)
    dataset = dataset or settings.get("dataset", "")
    if not dataset:
        raise RunDirectoryError(f"{pathlib.Path(model, 'config.json')} names no dataset; give --dataset")
    side = settings.get("image_size", 0) if is_run or net is None else _square_side(net)
    options = {"data_dir": data_dir, "task": task, "image_size": image_size or side}
    images = load(dataset, **options, **_changes_of_a_run(settings, dataset, task))
    if is_run:
        # a window of an image needs the image in its own size, which is not opened here
        augment = settings.get("augment", "none")
        recipe = Recipe() if augment == "imagenet" else Recipe(augment, settings.get("cutout", 0))
        source = Source(net, images, "by the model itself", task, recipe=recipe)
    else:
        scaling, description = scalings.decide_scaling(model, images.shape[-1], pixels, weights)
        if net is None:
            options = {"weights": weights, "seed": seed, "preprocessing": scaling}
            net, scaling = models.build(model, images.shape, head, images.outputs, **options), None
        source = Source(net, images, description, task, scaling)
    _require_shape(model, net, images)
    return source


def _changes_of_a_run(settings: dict, dataset: str, task: str) -> dict[str, Any]:
    """The arguments of `load` by which a run changed its data set; none for another data set or task."""
    if dataset != settings.get("dataset") or task != settings.get("task", task):
        return {}
    changes = {name: settings[name] for name in _SHIFTS if name in settings}
    return changes | {"unlabelled_target": settings.get("adaptation", "none") != "none"}


def imported(names: Sequence[str]) -> dict[str, Any]:
    """Classes and functions by name, for a file that needs them.

    Args:
        names: each `module:Name`, or `module` for every class and function that the module defines.

    Raises:
        UsageError: a module that cannot be imported, or a name that it does not have.
    """
    objects: dict[str, Any] = {}
    for text in names:
        module_name, _, name = text.partition(":")
        try:
            module = importlib.import_module(module_name)
        except Exception as error:  # a user's module can raise any error
            reason = f"{type(error).__name__}: {first_line(error)}"
            raise UsageError(f"custom_objects: {module_name!r} cannot be imported: {reason}") from error
        defined = {
            key: value
            for key, value in vars(module).items()
            if callable(value) and getattr(value, "__module__", None) == module.__name__
        }
        if name and not hasattr(module, name):
            raise UsageError(
                f"custom_objects: module {module_name!r} has no {name!r}{nearest(name, defined)}"
            )
        objects |= {name: getattr(module, name)} if name else defined
    return objects


def _load_model(path: pathlib.Path, custom_objects: dict[str, Any], safe_mode: bool) -> keras.Model:
    try:
        return load_keras_file(path, custom_objects, safe_mode=safe_mode)
    except (MemoryError, tf.errors.ResourceExhaustedError) as error:
        raise ResourcesError(f"model {path} needs more memory than there is") from error
    except ForeignCode as error:
        advice = f"--custom_objects=MODULE:{error.name} imports it"
        if not error.name:
            advice = "--nosafe_mode runs it, if you trust the file"
        raise UsageError(f"model {path} cannot be loaded: {error}; {advice}") from error
    except Exception as error:  # a damaged or foreign file can raise any error
        raise UsageError(f"model {path} cannot be loaded: {first_line(error)}") from error


def _behind_backbone(head: keras.Model, settings: dict) -> keras.Model:
    """The net from images to outputs of a run that wrote its head alone."""
    config = TrainConfig(**settings)
    return joined(extractor_of(config, load(**config.data_options())), head)


def _require_one_image(model: str, net: keras.Model) -> None:
    inputs = getattr(net, "inputs", None) or ()
    if len(inputs) != 1 or len(inputs[0].shape) != 4:
        raise UsageError(
            f"model {model} must take one image, (batch, height, width, channels), to read a data set; "
            "--data=FILE.npz counts on arrays of any kind"
        )


def _require_shape(model: str, net: keras.Model, images: DataSet) -> None:
    expected, shape = net.inputs[0].shape[1:], images.shape
    if any(size not in (None, actual) for size, actual in zip(expected, shape, strict=True)):
        hint = f"{images.name} has images of {' x '.join(map(str, shape))}"
        raise UsageError(f"model {model} takes images of {' x '.join(map(str, expected))}, and {hint}")


def _arrays_for(net: keras.Model, arrays: Arrays, examples: int) -> Any:
    """The first examples in the structure that the model takes: an array, or a dictionary by input."""
    inputs = getattr(net, "inputs", None) or ()
    optional = [t.name for t in inputs if getattr(t._keras_history.operation, "optional", False)]
    # a subclassed model declares no inputs
    read = arrays.read_by([tensor.name for tensor in inputs], optional) if inputs else arrays.inputs
    first = {name: None if array is None else array[:examples] for name, array in read.items()}
    return first if len(first) > 1 else next(iter(first.values()))


def _square_side(model: keras.Model) -> int:
    """The height of a model's image if it is a square of fixed size, else 0."""
    _, height, width, _ = model.inputs[0].shape
    return height if height is not None and height == width else 0
