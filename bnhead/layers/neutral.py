"""A neutral initial guess: no class is preferred before the first step."""

from typing import Any

import keras
import numpy as np
from keras import ops

from bnhead.errors import UsageError
from bnhead.graph.calls import model_calls
from bnhead.graph.inputs import batches
from bnhead.layers.population import population_statistics


def neutralise(model: keras.Model, data: Any, prior: np.ndarray, *, batch_size: int = 256) -> np.ndarray:
    """Shifts the logits so that their mean over `data` is the logit of the prior.

    An untrained net gives most inputs to one class, by chance: the mean of its logits differs between classes
    by more than the logits of one class differ between inputs. The shift goes into the bias of the output
    layer, or into beta if a batch norm comes last. The mean is taken as the first training step sees it: with
    batch norms on the statistics of `data`, dropout off.

    Args:
        model: a functional model whose outputs are logits, `(batch, classes)`. Only its last bias changes.
        data: inputs, as of `recompute_batch_stats`.
        prior: `(classes,)`: the logits that the mean shall have, such as the logs of the classes' shares.
        batch_size: inputs per batch if `data` is arrays.

    Returns:
        The shift, `(classes,)` float64.

    Raises:
        UsageError: the last layer has neither bias nor beta.

    Reference: Francazi et al. 2024, arXiv 2306.00809, measure the initial guess; the shift is ours.
    """
    last = model_calls(model)[-1].operation
    offset = getattr(last, "bias", None) if hasattr(last, "bias") else getattr(last, "beta", None)
    if offset is None:
        raise UsageError(f"neutral_init needs an output layer with a bias, got {last.name!r} without one")
    total, count = 0.0, 0
    with population_statistics(model, data, batch_size=batch_size):
        for inputs, _ in batches(data, batch_size):
            outputs = np.asarray(ops.convert_to_numpy(model.predict_on_batch(inputs)), "float64")
            total, count = total + outputs.sum(0), count + len(outputs)
    shift = np.asarray(prior, "float64") - total / count
    offset.assign(ops.convert_to_numpy(offset) + shift)
    return shift
