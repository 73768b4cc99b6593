"""The command `bnhead study`."""

import contextlib
import dataclasses
import functools
import importlib
import pathlib
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from bnhead import texts
from bnhead.cli import exits, train
from bnhead.cli.flags import Command
from bnhead.cli.tables import table
from bnhead.data.catalog import check_embedded
from bnhead.errors import UsageError, nearest
from bnhead.studies.chain import CAUSES
from bnhead.studies.claims import OF_NAME
from bnhead.studies.commands import DEFAULTS
from bnhead.studies.custom import custom_study
from bnhead.studies.measures import MEASURES
from bnhead.studies.plan import OWNED, Plan, make
from bnhead.studies.pool import Job
from bnhead.studies.study import STUDIES, Study, named_study
from bnhead.studies.wording import (
    ascii_difference,
    headline_lines,
    leading_rows,
    range_in_ascii,
    unit as unit_of,
    verdict_table,
)
from bnhead.training.config import TrainConfig, setting

ENGINES = ("local", "ray")
MOST_SEEDS = 10_000  # a study that needs more has too small a margin
EXIT_FAILED = 7
OpenPool = Callable[[int], contextlib.AbstractContextManager]
BuildReport = Callable[[pathlib.Path, Mapping[str, Any]], object]


def _flag(name: str, value_type: type, default, text: str) -> tuple:
    return name, value_type, setting(default, text)


Request = dataclasses.make_dataclass(
    "Request",
    [
        _flag("study", str, "", f"Name of the study: {', '.join(STUDIES)}. Leave it out with --heads."),
        _flag("heads", str, "", "Heads of your choice, the control first: --heads=fc,bn_fc,fastai."),
        _flag("control", str, "", "The control, if it is not the first of --heads."),
        _flag(
            "vary",
            str,
            "",
            "A setting and its values: --vary=fc_units=64,256,1024 compares the heads at each of them.",
        ),
        _flag("name", str, DEFAULTS["name"], "Name of a study of --heads."),
        _flag("question", str, "", "Question of a study of --heads, one sentence for the report."),
        _flag(
            "outcome",
            str,
            "",
            f"Primary outcome of a study of --heads: {', '.join(MEASURES)}. Default: accuracy or r2, by "
            "the task. The other outcomes are judged too, as secondary ones.",
        ),
        _flag(
            "seeds",
            str,
            DEFAULTS["seeds"],
            "Number of seeds, or several: the study is judged after each, and stops at the first that "
            "decides.",
        ),
        _flag("first_seed", int, 0, "The first seed; a study that is to confirm another has new seeds."),
        _flag("dir", str, "", "Directory of the study. Default: studies/<name>."),
        _flag(
            "engine",
            str,
            "local",
            "Workers that do the runs: local processes, or a ray cluster (RAY_ADDRESS).",
        ),
        _flag(
            "workers",
            int,
            0,
            "Runs at a time. 0 is one per core of this machine or of the Ray cluster; on a GPU of this "
            "machine, as many as the pace of the first run shows to gain.",
        ),
        _flag(
            "delta",
            float,
            DEFAULTS["delta"],
            "A smaller difference of the primary outcome is not material: 0.01 is one point of accuracy. "
            "0 is the usual margin of the outcome.",
        ),
        _flag(
            "alpha",
            float,
            DEFAULTS["alpha"],
            "Error rate, over all comparisons and looks of the study together.",
        ),
        _flag(
            "commands",
            str,
            "",
            "Write the command of each missing run to this file, a line each, and train nothing: for a "
            "cluster. The same command without it judges the runs.",
        ),
        _flag("dry_run", bool, False, "Print runs, commands and estimated time, and write nothing."),
        _flag(
            "amend",
            bool,
            False,
            "Continue in a directory whose plan has other margins, alpha, looks or code. The "
            "report calls the study exploratory from then on.",
        ),
        *(
            (spec.name, spec.type, dataclasses.field(default=spec.default, metadata=spec.metadata))
            for spec in dataclasses.fields(TrainConfig)
            if spec.name not in OWNED
        ),
    ],
    frozen=True,
)


