"""A study's plan: heads, measures and rule of the comparison, written before the first run.

A plan is data, and its hash covers all of it. A run's id is the hash of all settings of that run: the same
run has the same id in every study, and runs with different settings have different ids.
"""

import dataclasses
import hashlib
import itertools
import json
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from bnhead.errors import RunDirectoryError, UsageError
from bnhead.runs.provenance import source_sha256
from bnhead.studies.chain import chain_of
from bnhead.studies.claims import strata_of_cells
from bnhead.studies.measures import MEASURES, Measure, measure_of, measures_of
from bnhead.studies.study import Study
from bnhead.training.config import TrainConfig
from bnhead.training.rules import MEASURED, OPEN
from bnhead.version import __version__

FORMAT = 2  # 1 had one outcome, one number of seeds and Holm's p-values
LEAST_SEEDS = 3  # a verdict over fewer is INVALID
THREADS = 1  # of each run: another number gives other bits, so a study fixes it
METRIC = {"classification": "test_accuracy", "multilabel": "test_accuracy", "regression": "test_r2"}
EXCLUSIONS = "none; a run that diverges or fails to learn is scored at chance"
# The flags of a run that every study sets itself.
OWNED = ("head", "seed", "workdir", "overwrite", "dry_run", "verbose")
_AMENDABLE = (
    "measures",
    "delta",
    "better",
    "alpha",
    "looks",
    "seeds",
    "runs",
    "code",
    "question",
    "exclusions",
)


@dataclass(frozen=True)
class Cell:
    """One head in one stratum, trained with every seed.

    Attributes:
        name: unique in the plan.
        head: canonical text.
        placement: positions of its batch norms, `"P1"`; empty without a batch norm.
        stratum: the settings that its stratum fixes.
        settings: all settings in which it differs from the plan's.
        arm: its name at every stratum, in studies that name more than a head.
    """

    name: str
    head: str
    placement: str
    stratum: Mapping[str, Any]
    settings: Mapping[str, Any]
    arm: str = ""

    @property
    def line(self) -> str:
        """The common name of cells that differ in the stratum alone: the arm, else the head."""
        return self.arm or self.head


@dataclass(frozen=True)
class Comparison:
    """Two cells of one stratum, by name, whose runs are paired by seed."""

    name: str
    control: str
    treatment: str
    stratum: Mapping[str, Any]


@dataclass(frozen=True)
class PlannedRun:
    """One run: `id` is the hash of its settings."""

    id: str
    cell: str
    seed: int


@dataclass(frozen=True)
class PlannedMeasure:
    """A measure of `bnhead.studies.measures` and its margin in this study.

    Attributes:
        name: of the measure.
        margin: a difference inside +-margin is not material.
        better: 1 if higher is better, -1 if lower is.
    """

    name: str
    margin: float
    better: int

    @property
    def measure(self) -> Measure:
        """The measure."""
        return measure_of(self.name, self.better)

    @classmethod
    def of(cls, name: str, margin: float = 0.0, better: int = 1) -> "PlannedMeasure":
        """A measure with a margin; 0 for its usual one. `better` is for metrics of a user's model."""
        measure = measure_of(name, better)
        return cls(name, margin or measure.margin, measure.better)


