"""The features of a frozen backbone: it runs once over a data set, and its outputs are kept on disk.

    extractor = pooled(models.build("resnet20", (32, 32, 3), weights="runs/..."))  # images -> features
    found = features(extractor, dataset)
    found.train, found.train_labels, found.test, found.test_labels, found.fingerprint

What a backbone's outputs depend on is hashed into the name of their folder (`store`): the calls, settings and
weights of the net, which contains its preprocessing; the images of the split; the augmentation of the pass.
Batch norms and dropout run in inference mode, as of a frozen net.
"""

import dataclasses
import functools
import hashlib
import json
import pathlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from bnhead import graph, seeds
from bnhead.data import DataSet, catalog
from bnhead.data.memory import InMemory
from bnhead.data.split import Recipe, Split
from bnhead.errors import UsageError
from bnhead.frozen import store
from bnhead.graph import model_calls

BATCH = 64  # images of a batch: enough for the kernels of a CPU, and a GPU waits for the pictures anyway
FOLDER = "bnhead-features"  # of the store, beside the data sets of TFDS
_VERSION = 1  # of the facts below
_OTHERS = ("name", "trainable", "seed")  # settings of a layer without effect on what a frozen net computes
_OTHER_ENDINGS = ("_initializer", "_regularizer", "_constraint")


@dataclass(frozen=True, eq=False)
class Features:
    """The features of a data set, float32 arrays that are memory maps of the store's files.

    Attributes:
        passes: a pass over the training split each, `(examples, ...)`; the first is of the images as they
            are, the others are augmented.
        test: `(examples, ...)`.
        validation: likewise; None without a validation split.
        train_labels, test_labels, validation_labels: `(examples,)` int64 classes, or `(examples, numbers)`
            float32.
        fingerprint: SHA-256 of everything that they depend on: net, weights, preprocessing, images, passes.
    """

    passes: tuple[np.ndarray, ...]
    test: np.ndarray
    validation: np.ndarray | None
    train_labels: np.ndarray
    test_labels: np.ndarray
    validation_labels: np.ndarray | None
    fingerprint: str

    @property
    def train(self) -> np.ndarray:
        """The first pass over the training split, `(examples, ...)`."""
        return self.passes[0]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the features of one image: `(channels,)` or `(height, width, channels)`."""
        return self.test.shape[1:]

    def dataset(self, images: DataSet) -> DataSet:
        """The data set whose images are these features; its splits have the fingerprints of the images.

        Args:
            images: the data set that they were computed from.
        """
        splits = {"train": self.passes, "test": (self.test,)}
        if self.validation is not None:
            splits["validation"] = (self.validation,)
        stored = {name: StoredSplit.of(images.splits[name], arrays) for name, arrays in splits.items()}
        return dataclasses.replace(images, shape=self.shape, **stored)


@dataclass(frozen=True, eq=False)
class StoredSplit(InMemory):
    """A split whose examples are features.

    Attributes:
        images: `(passes * examples, ...)` float32, one pass after the other; an epoch reads one of them.
        source_fingerprint: that of the images.
    """

    source_fingerprint: str = ""

    @classmethod
    def of(cls, images: Split, passes: Iterable[np.ndarray]) -> "StoredSplit":
        """The features of a split, a pass over it each."""
        passes = list(passes)
        rows = passes[0] if len(passes) == 1 else np.concatenate(passes)
        return cls(rows, images.labels, getattr(images, "domains", None), images.fingerprint())

    def fingerprint(self) -> str:
        return self.source_fingerprint


def features(
    extractor: keras.Model,
    dataset: DataSet,
    *,
    passes: int = 1,
    recipe: Recipe | None = None,
    directory: pathlib.Path | None = None,
    report: Callable[[int, int], None] | None = None,
) -> Features:
    """Runs a frozen net over a data set, or reads its stored features.

    Args:
        extractor: a functional model from images, uint8 from 0 to 255, to features; with its preprocessing.
        dataset: of images.
        passes: over the training split. The first is of the images as they are.
        recipe: augments the images of the further passes.
        directory: of the store; None for `default_directory()`.
        report: gets the number of images that are done, and of all images, after every batch.

    Raises:
        UsageError: further passes without an augmentation.
        ResourcesError, RunDirectoryError: as `store.load_or_compute`.
    """
    recipe = recipe or Recipe()
    if passes < 1 or (passes > 1 and recipe == Recipe(classes=recipe.classes)):
        raise UsageError(f"passes must be 1 without an augmentation, which would differ, got {passes}")
    directory = directory or default_directory()
    net = net_sha256(extractor)
    jobs = [("train", number) for number in range(passes)]
    jobs += [(name, 0) for name in dataset.splits if name != "train"]
    total, finished = sum(dataset.splits[name].size for name, _ in jobs), 0
    arrays, all_facts = {}, []
    predict = predictor(extractor)
    for name, number in jobs:
        split = dataset.splits[name]
        facts = {
            "version": _VERSION,
            "net": net,
            "backend": keras.backend.backend(),
            "images": split.fingerprint(),
            "image_shape": list(dataset.shape),
            "cropped": bool(getattr(split, "cropped", False)),
            "pass": number and [number, recipe.augmentation, recipe.cutout],
        }
        progress = None if report is None else functools.partial(_report_from, report, finished, total)
        arrays[name, number] = store.load_or_compute(
            directory,
            facts,
            (split.size, *extractor.output.shape[1:]),
            functools.partial(_computed_rows, predict, split, recipe if number else None, number, progress),
        )
        finished += split.size
        all_facts.append(facts)
    text = json.dumps(all_facts, sort_keys=True)
    validation = dataset.validation
    return Features(
        tuple(arrays["train", number] for number in range(passes)),
        arrays["test", 0],
        arrays.get(("validation", 0)),
        dataset.train.labels,
        dataset.test.labels,
        None if validation is None else validation.labels,
        hashlib.sha256(text.encode()).hexdigest(),
    )


def default_directory(data_dir: str | None = None) -> pathlib.Path:
    """The directory of the store: a folder in TFDS' directory, None for TFDS' default."""
    return catalog.expand_user(data_dir or str(tfds.core.constants.DATA_DIR)) / FOLDER


def pooled(backbone: keras.Model, pooling: str = "gap") -> keras.Model:
    """A net from images to pooled features; a net that gives a vector is returned itself.

    Args:
        backbone: a functional model from images to a feature map or a vector.
        pooling: a head's token for a pooling without weights.
    """
    from bnhead import heads  # the parts of a head are made by the head's own builder

    if len(backbone.output.shape) != 4:
        return backbone
    inputs = keras.Input(backbone.output.shape[1:])
    head = heads.attach(f"{pooling}_out", inputs, inputs, 1, name="pooling")
    return joined(backbone, keras.Model(inputs, head.get_layer("head_out").input))


def joined(first: keras.Model, second: keras.Model) -> keras.Model:
    """The model that computes `second` on the output of `first`, with the layers of both.

    Args:
        first: a functional model of one input and one output.
        second: a functional model; its first input is the output of `first`, further ones stay inputs.
    """
    further = second.inputs[1:]
    outputs = graph.replay(second, [first.output, *further])
    return keras.Model([*first.inputs, *further] if further else first.input, outputs[0], name=first.name)


def net_sha256(model: keras.Model) -> str:
    """SHA-256 of what a functional model computes in inference: calls, settings and weights.

    Names of layers, and what only training or the first weights depend on, do not change it.
    """
    flat, digest = graph.inlined(model), hashlib.sha256()
    numbers = {id(tensor): index for index, tensor in enumerate(flat.inputs)}

    def plain(value: Any) -> Any:
        if id(value) in numbers:
            return f"tensor {numbers[id(value)]}"
        if isinstance(value, np.ndarray):
            return [value.dtype.str, value.shape, hashlib.sha256(value.tobytes()).hexdigest()]
        return str(value)

    for call in model_calls(flat):
        operation = call.operation
        arguments = [plain(value) for value in keras.tree.flatten((call.arguments, call.keywords))]
        settings = _computing(operation.get_config())
        text = json.dumps([type(operation).__name__, settings, arguments], sort_keys=True, default=plain)
        digest.update(text.encode())
        for variable in getattr(operation, "variables", ()):
            if "seed_generator" not in variable.path:
                value = np.ascontiguousarray(keras.ops.convert_to_numpy(variable))
                digest.update(f"{value.dtype.name} {value.shape}".encode())
                digest.update(value.data.cast("B") if value.size else b"")
        for tensor in call.outputs:
            numbers[id(tensor)] = len(numbers)
    return digest.hexdigest()


def _computing(config: Any) -> Any:
    """A layer's settings without those of `_OTHERS` and `_OTHER_ENDINGS`, also inside of it."""
    if isinstance(config, dict):
        return {
            key: _computing(value)
            for key, value in config.items()
            if key not in _OTHERS and not str(key).endswith(_OTHER_ENDINGS)
        }
    return [_computing(value) for value in config] if isinstance(config, list | tuple) else config


