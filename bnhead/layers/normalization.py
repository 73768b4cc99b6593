"""The batch norm that backbones and heads use unless they are told otherwise."""

import keras

MOMENTUM = 0.9
EPSILON = 1e-5


def batch_norm(name: str | None = None) -> keras.layers.BatchNormalization:
    """Keras' own batch norm with momentum 0.9 and epsilon 1e-5.

    These are the constants of the reference ResNets (He et al. 2015) in Keras' convention, in which momentum
    is the share of the moving average that is *kept*. Keras' default of 0.99 still holds 37 % of its initial
    value after 100 steps, and a short run then looks broken in evaluation mode though nothing is wrong.
    """
    return keras.layers.BatchNormalization(momentum=MOMENTUM, epsilon=EPSILON, name=name)
