"""A study's plan: what is compared with what, by which number and which rule, written before the first run.

A plan is data, and its hash covers all of it. A run's id is the hash of all the settings of that run, so the
same run has the same id in every study, and a run whose settings differ has another.
"""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from bnhead.errors import RunDirectoryError, UsageError
from bnhead.runs.provenance import source_sha256
from bnhead.studies.study import Study
from bnhead.training.config import TrainConfig
from bnhead.version import __version__

FORMAT = 1
THREADS = 1  # of each run: another number gives other bits, so a study fixes it
PRIMARY = {"classification": "test_accuracy", "multilabel": "test_accuracy", "regression": "test_r2"}
EXCLUSIONS = "none; a run that diverges or fails to learn is scored at chance"
OWNED = (
    "head",
    "seed",
    "workdir",
    "overwrite",
    "dry_run",
)  # the flags of a run that every study decides itself
_AMENDABLE = ("delta", "alpha", "seeds", "runs", "code", "question", "exclusions")


@dataclass(frozen=True)
class Cell:
    """One head in one stratum, trained with every seed.

    Attributes:
        name: unique in the plan.
        head: canonical text.
        placement: where its batch norms stand, `"P1"`; empty where there are none.
        stratum: the settings that its stratum fixes.
        settings: all settings in which it differs from the plan's.
    """

    name: str
    head: str
    placement: str
    stratum: Mapping[str, Any]
    settings: Mapping[str, Any]


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
class Plan:
    """All that a verdict depends on, besides the runs.

    Attributes:
        study: name of the study.
        question: what it asks.
        primary: key of `result.json`, after the last epoch; the higher the better.
        chance: what a run is scored that diverges or fails to learn; None before the data has been looked at.
        delta: a difference smaller than this is not material.
        alpha: the error rate of each claim over all comparisons.
        seeds: one replicate each.
        cells: what is trained.
        comparisons: the family over which p-values are adjusted.
        settings: those that all runs share.
        runs: cells x seeds.
        code: version and hash of the code.
        threads: of each run, for operations and between them.
        data: name, sizes, classes and fingerprint of the data.
        exclusions: the rule by which runs are left out.
        amendments: what was changed after the plan was first written; any makes the study exploratory.
    """

    study: str
    question: str
    primary: str
    chance: float | None
    delta: float
    alpha: float
    seeds: tuple[int, ...]
    cells: tuple[Cell, ...]
    comparisons: tuple[Comparison, ...]
    settings: Mapping[str, Any]
    runs: tuple[PlannedRun, ...]
    code: Mapping[str, str]
    threads: int = THREADS
    data: Mapping[str, Any] = field(default_factory=dict)
    exclusions: str = EXCLUSIONS
    amendments: tuple[str, ...] = ()

    def cell(self, name: str) -> Cell:
        """The cell called `name`."""
        return next(cell for cell in self.cells if cell.name == name)

    def run_settings(self, run: PlannedRun) -> dict[str, Any]:
        """All the settings of a run, as its `config.json` holds them."""
        return {**self.settings, **self.cell(run.cell).settings, "seed": run.seed}

    def config(
        self, run: PlannedRun, directory: pathlib.Path, elsewhere: Mapping[str, Any] = MappingProxyType({})
    ) -> TrainConfig:
        """The config of a run of the study in `directory`.

        Args:
            run: the run.
            directory: the study's.
            elsewhere: the fields that are no settings, such as `data_dir`, as they are on this machine.
        """
        place = str(directory / "runs" / run.id)
        return TrainConfig(**self.run_settings(run), **elsewhere, workdir=place)

    @property
    def sha256(self) -> str:
        """The hash of the plan's JSON, of which this is the last key."""
        return digest(_content(self))


def make(
    name: str, study: Study, base: TrainConfig, *, seeds: Sequence[int], delta: float, alpha: float
) -> Plan:
    """The plan of a study.

    Args:
        name: the study's.
        study: what it asks.
        base: the settings that are not the study's own.
        seeds: one replicate each.
        delta: what is material, in units of the primary metric.
        alpha: error rate.

    Raises:
        UsageError: a number out of its range, or two cells that would be the same runs.
    """
    _check_numbers(seeds, delta, alpha)
    cells = [_cell(head, stratum, base) for stratum in map(dict, study.strata(base)) for head in study.heads]
    varied = {key for cell in cells for key in cell.settings}
    everything = base.settings()
    plan = Plan(
        study=name,
        question=study.question,
        primary=PRIMARY[base.task],
        chance=None,
        delta=delta,
        alpha=alpha,
        seeds=tuple(seeds),
        cells=tuple(cells),
        comparisons=tuple(_comparisons(cells, len(study.heads))),
        settings={key: value for key, value in everything.items() if key not in {*varied, "seed"}},
        runs=(),
        code={"bnhead": __version__, "source_sha256": source_sha256()},
    )
    runs = [PlannedRun("", cell.name, seed) for cell in cells for seed in seeds]
    runs = [dataclasses.replace(run, id=run_id(plan.run_settings(run))) for run in runs]
    if len({run.id for run in runs}) < len(runs):
        raise UsageError(f"study {name}: two of its cells are the same runs; every head must differ")
    return dataclasses.replace(plan, runs=tuple(runs))


def with_data(plan: Plan, facts: Mapping[str, Any]) -> Plan:
    """The plan of runs on data of which `facts` tells `classes`, None where it has numbers.

    An accuracy's chance is that of a guess among equally likely classes, and an R^2's is 0, which the mean of
    the targets reaches.
    """
    return dataclasses.replace(plan, data=facts, chance=1 / facts["classes"] if facts["classes"] else 0.0)


