"""L2 normalisation of each example's features."""

import keras
from keras import ops


@keras.saving.register_keras_serializable("bnhead")
class L2Normalization(keras.layers.Layer):
    """y = scale x / ||x||, the norm taken over the last axis, with one learned scale.

    The scale starts at sqrt(channels), so that an output's root mean square is 1, as after a batch norm.
    Training and inference are the same: an example's output depends on that example alone.

    Args:
        epsilon: added to the squared norm.

    Input: `(batch, ..., channels)`.

    Reference: Ranjan et al. 2017, arXiv 1703.09507, equation 3, with the scale learned.
    """

    def __init__(self, epsilon: float = 1e-12, **options):
        super().__init__(**options)
        self.epsilon = epsilon
        self.supports_masking = True

    def build(self, input_shape):
        initial = keras.initializers.Constant(float(input_shape[-1]) ** 0.5)
        self.scale = self.add_weight(name="scale", shape=(), initializer=initial, autocast=False)

    def call(self, inputs):
        x = ops.cast(inputs, "float32")
        inverse = ops.rsqrt(ops.sum(ops.square(x), axis=-1, keepdims=True) + self.epsilon)
        return ops.cast(ops.cast(self.scale, "float32") * x * inverse, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "epsilon": self.epsilon}