@dataclass(frozen=True)
class Plan:
    """Everything a verdict depends on, except the runs.

    Attributes:
        study: name of the study.
        question: the question of the study.
        primary: key of `result.json` of the task's metric; the curves show it.
        measures: the judged outcomes, the primary one first.
        alpha: error rate over all comparisons and looks of a family.
        looks: numbers of seeds after which the study is judged. It stops at the first that decides.
        seeds: one replicate each, of all looks.
        cells: the trained cells.
        comparisons: the pairs of cells.
        trend: the setting whose doublings the question is about, such as "fc_units"; "" for a study of the
            differences themselves.
        settings: the settings that all runs share.
        runs: cells x seeds.
        code: version and hash of the code.
        threads: number of threads of each run, for operations and between them.
        data: name, sizes, classes and fingerprint of the data.
        exclusions: the rule for excluding runs.
        amendments: changes after the plan was first written; any makes the study exploratory.
    """

    study: str
    question: str
    primary: str
    measures: tuple[PlannedMeasure, ...]
    alpha: float
    looks: tuple[int, ...]
    seeds: tuple[int, ...]
    cells: tuple[Cell, ...]
    comparisons: tuple[Comparison, ...]
    settings: Mapping[str, Any]
    runs: tuple[PlannedRun, ...]
    code: Mapping[str, str]
    trend: str = ""
    threads: int = THREADS
    data: Mapping[str, Any] = field(default_factory=dict)
    exclusions: str = EXCLUSIONS
    amendments: tuple[str, ...] = ()

    @property
    def causes(self) -> Mapping[str, str]:
        """Name of a link of the cause table's chain -> its cell; empty for any other study."""
        return chain_of(self.cells)

    @property
    def claims(self) -> Mapping[str, Mapping[str, Any]]:
        """Name of a stratum of `bnhead.studies.claims` -> its settings; empty for any other study."""
        return strata_of_cells(self)

    @property
    def delta(self) -> float:
        """The margin of the primary outcome."""
        return self.measures[0].margin

    @property
    def task(self) -> str:
        """The task of the runs."""
        return self.settings["task"]

    def chance(self, measure: str) -> float | None:
        """The number of a run that diverges or fails to learn; None for a measure without one.

        Chance accuracy is that of a guess among equally likely classes. Chance R^2 is 0: the mean of the
        targets reaches it.
        """
        return measure_of(measure).chance(self.data.get("classes"), self.task)

    def level(self, rows: int) -> float:
        """The error rate of each interval of a family of so many: all hold together, at all looks."""
        return self.alpha / (rows * len(self.looks))

    def cell(self, name: str) -> Cell:
        """The cell called `name`."""
        return next(cell for cell in self.cells if cell.name == name)

    def run_settings(self, run: PlannedRun) -> dict[str, Any]:
        """All settings of a run, as in its `config.json`."""
        return {**self.settings, **self.cell(run.cell).settings, "seed": run.seed}

    def config(
        self,
        run: PlannedRun,
        directory: pathlib.Path,
        machine_fields: Mapping[str, Any] = MappingProxyType({}),
    ) -> TrainConfig:
        """The config of a run of the study in `directory`.

        Args:
            run: the run.
            directory: the study's directory.
            machine_fields: the fields that are not settings, such as `data_dir`, for this machine.
        """
        workdir = str(directory / "runs" / run.id)
        return TrainConfig(**self.run_settings(run), **machine_fields, workdir=workdir)

    @property
    def sha256(self) -> str:
        """The hash of the plan's JSON, of which this is the last key."""
        return digest(_hashed_content(self))


def make(
    name: str,
    study: Study,
    base: TrainConfig,
    *,
    looks: Sequence[int],
    first_seed: int = 0,
    delta: float = 0.0,
    alpha: float = 0.05,
) -> Plan:
    """The plan of a study.

    Args:
        name: the study's name.
        study: its question, heads, strata and primary outcome.
        base: the settings that the study does not set itself.
        looks: numbers of seeds after which it is judged, increasing.
        first_seed: the first seed; the others follow it.
        delta: the margin of the primary outcome; 0 for the measure's.
        alpha: error rate.

    Raises:
        UsageError: a number out of range, an outcome that the task does not have, or two cells with the same
            runs.
    """
    primary, *secondary = measures_of(base.task, study.primary, study.secondary)
    measures = [PlannedMeasure.of(primary, delta), *map(PlannedMeasure.of, secondary)]
    for problem in number_problems(looks, measures, alpha):
        raise UsageError(problem)
    if first_seed < 0:
        raise UsageError(f"first_seed must be at least 0, got {first_seed}")
    seeds = range(first_seed, first_seed + looks[-1])
    base = study.base(base)
    arms = study.arms(base) if study.arms else {}
    cells = [_cell(name, stratum, base, arms) for name, stratum in study.cells(base)]
    varied = set.intersection(*(set(cell.settings) for cell in cells))
    compared = cells[: study.compared]
    plan = Plan(
        study=name,
        question=study.question,
        primary=METRIC[base.task],
        measures=tuple(measures),
        alpha=alpha,
        looks=tuple(looks),
        seeds=tuple(seeds),
        cells=tuple(cells),
        comparisons=tuple(comparisons_of(compared, len(study.heads) + len(study.rivals), study.stepwise)),
        settings={key: value for key, value in base.settings().items() if key not in {*varied, "seed"}},
        runs=(),
        code={"bnhead": __version__, "source_sha256": source_sha256()},
        trend=study.varies[0] if study.trend else "",
    )
    return with_runs(plan)