def run_id(settings: Mapping[str, Any]) -> str:
    """12 hexadecimal digits of the hash of a run's settings."""
    return digest(settings)[:12]


def digest(content: Any) -> str:
    """SHA-256 of the canonical JSON of `content`: sorted keys, no spaces."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def to_json(plan: Plan) -> dict[str, Any]:
    """What `plan.json` holds."""
    content = _content(plan)
    return {**content, "sha256": digest(content)}


def from_json(content: Mapping[str, Any], where: str) -> Plan:
    """The plan that `plan.json` holds.

    Args:
        content: the parsed file.
        where: its name, for messages.

    Raises:
        RunDirectoryError: it is of another format, or was changed since it was written.
    """
    if content.get("format") != FORMAT:
        raise RunDirectoryError(f"{where} must be of format {FORMAT}, got {content.get('format')!r}")
    rest = {key: value for key, value in content.items() if key != "sha256"}
    try:
        found = digest(rest)
    except ValueError:  # NaN, which nobody writes
        found = ""
    if found != content.get("sha256"):
        raise RunDirectoryError(f"{where} was changed since it was written: its hash does not match")
    del rest["format"]
    rest["cells"] = tuple(Cell(**cell) for cell in rest["cells"])
    rest["comparisons"] = tuple(Comparison(**one) for one in rest["comparisons"])
    rest["runs"] = tuple(PlannedRun(**run) for run in rest["runs"])
    return Plan(**{**rest, "seeds": tuple(rest["seeds"]), "amendments": tuple(rest["amendments"])})


def differences(before: Plan, now: Plan) -> dict[str, str]:
    """What differs between two plans: name of the field or setting -> `"10 there, 20 now"`.

    What is known of the data after the plan is made, and earlier amendments, are not compared.
    """
    found = {}
    for name in ("study", "question", "primary", "delta", "alpha", "seeds", "exclusions", "threads"):
        there, here = getattr(before, name), getattr(now, name)
        if there != here:
            found[name] = f"{_shown(there)} there, {_shown(here)} now"
    pairs = {"settings": (before.settings, now.settings), "code": (before.code, now.code)}
    for kind, (there, here) in pairs.items():
        for key in {**there, **here}:
            if there.get(key) != here.get(key):
                name = key if kind == "settings" else f"code {key}"
                found[name] = f"{_shown(there.get(key))} there, {_shown(here.get(key))} now"
    there, here = ({cell.name: cell for cell in plan.cells} for plan in (before, now))
    if there != here or before.comparisons != now.comparisons:
        lost, new = [n for n in there if n not in here], [n for n in here if n not in there]
        found["cells"] = f"{_shown(lost or list(there))} there, {_shown(new or list(here))} now"
    return found


def amended(before: Plan, now: Plan) -> Plan:
    """The plan that goes on with `before` as `now` has it, and says so.

    Raises:
        RunDirectoryError: another study, other settings or fewer seeds: that is no amendment.
    """
    found = differences(before, now)
    for name, text in found.items():
        if name.split()[0] not in _AMENDABLE:
            raise RunDirectoryError(f"{name} cannot be amended: {text}; choose another --dir")
    if missing := set(before.seeds) - set(now.seeds):
        raise RunDirectoryError(f"seeds cannot be taken back: {_shown(sorted(missing))} are in the plan")
    texts = tuple(f"{name} was changed after the plan was written: {text}" for name, text in found.items())
    return dataclasses.replace(
        now, chance=before.chance, data=before.data, amendments=(*before.amendments, *texts)
    )


def _content(plan: Plan) -> dict[str, Any]:
    names = (
        "study", "question", "primary", "chance", "delta", "alpha", "seeds", "exclusions", "data",
        "cells", "comparisons", "settings", "runs", "code", "threads", "amendments",
    )  # fmt: skip
    everything = dataclasses.asdict(plan)
    return json.loads(json.dumps({"format": FORMAT, **{name: everything[name] for name in names}}))


def _check_numbers(seeds: Sequence[int], delta: float, alpha: float) -> None:
    if not seeds:
        raise UsageError("seeds must be at least 1, got 0")
    if not 0 < delta < 1:
        raise UsageError(f"delta must be between 0 and 1, got {delta}")
    if not 0 < alpha < 0.5:
        raise UsageError(f"alpha must be between 0 and 0.5, got {alpha}")


def _cell(head: str, stratum: dict[str, Any], base: TrainConfig) -> Cell:
    config = dataclasses.replace(base, head=head, **stratum)  # checks, and gives each value its type
    stratum = {key: getattr(config, key) for key in stratum}
    placement = ", ".join(config.parsed_head.placement)
    return Cell(head + _at(stratum), config.head, placement, stratum, {"head": config.head, **stratum})


def _comparisons(cells: Sequence[Cell], heads_each: int) -> Iterable[Comparison]:
    for first in range(0, len(cells), heads_each):
        control, *others = cells[first : first + heads_each]
        for cell in others:
            stratum = cell.stratum
            name = f"{cell.name.removesuffix(_at(stratum))} against {control.name.removesuffix(_at(stratum))}"
            yield Comparison(name + _at(stratum), control.name, cell.name, stratum)


def _at(stratum: Mapping[str, Any]) -> str:
    settings = ", ".join(f"{key} {_shown(value)}" for key, value in stratum.items())
    return f" at {settings}" if settings else ""


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        whole = [v for v in value if isinstance(v, int)]
        if len(whole) > 2 and whole == list(range(whole[0], whole[0] + len(value))):
            return f"{whole[0]} to {whole[-1]}"
        return ", ".join(map(str, value))
    text = repr(value) if not isinstance(value, str) else value
    return text if len(text) < 60 else f"{text[:12]}..."
