"""Encoded examples: the interface between the modules of `sets`, which know files, and `stream`."""

import contextlib
import pathlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from bnhead.errors import DataError
from bnhead.texts import first_line

# What TensorFlow, TFDS and the file system raise when a file cannot be read.
FAULTS = (tf.errors.OpError, OSError, ValueError, NotImplementedError, ImportError)


@contextlib.contextmanager
def named_faults(subject: str) -> Iterator[None]:
    """Raises a DataError "`subject` cannot be read" for any error of TensorFlow, TFDS and the file system."""
    try:
        yield
    except tf.errors.ResourceExhaustedError:  # memory is full: not a fault of the data
        raise
    except FAULTS as error:
        raise DataError(f"{subject} cannot be read: {first_line(error)}") from error


class Reader(Protocol):
    """The encoded examples of one split.

    Attributes:
        name: name of set and split for messages.
        size: number of examples.
        channels: channels of a decoded picture.
        label: TFDS feature of the labels.
        labels: all labels in order; read once, without decoding a picture.
        cache_dir: directory for decoded copies; None if none can be kept.
    """

    name: str
    size: int
    channels: int
    label: tfds.features.FeatureConnector
    labels: np.ndarray
    cache_dir: pathlib.Path | None

    def content(self) -> Any:
        """Names and sizes of the files, for the fingerprint; the files are not read."""

    def identity(self) -> list | None:
        """Names, sizes and times of the files, which identify a cached copy; None if there are none."""

    def describe(self, index: int) -> str:
        """Names one example for a message."""

    def records(self, key: tf.Tensor | None) -> tf.data.Dataset:
        """All `(index, record)`, in order for None, otherwise in an order drawn with the `(2,)` key."""

    def parse(self, record: Any) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the encoded picture, a string, and the label."""

    def decode(self, encoded: tf.Tensor) -> tf.Tensor:
        """Returns the picture, `(height, width, channels)` uint8."""

    def can_crop(self, encoded: tf.Tensor) -> tf.Tensor:
        """Whether the picture is a JPEG of which a window can be decoded without the rest."""


def read_order(size: int, key: tf.Tensor | None) -> tf.Tensor:
    """Returns the numbers 0 to `size - 1`, ascending for None, otherwise in an order drawn with the key."""
    return tf.range(size) if key is None else tf.argsort(tf.random.stateless_uniform((size,), key))


@dataclass(frozen=True)
class OpenedSet:
    """A data set of which no picture has been decoded.

    Attributes:
        name: full name.
        readers: of the training split and the test split.
        label: TFDS feature of the labels.
        shape: `(height, width, channels)` of the pictures; height and width None if unknown.
        notes: warnings from opening it.
        split_rule: how a set that has no test split was divided; empty for a set that has one.
    """

    name: str
    readers: tuple[Reader, Reader]
    label: tfds.features.FeatureConnector
    shape: tuple[int | None, int | None, int]
    notes: tuple[str, ...] = ()
    split_rule: str = ""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes; empty if labels are numbers."""
        return tuple(self.label.names) if isinstance(self.label, tfds.features.ClassLabel) else ()
