"""`bnhead.check`: finds mistakes around batch norms before a training, in seconds."""

import contextlib
from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np

from bnhead.census.feed import arranged, fitting
from bnhead.errors import UsageError
from bnhead.graph import trace
from bnhead.graph.inputs import arrays_of, batches, check_data, on_host
from bnhead.lint import settings, statistics, structure
from bnhead.lint.evidence import Evidence, Labels, Training
from bnhead.lint.findings import Finding, Findings, ordered
from bnhead.lint.measure import measure
from bnhead.lint.net import read_net, trains
from bnhead.lint.rules import NEEDS, RULES, selected
from bnhead.texts import counted

TASKS = ("", "classification", "multilabel", "regression")
KERAS_BATCH = 32  # of `fit` on arrays
CHECKS: dict[str, Callable[[Evidence], list[Finding]]] = {
    "BN101": structure.bias_before_norm,
    "BN102": structure.shared_norm,
    "BN103": structure.norm_on_output,
    "BN201": settings.slow_averages,
    "BN202": settings.fast_averages,
    "BN203": settings.batch_of_one,
    "BN204": settings.decayed_norm,
    "BN205": settings.zero_output_bias,
    "BN206": settings.unmixed_batches,
    "BN301": structure.frozen_after_compile,
    "BN302": structure.behind_frozen_layers,
    "BN401": statistics.dropout_before_norm,
    "BN402": statistics.large_epsilon,
    "BN403": statistics.constant_features,
    "BN404": statistics.rare_features,
    "BN405": statistics.moving_variance_out_of_range,
    "BN501": statistics.dead_units,
}


def check(
    model: keras.Model,
    data: Any = None,
    batch_size: int | None = None,
    *,
    epochs: int = 0,
    examples: int = 512,
    labels: Any = None,
    domains: Any = None,
    shuffle: bool = True,
    drop_remainder: bool = False,
    task: str = "",
    select: Iterable[str] = (),
    ignore: Iterable[str] = (),
) -> Findings:
    """Checks a model and its training by the rules of `bnhead check`, without training it.

    The model runs on a few batches of training data, once as in training and once as in inference, and is not
    changed. Without data the rules that need some are listed as not checked.

    Args:
        model: any built Keras model. A compiled one is checked with its optimizer and loss, too.
        data: training data: an array, a tuple `(x, y)`, or batches (a `tf.data.Dataset`, a `PyDataset`, a
            `DataLoader`), of which the first are read, in the form of `fit`.
        batch_size: of the training; None for 32 of arrays, as in `fit`, and for the size of the first batch.
        epochs: of the training; 0 if they are not known.
        examples: the number to read, at least; one batch is always read.
        labels: labels of all training examples, if `data` is batches.
        domains: `(examples,)` whole numbers, the domain of each example in the order of `data`; None without.
        shuffle: whether the training shuffles arrays, as `fit` does. Batches come as they are.
        drop_remainder: whether the training leaves out a last batch of fewer examples.
        task: "classification", "multilabel" or "regression"; "" decides by the loss and the labels.
        select: rules to check: ids, names, or beginnings of ids such as "BN4"; none checks all.
        ignore: rules to leave out, likewise.

    Returns:
        The findings, the most severe first.

    Raises:
        UsageError: an unknown rule, a model that is not built, data that do not fit it.
    """
    rules = selected(*([texts] if isinstance(texts, str) else texts for texts in (select, ignore)))
    for name, value, least in (("epochs", epochs, 0), ("examples", examples, 1)):
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise UsageError(f"{name} must be a whole number of at least {least}, got {value!r}")
    if batch_size is not None and (not isinstance(batch_size, int) or batch_size < 1):
        raise UsageError(f"batch_size must be a whole number of at least 1, got {batch_size!r}")
    if task not in TASKS:
        raise UsageError(f"task must be classification, multilabel or regression, got {task!r}")
    trace.require_built(model)
    read = [] if data is None else _read(data, batch_size or KERAS_BATCH, examples, shuffle, domains)
    size = len(labels) if labels is not None else _number(data)
    batch = batch_size or (len(_leaf(read[0][0])) if read else KERAS_BATCH)
    training = Training(batch, size, epochs, drop_remainder)
    example = arranged(model, read[0][0]) if read else None
    with fitting(example) if read else contextlib.nullcontext():
        net = read_net(model, example)
        needed = any("data" in (RULES[rule].needs, RULES[rule].measures) for rule in rules)
        measured = measure(net, [x for x, _, _ in read]) if net.calls and needed else None
    evidence = Evidence(net, training, measured, _labels(data, labels, read), task)
    can = [rule for rule in rules if evidence.has(RULES[rule].needs)]
    missing = {rule: net.untraced or NEEDS[RULES[rule].needs] for rule in rules if rule not in can}
    findings = [finding for rule in can for finding in CHECKS[rule](evidence)]
    return Findings(model.name, ordered(findings), tuple(can), missing, _facts_of_net(evidence))


