"""The best linear head on frozen features: the optimum itself, without steps, noise or moving averages.

For a head of one output layer the penalised loss is convex, so its optimum is a property of the features
and of the penalty alone. A batch norm before it is then a fixed map of each feature, (x - mean) / deviation.
That changes no function that the head can compute and, without a penalty, nothing at all. With one it changes
the price: a weight w costs w^2 in the features' coordinates and (w deviation)^2 after a division by the
deviation, which makes features that vary little cheap. Centring changes nothing, since the bias has no
penalty. Whatever a trained head shows beyond the difference of two optima comes from training it.

The protocol is that of DINOv3's `eval/log_regression.py`: 45 penalties, the one with the best accuracy on a
tenth of the training examples, and a last fit on all of them. Every head gets a penalty for itself.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bnhead import heads, seeds
from bnhead.errors import UsageError
from bnhead.layers.normalization import EPSILON

INVERSE_PENALTIES = tuple(10.0 ** np.linspace(-6, 5, 45))
HELD_OUT = 0.1
MOST_ITERATIONS, TOLERANCE = 1_000, 1e-12
# token -> whether it divides by the deviation
MAPS = {"bn": True, "fbn": True, "center": False, "fcenter": False, "scale": True, "fscale": True}


@dataclass(frozen=True)
class LinearHead:
    """A linear head at its optimum.

    Attributes:
        head: its text.
        inverse_penalty: C of the objective |W|^2 / 2 + C sum of the losses; the larger, the weaker the
            penalty.
        held_out_accuracies: accuracy on the held-out examples for every C that was tried.
        weights: `(features, classes)` float64, in the features' own coordinates.
        bias: `(classes,)` float64, which has no penalty.
        price: `(features,)` float64, the penalty on a squared weight of 1 in these coordinates:
            1, or after a division by the deviation the feature's variance and epsilon.
        converged: whether the last fit reached its tolerance.
    """

    head: str
    inverse_penalty: float
    held_out_accuracies: tuple[float, ...]
    weights: np.ndarray
    bias: np.ndarray
    price: np.ndarray
    converged: bool

    def outputs(self, features: np.ndarray) -> np.ndarray:
        """`(examples, classes)` float64 logits."""
        return np.asarray(features, "float64") @ self.weights + self.bias

    def accuracy(self, features: np.ndarray, labels: np.ndarray) -> float:
        """The share of right answers."""
        return float((self.outputs(features).argmax(1) == labels).mean())

    @property
    def penalty(self) -> float:
        """The head's penalty: |W|^2 / 2 in the coordinates after its map."""
        return float((self.weights**2 * self.price[:, None]).sum() / 2)


def scales(head: str, features: np.ndarray, epsilon: float = EPSILON) -> np.ndarray:
    """The divisors of a linear head's features, `(features,)` float64: 1, or their deviations.

    Args:
        head: `out`, or a token of `MAPS` and `out`: `bn_out`, `center_out`.
        features: `(examples, features)`.
        epsilon: added to the variance.

    Raises:
        UsageError: another head.
    """
    *tokens, output = heads.parse(head).on(features.shape[1:])
    names = [token.name for token in tokens]
    if output.name != "out" or len(names) > 1 or not set(names) <= MAPS.keys():
        solvable = ", ".join(f"{name}_out" for name in MAPS)
        raise UsageError(f"head {head!r} has no optimum in closed form; out and {solvable} have")
    divides = bool(names) and MAPS[names[0]]
    return np.sqrt(np.var(features, 0, "float64") + epsilon) if divides else np.ones(features.shape[1])


def best_linear_head(
    head: str,
    features: np.ndarray,
    labels: np.ndarray,
    *,
    inverse_penalties: Sequence[float] = INVERSE_PENALTIES,
    epsilon: float = EPSILON,
    seed: int = 0,
) -> LinearHead:
    """The optimum of a linear head at the penalty that is best on held-out training examples.

    Args:
        head: as of `scales`.
        features: `(examples, features)` of the training examples.
        labels: `(examples,)` class numbers; every class must occur.
        inverse_penalties: those that are tried. With a single one nothing is held out.
        epsilon: of the batch norm.
        seed: of the choice of the held-out examples, the same for all heads.

    Raises:
        UsageError: another head, or fewer than two classes.
    """
    if len(np.unique(labels)) < 2:
        raise UsageError("labels must be of at least 2 classes for a linear head")
    mean, scale = np.mean(features, 0, "float64"), scales(head, features, epsilon)
    # centred for every head: the optimum is the same, and far from 0 L-BFGS takes many more steps to it
    x, accuracies = (np.asarray(features, "float64") - mean) / scale, ()
    best = inverse_penalties[0]
    if len(inverse_penalties) > 1:
        order = np.random.default_rng(seeds.stream(seed, "held_out")).permutation(len(x))
        held_out, fitted = np.split(order, [max(1, round(HELD_OUT * len(x)))])
        path = _optima(x[fitted], labels[fitted], inverse_penalties)
        accuracies = tuple(float(model.score(x[held_out], labels[held_out])) for model in path)
        best = inverse_penalties[int(np.argmax(accuracies))]  # of equally good ones the strongest penalty
    (model,) = _optima(x, labels, [best])
    weights, bias = _of_all_classes(model)
    weights = weights / scale[:, None]
    return LinearHead(
        heads.canonical(head),
        float(best),
        accuracies,
        weights,
        bias - mean @ weights,
        scale**2,
        bool((model.n_iter_ < MOST_ITERATIONS).all()),
    )


def _optima(x: np.ndarray, labels: np.ndarray, inverse_penalties: Sequence[float]):
    """The optimum for every penalty by L-BFGS in float64, each started at the one before."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    # of two classes scikit-learn has the weights w of the difference of the logits, and |W|^2 is |w|^2 / 2
    factor = 2 if len(np.unique(labels)) == 2 else 1
    optima, start = [], None
    for inverse_penalty in inverse_penalties:
        model = LogisticRegression(
            C=factor * inverse_penalty, tol=TOLERANCE, max_iter=MOST_ITERATIONS, warm_start=True
        )
        if start is not None:
            model.coef_, model.intercept_, model.classes_ = start
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # `converged` reports it
            model.fit(x, labels)
        start = model.coef_.copy(), model.intercept_.copy(), model.classes_
        optima.append(model)
    return optima


def _of_all_classes(model) -> tuple[np.ndarray, np.ndarray]:
    """Weights `(features, classes)` and bias."""
    if len(model.classes_) > 2:
        return model.coef_.T, model.intercept_
    half, bias = model.coef_[0] / 2, model.intercept_[0] / 2
    return np.stack([-half, half], axis=1), np.array([-bias, bias])