def with_runs(plan: Plan) -> Plan:
    """The plan with the runs of its cells and seeds.

    Raises:
        UsageError: two cells have the same runs.
    """
    runs = [PlannedRun("", cell.name, seed) for cell in plan.cells for seed in plan.seeds]
    runs = [dataclasses.replace(run, id=run_id(plan.run_settings(run))) for run in runs]
    if len({run.id for run in runs}) < len(runs):
        raise UsageError(f"study {plan.study}: two of its cells have the same runs; every head must differ")
    return dataclasses.replace(plan, runs=tuple(runs))


def with_data(plan: Plan, facts: Mapping[str, Any]) -> Plan:
    """The plan with facts about its data, of which `classes` is the number of classes, None for numbers."""
    return dataclasses.replace(plan, data=facts)


def with_choices(plan: Plan, fields: Mapping[str, Any]) -> Plan:
    """The plan with values for the settings that it leaves to a measurement (`training.choices`)."""
    values = {n: fields[n] for n in MEASURED if n in fields and plan.settings.get(n) == OPEN != fields[n]}
    return with_runs(dataclasses.replace(plan, settings={**plan.settings, **values})) if values else plan


def run_id(settings: Mapping[str, Any]) -> str:
    """12 hexadecimal digits of the hash of a run's settings."""
    return digest(settings)[:12]


