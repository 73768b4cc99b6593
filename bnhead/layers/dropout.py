"""Dropout whose rate depends on an example's class."""

from collections.abc import Sequence

import keras
from keras import ops


@keras.saving.register_keras_serializable("bnhead")
class ClassConditionalDropout(keras.layers.Layer):
    """Dropout with a rate for each class: the rarer the class, the higher its rate.

    "Class-specific dropout" has no definition in the literature. Here, with n_c training examples of class c,

        rate_c = rate (1 - n_c / max over k of n_k)

    so the most frequent class has a rate of 0, rare ones approach `rate`, and equally frequent classes all
    have a rate of 0. Rare classes are the ones that a net memorises.

    In training an element of an example of class c is set to 0 with probability rate_c and otherwise divided
    by 1 - rate_c. In inference, and without labels, the layer is the identity.

    Args:
        rate: upper bound of the rates, in (0, 1).
        class_counts: training examples of each class, not all 0.
        seed: seed of the layer's generator; None draws one.

    Call arguments:
        inputs: `(batch, ...)`.
        labels: `(batch,)` or `(batch, 1)` class numbers, or `(batch, classes)` with 1 for each class of an
            example; the largest rate among several classes applies. None drops nothing.
    """

    def __init__(self, rate: float, class_counts: Sequence[int], seed: int | None = None, **options):
        super().__init__(**options)
        counts = [int(count) for count in class_counts]
        if not 0 < rate < 1:
            raise ValueError(f"rate must be in (0, 1), got {rate}")
        if not counts or min(counts) < 0 or max(counts) == 0:
            raise ValueError(f"class_counts must be numbers of examples, not all 0, got {class_counts}")
        self.rate = rate
        self.class_counts = counts
        self.seed = seed
        self.generator = keras.random.SeedGenerator(seed)
        self.supports_masking = True

    @property
    def rates(self) -> list[float]:
        """The rate of each class."""
        return [self.rate * (1 - count / max(self.class_counts)) for count in self.class_counts]

    def call(self, inputs, labels=None, training=None):
        if not training or labels is None:
            return inputs
        rates = ops.convert_to_tensor(self.rates, "float32")
        if len(labels.shape) == 2 and labels.shape[1] == 1 < len(self.class_counts):
            labels = ops.squeeze(labels, axis=1)
        if len(labels.shape) == 1:
            rate = ops.take(rates, ops.cast(labels, "int32"))
        elif tuple(labels.shape[1:]) != (len(self.class_counts),):
            raise ValueError(
                f"labels must be of shape (batch,) or (batch, {len(self.class_counts)}), got {labels.shape}"
            )
        else:
            rate = ops.max(ops.cast(labels, "float32") * rates, axis=-1)
        rate = ops.reshape(rate, (-1, *[1] * (len(inputs.shape) - 1)))
        uniform = keras.random.uniform(ops.shape(inputs), seed=self.generator, dtype="float32")
        scale = ops.where(uniform >= rate, 1 / (1 - rate), 0.0)
        return inputs * ops.cast(scale, inputs.dtype)

    def to_plain(self) -> None:
        """None: the layer is the identity in inference."""

    def get_config(self):
        arguments = {"rate": self.rate, "class_counts": self.class_counts, "seed": self.seed}
        return {**super().get_config(), **arguments}
