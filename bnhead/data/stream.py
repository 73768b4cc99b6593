"""A split that is read and decoded while it is used, for sets that do not fit in memory."""

import dataclasses
import functools
import hashlib
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from bnhead import seeds
from bnhead.data import cache
from bnhead.data.corruptions import corrupted
from bnhead.data.images import central_window, random_window, stretched
from bnhead.data.memory import InMemory
from bnhead.data.reading import FAULTS, Reader
from bnhead.data.split import Recipe, as_recipe, without_autograph
from bnhead.errors import DataError
from bnhead.texts import first_line

SHUFFLE_BUFFER = 10_000  # examples, encoded


@dataclass(frozen=True)
class Streamed:
    """A split (`split.Split`) that decodes its images at each use.

    Attributes:
        reader: the encoded examples.
        shape: `(height, width, channels)` of every image.
        cropped: whether evaluation uses the centre of each image; otherwise the stretched image.
        indices: ascending indices of the examples that belong to the split; None for all.
        new_labels: labels that replace those of the reader, one for each example of the split; None keeps
            the reader's.
        corruption: corruption of the images in evaluation.
    """

    reader: Reader
    shape: tuple[int, int, int]
    cropped: bool = False
    indices: np.ndarray | None = None
    new_labels: np.ndarray | None = None
    corruption: str = "none"
    in_memory: ClassVar[bool] = False

    @property
    def size(self) -> int:
        return self.reader.size if self.indices is None else len(self.indices)

    @functools.cached_property
    def labels(self) -> np.ndarray:
        if self.new_labels is not None:
            return self.new_labels
        labels = self.reader.labels if self.indices is None else self.reader.labels[self.indices]
        return labels if self._has_classes else labels.astype(np.float32).reshape(len(labels), -1)

    @property
    def _has_classes(self) -> bool:
        return isinstance(self.reader.label, tfds.features.ClassLabel)

    def fingerprint(self) -> str:
        """SHA-256 over name, version and shard sizes of a set, or names, sizes and times of a folder's files.

        The pixels are not read.
        """
        digest = hashlib.sha256(repr(self.reader.content()).encode())
        for array in (self.indices, self.new_labels):
            digest.update(b"" if array is None else np.ascontiguousarray(array).data)
        if self.corruption != "none":
            digest.update(self.corruption.encode())
        return digest.hexdigest()

    def take(self, indices: np.ndarray) -> "Streamed":
        labels = None if self.new_labels is None else self.new_labels[indices]
        indices = indices if self.indices is None else self.indices[indices]
        return dataclasses.replace(self, indices=indices, new_labels=labels)

    def with_labels(self, labels: np.ndarray) -> "Streamed":
        return dataclasses.replace(self, new_labels=labels)

    def with_corruption(self, text: str) -> "Streamed":
        return dataclasses.replace(self, corruption=text)

    @without_autograph
    def training_batches(
        self,
        batch_size: int,
        epochs: int,
        seed: int,
        recipe: str | Recipe,
        first_epoch: int = 0,
        first_step: int = 0,
        rows: slice | None = None,
    ) -> tf.data.Dataset:
        """As in `Split`, in another order than in memory: of the files, and through a buffer.

        The examples of skipped batches are read but not decoded.
        """
        recipe, steps = as_recipe(recipe), self.size // batch_size
        order_seed, augment_seed, window_seed = (
            seeds.stream(seed, name) for name in ("data", "augmentation", "windows")
        )
        windowed = recipe.augmentation == "imagenet"

        def epoch_records(epoch):
            # The global seed of this function's graph, fixed so that the caller's does not change the order.
            tf.random.set_seed(1)
            key = tf.stack([order_seed, epoch])
            buffer_seed = tf.random.stateless_uniform((), key, 0, 2**62, tf.int64)
            records = self._records(key).shuffle(min(self.size, SHUFFLE_BUFFER), seed=buffer_seed)
            return records.take(steps * batch_size)

        def example(position, indexed):
            return self._example(*indexed, tf.stack([window_seed, position]) if windowed else None)

        def batch(step, examples):
            return recipe.apply(*examples, tf.stack([augment_seed, step]), windowed=windowed, rows=span)

        span = None if rows is None else (rows.start, batch_size)

        def chosen(position, indexed):
            row = position % batch_size
            return (row >= rows.start) & (row < rows.stop)

        # Positions and steps count from epoch 0, so that a resumed run draws the same windows and shifts.
        parallel = {"num_parallel_calls": tf.data.AUTOTUNE, "deterministic": True}
        records = (
            tf.data.Dataset.range(first_epoch, first_epoch + epochs)
            .flat_map(epoch_records)
            .skip(first_step * batch_size)
            .enumerate((first_epoch * steps + first_step) * batch_size)
        )
        if rows is not None:
            records = records.filter(chosen)
        return (
            records.map(example, **parallel)
            .batch(batch_size if rows is None else rows.stop - rows.start, drop_remainder=True)
            .enumerate(first_epoch * steps + first_step)
            .map(batch, **parallel)
            .apply(tf.data.experimental.assert_cardinality(epochs * steps - first_step))
            .prefetch(tf.data.AUTOTUNE)
        )

    @without_autograph
    def evaluation_batches(self, batch_size: int, limit: int | None = None) -> tf.data.Dataset:
        count = self.size if limit is None else min(limit, self.size)
        examples = self._records(None).map(
            self._example, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
        )
        batches = examples.take(count).batch(batch_size)
        if self.corruption != "none":

            def corrupt(step, batch):
                images, labels = batch
                changed = tf.numpy_function(
                    lambda pixels, first: corrupted(pixels, self.corruption, int(first)),
                    [images, step * batch_size],
                    tf.uint8,
                )
                return tf.ensure_shape(changed, images.shape), labels

            batches = batches.enumerate().map(corrupt)
        steps = tf.data.experimental.assert_cardinality(-(-count // batch_size))
        return batches.apply(steps).prefetch(tf.data.AUTOTUNE)

    def _records(self, key: tf.Tensor | None) -> tf.data.Dataset:
        """All `(index, record)` that belong to the split, in the reader's order for a key."""
        records = self.reader.records(key)
        if self.indices is None:
            return records
        belongs = np.zeros(self.reader.size, bool)
        belongs[self.indices] = True
        belongs = tf.constant(belongs)
        return records.filter(lambda index, record: belongs[index])

    def _example(self, index, record, seed=None) -> tuple[tf.Tensor, tf.Tensor]:
        """Image and label of a record; `seed`, `(2,)` integers, cuts a random window."""
        reader = self.reader
        encoded, label = reader.parse(record)
        if self.new_labels is not None:
            indices = np.arange(self.size) if self.indices is None else self.indices
            label = tf.constant(self.new_labels)[tf.searchsorted(tf.constant(indices), index[tf.newaxis])[0]]
        elif not self._has_classes:
            label = tf.reshape(tf.cast(label, tf.float32), [int(np.prod(reader.label.shape))])
        if seed is not None:
            image = random_window(encoded, reader.decode, reader.channels, self.shape, seed, reader.can_crop)
        elif self.cropped:
            image = central_window(encoded, reader.decode, reader.channels, self.shape, reader.can_crop)
        else:
            image = stretched(encoded, reader.decode, self.shape)
        return image, label

    def decoded(self) -> InMemory:
        images = np.empty((self.size, *self.shape), np.uint8)
        spec = self.evaluation_batches(1).element_spec[1]
        labels = np.empty((self.size, *spec.shape[1:]), spec.dtype.as_numpy_dtype)
        count = 0
        try:
            for batch, batch_labels in self.evaluation_batches(1024).as_numpy_iterator():
                images[count : count + len(batch)], labels[count : count + len(batch)] = batch, batch_labels
                count += len(batch)
        except FAULTS as error:
            raise self._as_data_error(error) from error
        if count < self.size:
            raise DataError(f"{self.reader.name}: {self.size} examples are listed, but {count} can be read")
        return InMemory(images, labels)

    def cached_decoded(self) -> InMemory:
        """As `decoded`, through a cache on disk if the reader has a place for it."""

        def decode():
            split = self.decoded()
            return {"images": split.images, "labels": split.labels}

        key = ["pixels", self.reader.identity(), self.shape, self.cropped]
        arrays = cache.load_or_make(self.reader.cache_dir, key, decode)
        return InMemory(arrays["images"], arrays["labels"])

    def sizes(self) -> list[tuple[int, int]]:
        """Height and width of the first picture, and of the first picture of another size, if any.

        Raises:
            DataError: a picture cannot be decoded; the message names it.
        """

        def size(index, record):
            return tf.shape(self.reader.decode(self.reader.parse(record)[0]))[:2]

        def measure():
            sizes = []
            try:
                records = self._records(None).map(size, num_parallel_calls=tf.data.AUTOTUNE)
                for height, width in records.as_numpy_iterator():
                    if (height, width) not in sizes:
                        sizes.append((int(height), int(width)))
                    if len(sizes) == 2:
                        break
            except FAULTS as error:
                raise self._as_data_error(error) from error
            return {"sizes": np.array(sizes)}

        arrays = cache.load_or_make(self.reader.cache_dir, ["sizes", self.reader.identity()], measure)
        return [tuple(size) for size in arrays["sizes"].tolist()]

    def unreadable(self) -> str:
        try:
            for index, record in self._records(None):
                try:
                    fault = "cannot be read"
                    encoded, _ = self.reader.parse(record)
                    fault = "cannot be decoded"
                    self.reader.decode(encoded)
                except FAULTS as error:
                    return f"{self.reader.describe(int(index))} {fault}: {first_line(error)}"
        except FAULTS as error:
            return f"{self.reader.name}: a file cannot be read: {first_line(error)}"
        return ""

    def _as_data_error(self, error: Exception) -> Exception:
        """Returns a DataError that names the example; an error of full memory is not the data's fault."""
        if isinstance(error, tf.errors.ResourceExhaustedError):
            return error
        return DataError(self.unreadable() or f"{self.reader.name}: {first_line(error)}")
