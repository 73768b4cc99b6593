"""SGD whose weight decay of one kernel is measured in the units of the features that it reads.

A batch norm and the FC that reads it compute W z + b with z = diag(gamma / sd) (x - mean) + beta. On the
features x themselves their weights are W diag(gamma / sd). Decay of W makes these weights cheap on features
of little variance: |W|^2 is the sum of (w_j sd_j / gamma_j)^2 over the weights w_j that read the features.
Here the penalty is |W diag(gamma / sd)|^2 / 2 instead, that of the same FC without a batch norm. It depends
on gamma too, so gamma decays with it: a penalty of W alone has no minimum, since gamma can grow instead.
"""

from collections.abc import Callable

import keras
from keras import ops

from bnhead.heads.surgery import head_calls
from bnhead.layers import BatchScaling
from bnhead.training.sgd import FusedSGD


class FeatureDecaySGD(FusedSGD):
    """SGD with decoupled weight decay, and another function for the decay of some variables.

    Args:
        decay: learning rate times weight decay -> None; called before each step. It decays variables that the
            ordinary decay excludes.
        options: of `keras.optimizers.SGD`.
    """

    def __init__(self, decay: Callable, **options):
        super().__init__(**options)
        self._decay = decay

    def _apply_weight_decay(self, variables):
        super()._apply_weight_decay(variables)
        self._decay(ops.cast(self.learning_rate, "float32") * self.weight_decay)


def decay_in_feature_units(norm: keras.layers.Layer, kernel: keras.Variable) -> Callable:
    """The decay of a kernel, and of its norm's gamma, under a penalty on W diag(gamma / sd).

    The step is proximal, w / (1 + rate r) with r the penalty's curvature, and not w (1 - rate r): gamma / sd
    is large for features of little variance, and the second would overshoot. Where rate r is small, both are
    equal.

    Args:
        norm: reads the features, `(..., features)`.
        kernel: of the Dense layer that reads the norm, `(features, units)`.
    """
    gamma = getattr(norm, "gamma", None)

    def decay(rate) -> None:
        precision = 1 / (ops.cast(norm.moving_variance, "float32") + norm.epsilon)
        squares = precision * ops.sum(ops.square(kernel), 1)
        gain = 1.0 if gamma is None else ops.square(gamma)
        kernel.assign(kernel / (1 + rate * precision * gain)[:, None])
        if gamma is not None:
            gamma.assign(gamma / (1 + rate * squares))

    return decay


def reader_and_norm(model: keras.Model) -> tuple[keras.layers.Dense, keras.layers.Layer | None]:
    """The first Dense layer of a model's head, and the norm before it that scales the features, if any."""
    norm = None
    for call in head_calls(model):
        if isinstance(call.operation, keras.layers.Dense):
            break
        if isinstance(call.operation, keras.layers.BatchNormalization | BatchScaling):
            norm = call.operation
    return call.operation, norm