GROUPS = {
    "Study": ("seeds", "first_seed", "delta", "alpha", "dir", "amend", "dry_run"),
    "Heads of your choice": ("heads", "control", "vary", "outcome", "name", "question"),
    "Workers": ("engine", "workers", "commands"),
    **{
        heading: tuple(name for name in names if name not in OWNED) for heading, names in train.GROUPS.items()
    },
}
COMMAND = Command(
    "bnhead study",
    Request,
    "Trains every head of a study with every seed and judges what may be concluded. Every flag of `bnhead "
    f"train` except {', '.join(f'--{name}' for name in OWNED if name != 'dry_run')} applies to all runs. The "
    "same command continues a study that was stopped.",
    "Exit status: 0 ok, 2 usage, 3 directory, 4 data, 6 the disk is full, 7 runs failed (the same command "
    "repeats them), 130 interrupted.",
    positional="study",
    optional=True,
    aliases={"lr": "learning_rate", "frozen": "freeze_backbone"},
    examples=(
        ("bn_before_fc", "The question of the package on the embedded digits: 20 to 80 runs."),
        ("bn_before_fc --seeds=3 --epochs=5", "A first look in minutes."),
        ("placement --dataset=cifar10 --epochs=60 --seeds=15", "Four placements on a data set of TFDS."),
        ("--heads=fc,bn_fc,fastai --dataset=cifar10", "Heads of your choice; the first is the control."),
        ("width --dry_run", "Lists the runs and estimates their time; writes nothing."),
    ),
    groups=GROUPS,
    refused={name: "the study sets it" for name in OWNED},
)


def main(
    arguments: Sequence[str], open_pool: OpenPool | None = None, build_report: BuildReport | None = None
) -> int:
    """Runs the command and returns its exit status. Without arguments it lists the studies.

    Args:
        arguments: the command line.
        open_pool: number of workers -> pool of workers, a context manager; None is the engine's.
        build_report: `(directory, runs)` writes the report; None is `bnhead.report.build`.
    """
    if not arguments:
        return exits.run(COMMAND.program, lambda: print(listing()) or 0)
    return COMMAND.run(
        arguments,
        lambda request: run_study(
            request, *planned(request, _study_of(request), arguments), open_pool, build_report
        ),
    )


def listing() -> str:
    """The named studies, each with its question and its heads."""
    lines = [
        "usage: bnhead study NAME [--flag=value ...]",
        "       bnhead study --heads=HEAD,HEAD,... [--flag=value ...]",
    ]
    first, *_, last = (int(look) for look in Request.seeds.split(","))
    for name in STUDIES:
        study = named_study(name)
        cells = study.cells(TrainConfig())
        strata = [dict(stratum) for stratum in study.strata(TrainConfig())]
        rows = [study.question, ", ".join(dict.fromkeys(head for head, _ in cells))]
        rows += [f"{key}: {', '.join(f'{s[key]:g}' for s in strata)}" for key in strata[0]]
        if study.rivals:
            rivals = ", ".join(f"{key} {value}" for rival in study.rivals for key, value in rival.items())
            claims = "; further cells check published claims" * bool(study.checks)
            rows.append(f"{study.heads[0]} also with {rivals}{claims}")
        most = len(cells) * last
        rows.append(f"{len(cells) * first} runs with {first} seeds; up to {most} where {first} leave it open")
        lines += ["", name, *(texts.wrapped(row, indent=2) for row in rows)]
    lines += ["", f"next  {texts.command()} study bn_before_fc --dry_run"]
    return "\n".join(lines)


def plan_of(arguments: Sequence[str]) -> tuple[Request, Plan, dict[str, Any]]:
    """The flags of a command line, its plan, and the settings of all runs that change no result.

    Raises:
        UsageError: a flag that is unknown, malformed or set by the study, or a bad value.
    """
    request = COMMAND.parse(arguments)
    return request, *planned(request, _study_of(request), arguments)


