"""The data of a comparison: a user's arrays, `tf.data`, or the name of a data set."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from bnhead.errors import UsageError
from bnhead.graph.inputs import batches
from bnhead.seeds import stream


@dataclass(frozen=True)
class ComparedData:
    """The data of a comparison.

    Attributes:
        train: arrays `(x, y)`, or `(seed, epoch) -> batches`.
        x, y: test arrays, in their order.
        facts: name, sizes, fingerprints and number of classes.
    """

    train: Any
    x: Any
    y: np.ndarray
    facts: Mapping[str, Any]

    @classmethod
    def of(cls, data: Any, batch_size: int) -> "ComparedData":
        """The data in the forms of `compare`.

        Raises:
            UsageError: data in another form.
        """
        if isinstance(data, str):
            return cls._of_name(data, batch_size)
        if not isinstance(data, tuple | list) or len(data) != 2:
            raise UsageError(
                f"data must be (train, test) or the name of a data set, got {type(data).__name__}"
            )
        train, test = data
        x, y = split_arrays("test", test)
        if hasattr(train, "element_spec"):  # a tf.data.Dataset
            facts = _data_facts("tf.data", *_fingerprint_of_labels(train), x, y)
            return cls(lambda seed, epoch: train, x, y, facts)
        train = split_arrays("train", train)
        return cls(train, x, y, _data_facts("arrays", len(train[1]), _fingerprint(train), x, y))

    @classmethod
    def _of_name(cls, name: str, batch_size: int) -> "ComparedData":
        from bnhead.data import load
        from bnhead.data.split import Recipe

        data = load(name)
        x, y = split_arrays("test", data.test.evaluation_batches(256))

        def epoch_of(seed, epoch):
            return data.train.training_batches(batch_size, 1, stream(seed, epoch), Recipe())

        facts = _data_facts(data.name, data.train.size, data.train.fingerprint(), x, y)
        return cls(epoch_of, x, y, {**facts, "test_sha256": data.test.fingerprint()})

    def epoch(self, seed: int, epoch: int, batch_size: int) -> Any:
        """The training batches of one epoch: the same for all heads of a seed."""
        if callable(self.train):
            return self.train(seed, epoch)
        return OrderedBatches(*self.train, self.order(seed, epoch), batch_size)

    def order(self, seed: int, epoch: int) -> np.ndarray:
        """The indices of the training arrays in the order of one epoch."""
        return np.random.default_rng(stream(seed, "order", epoch)).permutation(len(self.train[1]))

    def tested(self, start: int, end: int | None = None) -> Any:
        """The test inputs from `start` to before `end`."""
        return keras.tree.map_structure(lambda array: array[start:end], self.x)


class OrderedBatches(keras.utils.PyDataset):
    """Batches of arrays in a fixed order, the last partial batch included."""

    def __init__(self, x: Any, y: np.ndarray, order: np.ndarray, batch_size: int):
        super().__init__()
        self._x, self._y, self._order, self._batch_size = x, y, order, batch_size

    def __len__(self) -> int:
        return math.ceil(len(self._order) / self._batch_size)

    def __getitem__(self, index: int) -> tuple[Any, np.ndarray]:
        rows = self._order[index * self._batch_size : (index + 1) * self._batch_size]
        return keras.tree.map_structure(lambda array: array[rows], self._x), self._y[rows]


def split_arrays(split: str, data: Any) -> tuple[Any, np.ndarray]:
    """Inputs and labels of a split as arrays.

    Raises:
        UsageError: data in another form than `(x, y)` or batches of `(x, y)`.
    """
    if hasattr(data, "element_spec"):  # a tf.data.Dataset
        parts = [(keras.tree.map_structure(np.asarray, x), np.asarray(y)) for x, y in batches(data, 256)]
        if not parts:
            raise UsageError(f"{split} data must have at least one batch")
        x = keras.tree.map_structure(lambda *leaves: np.concatenate(leaves), *(x for x, _ in parts))
        return x, np.concatenate([y for _, y in parts])
    if not isinstance(data, tuple | list) or len(data) != 2 or data[1] is None:
        raise UsageError(f"{split} data must be (x, y) or a tf.data.Dataset, got {type(data).__name__}")
    x, y = keras.tree.map_structure(np.asarray, data[0]), np.asarray(data[1])
    if (sizes := {len(leaf) for leaf in keras.tree.flatten(x)}) != {len(y)}:
        raise UsageError(f"{split} data must have as many labels as inputs, got {len(y)} and {max(sizes)}")
    return x, y


def labels_of(y: np.ndarray) -> np.ndarray:
    """Class numbers of one-hot labels; other labels unchanged, a column of them as `(examples,)`."""
    if y.ndim == 2 and y.shape[1] > 1 and ((y == 0) | (y == 1)).all() and (y.sum(1) == 1).all():
        return y.argmax(1)
    return y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y


def _data_facts(name: str, size: int, fingerprint: str, x: Any, y: np.ndarray) -> dict[str, Any]:
    """Facts of the training data, and of the test arrays x and y."""
    labels = labels_of(y)
    is_class = labels.ndim == 1 and np.issubdtype(labels.dtype, np.integer)
    return {
        "name": name,
        "train": int(size),
        "test": len(y),
        "train_sha256": fingerprint,
        "test_sha256": _fingerprint((x, y)),
        "classes": int(labels.max()) + 1 if is_class else None,
    }


def _fingerprint(arrays: Any) -> str:
    """SHA-256 of dtypes, shapes and bytes."""
    content = hashlib.sha256()
    for array in keras.tree.flatten(arrays):
        content.update(f"{array.dtype.str}{array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return content.hexdigest()


def _fingerprint_of_labels(dataset: Any) -> tuple[int, str]:
    """Number of examples, and SHA-256 of their shapes and of the labels' counts.

    A data set may shuffle and augment: then neither order nor pixels are the same twice.
    """
    counts: dict[bytes, int] = {}
    for _, y in batches(dataset, 256):
        for row in np.asarray(y):
            counts[row.tobytes()] = counts.get(row.tobytes(), 0) + 1
    content = [str(dataset.element_spec), sorted((key.hex(), n) for key, n in counts.items())]
    return sum(counts.values()), hashlib.sha256(json.dumps(content).encode()).hexdigest()
