"""Batches: a split of a data set as `tf.data.Dataset` of `(images, labels)`.

Images are `(batch, height, width, channels)` uint8, 0 to 255; labels `(batch,)` int64 class numbers, or
`(batch, numbers)` float32. The model scales the pixels itself, so that a quarter of the bytes travels and a
saved model takes plain images.

Order and augmentation of epoch e depend on `(seed, e)` alone: a run that begins with epoch 7 sees what it
would have seen. A rest that does not fill a training batch is left out, another one each epoch: a batch norm
learns from batches of one size, and nothing from a batch of one. In evaluation every example counts once.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from bnhead import seeds
from bnhead.data import pictures
from bnhead.data.augment import augment, mixup
from bnhead.data.corruptions import corrupted
from bnhead.data.reading import FAULTS, Reader
from bnhead.errors import DataError
from bnhead.texts import first_line

SHUFFLE_BUFFER = 10_000  # examples, encoded


@dataclass(frozen=True)
class Recipe:
    """How training batches are made.

    Attributes:
        kind: what `--augment` names: "none", "crop", "crop_flip" or "imagenet".
        cutout: side of the square that is painted over, in pixels; 0 paints none.
        mixup: alpha of mixup; 0 mixes nothing. Otherwise labels become `(batch, outputs)` float32: shares of
            the classes, or mixed numbers.
        classes: number of classes, which mixup needs; 0 where labels are numbers.
    """

    kind: str = "none"
    cutout: int = 0
    mixup: float = 0.0
    classes: int = 0

    def apply(
        self, images: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor, *, windowed: bool = False
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """A batch, augmented; `windowed` where random windows were cut while the images were decoded."""
        kind = "flip" if windowed and self.kind == "imagenet" else self.kind
        images = augment(images, seed, kind, self.cutout)
        if not self.mixup:
            return images, labels
        targets = tf.one_hot(labels, self.classes) if self.classes else labels
        return mixup(images, targets, seed, self.mixup)


def recipe(kind: "str | Recipe") -> Recipe:
    """A recipe, or that of the name of an augmentation alone."""
    return kind if isinstance(kind, Recipe) else Recipe(kind)


@dataclass(frozen=True)
class InMemory:
    """A split that has been decoded into arrays: the fast path.

    Attributes:
        images: `(size, height, width, channels)` uint8.
        labels: `(size,)` int64, or `(size, numbers)` float32.
        domains: `(size,)` int64, the domain that each example is from; None where there is one.
    """

    images: np.ndarray
    labels: np.ndarray
    domains: np.ndarray | None = None

    @property
    def size(self) -> int:
        """Number of examples."""
        return len(self.labels)

    def fingerprint(self) -> str:
        """SHA-256 over pixels and labels, and over domains where there are several."""
        digest = hashlib.sha256(np.ascontiguousarray(self.images).data)
        digest.update(np.ascontiguousarray(self.labels).data)
        if self.domains is not None:
            digest.update(np.ascontiguousarray(self.domains).data)
        return digest.hexdigest()

    def labels_in_batches(self) -> Iterator[np.ndarray]:
        """All labels, in order, some at a time."""
        yield self.labels

    def take(self, indices: np.ndarray) -> "InMemory":
        """The split of these examples alone."""
        domains = None if self.domains is None else self.domains[indices]
        return InMemory(self.images[indices], self.labels[indices], domains)

    def with_labels(self, labels: np.ndarray) -> "InMemory":
        """The split with other labels."""
        return dataclasses.replace(self, labels=labels)

    def with_corruption(self, text: str) -> "InMemory":
        """The split with images that are corrupted (`corruptions.corrupted`)."""
        changed = [corrupted(self.images[i : i + 256], text, i) for i in range(0, self.size, 256)]
        return dataclasses.replace(self, images=np.concatenate(changed))

    def order(
        self, batch_size: int, epochs: int, seed: int, first_epoch: int = 0, first_step: int = 0
    ) -> tf.data.Dataset:
        """Which examples make which batch: `(step, (batch,) int32 indices)`, steps counted from epoch 0.

        The first `first_step` batches of the first epoch are left out.
        """
        steps = self.size // batch_size
        order_seed = seeds.stream(seed, "data")

        def epoch_batches(epoch):
            order = tf.argsort(tf.random.stateless_uniform((self.size,), tf.stack([order_seed, epoch])))
            indices = tf.reshape(order[: steps * batch_size], (steps, batch_size))
            return tf.data.Dataset.from_tensor_slices(
                (epoch * steps + tf.range(steps, dtype=tf.int64), indices)
            )

        return (
            tf.data.Dataset.range(first_epoch, first_epoch + epochs)
            .flat_map(epoch_batches)
            .skip(first_step)
            .apply(tf.data.experimental.assert_cardinality(epochs * steps - first_step))
        )

    def gather(self, seed: int, how: Recipe) -> Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
        """A function from an element of `order` to its augmented batch, for `tf.data`."""
        augment_seed = seeds.stream(seed, "augmentation")
        with tf.device("CPU:0"):
            images, labels = tf.constant(self.images), tf.constant(self.labels)

        def batch(step, indices):
            taken = tf.gather(images, indices), tf.gather(labels, indices)
            return how.apply(*taken, tf.stack([augment_seed, step]))

        return batch

    def training_batches(
        self,
        batch_size: int,
        epochs: int,
        seed: int,
        kind: str | Recipe,
        first_epoch: int = 0,
        first_step: int = 0,
    ) -> tf.data.Dataset:
        """The epochs from `first_epoch` on, one after the other, `size // batch_size` full batches each.

        The first `first_step` batches of the first epoch are left out, without being made.
        """
        return (
            self.order(batch_size, epochs, seed, first_epoch, first_step)
            .map(self.gather(seed, recipe(kind)), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
            .prefetch(tf.data.AUTOTUNE)
        )

    def evaluation_batches(self, batch_size: int, limit: int | None = None) -> tf.data.Dataset:
        """The first `limit` examples (None: all) once, in order, the last partial batch included."""
        with tf.device("CPU:0"):
            images, labels = tf.constant(self.images[:limit]), tf.constant(self.labels[:limit])
        count = len(labels)
        return (
            tf.data.Dataset.range(0, count, batch_size)
            .map(lambda i: (images[i : i + batch_size], labels[i : i + batch_size]))
            .prefetch(tf.data.AUTOTUNE)
        )


@dataclass(frozen=True)
class Streamed:
    """A split that is read and decoded as it is used: for what does not fit in memory.

    Attributes:
        reader: where the examples come from.
        shape: `(height, width, channels)` of every image.
        cropped: whether the middle of each image is evaluated rather than the whole, stretched.
        kept: ascending indices of the examples that belong to the split; None for all.
        new_labels: labels in the place of the reader's, one for each example of the split; None for those.
        corruption: corruption of the images in evaluation.
    """

    reader: Reader
    shape: tuple[int, int, int]
    cropped: bool = False
    kept: np.ndarray | None = None
    new_labels: np.ndarray | None = None
    corruption: str = "none"

    @property
    def size(self) -> int:
        """Number of examples."""
        return self.reader.size if self.kept is None else len(self.kept)

    @property
    def feature(self) -> tfds.features.FeatureConnector:
        """The labels' TFDS feature."""
        return self.reader.label

    def fingerprint(self) -> str:
        """SHA-256 over the set's name, version and shard sizes, or a folder's names, sizes and times.

        The pixels are not read for it.
        """
        digest = hashlib.sha256(repr(self.reader.content()).encode())
        for array in (self.kept, self.new_labels):
            digest.update(b"" if array is None else np.ascontiguousarray(array).data)
        if self.corruption != "none":
            digest.update(self.corruption.encode())
        return digest.hexdigest()

    def take(self, indices: np.ndarray) -> "Streamed":
        """The split of these examples alone."""
        kept = indices if self.kept is None else self.kept[indices]
        labels = None if self.new_labels is None else self.new_labels[indices]
        return dataclasses.replace(self, kept=kept, new_labels=labels)

    def with_labels(self, labels: np.ndarray) -> "Streamed":
        """The split with other labels."""
        return dataclasses.replace(self, new_labels=labels)

    def with_corruption(self, text: str) -> "Streamed":
        """The split with images that are corrupted in evaluation (`corruptions.corrupted`)."""
        return dataclasses.replace(self, corruption=text)

    def labels_in_batches(self) -> Iterator[np.ndarray]:
        """All labels, in order, at once; no picture is decoded for it."""
        yield self._labels

    @functools.cached_property
    def _labels(self) -> np.ndarray:
        if self.new_labels is not None:
            return self.new_labels
        labels = self.reader.labels if self.kept is None else self.reader.labels[self.kept]
        if isinstance(self.feature, tfds.features.ClassLabel):
            return labels
        return labels.astype(np.float32).reshape(len(labels), -1)

    def _label(self, label: tf.Tensor) -> tf.Tensor:
        if isinstance(self.feature, tfds.features.ClassLabel):
            return label
        return tf.reshape(tf.cast(label, tf.float32), [int(np.prod(self.feature.shape))])

    def _records(self, key: tf.Tensor | None) -> tf.data.Dataset:
        """Those of the examples that belong to the split: index, record, label to take instead (or None)."""
        records = self.reader.records(key)
        if self.kept is None:
            return records
        belongs = np.zeros(self.reader.size, bool)
        belongs[self.kept] = True
        belongs = tf.constant(belongs)
        return records.filter(lambda index, record: belongs[index])

    def _example(self, index, record, seed=None) -> tuple[tf.Tensor, tf.Tensor]:
        encoded, label = self.reader.parse(record)
        label = self._label(label)
        if self.new_labels is not None:
            kept = np.arange(self.size) if self.kept is None else self.kept
            label = tf.constant(self.new_labels)[tf.searchsorted(tf.constant(kept), index[tf.newaxis])[0]]
        decode, channels, cuts = self.reader.decode, self.reader.channels, self.reader.cuts
        if seed is not None:
            return pictures.random_window(encoded, decode, channels, self.shape, seed, cuts), label
        if self.cropped:
            return pictures.centre(encoded, decode, channels, self.shape, cuts), label
        return pictures.whole(encoded, decode, self.shape), label

    def training_batches(
        self,
        batch_size: int,
        epochs: int,
        seed: int,
        kind: str | Recipe,
        first_epoch: int = 0,
        first_step: int = 0,
    ) -> tf.data.Dataset:
        """As `InMemory.training_batches`, in another order: of the files, and through a buffer.

        The examples of the batches that are left out are read, but no picture of theirs is decoded.
        """
        how, steps = recipe(kind), self.size // batch_size
        order_seed, augment_seed, window_seed = (
            seeds.stream(seed, name) for name in ("data", "augmentation", "windows")
        )
        windowed = how.kind == "imagenet"

        def epoch_records(epoch):
            tf.random.set_seed(1)  # of this function's graph: the caller's global seed shall not matter
            key = tf.stack([order_seed, epoch])
            buffer_seed = tf.random.stateless_uniform((), key, 0, 2**62, tf.int64)
            records = self._records(key).shuffle(min(self.size, SHUFFLE_BUFFER), seed=buffer_seed)
            return records.take(steps * batch_size)

        def example(position, indexed):
            return self._example(*indexed, tf.stack([window_seed, position]) if windowed else None)

        def batch(step, examples):
            return how.apply(*examples, tf.stack([augment_seed, step]), windowed=windowed)

        parallel = {"num_parallel_calls": tf.data.AUTOTUNE, "deterministic": True}
        return (
            tf.data.Dataset.range(first_epoch, first_epoch + epochs)
            .flat_map(epoch_records)
            .skip(first_step * batch_size)
            .enumerate((first_epoch * steps + first_step) * batch_size)
            .map(lambda position, indexed: example(position, indexed), **parallel)
            .batch(batch_size, drop_remainder=True)
            .enumerate(first_epoch * steps + first_step)
            .map(batch, **parallel)
            .apply(tf.data.experimental.assert_cardinality(epochs * steps - first_step))
            .prefetch(tf.data.AUTOTUNE)
        )

    def evaluation_batches(self, batch_size: int, limit: int | None = None) -> tf.data.Dataset:
        """The first `limit` examples (None: all) once, in order, the last partial batch included."""
        count = self.size if limit is None else min(limit, self.size)
        steps = tf.data.experimental.assert_cardinality(-(-count // batch_size))
        examples = self._records(None).map(
            self._example, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
        )
        batches = examples.take(count).batch(batch_size)
        if self.corruption != "none":
            batches = batches.enumerate().map(
                lambda step, batch: (self._corrupted(batch[0], step * batch_size), batch[1])
            )
        return batches.apply(steps).prefetch(tf.data.AUTOTUNE)

    def _corrupted(self, images: tf.Tensor, first: tf.Tensor) -> tf.Tensor:
        changed = tf.numpy_function(
            lambda pixels, start: corrupted(pixels, self.corruption, int(start)), [images, first], tf.uint8
        )
        return tf.ensure_shape(changed, images.shape)

    def decoded(self) -> InMemory:
        """The split in memory.

        Raises:
            DataError: a picture cannot be decoded; it says which.
        """
        images = np.empty((self.size, *self.shape), np.uint8)
        spec = self.evaluation_batches(1).element_spec[1]
        labels = np.empty((self.size, *spec.shape[1:]), spec.dtype.as_numpy_dtype)
        seen = 0
        try:
            for batch, batch_labels in self.evaluation_batches(1024).as_numpy_iterator():
                images[seen : seen + len(batch)], labels[seen : seen + len(batch)] = batch, batch_labels
                seen += len(batch)
        except FAULTS as error:
            raise self._unread(error) from error
        if seen < self.size:
            raise DataError(f"{self.reader.name}: {self.size} examples are listed, {seen} are there")
        return InMemory(images, labels)

    def sizes(self) -> list[tuple[int, int]]:
        """Height and width of the first picture, and of the first of another size, where there is one.

        Raises:
            DataError: a picture cannot be decoded; it says which.
        """

        def size(index, record):
            return tf.shape(self.reader.decode(self.reader.parse(record)[0]))[:2]

        found = []
        try:
            sizes = self._records(None).map(size, num_parallel_calls=tf.data.AUTOTUNE)
            for height, width in sizes.as_numpy_iterator():
                if (height, width) not in found:
                    found.append((int(height), int(width)))
                if len(found) == 2:
                    break
        except FAULTS as error:
            raise self._unread(error) from error
        return found

    def unreadable(self) -> str:
        """What is wrong with the first example that cannot be read, in a line; empty if all can be."""
        try:
            for index, record in self._records(None):
                if found := self._fault(record):
                    return f"{self.reader.describe(int(index))} {found}"
        except FAULTS as error:
            return f"{self.reader.name}: a file cannot be read: {first_line(error)}"
        return ""

    def _unread(self, error: Exception) -> Exception:
        """The DataError that one in reading becomes; where memory is full, it is no fault of the data."""
        if isinstance(error, tf.errors.ResourceExhaustedError):
            return error
        return DataError(self.unreadable() or f"{self.reader.name}: {first_line(error)}")

    def _fault(self, record: tf.Tensor) -> str:
        try:
            encoded, _ = self.reader.parse(record)
        except FAULTS as error:
            return f"cannot be read: {first_line(error)}"
        try:
            self.reader.decode(encoded)
        except FAULTS as error:
            return f"cannot be decoded: {first_line(error)}"
        return ""