def predictor(extractor: keras.Model) -> Callable[[np.ndarray], np.ndarray]:
    """The extractor as a function of a batch, float32; compiled at the first batch."""
    jit = False if keras.backend.backend() == "tensorflow" else "auto"  # XLA is slow on a CPU
    model = keras.Model(extractor.input, extractor.output)
    model.compile(jit_compile=jit)
    return lambda images: np.asarray(model.predict_on_batch(images), np.float32)


def _computed_rows(
    predict: Callable[[np.ndarray], np.ndarray],
    split: Split,
    recipe: Recipe | None,
    number: int,
    report: Callable[[int], None] | None,
    first: int,
) -> Iterator[np.ndarray]:
    """The features of a split from a row on, a batch at a time."""
    if getattr(split, "corruption", "none") != "none":
        # noise is drawn by the index in the split, which `take` would begin again
        batches = split.evaluation_batches(BATCH).skip(first // BATCH)
    else:
        batches = (split.take(np.arange(first, split.size)) if first else split).evaluation_batches(BATCH)
    stream = seeds.stream(0, "feature_pass", number)
    row = first
    for images, labels in batches:
        if recipe is not None:
            # drawn by the first row, so that a resumed pass is the same
            images, _ = Recipe(recipe.augmentation, recipe.cutout).apply(
                images, labels, tf.stack([stream, row])
            )
        yield predict(images.numpy())
        row += len(images)
        if report is not None:
            report(row)


def _report_from(report: Callable[[int, int], None], finished: int, total: int, rows: int) -> None:
    report(finished + rows, total)
