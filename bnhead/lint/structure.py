"""Rules that read the net and its training state: BN1, BN3."""

import itertools

import keras
import numpy as np

from bnhead.lint.evidence import Evidence, Place, finding, graded
from bnhead.lint.findings import Finding
from bnhead.lint.measure import NormFeatures
from bnhead.lint.net import LayerCall, Net, has_kernel, is_norm, trains
from bnhead.texts import counted

# layers behind which an output of a batch norm is still one of a batch norm
_SCALINGS = ("Rescaling", "Activation", "Dropout", "Reshape", "Flatten", "Identity")


def bias_before_norm(evidence: Evidence) -> list[Finding]:
    """BN101."""
    net = evidence.net
    biased = {}
    for call in net.training_norms:
        feeder = net.made_by(call)
        if feeder is not None and _adds_bias(feeder.layer) and net.readers(feeder.index) == [call]:
            biased[feeder.path] = feeder.layer
    for path in [call.path for call in net.calls if call.name != call.path]:
        biased.pop(path, None)  # a layer of several calls may have another reader
    if not biased:
        return []
    sizes = {path: int(np.prod(layer.bias.shape)) for path, layer in biased.items()}
    parameters = sum(int(np.prod(v.shape)) for v in net.model.trainable_variables)
    share = sum(sizes.values()) / max(1, parameters)
    text = f"{counted(sum(sizes.values()), 'bias value')} of {counted(len(sizes), 'layer')} without effect, "
    text += f"{share:.2%} of the trainable parameters"
    return finding("BN101", sorted(sizes, key=sizes.get, reverse=True), text, share)


def _adds_bias(layer: keras.Operation) -> bool:
    """Whether a layer ends with the addition of a trained bias."""
    activation = getattr(layer, "activation", None)
    bias = getattr(layer, "bias", None) if has_kernel(layer) else None
    return (
        isinstance(bias, keras.Variable)
        and bias.trainable
        and getattr(layer, "use_bias", True)
        and (activation is None or activation is keras.activations.linear)
    )


def shared_norm(evidence: Evidence) -> list[Finding]:
    """BN102."""
    places = []
    for calls in _by_layer(evidence.net.training_norms):
        if len(calls) < 2:
            continue
        number = f"called {len(calls)} times"
        features = _features(evidence, calls)
        if len(features) < 2:
            places.append(Place(calls[0].path, None, number))
            continue
        pairs = itertools.combinations(map(_moments, features), 2)
        distance, words = max(_distance(a, b) for a, b in pairs)
        text = f"{number} on inputs that differ: {words}"
        places.append(Place(calls[0].path, distance, text))
    return graded("BN102", places)


def _by_layer(calls: list[LayerCall]) -> list[list[LayerCall]]:
    by_layer: dict[int, list[LayerCall]] = {}
    for call in calls:
        by_layer.setdefault(id(call.layer), []).append(call)
    return list(by_layer.values())


def _features(evidence: Evidence, calls: list[LayerCall]) -> list[NormFeatures]:
    norms = {} if evidence.measured is None else evidence.measured.norms
    return [norms[call.name] for call in calls if call.name in norms]


Moments = tuple[np.ndarray, np.ndarray]  # mean and variance of each channel


def _moments(features: NormFeatures) -> Moments:
    return features.mean, features.variance


def _distance(a: Moments, b: Moments) -> tuple[float, str]:
    """How far two sets of statistics are apart, as a number and in words.

    The number is the larger of two medians over the channels: the distance of the means in deviations, and
    |log2| of the ratio of the deviations. Channels that are constant in both are equal if their means are.
    """
    (mean_a, variance_a), (mean_b, variance_b) = a, b
    tiny = 1e-12
    deviation = np.sqrt((variance_a + variance_b) / 2 + tiny)
    means = float(np.median(np.minimum(np.abs(mean_a - mean_b) / deviation, 1e3)))
    ratios = float(np.median(np.abs(np.log2((variance_a + tiny) / (variance_b + tiny))) / 2))
    if means >= ratios:
        return means, f"their means lie {means:.2f} deviations apart"
    return ratios, f"their deviations differ by a factor of {2**ratios:.2f}"