Batch = tuple[Any, Any, Any]  # inputs, labels and domains; None without


def _read(data: Any, batch_size: int, examples: int, shuffle: bool, domains: Any) -> list[Batch]:
    """The batches of a check: of arrays whole ones, drawn at random with `shuffle`; else the first ones.

    Raises:
        UsageError: data that cannot be read, or that is empty.
    """
    check_data(data, batch_size)
    domains = None if domains is None else np.asarray(domains)
    read, total = [], 0
    if (arrays := arrays_of(data)) is not None:
        size = _number(data)
        order = np.random.default_rng(0).permutation(size) if shuffle else np.arange(size)
        order = order[: -(-examples // batch_size) * batch_size]  # whole batches, rounded up
        data = keras.tree.map_structure(lambda leaf: None if leaf is None else on_host(leaf)[order], arrays)
        data, domains = (data[0] if data[1] is None else data), None if domains is None else domains[order]
    for x, y in batches(data, batch_size):
        rows = len(_leaf(x))
        read.append((x, y, None if domains is None else domains[total : total + rows]))
        total += rows
        if total >= examples:
            break
    if not total:
        raise UsageError("data must have at least one example")
    return read


def _leaf(x: Any) -> Any:
    return next(leaf for leaf in keras.tree.flatten(x) if leaf is not None)


def _number(data: Any) -> int:
    """Number of training examples; 0 if `data` has no length."""
    if data is None:
        return 0
    arrays = arrays_of(data)
    return 0 if arrays is None else len(_leaf(arrays[0]))


def _labels(data: Any, labels: Any, read: list[Batch]) -> Labels | None:
    """The labels of all examples that are known, and of the batches that were read."""
    in_batches = [on_host(y) for _, y, _ in read if y is not None and hasattr(y, "shape")]
    arrays = None if data is None else arrays_of(data)
    every = labels if labels is not None else arrays[1] if arrays is not None else None
    is_complete = every is not None and hasattr(every, "__len__")
    if not is_complete:
        every = np.concatenate(in_batches) if in_batches else None
    if every is None or isinstance(every, dict):
        return None
    domains = [d for _, _, d in read if d is not None and len(d)]
    return Labels(on_host(every), in_batches, domains, is_complete)


def _facts_of_net(evidence: Evidence) -> dict[str, str]:
    """The facts that were read, for people."""
    training, facts = evidence.training, {}
    if evidence.measured is not None:
        measured = evidence.measured
        facts["read"] = (
            f"{counted(measured.examples, 'training example')} in batches of {measured.batch_size}"
        )
    planned = [f"batches of {training.batch_size}"]
    planned += [f"{training.size:,} examples"] if training.size else []
    planned += [f"{counted(training.epochs, 'epoch')}"] if training.epochs else []
    planned += [f"{training.steps:,} steps"] if training.steps else []
    facts["training"] = ", ".join(planned)
    norms = evidence.net.norm_layers
    facts["batch norms"] = (
        f"{len(norms)}, {sum(map(trains, norms))} of them normalise by the batch in training"
    )
    return facts
