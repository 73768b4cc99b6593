"""The gradients that reach the fully connected layer and the backbone in a training step."""

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops
from keras.src.backend.common.stateless_scope import get_stateless_scope

from bnhead.census import feed, gradients, totals
from bnhead.errors import UsageError
from bnhead.graph import taps, trace
from bnhead.graph.calls import producer
from bnhead.graph.inputs import batches, check_data, class_numbers
from bnhead.heads.surgery import features_of
from bnhead.mechanisms.split import Split


@dataclass(frozen=True)
class GradientNorms:
    """Root mean square over the examples of the length of the gradient of an example's loss.

    Attributes:
        fc: with respect to the output of the first Dense after the norm (without one, after the features).
        backbone: with respect to the features, the output of the backbone; NaN if the head reads the input.
    """

    fc: float
    backbone: float

    @property
    def ratio(self) -> float:
        """`backbone` over `fc`: how much of the gradient the layers between them pass on."""
        return self.backbone / self.fc if self.fc else np.nan


def gradient_norms(split: Split, data: Any, *, training_batch: int, limit: int = 1024) -> GradientNorms:
    """The gradients of a training step: batch statistics in every norm, and dropout.

    The loss is the mean cross-entropy of a batch. Each example's gradient is taken as B times that of the
    mean, so that the figures do not depend on B but by the statistics of the batch. The model is not changed.

    Args:
        split: a classifier.
        data: `(x, y)` with class numbers or one-hot labels, as for `census.count`.
        training_batch: B, examples of a batch if data are arrays.
        limit: examples to read at most, in whole batches.

    Raises:
        UsageError: data without labels of classes.
    """
    check_data(data, training_batch)
    net = split.net
    features = features_of(net) if len(net.inputs) == 1 else None
    names = {"fc": (split.fc or split.output).name}
    if features is not None and not isinstance(producer(features).operation, keras.layers.InputLayer):
        names["backbone"] = producer(features).operation.name
    keys = {(name, 0, True): part for part, name in names.items()}

    def run(x, y):
        def forward(watch):
            watched = {}

            def replaced(key, part, tensor):
                if part == "output" and key in keys:
                    watched[keys[key]] = tensor = watch(keys[key], tensor)
                return tensor

            # a scope for this pass: JAX traces it twice, and averages of one trace must not reach the other
            scope = keras.StatelessScope()
            scope.state_mapping.update(get_stateless_scope().state_mapping)
            with scope, taps.opened(net, watch=replaced, paths=()):
                outputs = net(x, training=True)
            return watched, ops.mean(split.losses(outputs, y))

        sizes = gradients.sensitivities(forward)
        rows = ops.cast(ops.shape(y)[0], "float32")
        return {part: ops.sum(ops.square(ops.cast(g, "float32") * rows)) for part, g in sizes.items()}

    compiled, examples, sums = trace.compiled(run, split.model), 0, dict.fromkeys(names, 0.0)
    for x, y in batches(data, feed.batch_size_of(net, training_batch)):
        labels = class_numbers(y, net.outputs[0].shape[-1])
        if labels is None:
            raise UsageError("gradient norms need labels of classes: data must be (x, y)")
        if examples and (examples + len(labels) > limit or len(labels) < training_batch):
            break  # a smaller last batch would have other statistics
        for part, total in totals.to_host(
            compiled(split.inputs_of(x), ops.convert_to_tensor(labels))
        ).items():
            sums[part] += float(total)
        examples += len(labels)
    if not examples:
        raise UsageError("data must have at least one batch of inputs")
    roots = {part: float(np.sqrt(total / examples)) for part, total in sums.items()}
    return GradientNorms(roots["fc"], roots.get("backbone", np.nan))