def norm_on_output(evidence: Evidence) -> list[Finding]:
    """BN103."""
    if not evidence.is_regression:
        return []
    norms = [last_norm(evidence.net, index) for index in evidence.net.results]
    norms = [call for call in norms if call is not None and trains(call.layer)]
    if not norms:
        return []
    outputs = None if evidence.measured is None else evidence.measured.outputs
    targets = np.asarray(evidence.labels.every, "float64")
    targets = targets.reshape(len(targets), -1)
    paths = [call.path for call in norms]
    if outputs is None or targets.shape[1] != outputs.shape[1]:
        return finding("BN103", paths, "a batch norm makes the outputs", None)
    deviation = np.maximum(targets.std(0), 1e-12)
    means = np.abs(outputs.mean(0) - targets.mean(0)) / deviation
    ratios = np.abs(np.log2(np.maximum(outputs.std(0), 1e-12) / deviation))
    value = min(1e3, float(max(means.max(), ratios.max())))
    worst = int(np.argmax(np.maximum(means, ratios)))
    text = (
        f"targets have mean {targets.mean(0)[worst]:.3g} and deviation {targets.std(0)[worst]:.3g}, outputs "
        f"in training {round(outputs.mean(0)[worst], 6):.3g} and {outputs.std(0)[worst]:.3g}"
    )
    return finding("BN103", paths, text, value)


def last_norm(net: Net, index: int) -> LayerCall | None:
    """The batch norm that makes an output, perhaps through layers that only scale or arrange it."""
    call: LayerCall | None = net.calls[index]
    while call is not None and type(call.layer).__name__ in _SCALINGS:
        call = net.made_by(call)
    return call if call is not None and call.is_norm else None


def frozen_after_compile(evidence: Evidence) -> list[Finding]:
    """BN301."""
    model = evidence.net.model
    compiled = {id(v): v for v in evidence.optimizer._trainable_variables}
    current = {id(v): v for v in model.trainable_variables}
    changed = {"frozen": compiled.keys() - current.keys(), "thawed": current.keys() - compiled.keys()}
    owners = {}
    for layer in model._flatten_layers(include_self=False):
        for variable in layer.variables:
            owners[id(variable)] = layer  # inner layers come last
    for word, ids in changed.items():
        layers = {id(owners[i]): owners[i] for i in ids if i in owners}.values()
        layers = sorted(layers, key=lambda layer: not is_norm(layer))
        if layers:
            norms = sum(map(is_norm, layers))
            text = f"{counted(len(ids), 'variable')} of {counted(len(layers), 'layer')}"
            text += f", {counted(norms, 'batch norm')} among them, {word} since compile"
            return finding("BN301", [evidence.net.path_of(layer) for layer in layers], text, len(ids))
    return []


def behind_frozen_layers(evidence: Evidence) -> list[Finding]:
    """BN302. A norm with initial averages is a new one, which has to learn them."""
    places = []
    for call in evidence.net.training_norms:
        feeding = evidence.net.feeding(call)
        if not feeding or any(feeder.layer.trainable_variables for feeder in feeding):
            continue
        mean, variance = averages(call.layer)
        if is_initial(mean, variance):
            continue
        frozen = ", ".join(feeder.path for feeder in feeding[:2])
        features = _features(evidence, [call])
        if not features:
            places.append(Place(call.path, None, f"{frozen} before it is frozen"))
            continue
        distance, words = _distance((mean, variance), _moments(features[0]))
        text = f"its averages move to those of the data, and {words}; {frozen} before it is frozen"
        places.append(Place(call.path, distance, text))
    return graded("BN302", places)


def averages(norm: keras.Layer) -> Moments:
    """The moving mean and variance of a batch norm, float64."""
    return tuple(
        np.asarray(keras.ops.convert_to_numpy(v), "float64") for v in (norm.moving_mean, norm.moving_variance)
    )


def is_initial(mean: np.ndarray, variance: np.ndarray) -> bool:
    """Whether moving averages are those of a new layer, 0 and 1."""
    return not mean.any() and bool((variance == 1).all())
