"""Losses for classes with unequal numbers of training examples: logit adjustment and class weights.

With n_c training examples of class c of n, the prior is p_c = n_c / n.

logit adjustment   the loss sees logits + tau log p_c, in training only. The logits then leave the prior out,
                   to the power tau: with tau = 1 the largest is the answer of the smallest balanced error.
class weights      the loss of an example of class c counts w_c times: `inverse`, w_c ~ 1 / n_c; or
                   `effective:BETA`, w_c ~ (1 - BETA) / (1 - BETA^n_c), the inverse effective number of
                   examples. Weights are scaled to a mean of 1 over the training examples, so that a learning
                   rate keeps its meaning. (Cui et al. scale them to a mean of 1 over the classes.)

References: Menon et al. 2021, arXiv 2007.07314, equation 10; Cui et al. 2019, arXiv 1901.05555, equation 2.
"""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from bnhead.data import DataSet
from bnhead.errors import DataError
from bnhead.training.config import TrainConfig
from bnhead.training.rules import parse_class_weights


def class_weights(text: str, counts: Sequence[int]) -> np.ndarray:
    """The weights of the classes, `(classes,)` float64, with a mean of 1 over the training examples.

    Args:
        text: `none`, `inverse` or `effective:BETA`.
        counts: training examples of each class, none of them 0.
    """
    n, (name, beta) = np.asarray(counts, "float64"), parse_class_weights(text)
    if name == "none":
        return np.ones(len(n))
    # 1 - beta^n without cancellation for beta near 1
    weights = 1 / n if name == "inverse" else (1 - beta) / -np.expm1(n * np.log(beta))
    return weights * n.sum() / (weights * n).sum()


def trained_prior(weights: str, counts: Sequence[int]) -> np.ndarray:
    """The shares of the classes that the training loss sees: those of the examples times their weights.

    Args:
        weights: as of `class_weights`.
        counts: training examples of each class.
    """
    weighted = class_weights(weights, counts) * np.asarray(counts, "float64")
    return weighted / weighted.sum()


def rebalance(model: keras.Model, config: TrainConfig, data: DataSet) -> keras.Model:
    """Gives a compiled model the loss of `logit_adjustment` and `class_weights` in training.

    Evaluation, metrics and whatever reads the model's outputs see plain logits and the plain loss.

    Args:
        model: a compiled classifier with logits as outputs. Its `compute_loss` is replaced.
        config: the run's settings.
        data: its training split gives the prior.

    Raises:
        DataError: a class without a training example.
    """
    if not config.logit_adjustment and config.class_weights == "none":
        return model
    counts = data.class_counts()
    for name, count in zip(data.classes, counts, strict=True):
        if not count:
            setting = "logit_adjustment" if config.logit_adjustment else "class_weights"
            raise DataError(
                f"{setting} needs a training example of every class, and class {name!r} of {data.name} "
                "has none"
            )
    prior = np.asarray(counts, "float64") / sum(counts)
    shift = (config.logit_adjustment * np.log(prior)).astype("float32")
    weights = class_weights(config.class_weights, counts).astype("float32")
    plain = model.compute_loss

    def compute_loss(x=None, y=None, y_pred=None, sample_weight=None, training=True) -> Any:
        if not training:
            return plain(x, y, y_pred, sample_weight, training=training)
        if config.logit_adjustment:
            y_pred = y_pred + ops.cast(ops.convert_to_tensor(shift), y_pred.dtype)
        is_mixed = len(y.shape) == 2 and y.shape[1] == len(weights)
        if config.class_weights != "none" and is_mixed:
            # the mixture of the weighted losses, whose best constant answer is the weighted prior
            y = ops.cast(y, y_pred.dtype) * ops.cast(ops.convert_to_tensor(weights), y_pred.dtype)
        elif config.class_weights != "none":
            sample_weight = ops.take(ops.convert_to_tensor(weights), ops.cast(ops.reshape(y, (-1,)), "int32"))
        return plain(x, y, y_pred, sample_weight, training=training)

    model.compute_loss = compute_loss
    return model