def planned(request: Any, study: Study, arguments: Sequence[str]) -> tuple[Plan, dict[str, Any]]:
    """The plan of parsed flags, and the settings of all runs that change no result.

    Args:
        request: the flags.
        study: what they ask for.
        arguments: the command line, which shows flags that are given at their default.
    """
    if request.engine not in ENGINES:
        hint = nearest(request.engine, ENGINES)
        raise UsageError(f"engine {request.engine!r} is not known{hint} (engines: {', '.join(ENGINES)})")
    if request.workers < 0:
        raise UsageError(f"workers must be at least 0, got {request.workers}")
    looks = _looks(request.seeds)
    if "://" in request.dir:
        raise UsageError(f"dir must be a path on a disk of this machine, got {request.dir!r}")
    # without the study's name, which may be that of a flag: batch_size
    flags = {_field(a[2:].partition("=")[0]) for a in arguments if a.startswith("--")}
    for varied in study.varies:
        if {varied, f"no{varied}"} & flags or getattr(request, varied, None) not in (
            None,
            getattr(TrainConfig, varied),
        ):
            raise UsageError(f"flag --{varied} is what the study varies; leave it out")
    fields = {spec.name for spec in dataclasses.fields(TrainConfig)} - {*OWNED}
    fields &= {spec.name for spec in dataclasses.fields(request)}
    base = TrainConfig(**{name: getattr(request, name) for name in fields})
    used = study.base(base)
    for name in fields & flags:
        if getattr(used, name) != getattr(base, name):
            raise UsageError(
                f"flag --{name}: study {study_name(request)} has {getattr(used, name)!r} in place of "
                f"{getattr(base, name)!r}; leave the flag out, or give another value"
            )
    numbers = {name: getattr(request, name) for name in ("first_seed", "delta", "alpha")}
    plan = make(study_name(request), study, base, looks=looks, **numbers)
    settings = base.settings()
    return plan, {name: getattr(base, name) for name in fields if name not in settings}


def _field(flag: str) -> str:
    """The field that a flag's name stands for: "fc-units" -> "fc_units", "lr" -> "learning_rate"."""
    name = flag.replace("-", "_")
    return COMMAND.aliases.get(name, name)


