"""The command `bnhead study`."""

import dataclasses
import importlib
import pathlib
import shlex
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bnhead.cli import exits
from bnhead.cli.flags import Command
from bnhead.errors import UsageError, nearest
from bnhead.studies.plan import OWNED, Plan, make
from bnhead.studies.pool import Job
from bnhead.studies.study import STUDIES, Study, named
from bnhead.training.config import TrainConfig

ENGINES = ("local", "ray")
MOST_SEEDS = 10_000  # a study that needs more has too small a margin
EXIT_FAILED = 7


def _own(name: str, kind: type, default, text: str) -> tuple:
    return name, kind, dataclasses.field(default=default, metadata={"help": text})


Request = dataclasses.make_dataclass(
    "Request",
    [
        _own("study", str, "", f"Name of the study: {', '.join(STUDIES)}."),
        _own("seeds", int, 10, "Number of seeds, 0 and up. Claiming no difference may need 15 to 20."),
        _own("dir", str, "", "Directory of the study. Default: studies/<name>."),
        _own("engine", str, "local", "What does the runs: local processes, or a ray cluster (RAY_ADDRESS)."),
        _own(
            "workers",
            int,
            0,
            "Runs at a time. 0 is one for each core, of this machine or of the Ray cluster; on a "
            "GPU, give what its memory holds.",
        ),
        _own(
            "delta",
            float,
            0.01,
            "A difference smaller than this is not material, in units of the primary metric: 0.01 is one "
            "point of accuracy.",
        ),
        _own("alpha", float, 0.05, "Error rate of each claim, over all comparisons of the study."),
        _own("dry_run", bool, False, "Show runs, commands and an estimate of time, and do nothing."),
        _own(
            "amend",
            bool,
            False,
            "Go on in a directory whose plan has another delta, alpha or code, or fewer seeds. The report "
            "says exploratory from then on.",
        ),
        *(
            (spec.name, spec.type, dataclasses.field(default=spec.default, metadata=spec.metadata))
            for spec in dataclasses.fields(TrainConfig)
            if spec.name not in OWNED
        ),
    ],
    frozen=True,
)


COMMAND = Command(
    "bnhead study",
    Request,
    "Trains every head of a study with every seed and judges what may be concluded. Every flag of `bnhead "
    f"train` except {', '.join(f'--{name}' for name in OWNED if name != 'dry_run')} applies to all runs. The "
    "same command continues a study that was stopped.",
    "Exit status: 0 ok, 2 usage, 3 directory, 4 data, 6 the disk is full, 7 runs failed (the same command "
    "repeats them), 130 interrupted.",
    positional="study",
    refused={name: "the study sets it" for name in OWNED},
)


def main(arguments: Sequence[str]) -> int:
    """Runs the command and returns its exit status. Without arguments it lists the studies."""
    if not arguments:
        return exits.run(COMMAND.program, lambda: print(listing()) or 0)
    return COMMAND.run(arguments, lambda request: _study(request, *_planned(request, arguments)))


def listing() -> str:
    """The studies there are, each with its question and its heads."""
    lines = ["usage: bnhead study NAME [--seeds=10] [--dir=DIR] [--flag=value ...]"]
    for name in STUDIES:
        study = named(name)
        strata = [dict(stratum) for stratum in study.strata(TrainConfig())]
        lines += ["", f"{name}", f"  {study.question}", f"  {', '.join(study.heads)}"]
        lines += [f"  {key}: {', '.join(f'{s[key]:g}' for s in strata)}" for key in strata[0]]
    return "\n".join(lines)


def plan_of(arguments: Sequence[str]) -> tuple[Request, Plan, dict[str, Any]]:
    """The flags of a command line, its plan, and the settings of all runs that change no result.

    Raises:
        UsageError: a flag that is unknown, malformed or set by the study, or a bad value.
    """
    request = COMMAND.parse(arguments)
    return request, *_planned(request, arguments)


def _planned(request: Request, arguments: Sequence[str]) -> tuple[Plan, dict[str, Any]]:
    """The plan that a command line asks for, and the settings of all runs that change no result.

    Args:
        request: the parsed flags.
        arguments: the command line, which shows flags that are given at their default.

    Raises:
        UsageError: a bad value, or a flag that the study varies.
    """
    study = named(request.study)
    _check(request, study, arguments)
    fields = {spec.name for spec in dataclasses.fields(TrainConfig)} - set(OWNED)
    base = TrainConfig(**{name: getattr(request, name) for name in fields})
    seeds = range(request.seeds)
    plan = make(request.study, study, base, seeds=seeds, delta=request.delta, alpha=request.alpha)
    settings = base.settings()
    return plan, {name: getattr(base, name) for name in fields if name not in settings}


