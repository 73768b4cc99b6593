"""The limits of a study, derived from its plan, its verdict and its data."""

from collections.abc import Iterator
from typing import Any

from bnhead.census import keys
from bnhead.census.figures import rule_of_three
from bnhead.report import provisional
from bnhead.studies import wording
from bnhead.studies.directory import StudyFiles
from bnhead.texts import counted_range

_SCHEDULE = {
    "epochs": "{} epochs",
    "batch_size": "batches of {}",
    "learning_rate": "a peak learning rate of {:g}",
}


def study_limits(study: StudyFiles) -> Iterator[str]:
    """One or two sentences for each limit."""
    plan, verdict = study.plan, study.verdict
    varied = sorted({key for cell in plan.cells for key in cell.settings} - {"head"})
    yield from _of_the_settings({key: value for key, value in plan.settings.items() if key not in varied})
    if varied:
        yield f"Beside the head only {wording.as_list(varied)} varied, over the values in the cells."
    yield from _of_the_test_split(study)
    seeds = verdict.get("look", {}).get("seeds", len(plan.seeds))
    yield (
        f"A replicate is a seed, and there are {seeds}. Intervals of means over test images cover other "
        "seeds and other images of the same kind; the others cover other seeds only. None covers other "
        "data sets or nets."
    )
    yield from _of_the_intervals(study)
    margin = wording.as_margin(plan.delta, plan.measures[0].name)
    yield f"A difference below {margin} was called immaterial beforehand; that is a decision, not a finding."
    if verdict["word"] != provisional.WORD:
        yield (
            f"The intervals of the primary outcome hold together with {100 * (1 - plan.alpha):g} %, over all "
            f"comparisons and {len(plan.looks)} look{'s' if len(plan.looks) > 1 else ''}; the secondary "
            "outcomes are another family."
        )
    yield (
        "Runs are judged at the last epoch. A head that learns faster but ends equal does not count as "
        "better."
    )
    if verdict["exploratory"]:
        yield "The plan changed after it was frozen: the result must be confirmed by a new study."


def _of_the_settings(settings: dict[str, Any]) -> Iterator[str]:
    subjects = []
    if "dataset" in settings:
        subjects.append(f"one data set, {settings['dataset']}")
    if "backbone" in settings:
        start = f"the weights {settings['weights']}" if settings.get("weights") else "initial weights"
        subjects.append(f"one backbone, {settings['backbone']}, trained from {start}")
    schedule = [form.format(settings[key]) for key, form in _SCHEDULE.items() if key in settings]
    if schedule:
        subjects.append(f"one schedule: {wording.as_list(schedule)}")
    if subjects:
        yield f"It saw {'; '.join(subjects)}. It cannot show what holds elsewhere."


def _of_the_test_split(study: StudyFiles) -> Iterator[str]:
    results = [run.result for run in study.runs.values()]
    tested = [result["data"].get("test") for result in results if isinstance(result.get("data"), dict)]
    sizes = {size for size in tested if isinstance(size, int) and size > 0}
    if len(sizes) == 1:
        size = sizes.pop()
        step = f", one of which is {100 / size:.2g} points" if wording.is_share(study.plan.primary) else ""
        yield (
            f"All runs are tested on the same {size:,} examples{step}. They were evaluated after every epoch "
            "for the curves; nothing was chosen by them."
        )
    counted = {
        result[keys.key(layer, "inputs")] for result in results for layer in keys.layers_of(result, "inputs")
    }
    inputs = {size for size in counted if wording.is_number(size)}
    if inputs and min(inputs) > 0:
        yield (
            f"Dead means silent on the {counted_range(inputs, 'input')} counted: a dead unit fires on less "
            f"than {rule_of_three(min(inputs)):.2%} of inputs, with 95 % confidence."
            + " Layers and runs with different numbers of inputs are not comparable."
            * (len(inputs) > 1)
        )


def _of_the_intervals(study: StudyFiles) -> Iterator[str]:
    primary = study.plan.measures[0].name
    unit = wording.unit(primary)
    bounds = [comparison.get("interval") or (None, None) for comparison in study.verdict["comparisons"]]
    halves = [(high - low) / 2 for low, high in bounds if wording.is_number(low) and wording.is_number(high)]
    if halves:
        least, most = (wording.as_spread(value, primary) for value in (min(halves), max(halves)))
        reach = f"{least} to {most}" if most != least else least
        yield (
            f"The intervals reach {reach}{' ' + unit if unit else ''} to either side of the mean: smaller "
            "effects cannot be detected."
        )