def _looks(text: str) -> list[int]:
    """The looks in `--seeds`: "10,20,40" -> [10, 20, 40]."""
    try:
        looks = [int(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"seeds must be whole numbers such as 10 or 10,20,40, got {text!r:.60}") from None
    if max(looks) > MOST_SEEDS:
        raise UsageError(f"seeds must be at most {MOST_SEEDS:,}, got {max(looks)}")
    return looks


def _study_of(request: Request) -> Study:
    """The study that the flags name, or describe by its heads."""
    if request.heads:
        if request.study:
            raise UsageError(f"heads must be left out for study {request.study!r}, which has its own")
        key, *values = request.vary.split("=", 1)
        options = {name: getattr(request, name) for name in ("control", "question", "outcome")}
        vary = "=".join([_field(key), *values])
        return custom_study(request.name, request.heads.split(","), vary=vary, **options)
    if not request.study:
        raise UsageError(f"a study or --heads is missing (studies: {', '.join(STUDIES)})")
    study = named_study(request.study)
    for name in ("control", "vary", "name", "question", "outcome"):
        if getattr(request, name) != getattr(Request, name):
            raise UsageError(f"flag --{name} belongs to a study of --heads; {request.study} has its own")
    return study


def run_study(
    request: Any,
    plan: Plan,
    local: Mapping[str, Any],
    open_pool: OpenPool | None = None,
    build_report: BuildReport | None = None,
) -> int:
    """Does the runs that are not done, judges them and writes the report.

    Args:
        request: the flags.
        plan: the plan.
        local: settings of all runs that change no result, such as `data_dir`.
        open_pool, build_report: as of `main`.
    """
    engine = importlib.import_module(f"bnhead.studies.pool_{request.engine}")
    paced = {"paced": not request.workers} if request.engine == "local" else {}
    stacks = request.engine == "local" and any(plan.run_settings(run)["freeze_backbone"] for run in plan.runs)
    if open_pool is None:
        open_pool = functools.partial(engine.Pool, **paced)
        if stacks:
            from bnhead.studies import pool_frozen

            open_pool = functools.partial(pool_frozen.open_pool, open_pool)
    workers = min(request.workers or engine.cores(), len(plan.runs))
    directory = pathlib.Path(request.dir or f"studies/{plan.study}")
    if request.dry_run:
        from bnhead.studies import outlook, runner, worker

        print(outlook.list_commands(plan, directory, local), flush=True)
        with open_pool(1) as pool:
            job = Job("pace", "", plan.config(plan.runs[0], directory, local), worker.pace)
            pace = lambda: runner.result_of(pool, job)["seconds"]  # noqa: E731
            print("\n" + outlook.estimate_time(plan, directory, workers, pace))
        return 0
    from bnhead.studies.directory import locked_study, read_plan, settled_plan

    check_embedded(request.dataset, request.task, request.batch_size)
    with locked_study(directory):
        if current := read_plan(directory):  # another plan is refused before TensorFlow is imported
            settled_plan(current, plan, amend=request.amend)
        print(texts.wrapped(f"{plan.study}: {plan.question}", hanging=2))
        looks = " or ".join(str(seeds * len(plan.cells)) for seeds in plan.looks)
        by_pace = paced.get("paced") and engine.sees_gpu()
        number = f"as many as gain on the GPU, up to {workers}," if by_pace else workers
        number = "those that share features together, of the others " * stacks + str(number)
        print(texts.wrapped(f"{looks} runs in {directory}, {number} at a time", hanging=2), flush=True)
        from bnhead.studies import outlook, runner, worker  # these import SciPy, after the first lines

        with open_pool(workers) as pool:
            if current is None and sys.stderr.isatty():
                texts.notice(f"loading TensorFlow and {request.dataset} ...")
            plan = runner.prepare(plan, directory, pool, amend=request.amend, machine_fields=local)
            if plan.causes and not request.commands:
                job = Job("pace", "", plan.config(plan.runs[0], directory, local), worker.pace)
                pace = lambda: runner.result_of(pool, job)["seconds"]  # noqa: E731
                print(texts.wrapped(outlook.estimate_time(plan, directory, workers, pace)), flush=True)
            for line in outlook.plan_cautions(plan):
                print(texts.wrapped(f"warning: {line}", hanging=2), flush=True)
            if request.commands:
                print(outlook.write_commands(plan, directory, local, pathlib.Path(request.commands)))
                return 0
            verdict, outcomes = runner.finish_study(plan, directory, pool, machine_fields=local)
        if build_report is None:
            from bnhead.report import build as build_report
        build_report(directory, {outcome.run.id: outcome.files for outcome in outcomes})
    print(f"\n{format_verdict(plan, verdict)}\n\n{format_next(request, verdict, directory)}")
    return EXIT_FAILED if verdict["flow"]["failed"] else 0


def format_verdict(plan: Plan, verdict: Mapping[str, Any]) -> str:
    """The end of a study: sentences for one comparison, a table for several."""
    comparisons = verdict["comparisons"]
    if len(comparisons) == 1:
        lines = [texts.wrapped(row["sentence"]) for row in leading_rows(verdict)]
    else:
        title, headings, rows = verdict_table(plan, verdict)
        lines = [*map(texts.wrapped, headline_lines(plan, verdict)), "", texts.wrapped(title)]
        lines.append(table(headings, rows, right=("diff.",)))
    lines += _cause_lines(plan, verdict)
    lines += _claim_lines(plan, verdict)
    lines += [texts.wrapped(f"exploratory: {reason}", hanging=2) for reason in verdict["exploratory"]]
    return "\n".join(lines)


def _cause_lines(plan: Plan, verdict: Mapping[str, Any]) -> Iterator[str]:
    """The cause tables, each after its sentence."""
    from bnhead.studies.causes import cause_rows, cause_sentence  # imports SciPy, which the list does without

    for one in verdict.get("causes", ()):
        sentence = cause_sentence(one, plan.comparisons[0].control, plan.comparisons[0].treatment)
        yield "\n" + texts.wrapped(sentence)
        if one["rows"]:
            unit = f", {unit_of(one['outcome'])}" * bool(unit_of(one["outcome"]))
            headings = ["cause", f"diff.{unit}", f"interval, {100 * one['level']:.4g} %", "share"]
            yield "\n" + table(headings, cause_rows(one), right=(headings[1], "share"))
    if verdict.get("causes"):
        yield "\n" + texts.wrapped(
            "* The interval excludes 0. The intervals of a table hold together with "
            f"{100 * (1 - plan.alpha):g} %. The rows above the gap add up to the row below, for every seed."
        )


def _claim_lines(plan: Plan, verdict: Mapping[str, Any]) -> Iterator[str]:
    """The published claims, a table for each place of the norm."""
    rows = verdict.get("claims", {}).get("rows", ())
    for head in dict.fromkeys(row["head"] for row in rows):
        cells = []
        for row in (row for row in rows if row["head"] == head):
            claim, name = OF_NAME[row["claim"]], row["outcome"]
            mean = ascii_difference(row["mean"], name) if row["interval"] else "-"
            cells.append(
                [claim.number, claim.title, mean, range_in_ascii(row["interval"], name), row["word"]]
            )
        title = (
            f"published claims about {head}, in points of balanced accuracy, for calibration of its error; "
            f"all intervals hold together with {100 * (1 - plan.alpha):g} %"
        )
        yield f"\n{texts.wrapped(title)}\n" + table(
            ["", "claim", "gain", "interval", "verdict"], cells, right=("gain",)
        )


def format_next(request: Request, verdict: Mapping[str, Any], directory: pathlib.Path) -> str:
    """The report's path and the commands that are useful after a study."""
    rows = [("report", str(directory / "report.html"))]
    if verdict["flow"]["failed"]:
        rows.append(("next", "the same command repeats the runs that failed"))
    elif verdict["next"]:
        rows.append(("to decide", decisive_step(request, verdict["next"], directory)))
    rows.append(("to check", f"{texts.command()} verify {shlex.quote(str(directory))}"))
    return texts.labelled(rows, 11, whole=True)


def decisive_step(request: Request, step: Mapping[str, Any], directory: pathlib.Path) -> str:
    """What would decide an undecided study: a command, or a sentence where no command can."""
    if step["kind"] == "look":
        return command_of_study(request)
    if step["kind"] == "images":
        return "more test images, not more seeds: most of the interval is from the test images"
    if step["seeds"] is None:
        return "over 1,000 seeds would be needed; a larger --delta is decided sooner"
    first = request.first_seed + max(_looks(request.seeds))
    return command_of_study(
        request,
        seeds=str(step["seeds"]),
        first_seed=first,
        dir=f"{directory}_from_seed_{first}",
        amend=False,  # the plan of a new directory
    )


def study_name(request: Any) -> str:
    """The name of the study that the flags ask for; those of `bnhead diagnose` have none."""
    return CAUSES if not hasattr(request, "study") else request.study or request.name


def command_of_study(request: Any, **changes) -> str:
    """The command of a study: the flags that are not at their defaults, some of them changed."""
    flags = {
        spec.name: changes.get(spec.name, getattr(request, spec.name))
        for spec in dataclasses.fields(request)
        if spec.name != "study" and changes.get(spec.name, getattr(request, spec.name)) != spec.default
    }
    command = ["study", *filter(None, [request.study])] if hasattr(request, "study") else ["diagnose"]
    return shlex.join([*texts.command().split(), *command, *(f"--{name}={v}" for name, v in flags.items())])