def digest(content: Any) -> str:
    """SHA-256 of the canonical JSON of `content`: sorted keys, no spaces."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def to_json(plan: Plan) -> dict[str, Any]:
    """The content of `plan.json`."""
    content = _hashed_content(plan)
    return {**content, "sha256": digest(content)}


def is_edited(content: Mapping[str, Any]) -> bool:
    """Whether the content of a `plan.json` differs from the content that was hashed before the first run."""
    hashed = {key: value for key, value in content.items() if key != "sha256"}
    return digest(hashed) != content["sha256"]


def from_json(content: Mapping[str, Any], path: str) -> Plan:
    """The plan in the content of a `plan.json`.

    Whether the file was edited is not checked; see `is_edited`.

    Args:
        content: the parsed file.
        path: its path, for messages.

    Raises:
        RunDirectoryError: the file has another format, or values that no study writes.
    """
    if content.get("format") == 1:
        raise RunDirectoryError(
            f"{path} is of a study that began under earlier rules (one number of seeds, Holm's p-values); "
            "this version cannot judge it: start it again in another --dir"
        )
    if content.get("format") != FORMAT:
        raise RunDirectoryError(f"{path} must be of format {FORMAT}, got {content.get('format')!r}")
    fields = {spec.name: content[spec.name] for spec in dataclasses.fields(Plan) if spec.name in content}
    names = {"name", "head", "placement", "stratum", "settings", "arm"}
    cells = [{key: value for key, value in cell.items() if key in names} for cell in fields["cells"]]
    runs = [PlannedRun(run["id"], run["cell"], run["seed"]) for run in fields["runs"]]
    comparisons = [
        Comparison(pair["name"], pair["control"], pair["treatment"], pair["stratum"])
        for pair in fields["comparisons"]
    ]
    fields |= {
        "measures": tuple(
            PlannedMeasure(row["name"], row["margin"], row["better"]) for row in fields["measures"]
        ),
        "looks": tuple(fields["looks"]),
        "cells": tuple(Cell(**{"placement": "", **cell}) for cell in cells),
        "comparisons": tuple(comparisons),
        "runs": tuple(runs),
        "seeds": tuple(fields["seeds"]),
        "amendments": tuple(fields.get("amendments", ())),
    }
    plan = Plan(**fields)
    for problem in _plan_problems(plan):
        raise RunDirectoryError(f"{path}: {problem}")
    return plan


def _plan_problems(plan: Plan) -> Iterator[str]:
    """The values that no study writes, in a plan of the right shape."""
    yield from number_problems(plan.looks, plan.measures, plan.alpha)
    for row in plan.measures:
        if row.name not in MEASURES and not row.name.startswith("test_"):
            yield f"there is no outcome called {row.name!r:.60}"
        if row.better not in (-1, 1):
            yield f"better must be 1 or -1, got {row.better}"
    if plan.looks and len(plan.seeds) != plan.looks[-1]:
        yield f"seeds must be {plan.looks[-1]}, as many as at the last look, got {len(plan.seeds)}"
    if not plan.primary.startswith("test_"):
        yield f"primary must be a figure of the test split, got {plan.primary!r:.60}"
    if not plan.cells:
        yield "cells must not be empty"
    for index, run in enumerate(plan.runs):
        if not re.fullmatch(r"\w{1,80}", run.id):  # it names a directory
            yield f"runs[{index}]: id {run.id!r:.60} cannot be the name of a run"
    named = {run.cell for run in plan.runs}
    named |= {name for pair in plan.comparisons for name in (pair.control, pair.treatment)}
    for name in sorted(named - {cell.name for cell in plan.cells}):
        yield f"there is no cell called {name!r}"


def number_problems(looks: Sequence[int], measures: Sequence[PlannedMeasure], alpha: float) -> Iterator[str]:
    """The errors in the numbers of a plan, a line each."""
    if not looks or min(looks) < 1:
        yield f"seeds must be at least 1, got {min(looks, default=0)}"
    if len(looks) > 1 and looks[0] < LEAST_SEEDS:
        yield f"seeds must be at least {LEAST_SEEDS} at the first of several looks, got {looks[0]}"
    if any(later <= earlier for earlier, later in itertools.pairwise(looks)):
        yield f"seeds must increase from look to look, got {','.join(map(str, looks))}"
    if not measures:
        yield "measures must not be empty"
    for row in measures:
        if not 0 < row.margin < 1:
            yield f"delta must be between 0 and 1, got {row.margin}"
    if not 0 < alpha < 0.5:
        yield f"alpha must be between 0 and 0.5, got {alpha}"


def plan_differences(current: Plan, requested: Plan) -> dict[str, str]:
    """How two plans differ: name of the field or setting -> `"10 there, 20 now"`.

    Facts about the data, added after a plan is made, and earlier amendments are not compared.
    """
    changes = {}
    for name in ("study", "question", "primary", "alpha", "looks", "seeds", "trend", "exclusions", "threads"):
        values = getattr(current, name), getattr(requested, name)
        if values[0] != values[1]:
            changes[name] = "{} there, {} now".format(*map(_abbreviated, values))
    there, now = (dict.fromkeys(row.name for row in plan.measures) for plan in (current, requested))
    if list(there) != list(now):
        changes["measures"] = f"{_abbreviated(list(there))} there, {_abbreviated(list(now))} now"
    for old, new in ((a, b) for a in current.measures for b in requested.measures if a.name == b.name):
        for key, field_name in (("delta", "margin"), ("better", "better")):
            values = getattr(old, field_name), getattr(new, field_name)
            if values[0] != values[1]:
                changes[f"{key} of {old.name}"] = "{:g} there, {:g} now".format(*values)
    for prefix, old, new in (
        ("", current.settings, requested.settings),
        ("code ", current.code, requested.code),
    ):
        for key in {**old, **new}:
            if old.get(key) != new.get(key):
                changes[prefix + key] = (
                    f"{_abbreviated(old.get(key))} there, {_abbreviated(new.get(key))} now"
                )
    old, new = ({cell.name: cell for cell in plan.cells} for plan in (current, requested))
    if old != new:
        for name in old.keys() & new.keys():
            for key in (k for k in old[name].settings if old[name].settings[k] != new[name].settings.get(k)):
                changes[f"{key} of {name}"] = "{} there, {} now".format(
                    *(_abbreviated(cells[name].settings.get(key)) for cells in (old, new))
                )
    if list(old) != list(new) or current.comparisons != requested.comparisons:
        removed, added = [n for n in old if n not in new], [n for n in new if n not in old]
        changes["cells"] = (
            f"{_abbreviated(removed or list(old))} there, {_abbreviated(added or list(new))} now"
        )
    return changes


def amended(current: Plan, requested: Plan) -> Plan:
    """The requested plan, with the current one's data and a record of the changes.

    Raises:
        RunDirectoryError: another study, other settings or fewer seeds, which cannot be amended.
    """
    changes = plan_differences(current, requested)
    for name, text in changes.items():
        if name.split()[0] not in _AMENDABLE:
            raise RunDirectoryError(f"{name} cannot be amended: {text}; choose another --dir")
    if missing := set(current.seeds) - set(requested.seeds):
        raise RunDirectoryError(f"seeds cannot be removed: {_abbreviated(sorted(missing))} are in the plan")
    texts = tuple(f"{name} was changed after the plan was written: {text}" for name, text in changes.items())
    return dataclasses.replace(requested, data=current.data, amendments=(*current.amendments, *texts))


def _hashed_content(plan: Plan) -> dict[str, Any]:
    names = (
        "study", "question", "primary", "measures", "alpha", "looks", "seeds", "exclusions", "data",
        "cells", "comparisons", "trend", "settings", "runs", "code", "threads", "amendments",
    )  # fmt: skip
    fields = dataclasses.asdict(plan)
    fields["cells"] = [
        {key: value for key, value in cell.items() if key != "arm" or value} for cell in fields["cells"]
    ]
    return json.loads(json.dumps({"format": FORMAT, **{name: fields[name] for name in names}}))


def _cell(
    name: str, stratum: dict[str, Any], base: TrainConfig, arms: Mapping[str, Mapping[str, Any]]
) -> Cell:
    # checks, and gives each value its type
    config = dataclasses.replace(base, **{**arms.get(name, {"head": name}), **stratum})
    stratum = {key: getattr(config, key) for key in stratum}
    placement = ", ".join(config.parsed_head.placement)
    differing = dict.fromkeys(key for arm in arms.values() for key in arm)
    settings = {key: getattr(config, key) for key in {"head": "", **differing, **stratum}}
    arm = name if name in arms else ""
    return Cell(name + _stratum_suffix(stratum), config.head, placement, stratum, settings, arm)


def comparisons_of(cells: Sequence[Cell], heads_each: int, stepwise: bool = False) -> Iterable[Comparison]:
    """Every cell of a stratum against the first one, or `stepwise` against the one before it.

    Each stratum has `heads_each` cells, in a row.
    """
    for first in range(0, len(cells), heads_each):
        control, *treatments = cells[first : first + heads_each]
        stratum = control.stratum
        suffix = _stratum_suffix(stratum)
        for cell in treatments:
            name = f"{cell.name.removesuffix(suffix)} against {control.name.removesuffix(suffix)}{suffix}"
            yield Comparison(name, control.name, cell.name, stratum)
            control = cell if stepwise else control


def head_as_given(cell: Cell) -> str:
    """The head as the study names it, which may be another spelling of `cell.head`: "fastai"."""
    return cell.name.removesuffix(_stratum_suffix(cell.stratum))


def _stratum_suffix(stratum: Mapping[str, Any]) -> str:
    settings = ", ".join(f"{key} {_abbreviated(value)}" for key, value in stratum.items())
    return f" at {settings}" if settings else ""


def _abbreviated(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        integers = [v for v in value if isinstance(v, int)]
        if len(integers) > 2 and integers == list(range(integers[0], integers[0] + len(value))):
            return f"{integers[0]} to {integers[-1]}"
        return ", ".join(map(str, value))
    text = repr(value) if not isinstance(value, str) else value
    return text if len(text) < 60 else f"{text[:12]}..."
