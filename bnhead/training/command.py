"""The command `bnhead train`, which `train.py` is as well: flags -> TrainConfig -> a run.

One flag for each field of `TrainConfig`, made from the field. Flags are checked, and help is given, before
TensorFlow is imported.
"""

import dataclasses
import os
import sys
import textwrap
from collections.abc import Sequence

from absl import flags

from bnhead.errors import DataError, RunDirectoryError, UsageError, nearest
from bnhead.quiet import quiet
from bnhead.training.config import TrainConfig

EXIT_DIVERGED = 5
_HEADLINE = "Trains one backbone with one head, counts the head's dead units, and leaves a run directory."
_STATUS = "Exit status: 0 ok, 2 usage, 3 run directory, 4 data, 5 diverged, 130 interrupted."
_DEFINE = {
    str: flags.DEFINE_string,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    bool: flags.DEFINE_bool,
}


def main(arguments: Sequence[str], program: str = "bnhead train") -> int:
    """Runs the command and returns its exit status.

    Args:
        arguments: the command line after the program's name.
        program: the name that messages begin with.
    """
    if {"--help", "-help", "-h"} & set(arguments):
        print(usage(program))
        return 0
    try:
        config = parse(arguments)
        with quiet():
            import bnhead.training.run

            bnhead.training.run.devices()
        return _train(config)
    except (UsageError, RunDirectoryError, DataError) as error:
        print(f"{program}: {error}", file=sys.stderr)
        return error.exit_status
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        return 130


def parse(arguments: Sequence[str]) -> TrainConfig:
    """The config that a command line asks for.

    Raises:
        UsageError: a flag that is unknown, given twice or malformed, a stray argument, or a bad value.
    """
    defined = _flags()
    given = [a.split("=")[0].lstrip("-") for a in arguments if a.startswith("--") and a != "--"]
    names = [name.removeprefix("no") if name not in defined else name for name in given]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"flag --{name} is given {names.count(name)} times")
    try:
        rest = defined(["bnhead", *arguments])[1:]
    except flags.UnrecognizedFlagError as error:
        there = f"there are {', '.join(f'--{name}' for name in _fields())}"
        raise UsageError(
            f"flag --{error.flagname} is not known{nearest(error.flagname, _fields())} ({there})"
        ) from None
    except flags.Error as error:
        raise UsageError(str(error).replace("\n", " ").removeprefix("flag ")) from None
    if rest:
        raise UsageError(f"argument {rest[0]!r} is not a flag; every setting is written --name=value")
    return TrainConfig(**{name: defined[name].value for name in _fields()})


def usage(program: str) -> str:
    """The text of `--help`."""
    lines = [f"usage: {program} [--flag=value ...]", "", _HEADLINE, ""]
    for name, spec in _fields().items():
        shown = f"--[no]{name}" if spec.type is bool else f"--{name}={spec.default}"
        text = textwrap.fill(spec.metadata["help"], 100, initial_indent=" " * 4, subsequent_indent=" " * 4)
        lines += [f"  {shown}", text]
    return "\n".join([*lines, "", _STATUS])


def _fields() -> dict[str, dataclasses.Field]:
    return {spec.name: spec for spec in dataclasses.fields(TrainConfig)}


def _flags() -> flags.FlagValues:
    """A set of flags of our own: TFDS and absl's logging keep theirs in the global one."""
    defined = flags.FlagValues()
    for name, spec in _fields().items():
        _DEFINE[spec.type](name, spec.default, spec.metadata["help"], flag_values=defined)
    return defined


def _train(config: TrainConfig) -> int:
    import absl.logging

    from bnhead.training.console import EpochLines, summary
    from bnhead.training.records import RunDirectory
    from bnhead.training.run import finished_result, train

    absl.logging.set_verbosity(absl.logging.ERROR)  # TFDS' notes on what it looks up
    result = finished_result(config)
    if result is not None:
        print(f"{config.directory} holds this run, finished; its result:")
    else:
        with EpochLines(config) as lines:
            result = train(config, [lines])
    environment = RunDirectory(config.directory).read("environment.json") or {}
    print(summary(config, result, environment.get("seconds")))
    return EXIT_DIVERGED if result["status"] == "diverged" else 0
