"""Flags made from a dataclass: one for each field, with the same name; its `help` metadata is the help text.

Flags are checked, and help is given, before TensorFlow is imported.
"""

import dataclasses
import os
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from absl import flags

from bnhead.devices.startup import streams
from bnhead.errors import (
    REPORTED,
    Interrupted,
    ResourcesError,
    UsageError,
    nearest,
)
from bnhead.runs import atomic
from bnhead.texts import one_line

Settings = TypeVar("Settings")
_DEFINE = {
    str: flags.DEFINE_string,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    bool: flags.DEFINE_bool,
}


def parse(kind: type[Settings], arguments: Sequence[str], *, positional: str = "") -> Settings:
    """The settings that a command line asks for.

    `--flagfile=PATH` reads flags from a file, one in a line, or from a run's `config.json`; what the command
    line says itself counts for more.

    Args:
        kind: the dataclass.
        arguments: the command line after the program's name.
        positional: the field that is written without its name; empty when there is none.

    Raises:
        UsageError: a flag that is unknown, given twice or malformed, a stray or missing argument, or a bad
            value.
    """
    fields = _fields(kind, positional)
    defined = flags.FlagValues()  # of our own: TFDS and absl's logging keep theirs in the global one
    for name, spec in fields.items():
        _DEFINE[spec.type](name, spec.default, spec.metadata["help"], flag_values=defined)
    arguments = _with_flagfile(arguments, fields)
    try:
        rest = defined(["bnhead", *arguments])[1:]
    except flags.UnrecognizedFlagError as error:
        there = f"there are {', '.join(f'--{name}' for name in fields)}"
        raise UsageError(
            f"flag --{error.flagname} is not known{nearest(error.flagname, fields)} ({there})"
        ) from None
    except flags.Error as error:
        raise UsageError(str(error).replace("\n", " ").removeprefix("flag ")) from None
    values = {name: defined[name].value for name in fields}
    if positional:
        if not rest:
            raise UsageError(f"{positional} is missing; write it behind the command")
        values[positional] = rest.pop(0)
    if rest:
        raise UsageError(f"argument {rest[0]!r} is not a flag; every setting is written --name=value")
    return kind(**values)


def _with_flagfile(arguments: Sequence[str], known: Mapping[str, object]) -> list[str]:
    """The arguments with a flag file's flags in its place, less those that are given beside it.

    Raises:
        UsageError: a flag that is given twice in one place, or a file that cannot be read.
    """
    if "--flagfile" in arguments:
        raise UsageError("flag --flagfile needs a value, as in --flagfile=PATH")
    paths = [a.partition("=")[2] for a in arguments if a.startswith("--flagfile")]
    own = [a for a in arguments if not a.startswith("--flagfile")]
    if len(paths) > 1:
        raise UsageError(f"flag --flagfile is given {len(paths)} times")
    given = _names(own, known)
    inside = _flags_in(paths[0]) if paths else []
    names = _names(inside, known)
    return [a for a, name in zip(inside, names, strict=True) if name not in given] + own


def _flags_in(path: str) -> list[str]:
    try:
        with open(path) as file:
            text = file.read()
        if text.lstrip().startswith("{"):
            return [f"--{name}={value}" for name, value in atomic.parse_json(text).items()]
    except (OSError, ValueError, AttributeError) as error:
        why = getattr(error, "strerror", None) or error
        raise UsageError(f"flagfile {path!r} cannot be read: {why}") from None
    lines = [line.strip() for line in text.splitlines()]
    found = [line for line in lines if line and not line.startswith(("#", "//"))]
    for line in found:
        if not line.startswith("--") or line == "--" or line.startswith("--flagfile"):
            raise UsageError(f"flagfile {path!r} holds a line that is no flag: {line!r}")
    return found


def _names(arguments: Sequence[str], known: Mapping[str, object]) -> list[str]:
    """Names of the flags among the arguments, each of which may be given once."""
    given = [a.split("=")[0].lstrip("-") for a in arguments if a.startswith("--") and a != "--"]
    names = [name.removeprefix("no") if name not in known else name for name in given]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"flag --{name} is given {names.count(name)} times")
    return names


def split(arguments: Sequence[str], known: Mapping[str, object]) -> tuple[dict[str, str], list[str]]:
    """The flags that are given, as text, and the other arguments: for commands that take several of those.

    Args:
        arguments: the command line after the program's name.
        known: name of each flag -> its default, an example of a value.

    Raises:
        UsageError: a flag that is unknown, given twice or without a value.
    """
    given: dict[str, str] = {}
    others = []
    for argument in arguments:
        name, equals, value = argument.lstrip("-").partition("=")
        if not argument.startswith("-"):
            others.append(argument)
        elif name not in known:
            there = ", ".join(f"--{flag}" for flag in known)
            raise UsageError(f"flag --{name} is not known{nearest(name, known)} (there are {there})")
        elif not equals:
            raise UsageError(f"flag --{name} needs a value, as in --{name}={known[name] or 'FILE'}")
        elif name in given:
            raise UsageError(f"flag --{name} is given twice")
        else:
            given[name] = value
    return given, others


def usage(kind: type, program: str, headline: str, status: str, *, positional: str = "") -> str:
    """The text of `--help`."""
    lines = [f"usage: {program}{' ' + positional.upper() if positional else ''} [--flag=value ...]"]
    lines += ["", headline, ""]
    if positional:
        (spec,) = (spec for spec in dataclasses.fields(kind) if spec.name == positional)
        lines += [f"  {positional.upper()}", _wrapped(spec.metadata["help"])]
    for name, spec in _fields(kind, positional).items():
        shown = f"--[no]{name}" if spec.type is bool else f"--{name}={spec.default}"
        lines += [f"  {shown}", _wrapped(spec.metadata["help"])]
    lines += ["  --flagfile=PATH", _wrapped("A file with a flag in each line, or a run's config.json.")]
    return "\n".join([*lines, "", status])


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 100, initial_indent=" " * 4, subsequent_indent=" " * 4)


def asks_for_help(arguments: Sequence[str]) -> bool:
    """Whether a command line asks for help."""
    return bool({"--help", "-help", "-h"} & set(arguments))


def told(text: str) -> int:
    """Prints a text, as for help, and returns the exit status 0."""
    return reported("bnhead", lambda: print(text.rstrip()) or 0)


def reported(program: str, work: Callable[..., int], *arguments) -> int:
    """Returns the exit status of `work(*arguments)`; our errors become one line on stderr and theirs.

    Args:
        program: the name that messages begin with.
        work: the command.
        arguments: its arguments.
    """
    streams()
    try:
        status = work(*arguments)
        sys.stdout.flush()
        return status
    except REPORTED as error:
        print(f"{program}: {one_line(str(error))}", file=sys.stderr)  # paths can hold anything
        return error.exit_status
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno not in atomic.FULL:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left in the buffer
        print(f"{program}: stdout cannot be written: the disk is full", file=sys.stderr)
        return ResourcesError.exit_status
    except KeyboardInterrupt as error:
        print(f"{program}: {error if isinstance(error, Interrupted) else 'interrupted'}", file=sys.stderr)
        return error.exit_status if isinstance(error, Interrupted) else 130


def _fields(kind: type, positional: str) -> dict[str, dataclasses.Field]:
    return {spec.name: spec for spec in dataclasses.fields(kind) if spec.name != positional}
