"""What a study cannot say, derived from its plan, its verdict and its data."""

from collections.abc import Iterator
from typing import Any

from bnhead.census import keys
from bnhead.census.figures import rule_of_three
from bnhead.report import format
from bnhead.report.study import Study

_SCHEDULE = {
    "epochs": "{} epochs",
    "batch_size": "batches of {}",
    "learning_rate": "a peak learning rate of {:g}",
}


def limits(study: Study) -> Iterator[str]:
    """One sentence or two for each limit."""
    plan, verdict = study.plan, study.verdict
    varied = sorted({key for cell in plan["cells"] for key in cell["settings"]} - {"head"})
    fixed = {key: value for key, value in plan["settings"].items() if key not in varied}
    yield from _of_what_was_fixed(fixed)
    if varied:
        yield f"Beside the head only {format.listed(varied)} varied, over the values in the cells."
    yield from _of_the_test_split(study)
    yield (
        f"A replicate is a seed, and there are {len(plan['seeds'])}. An interval covers other seeds; it does "
        "not cover other test examples, data sets or nets."
    )
    yield from _of_the_intervals(study)
    margin = format.points(plan["delta"], plan["primary"])
    yield f"A difference below {margin} was called immaterial beforehand; that is a decision, not a finding."
    if len(verdict["comparisons"]) > 1:
        yield (
            f"There are {len(verdict['comparisons'])} comparisons. Holm's p-values make up for that; each "
            "interval is of one comparison alone."
        )
    yield "Runs are judged at the last epoch. A head that learns faster and ends alike is no better here."
    if verdict["exploratory"]:
        yield "The plan changed after it was frozen: the result is a lead to confirm, no confirmation."


def _of_what_was_fixed(fixed: dict[str, Any]) -> Iterator[str]:
    one = []
    if "dataset" in fixed:
        one.append(f"one data set, {fixed['dataset']}")
    if "backbone" in fixed:
        start = f"the weights {fixed['weights']}" if fixed.get("weights") else "initial weights"
        one.append(f"one backbone, {fixed['backbone']}, trained from {start}")
    schedule = [form.format(fixed[key]) for key, form in _SCHEDULE.items() if key in fixed]
    if schedule:
        one.append(f"one schedule: {format.listed(schedule)}")
    if one:
        yield f"It saw {'; '.join(one)}. What holds elsewhere, it cannot say."


def _of_the_test_split(study: Study) -> Iterator[str]:
    results = [run.result for run in study.runs]
    tested = [own["data"].get("test") for own in results if isinstance(own.get("data"), dict)]
    sizes = {size for size in tested if isinstance(size, int) and size > 0}
    if len(sizes) == 1:
        size = sizes.pop()
        step = f", one of which is {100 / size:.2g} points" if format.is_share(study.plan["primary"]) else ""
        yield (
            f"All runs are tested on the same {size:,} examples{step}. They were evaluated after every epoch "
            "for the curves; nothing was chosen by them."
        )
    counted = {own[keys.key(layer, "inputs")] for own in results for layer in keys.layers_of(own, "inputs")}
    inputs = {size for size in counted if format.known(size)}
    if inputs and min(inputs) > 0:
        yield (
            f"Dead means silent on the {min(inputs):,.0f} inputs counted: such a unit fires on less than "
            f"{rule_of_three(min(inputs)):.2%} of inputs, with 95 % confidence."
        )


def _of_the_intervals(study: Study) -> Iterator[str]:
    primary, unit = study.plan["primary"], format.unit(study.plan["primary"])
    bounds = [one["interval"] for one in study.verdict["comparisons"] if one.get("interval")]
    halves = [(high - low) / 2 for low, high in bounds if format.known(low) and format.known(high)]
    if halves:
        least, most = (format.spread(value, primary) for value in (min(halves), max(halves)))
        reach = f"{least} to {most}" if most != least else least
        yield (
            f"The intervals reach {reach}{' ' + unit if unit else ''} to either side of the mean: smaller "
            "effects cannot be told from none."
        )
