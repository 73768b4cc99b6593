"""The plan of a comparison, of the same type as that of `bnhead study`."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from bnhead import heads as head_texts
from bnhead.comparison.data import ComparedData
from bnhead.comparison.model import Builder, built_model, model_sha256
from bnhead.errors import UsageError
from bnhead.runs.provenance import source_sha256
from bnhead.studies.measures import MEASURES, PRIMARY, SECONDARY
from bnhead.studies.plan import Cell, Plan, PlannedMeasure, comparisons_of, number_problems, with_runs
from bnhead.version import __version__


def named_builders(
    build: Callable[[str, int], keras.Model] | None,
    heads: Sequence[str],
    builders: Mapping[str, Builder] | None,
    control: str,
) -> dict[str, Builder]:
    """Name -> function of the seed, the control first; the arguments are those of `compare`.

    Raises:
        UsageError: fewer than two heads, the same head twice, or a control that is not among them.
    """
    if (build is None) == (builders is None):
        raise UsageError("compare needs build and heads, or builders")
    if builders is None:
        heads = [heads] if isinstance(heads, str) else list(heads)
        builders = {head: lambda seed, head=head: build(head, seed) for head in heads}
        if len(builders) < len(heads):
            raise UsageError(f"heads must all differ, got {', '.join(heads)}")
    if len(builders) < 2:
        raise UsageError(f"heads must be at least 2, a control and another, got {len(builders)}")
    control = control or next(iter(builders))
    if control not in builders:
        raise UsageError(f"control must be one of {', '.join(builders)}, got {control!r}")
    return {control: builders[control], **builders}


def check_settings(better: str, **numbers: int) -> None:
    """Raises UsageError for settings that `compare` does not take, before any data is read."""
    if better not in ("higher", "lower"):
        raise UsageError(f"better must be 'higher' or 'lower', got {better!r}")
    for name, value in numbers.items():
        if not isinstance(value, int) or value < 1:
            raise UsageError(f"{name} must be a whole number of at least 1, got {value!r}")


def comparison_plan(
    builders: Mapping[str, Builder],
    data: ComparedData,
    *,
    seeds: int | Sequence[int],
    epochs: int,
    batch_size: int,
    metric: str,
    better: str,
    delta: float,
    alpha: float,
    question: str,
    fit: Mapping[str, Any],
) -> Plan:
    """The plan of a comparison; each builder is called once, with seed 0.

    The other arguments are those of `compare`.

    Raises:
        UsageError: a number out of range, or a metric that the task does not have.
    """
    looks = (seeds,) if isinstance(seeds, int) else tuple(seeds)
    models = {name: built_model(name, builder, 0, data) for name, builder in builders.items()}
    # a subclassed model declares no output shape
    outputs = next(iter(models.values())).predict(data.tested(0, 2), verbose=0)
    task = "classification" if data.facts["classes"] and outputs.shape[-1] > 1 else "regression"
    measures = _measures(task, metric, delta, 1 if better == "higher" else -1)
    for problem in number_problems(looks, measures, alpha):
        raise UsageError(problem)
    cells = [
        Cell(name, name, _placement_of_name(name), {}, {"head": name, "model_sha256": model_sha256(model)})
        for name, model in models.items()
    ]
    settings = {
        "dataset": data.facts["name"],
        "task": task,
        "epochs": epochs,
        "batch_size": batch_size,
        "fit": json.dumps(fit, sort_keys=True, default=str),
        **{f"data_{name}": data.facts[name] for name in ("train_sha256", "test_sha256")},
    }
    primary = measures[0].name
    plan = Plan(
        study="compare",
        question=question or f"Does it make a difference: {', '.join(builders)}?",
        primary=primary if primary.startswith("test_") else f"test_{PRIMARY[task]}",
        measures=tuple(measures),
        alpha=alpha,
        looks=looks,
        seeds=tuple(range(looks[-1])),
        cells=tuple(cells),
        comparisons=tuple(comparisons_of(cells, len(cells))),
        settings=settings,
        runs=(),
        code={"bnhead": __version__, "source_sha256": source_sha256()},
        threads=0,  # those of the calling process
    )
    return with_runs(plan)


def _measures(task: str, metric: str, delta: float, better: int) -> list[PlannedMeasure]:
    """The primary measure, which may be a metric of the model, then the others of the task."""
    name = metric or PRIMARY[task]
    if name not in MEASURES:
        name = name if name.startswith("test_") else f"test_{name}"
        if not delta:
            raise UsageError(f"delta must be set for metric {metric!r}: the least difference that matters")
    elif name not in (PRIMARY[task], *SECONDARY[task]):
        raise UsageError(f"metric {metric!r} is not measured for {task}")
    secondary = [measure for measure in (PRIMARY[task], *SECONDARY[task]) if measure != name]
    return [PlannedMeasure.of(name, delta, better), *map(PlannedMeasure.of, secondary)]


def _placement_of_name(name: str) -> str:
    """Positions of the batch norms of a head; "" for a name that is not a head's text."""
    try:
        return ", ".join(head_texts.placement(name))
    except head_texts.HeadError:
        return ""
