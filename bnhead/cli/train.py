"""The command `bnhead train`, which `train.py` is as well: flags -> TrainConfig -> a run."""

import sys
from collections.abc import Mapping, Sequence

from bnhead import texts
from bnhead.cli import flags
from bnhead.devices import startup
from bnhead.training.config import TrainConfig

EXIT_DIVERGED = 5
_HEADLINE = "Trains one backbone with one head, counts the head's dead units, and leaves a run directory."
_STATUS = (
    "Exit status: 0 ok, 2 usage, 3 run directory, 4 data, 5 diverged or failed to learn, 6 memory or disk "
    "is full, 8 the file of the trained model gives other outputs than the model, 130 or 143 interrupted by "
    "SIGINT or SIGTERM; the same command then goes on."
)


def main(arguments: Sequence[str], program: str = "bnhead train") -> int:
    """Runs the command and returns its exit status.

    Args:
        arguments: the command line after the program's name.
        program: the name that messages begin with.
    """
    if flags.asks_for_help(arguments):
        return flags.told(usage(program))
    return flags.reported(program, _train, arguments)


def parse(arguments: Sequence[str]) -> TrainConfig:
    """The config that a command line asks for.

    Raises:
        UsageError: a flag that is unknown, given twice or malformed, a stray argument, or a bad value.
    """
    return flags.parse(TrainConfig, arguments)


def usage(program: str) -> str:
    """The text of `--help`."""
    return flags.usage(TrainConfig, program, _HEADLINE, _STATUS)


def _train(arguments: Sequence[str]) -> int:
    config = parse(arguments)
    with startup.quiet():
        from bnhead.devices.environment import device_names
        from bnhead.devices.replicas import open_replicas

        replicas = open_replicas(
            config.distribution, config.batch_size, sync_bn=config.sync_bn, ghost_sizes=config.ghost_sizes
        )
        device_names()
    import absl.logging

    from bnhead.cli.console import EpochLines, summary
    from bnhead.training.run import train
    from bnhead.training.signals import obey_termination

    obey_termination()
    absl.logging.set_verbosity(absl.logging.ERROR)  # TFDS' notes on what it looks up
    directory = replicas.processes.directory(config.directory)
    if config.dry_run:
        from bnhead.training.estimate import estimate, format_estimate

        estimated = estimate(config)
        if directory.writable:
            print(format_estimate(estimated, config))
        return 0
    result = None if config.overwrite else directory.finished_result(config.settings())
    if not directory.writable:  # it computes with the others, and the first process prints for all
        result = result or train(config)
    elif result is not None:
        environment = directory.read("environment.json")
        print(texts.printable(f"{config.directory} holds this run, finished; its result:"))
        _say_changes(config, directory.changes())
    else:
        with EpochLines(config) as lines:
            result = train(config, [lines])
        environment = directory.read("environment.json")
    if directory.writable:
        print(texts.printable(summary(config, result, (environment or {}).get("seconds"))))
    return EXIT_DIVERGED if result["status"] in ("diverged", "failed_to_learn") else 0


def _say_changes(config: TrainConfig, changes: Mapping[str, str]) -> None:
    """Tells of the files of a finished run that are not as it left them."""
    if changes:
        told = ", ".join(f"{name} {text}" for name, text in changes.items())
        line = f"bnhead: {config.directory}: {told}; --overwrite trains it again"
        print(texts.one_line(line), file=sys.stderr)
