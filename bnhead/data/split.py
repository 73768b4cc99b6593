"""One split of a data set: what every kind of split offers, and how its training batches are made.

Images are `(batch, height, width, channels)` uint8, 0 to 255; labels `(batch,)` int64 class numbers, or
`(batch, numbers)` float32. The model scales the pixels itself, so that pipelines move a quarter of the bytes
and a saved model takes plain images.

Order and augmentation of epoch e depend on `(seed, e)` alone: a run that starts at epoch 7 gets the same
batches as one that reaches it. Examples that do not fill a training batch are left out, different ones each
epoch: a batch norm then always sees batches of one size. In evaluation every example counts once.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

import numpy as np
import tensorflow as tf

from bnhead.data.augment import Rows, augment, mixup

if TYPE_CHECKING:
    from bnhead.data.memory import InMemory

# Of a method that makes a `tf.data.Dataset`: its functions are TensorFlow's operations as they stand. To look
# for Python's `if` and `for` in them takes 0.1 s and more for each `map`.
without_autograph = tf.autograph.experimental.do_not_convert


@dataclass(frozen=True)
class Recipe:
    """How training batches are made.

    Attributes:
        augmentation: value of `--augment`: "none", "crop", "crop_flip" or "imagenet".
        cutout: side in pixels of the square that is painted over; 0 paints none.
        mixup: alpha of mixup; 0 mixes nothing. Otherwise labels become `(batch, outputs)` float32: shares of
            the classes, or mixed numbers.
        classes: number of classes, which mixup needs; 0 if labels are numbers.
    """

    augmentation: str = "none"
    cutout: int = 0
    mixup: float = 0.0
    classes: int = 0

    def apply(
        self,
        images: tf.Tensor,
        labels: tf.Tensor,
        seed: tf.Tensor,
        *,
        windowed: bool = False,
        rows: Rows = None,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns an augmented batch, or rows of one.

        Args:
            images: `(batch, height, width, channels)` uint8.
            labels: as of a split.
            seed: `(2,)` integers.
            windowed: whether random windows were cut while the images were decoded.
            rows: as of `augment`; mixup needs the whole batch.
        """
        augmentation = "flip" if windowed and self.augmentation == "imagenet" else self.augmentation
        images = augment(images, seed, augmentation, self.cutout, rows)
        if not self.mixup:
            return images, labels
        targets = tf.one_hot(labels, self.classes) if self.classes else labels
        return mixup(images, targets, seed, self.mixup)


def as_recipe(recipe: str | Recipe) -> Recipe:
    """Returns the recipe itself, or the recipe that only augments in the named way."""
    return recipe if isinstance(recipe, Recipe) else Recipe(recipe)


class Split(Protocol):
    """Examples of a data set, in memory or streamed.

    Attributes:
        in_memory: whether the images are decoded arrays; otherwise they are decoded at each use.
        size: number of examples.
        labels: all labels in order, `(size,)` int64 or `(size, numbers)` float32.
    """

    in_memory: ClassVar[bool]
    size: int
    labels: np.ndarray

    def fingerprint(self) -> str:
        """SHA-256 that changes with the content of the split."""

    def take(self, indices: np.ndarray) -> "Split":
        """Returns the split of these examples only; `indices` ascend."""

    def with_labels(self, labels: np.ndarray) -> "Split":
        """Returns the split with its labels replaced."""

    def with_corruption(self, text: str) -> "Split":
        """Returns the split with images corrupted in evaluation (`corruptions.corrupted`)."""

    def decoded(self) -> "InMemory":
        """Returns the split in memory.

        Raises:
            DataError: a picture cannot be decoded; the message names it.
        """

    def unreadable(self) -> str:
        """Describes the first example that cannot be read, in one line; empty if all can be read."""

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
        """Full batches of `epochs` epochs starting with `first_epoch`, `size // batch_size` in each.

        The first `first_step` batches of the first epoch are skipped. With `rows`, a slice with both ends,
        each batch has these rows alone, and nothing else is decoded; not with mixup, which mixes all rows.
        """

    def evaluation_batches(self, batch_size: int, limit: int | None = None) -> tf.data.Dataset:
        """The first `limit` examples (None: all) once, in order, the last partial batch included."""