def _check(request: Request, study: Study, arguments: Sequence[str]) -> None:
    if request.engine not in ENGINES:
        hint = nearest(request.engine, ENGINES)
        raise UsageError(f"engine {request.engine!r} is not known{hint} (there are {', '.join(ENGINES)})")
    for name, least in (("seeds", 1), ("workers", 0)):
        value = getattr(request, name)
        if value < least or (name == "seeds" and value > MOST_SEEDS):
            most = f" and at most {MOST_SEEDS:,}" if name == "seeds" else ""
            raise UsageError(f"{name} must be at least {least}{most}, got {value}")
    if "://" in request.dir:
        raise UsageError(f"dir must be a path on a disk of this machine, got {request.dir!r}")
    given = {argument.lstrip("-").partition("=")[0] for argument in arguments}
    for name in study.varies:
        if name in given or getattr(request, name) != getattr(TrainConfig, name):
            raise UsageError(f"flag --{name} is what study {request.study} varies; leave it out")


def _study(request: Request, plan: Plan, elsewhere: Mapping[str, Any]) -> int:
    directory = pathlib.Path(request.dir or f"studies/{request.study}")
    if request.dry_run:
        print(dry_run(plan, directory, elsewhere), flush=True)
        with _pool(request, 1) as pool:
            count = min(request.workers or _engine(request).cores(), len(plan.runs))
            print("\n" + estimate(plan, directory, count, lambda: _watched(plan, directory, elsewhere, pool)))
        return 0
    from bnhead.studies import runner
    from bnhead.studies.directory import held

    with held(directory):
        with _pool(request, len(plan.runs)) as pool:
            plan = runner.prepare(plan, directory, pool, amend=request.amend, elsewhere=elsewhere)
            print(f"{request.study}: {plan.question}\n{len(plan.runs)} runs in {directory}", flush=True)
            runner.fill(plan, directory, pool, elsewhere=elsewhere)
        verdict = runner.conclude(plan, directory)
        from bnhead import report

        report.build(directory)
    print("\n".join(["", *(one["sentence"] for one in verdict["comparisons"])]))
    for reason in verdict["exploratory"]:
        print(f"exploratory: {reason}")
    print(f"report  {directory / 'report.html'}")
    return EXIT_FAILED if verdict["flow"]["failed"] else 0


def _engine(request: Request):
    return importlib.import_module(f"bnhead.studies.pool_{request.engine}")


def _pool(request: Request, runs: int):
    engine = _engine(request)
    return engine.Pool(min(request.workers or engine.cores(), runs))


def dry_run(plan: Plan, directory: pathlib.Path, elsewhere: Mapping[str, Any]) -> str:
    """Ids and commands of all runs."""
    from bnhead.studies import worker

    threads = " ".join(f"{name}={value}" for name, value in worker.ENVIRONMENT.items())
    lines = [f"{plan.study}: {plan.question}", f"each run with {threads}", ""]
    for run in plan.runs:
        lines.append(f"{run.id}  {command_of(plan.config(run, directory, elsewhere))}")
    return "\n".join(lines)


def command_of(config: TrainConfig) -> str:
    """The `bnhead train` command of a run: the flags that are not at their defaults."""
    # the learning rate's default is the task's
    plain = {**dataclasses.asdict(TrainConfig(task=config.task)), "task": TrainConfig.task}
    given = {
        name: value
        for name, value in dataclasses.asdict(config).items()
        if value != plain[name] or name in ("head", "seed")
    }
    return " ".join(["bnhead train", *(shlex.quote(f"--{name}={value}") for name, value in given.items())])


def estimate(plan: Plan, directory: pathlib.Path, workers: int, watch: Callable[[], float | None]) -> str:
    """How long the runs take that are not done, going by those that are, or by the first steps of one.

    Args:
        plan: the plan.
        directory: the study's; it need not be there.
        workers: runs at a time.
        watch: gives the seconds of a run, from its first steps; None where that cannot be said.
    """
    from bnhead.studies.outcomes import SCORED, read
    from bnhead.studies.progress import duration

    done = [one for one in read(plan, directory, {}) if one.status in SCORED]
    left = len(plan.runs) - len(done)
    text = f"{len(plan.runs)} runs of {plan.settings['epochs']} epochs, {len(done)} done, {workers} at a time"
    if not left:
        return text
    seconds = [one.environment["seconds"] for one in done if one.environment.get("seconds")]
    each, by = (statistics.median(seconds), "those done") if seconds else (watch(), "the first steps of one")
    if each is None:
        return f"{text}; how long they take is known when the first has ended"
    return f"{text}: about {duration(each * left / workers)}, going by {by}"


def _watched(plan: Plan, directory: pathlib.Path, elsewhere: Mapping[str, Any], pool: Any) -> float | None:
    from bnhead.studies import runner, worker

    job = Job("pace", "", plan.config(plan.runs[0], directory, elsewhere), worker.pace)
    return runner.outcome(pool, job)["seconds"]
