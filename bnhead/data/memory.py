"""A split decoded into arrays: the fast path for sets that fit in memory."""

import dataclasses
import hashlib
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import tensorflow as tf

from bnhead import seeds
from bnhead.data.corruptions import corrupted
from bnhead.data.split import Recipe, as_recipe, without_autograph


@dataclass(frozen=True)
class InMemory:
    """A split (`split.Split`) whose images are arrays.

    Attributes:
        images: `(size, height, width, channels)` uint8. Several passes over the same examples, one after the
            other, are `(passes * size, ...)`: epoch e trains on pass e modulo their number, evaluation reads
            the first.
        labels: `(size,)` int64, or `(size, numbers)` float32.
        domains: `(size,)` int64, the domain of each example; None for a set without domains.
    """

    images: np.ndarray
    labels: np.ndarray
    domains: np.ndarray | None = None
    in_memory: ClassVar[bool] = True

    @property
    def size(self) -> int:
        return len(self.labels)

    def fingerprint(self) -> str:
        """SHA-256 over pixels and labels, and over the domains of a joined set."""
        digest = hashlib.sha256()
        for array in (self.images, self.labels, self.domains):
            digest.update(b"" if array is None else np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def take(self, indices: np.ndarray) -> "InMemory":
        domains = None if self.domains is None else self.domains[indices]
        return InMemory(self.images[indices], self.labels[indices], domains)

    def with_labels(self, labels: np.ndarray) -> "InMemory":
        return dataclasses.replace(self, labels=labels)

    def with_corruption(self, text: str) -> "InMemory":
        batches = [corrupted(self.images[i : i + 256], text, i) for i in range(0, self.size, 256)]
        return dataclasses.replace(self, images=np.concatenate(batches))

    def decoded(self) -> "InMemory":
        return self

    def unreadable(self) -> str:
        return ""

    def order(self, seed: int, epoch: int) -> np.ndarray:
        """The indices of the examples in the order of an epoch of `training_batches`."""
        with tf.device("CPU:0"):
            return _order(self.size, seeds.stream(seed, "data"), tf.constant(epoch, tf.int64)).numpy()

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
        """As in `Split`; skipped batches cost nothing, since indices are skipped and not images."""
        recipe, steps = as_recipe(recipe), self.size // batch_size
        order_seed, augment_seed = seeds.stream(seed, "data"), seeds.stream(seed, "augmentation")
        passes = max(1, len(self.images) // max(1, self.size))
        with tf.device("CPU:0"):
            images, labels = tf.constant(self.images), tf.constant(self.labels)

        def epoch_indices(epoch):
            order = _order(self.size, order_seed, epoch)
            indices = tf.reshape(order[: steps * batch_size], (steps, batch_size))
            return tf.data.Dataset.from_tensor_slices(
                (epoch * steps + tf.range(steps, dtype=tf.int64), indices)
            )

        span = None if rows is None else (rows.start, batch_size)

        def batch(step, indices):
            first = tf.cast(step // steps % passes * self.size, tf.int32)
            indices = indices if rows is None else indices[rows]
            examples = tf.gather(images, first + indices), tf.gather(labels, indices)
            return recipe.apply(*examples, tf.stack([augment_seed, step]), rows=span)

        return (
            tf.data.Dataset.range(first_epoch, first_epoch + epochs)
            .flat_map(epoch_indices)
            .skip(first_step)
            .apply(tf.data.experimental.assert_cardinality(epochs * steps - first_step))
            .map(batch, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
            .prefetch(tf.data.AUTOTUNE)
        )

    @without_autograph
    def evaluation_batches(self, batch_size: int, limit: int | None = None) -> tf.data.Dataset:
        with tf.device("CPU:0"):
            images, labels = tf.constant(self.images[: self.size][:limit]), tf.constant(self.labels[:limit])
        return (
            tf.data.Dataset.range(0, len(labels), batch_size)
            .map(lambda i: (images[i : i + batch_size], labels[i : i + batch_size]))
            .prefetch(tf.data.AUTOTUNE)
        )


def _order(size: int, seed: int, epoch: tf.Tensor) -> tf.Tensor:
    return tf.argsort(tf.random.stateless_uniform((size,), tf.stack([seed, epoch])))
