"""Rules that read the settings of the training and its batches: BN2."""

import math
from collections.abc import Sequence

import keras
import numpy as np

from bnhead.lint.evidence import Evidence, Place, finding, graded
from bnhead.lint.findings import Finding
from bnhead.lint.net import has_kernel, is_norm, trains
from bnhead.lint.structure import last_norm
from bnhead.texts import counted

_ACTIVATIONS = ("Softmax", "Activation", "Rescaling", "Identity", "Dropout")


def _training_norms(evidence: Evidence) -> dict[str, keras.Layer]:
    """Path -> each batch norm that averages in training."""
    norms = [norm for norm in evidence.net.norm_layers if trains(norm) and hasattr(norm, "momentum")]
    return {evidence.net.path_of(norm): norm for norm in norms}


def slow_averages(evidence: Evidence) -> list[Finding]:
    """BN201."""
    steps, findings = evidence.training.steps, []
    norms = _training_norms(evidence)
    for momentum in sorted({norm.momentum for norm in norms.values()}, reverse=True):
        paths = [path for path, norm in norms.items() if norm.momentum == momentum]
        remaining = momentum**steps
        needed = (
            f"{math.ceil(math.log(0.05) / math.log(max(momentum, 1e-9))):,}"
            if momentum < 1
            else "infinitely many"
        )
        text = f"momentum {momentum:g} keeps {remaining:.1%} of the averages that training starts with after "
        text += f"{counted(steps, 'step')} ({needed} steps keep 5%)"
        findings += finding("BN201", paths, text, remaining)
    return findings


def fast_averages(evidence: Evidence) -> list[Finding]:
    """BN202."""
    findings, norms = [], _training_norms(evidence)
    for momentum in sorted({norm.momentum for norm in norms.values() if norm.momentum < 1}):
        paths = [path for path, norm in norms.items() if norm.momentum == momentum]
        batches = (1 + momentum) / (1 - momentum)
        text = f"momentum {momentum:g} averages {batches:.1f} batches"
        findings += finding("BN202", paths, text, batches)
    return findings


def batch_of_one(evidence: Evidence) -> list[Finding]:
    """BN203."""
    training, places = evidence.training, []
    for size, words in ((training.batch_size, "a batch"), (training.remainder, "the last batch of an epoch")):
        for call in evidence.net.training_norms if size else ():
            if call.positions is not None:
                values = size * call.positions
                text = f"{words} has {counted(size, 'example')}, {counted(values, 'value')} of a channel"
                places.append(Place(call.path, values, text))
    if training.size and training.remainder:
        division = f" ({training.size:,} examples by {training.batch_size})"
        places = [Place(p.path, p.value, p.what + division * p.what.startswith("the last")) for p in places]
    return graded("BN203", places)


def decayed_norm(evidence: Evidence) -> list[Finding]:
    """BN204."""
    optimizer, steps = evidence.optimizer, evidence.training.steps
    rate = _mean_rate(optimizer, steps)
    decayed: dict[str, float] = {}
    for norm in evidence.net.norm_layers:
        for name in ("gamma", "beta"):
            variable = getattr(norm, name, None)
            if not isinstance(variable, keras.Variable) or not variable.trainable:
                continue
            decay = 2 * float(getattr(variable.regularizer, "l2", 0.0) or 0.0)
            if optimizer.weight_decay and optimizer._use_weight_decay(variable):
                decay += float(optimizer.weight_decay)
            if decay:
                decayed[evidence.net.path_of(norm)] = max(decay, decayed.get(evidence.net.path_of(norm), 0.0))
    if not decayed:
        return []
    decay = max(decayed.values())
    value = 1 - math.exp(-rate * decay * steps) if steps else None
    text = f"a decay of {decay:g} at a rate of {rate:.2g}"
    text += f" takes {value:.1%} of gamma and beta in {counted(steps, 'step')}" if steps else ""
    return finding("BN204", sorted(decayed, key=decayed.get, reverse=True), text, value)


