"""Pooling that Keras lacks."""

import keras
from keras import ops


@keras.saving.register_keras_serializable("bnhead")
class GeMPooling2D(keras.layers.Layer):
    """Generalised-mean pooling: (mean over positions of max(x, epsilon)^p)^(1/p), one learned p.

    p = 1 is average pooling of the positive part, p -> infinity maximum pooling. Values below `epsilon` count
    as `epsilon`: the mean is meant for maps after a ReLU.

    Args:
        p: initial exponent, above 0; 3 in the paper.
        epsilon: the floor.

    Input: `(batch, height, width, channels)`. Output: `(batch, channels)`.

    Reference: Radenovic et al. 2018, arXiv 1711.02512, equation 3.
    """

    def __init__(self, p: float = 3.0, epsilon: float = 1e-6, **options):
        super().__init__(**options)
        if not p > 0:
            raise ValueError(f"p must be above 0, got {p}")
        self.p = p
        self.epsilon = epsilon

    def build(self, input_shape):
        initial = keras.initializers.Constant(self.p)
        self.exponent = self.add_weight(name="exponent", shape=(), initializer=initial, autocast=False)

    def call(self, inputs):
        x = ops.maximum(ops.cast(inputs, "float32"), self.epsilon)
        p = ops.cast(self.exponent, "float32")
        # relative to each channel's largest value: x^p itself overflows float32 once p has grown
        largest = ops.max(x, axis=(1, 2), keepdims=True)
        mean = ops.mean(ops.power(x / largest, p), axis=(1, 2))
        return ops.cast(largest[:, 0, 0] * ops.power(mean, 1 / p), self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], input_shape[-1])

    def get_config(self):
        return {**super().get_config(), "p": self.p, "epsilon": self.epsilon}
