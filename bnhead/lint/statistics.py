"""Rules that compare what reaches the batch norms and activations: BN4, BN5."""

from collections.abc import Iterator

import numpy as np

from bnhead.census import certify
from bnhead.errors import UsageError
from bnhead.lint.evidence import Evidence, Place, graded
from bnhead.lint.findings import Finding
from bnhead.lint.measure import NormFeatures
from bnhead.lint.net import LayerCall
from bnhead.lint.rules import RULES
from bnhead.lint.structure import averages, is_initial
from bnhead.texts import counted

ACTIVE = 3  # examples of a batch on which a feature must be active, on average
_FACTOR = 4  # between the moving variance and the data's


def _constant(features: NormFeatures) -> np.ndarray:
    """`(channels,)` bool: of the same value on all examples, to the rounding of float32."""
    return features.variance <= 1e-12 * (1 + features.mean**2)


def _measured_norms(evidence: Evidence) -> Iterator[tuple[LayerCall, NormFeatures]]:
    """The batch norms that normalise by the batch, with what reaches them."""
    for call in evidence.net.training_norms:
        if (features := evidence.measured.norms.get(call.name)) is not None:
            yield call, features


def dropout_before_norm(evidence: Evidence) -> list[Finding]:
    """BN401."""
    net, places = evidence.net, []
    for call in net.training_norms:
        if not (dropping := net.random_before(call)):
            continue
        features = None if evidence.measured is None else evidence.measured.norms.get(call.name)
        nearest = dropping[-1]
        rate = getattr(nearest.layer, "rate", None)
        source = f"{nearest.path}{f', rate {rate:g},' if isinstance(rate, int | float) else ''}"
        if features is None:
            places.append(Place(call.path, None, f"{source} comes before it"))
            continue
        ratios = features.dropout_shift[np.isfinite(features.dropout_shift) & ~_constant(features)]
        if not len(ratios):
            continue
        shift = float(np.exp(np.median(np.abs(np.log(ratios)))))
        ratio = float(np.median(ratios))
        text = f"{source} makes the variance in training {ratio:.3g} times that in inference"
        places.append(Place(call.path, shift, text))
    return graded("BN401", places)


def large_epsilon(evidence: Evidence) -> list[Finding]:
    """BN402."""
    places = []
    for call, features in _measured_norms(evidence):
        variance, epsilon = features.variance[~_constant(features)], call.layer.epsilon
        if len(variance):
            share, median = float((variance < epsilon).mean()), float(np.median(variance))
            size = np.sqrt(median / (median + epsilon))
            text = f"the variance of {share:.0%} of the channels is below epsilon {epsilon:g}; the median, "
            text += f"{median:.2g}, leaves with a deviation of {size:.2f} gamma"
            places.append(Place(call.path, share, text))
    return graded("BN402", places)


def constant_features(evidence: Evidence) -> list[Finding]:
    """BN403."""
    places = []
    for call, features in _measured_norms(evidence):
        constant = _constant(features)
        text = f"{int(constant.sum())} of {counted(len(constant), 'channel')} constant on "
        text += counted(evidence.measured.examples, "example")
        places.append(Place(call.path, float(constant.mean()), text))
    return graded("BN403", places)


def rare_features(evidence: Evidence) -> list[Finding]:
    """BN404. Only features that are 0 or above can be inactive."""
    batch, examples, places = evidence.training.batch_size, evidence.measured.examples, []
    for call, features in _measured_norms(evidence):
        share_active = features.active / examples
        rare = (features.lowest >= 0) & (share_active > 0) & (share_active < min(0.5, ACTIVE / batch))
        if not rare.any():
            continue
        least = float(np.median(share_active[rare]) * batch)
        text = (
            f"{int(rare.sum())} of {counted(len(rare), 'channel')} have fewer than {ACTIVE} active examples "
        )
        text += f"in a batch of {batch} (median {least:.1f})"
        places.append(Place(call.path, float(rare.mean()), text))
    return graded("BN404", places)


def moving_variance_out_of_range(evidence: Evidence) -> list[Finding]:
    """BN405."""
    places = []
    for call in evidence.net.norms:
        features = evidence.measured.norms.get(call.name)
        mean, variance = averages(call.layer)
        invalid = ~np.isfinite(mean) | ~np.isfinite(variance) | (variance < 0)
        if invalid.any():
            text = f"{counted(int(invalid.sum()), 'moving average')} negative or not finite"
            places.append(Place(call.path, 1.0, text))
        elif features is not None and not is_initial(mean, variance):
            epsilon = call.layer.epsilon
            ratio = (variance + epsilon) / (features.variance + epsilon)
            outside = (ratio > _FACTOR) | (ratio < 1 / _FACTOR)
            text = f"{int(outside.sum())} of {counted(len(outside), 'channel')}; the moving variance is "
            text += f"{np.median(ratio):.2g} times the data's in the median channel"
            places.append(Place(call.path, float(outside.mean()), text))
    return graded("BN405", places)


def dead_units(evidence: Evidence) -> list[Finding]:
    """BN501."""
    measured, places = evidence.measured, []
    dead = {name: active == 0 for name, active in measured.active.items()}
    row = RULES["BN501"]
    named = [name for name, units in dead.items() if row.is_beyond(units.mean(), row.notable)]
    certificates = _certificates(evidence, named)
    for name in named:
        units, certificate = dead[name], certificates.get(name)
        weight_dead = bias_dead = 0
        if certificate is not None:
            weight_dead = int((certificate.weight_dead & units).sum())
            bias_dead = int((certificate.bias_dead & units).sum())
        number = int(units.sum())
        text = (
            f"{number} of {counted(len(units), 'unit')} silent on {counted(measured.examples, 'example')}: "
        )
        text += f"{weight_dead} by their weights, {bias_dead} by their bias, "
        text += f"{number - weight_dead - bias_dead} unused here"
        places.append(Place(name, float(units.mean()), text))
    return graded("BN501", places)


def _certificates(evidence: Evidence, names: list[str]) -> dict:
    """Certificates of layers; of a net with new norms for training, since their averages are meaningless."""
    if not names:
        return {}
    new = any(is_initial(*averages(norm)) for norm in evidence.net.norm_layers)
    try:
        batch = evidence.training.batch_size if new else None
        return certify(evidence.net.model, names, training_batch=batch)
    except UsageError:  # a subclassed model
        return {}