def _mean_rate(optimizer: keras.optimizers.Optimizer, steps: int) -> float:
    """The learning rate, of a schedule its mean over the training (at the start if the steps are unknown)."""
    schedule = optimizer._learning_rate
    if not isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule):
        return float(optimizer.learning_rate)
    at = np.linspace(0, max(steps - 1, 0), min(max(steps, 1), 50))
    return float(np.mean([float(schedule(int(step))) for step in at]))


def zero_output_bias(evidence: Evidence) -> list[Finding]:
    """BN205."""
    shares = evidence.class_shares
    if shares is None or evidence.outputs not in (1, len(shares)):
        return []
    places = [_output_offset(evidence, index) for index in evidence.net.results]
    if len(places) != 1 or places[0] is None:
        return []
    present = shares[shares > 0]
    excess = math.log(len(shares)) + float((present * np.log(present)).sum())
    text = (
        f"the classes have {shares.min():.2%} to {shares.max():.1%} of the examples; equal shares cost "
        f"{excess:.3f} nats"
    )
    return finding("BN205", [places[0]], text, excess)


def _output_offset(evidence: Evidence, index: int) -> str | None:
    """The path of the layer whose bias or beta is the output's, if all of it is 0."""
    net, call = evidence.net, evidence.net.calls[index]
    while call is not None and type(call.layer).__name__ in _ACTIVATIONS and not has_kernel(call.layer):
        call = net.made_by(call)
    norm = None if call is None else last_norm(net, call.index)
    layer = norm.layer if norm is not None else getattr(call, "layer", None)
    offset = getattr(layer, "beta", None) if is_norm(layer) else getattr(layer, "bias", None)
    if not isinstance(offset, keras.Variable) or np.any(keras.ops.convert_to_numpy(offset)):
        return None
    return (norm or call).path


def unmixed_batches(evidence: Evidence) -> list[Finding]:
    """BN206."""
    if not evidence.net.norm_layers:
        return []
    labels, findings = evidence.labels, []
    numbers = [evidence.numbers(batch) for batch in labels.batches]
    if not evidence.is_regression and numbers and all(n is not None for n in numbers):
        shares = evidence.class_shares if labels.is_complete else None
        findings += _mixing("class", numbers, shares, evidence.classes)
    if len(labels.domains):
        findings += _mixing("domain", labels.domains, None, 1 + max(int(d.max()) for d in labels.domains))
    return findings


def _mixing(noun: str, batches: Sequence[np.ndarray], shares: np.ndarray | None, kinds: int) -> list[Finding]:
    """The finding for classes or domains.

    Args:
        noun: "class" or "domain".
        batches: a number for each example of each batch.
        shares: shares of all training examples; None if they are not known. Then those of the batches are
            used, and beside them equal shares, since sorted batches may all be of the first class.
        kinds: number of classes or domains.
    """
    pooled = np.concatenate(batches)
    if shares is None:
        shares = np.bincount(pooled, minlength=kinds) / len(pooled)
        # half of what equal shares would show: imbalanced classes, too, show that many
        if kinds > 1 and len(np.unique(pooled)) <= _expected(np.full(kinds, 1 / kinds), len(pooled)) / 2:
            shares = np.full(kinds, 1 / kinds)
    distinct = float(np.mean([len(np.unique(batch)) for batch in batches]))
    expected = float(np.mean([_expected(shares, len(batch)) for batch in batches]))
    plural = "classes" if noun == "class" else "domains"
    text = (
        f"a batch of {len(batches[0])} has {distinct:.1f} {plural}; mixed batches would have {expected:.1f}"
    )
    return finding("BN206", [], text, distinct / expected)


def _expected(shares: np.ndarray, examples: int) -> float:
    """Expected number of classes among independent examples."""
    return float((1 - (1 - shares) ** examples).sum())
