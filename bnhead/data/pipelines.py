"""Batches: a split of a data set as `tf.data.Dataset` of `(images, labels)`.

Images are `(batch, height, width, channels)` uint8, 0 to 255; labels `(batch,)` int64 class numbers, or
`(batch, numbers)` float32. The model scales the
pixels itself, so that a quarter of the bytes travels and a saved model takes plain images.
"""

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from bnhead import seeds
from bnhead.data.augment import augment

SHUFFLE_BUFFER = 10_000


def _training_step(images, labels, seed, kind):
    return augment(images, seed, kind), labels


@dataclass(frozen=True)
class InMemory:
    """A split that has been decoded into arrays: the fast path.

    Attributes:
        images: `(size, height, width, channels)` uint8.
        labels: `(size,)` int64, or `(size, numbers)` float32.
    """

    images: np.ndarray
    labels: np.ndarray

    @property
    def size(self) -> int:
        """Number of examples."""
        return len(self.labels)

    def fingerprint(self) -> str:
        """SHA-256 over pixels and labels."""
        digest = hashlib.sha256(np.ascontiguousarray(self.images).data)
        digest.update(np.ascontiguousarray(self.labels).data)
        return digest.hexdigest()

    def labels_in_batches(self) -> Iterator[np.ndarray]:
        """All labels, in order, some at a time."""
        yield self.labels

    def training_batches(self, batch_size: int, epochs: int, seed: int, kind: str) -> tf.data.Dataset:
        """All epochs one after the other, `size // batch_size` batches each, all of `batch_size` examples.

        Order and augmentation of epoch e depend on `(seed, e)` alone. A rest that does not fill a batch is
        left out, another one each epoch: a batch norm learns from batches of one size, and a batch of one
        teaches it nothing.
        """
        steps = self.size // batch_size
        order_seed, augment_seed = seeds.stream(seed, "data"), seeds.stream(seed, "augmentation")
        images, labels = tf.constant(self.images), tf.constant(self.labels)

        def epoch_batches(epoch):
            order = tf.argsort(tf.random.stateless_uniform((self.size,), tf.stack([order_seed, epoch])))
            indices = tf.reshape(order[: steps * batch_size], (steps, batch_size))
            return tf.data.Dataset.from_tensor_slices(
                (epoch * steps + tf.range(steps, dtype=tf.int64), indices)
            )

        def gather(step, indices):
            batch = tf.gather(images, indices), tf.gather(labels, indices)
            return _training_step(*batch, tf.stack([augment_seed, step]), kind)

        return (
            tf.data.Dataset.range(epochs)
            .flat_map(epoch_batches)
            .map(gather, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
            .apply(tf.data.experimental.assert_cardinality(epochs * steps))
            .prefetch(tf.data.AUTOTUNE)
        )

    def evaluation_batches(self, batch_size: int, limit: int | None = None) -> tf.data.Dataset:
        """The first `limit` examples (None: all) once, in order, the last partial batch included."""
        examples = tf.data.Dataset.from_tensor_slices((self.images[:limit], self.labels[:limit]))
        return examples.batch(batch_size).prefetch(tf.data.AUTOTUNE)


@dataclass(frozen=True)
class Streamed:
    """A split that is read from disk as it is used: for what does not fit in memory.

    Attributes:
        builder: the prepared TFDS builder.
        split: name of the split.
        shape: `(height, width, channels)` that every image is resized to.
    """

    builder: tfds.core.DatasetBuilder
    split: str
    shape: tuple[int, int, int]

    @property
    def size(self) -> int:
        """Number of examples."""
        return self.builder.info.splits[self.split].num_examples

    def fingerprint(self) -> str:
        """SHA-256 over the set's name, version and shard sizes; the pixels are not read for it."""
        shards = self.builder.info.splits[self.split].shard_lengths
        return hashlib.sha256(repr((self.builder.info.full_name, self.split, shards)).encode()).hexdigest()

    def _examples(self, read_seed: int | None) -> tf.data.Dataset:
        config = tfds.ReadConfig(shuffle_seed=read_seed, try_autocache=False)
        shuffled = read_seed is not None
        examples = self.builder.as_dataset(
            split=self.split, shuffle_files=shuffled, as_supervised=True, read_config=config
        )
        if shuffled:
            examples = examples.shuffle(min(self.size, SHUFFLE_BUFFER), seed=read_seed)
        return examples.map(self._resize, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)

    def _resize(self, image, label):
        if image.shape != self.shape:
            resized = tf.image.resize(image, self.shape[:2], antialias=True)
            image = tf.cast(tf.clip_by_value(tf.round(resized), 0, 255), tf.uint8)
        feature = self.builder.info.features[self.builder.info.supervised_keys[1]]
        if not isinstance(feature, tfds.features.ClassLabel):
            label = tf.reshape(tf.cast(label, tf.float32), [math.prod(feature.shape)])
        return tf.ensure_shape(image, self.shape), label

    def labels_in_batches(self) -> Iterator[np.ndarray]:
        """All labels, in order, some at a time; the images are decoded on the way."""
        for _, labels in self.evaluation_batches(1024).as_numpy_iterator():
            yield labels

    def training_batches(self, batch_size: int, epochs: int, seed: int, kind: str) -> tf.data.Dataset:
        """As `InMemory.training_batches`, shuffled through a buffer; reshuffled each epoch by `seed`."""
        steps = self.size // batch_size
        augment_seed = seeds.stream(seed, "augmentation")
        batches = self._examples(seeds.stream(seed, "data")).batch(batch_size, drop_remainder=True)
        return (
            batches.repeat(epochs)
            .enumerate()
            .map(
                lambda step, batch: _training_step(*batch, tf.stack([augment_seed, step]), kind),
                num_parallel_calls=tf.data.AUTOTUNE,
                deterministic=True,
            )
            .apply(tf.data.experimental.assert_cardinality(epochs * steps))
            .prefetch(tf.data.AUTOTUNE)
        )

    def evaluation_batches(self, batch_size: int, limit: int | None = None) -> tf.data.Dataset:
        """The first `limit` examples (None: all) once, in order, the last partial batch included."""
        count = self.size if limit is None else min(limit, self.size)
        steps = tf.data.experimental.assert_cardinality(-(-count // batch_size))
        batches = self._examples(None).take(count).batch(batch_size)
        return batches.apply(steps).prefetch(tf.data.AUTOTUNE)
