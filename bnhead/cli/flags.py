"""Command lines made from dataclasses: a flag per field, with its name, default and `help` metadata.

Flags are checked, and help is printed, before TensorFlow is imported.
"""

import dataclasses
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from absl import flags

from bnhead import texts
from bnhead.cli import exits
from bnhead.errors import UsageError, nearest
from bnhead.runs import atomic
from bnhead.version import __version__

Settings = TypeVar("Settings")
Switch = bool | str  # a flag that is true, false or auto


class _SwitchParser(flags.BooleanParser):
    """Reads true, false and auto."""

    def parse(self, argument):
        return argument if argument == "auto" else super().parse(argument)


def _define_switch(name: str, default: bool | str, text: str, *, flag_values: flags.FlagValues) -> None:
    parser, serializer = _SwitchParser(), flags.ArgumentSerializer()
    flags.DEFINE_flag(flags.Flag(parser, serializer, name, default, text, boolean=True), flag_values)


_DEFINE = {
    str: flags.DEFINE_string,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    bool: flags.DEFINE_bool,
    Switch: _define_switch,
}
_VALUES = {int: "a whole number", float: "a number", bool: "true or false", Switch: "true, false or auto"}
_HELP_FLAGS = {"--help", "-help", "-h"}
WIDEST = 100  # columns of a help text; longer lines are hard to read


@dataclass(frozen=True)
class Command(Generic[Settings]):
    """A command of the terminal.

    Attributes:
        program: the name that usage and messages begin with, "bnhead train".
        settings: the dataclass of its flags. It checks its values and raises `UsageError`.
        headline: the purpose of the command, in a sentence or two.
        status: the last paragraph of the help text, the exit statuses.
        positional: the field that is written without its name; a field of type `tuple` takes all of them.
        optional: whether the positional argument can be left out.
        groups: headings of the help text and the fields under each. Without groups the flags are one list.
        refused: flags that a user may expect and that this command does not take, each with the reason.
        aliases: further names of fields: other name -> field.
        examples: command lines for the help text, without the program's name, each with its purpose.
    """

    program: str
    settings: type[Settings]
    headline: str
    status: str
    positional: str = ""
    optional: bool = False
    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    examples: Sequence[tuple[str, str]] = ()

    @property
    def _flags(self) -> dict[str, dataclasses.Field]:
        """The fields that are written with their name."""
        return {s.name: s for s in dataclasses.fields(self.settings) if s.name != self.positional}

    @property
    def _positional_field(self) -> dataclasses.Field | None:
        return next((s for s in dataclasses.fields(self.settings) if s.name == self.positional), None)

    @property
    def typed(self) -> str:
        """The program as it is typed: `python train.py`, `bnhead study`."""
        return f"python {self.program}" if self.program.endswith(".py") else self.program

    @property
    def _synopsis(self) -> str:
        positional = f" {_metavar(self._positional_field)}" if self.positional else ""
        positional = f" [{positional.strip()}]" if self.optional else positional
        return f"usage: {self.typed}{positional}{' [--flag=value ...]' if self._flags else ''}"

    def run(self, arguments: Sequence[str], work: Callable[[Settings], int]) -> int:
        """Prints the help text or calls `work(settings)`.

        Args:
            arguments: the command line after the program's name.
            work: does the command's work and returns the exit status.

        Returns:
            The exit status. Errors of bnhead become one line on stderr and their own status.
        """
        if _HELP_FLAGS & set(arguments):
            return exits.run(self.program, lambda: print(self.usage()) or 0)
        if "--version" in arguments:
            return exits.run(self.program, lambda: print(f"bnhead {__version__}") or 0)
        return exits.run(self.program, lambda: work(self.parse(arguments)))

    def parse(self, arguments: Sequence[str]) -> Settings:
        """The settings of a command line.

        `--flagfile=PATH` reads flags from a file, one per line, or from a run's `config.json`. Flags of the
        command line override those of the file. Dashes in a flag's name are read as underscores.

        Raises:
            UsageError: a flag that is unknown, repeated or malformed, a stray or missing argument, or a bad
                value.
        """
        fields = self._flags
        # Not the global FlagValues: TFDS and absl's logging register their flags there
        defined = flags.FlagValues()
        for name, spec in fields.items():
            _DEFINE[spec.type](name, spec.default, spec.metadata["help"], flag_values=defined)
        try:
            arguments = _with_flagfile(_underscored(arguments, self.aliases), fields, self.aliases)
            _check_values_present(arguments, fields)
            words = defined(["bnhead", *arguments])[1:]
        except flags.UnrecognizedFlagError as error:
            name = error.flagname
            if name in self.refused:
                raise UsageError(f"flag --{name} cannot be given: {self.refused[name]}") from None
            hint = nearest(name, fields) or ";"
            raise UsageError(f"flag --{name} is not known{hint} `{self.typed} --help` lists them") from None
        except flags.Error as error:
            raise UsageError(_malformed_value(str(error), fields)) from None
        values = {name: defined[name].value for name in fields}
        if self.positional:
            values[self.positional], words = self._positional_value(words)
        if words:
            raise UsageError(f"argument {words[0]!r} is not a flag; write every setting as --name=value")
        return self.settings(**values)

    def _positional_value(self, arguments: list[str]) -> tuple[str | tuple[str, ...], list[str]]:
        """The value of the positional field, and the arguments after it."""
        if self._positional_field.type is not str:
            return tuple(arguments), []
        if not arguments and self.optional:
            return self._positional_field.default, []
        if not arguments:
            metavar = _metavar(self._positional_field)
            raise UsageError(f"{metavar} is missing; {self._synopsis}")
        return arguments[0], arguments[1:]

    def usage(self) -> str:
        """The help text, as wide as the terminal, up to `WIDEST` columns."""
        fields, spec = self._flags, self._positional_field
        lines = [self._synopsis]
        lines += ["", texts.wrapped(self.headline, WIDEST)]
        if self.examples:
            lines += ["", "Examples"]
            for arguments, purpose in self.examples:
                lines += [f"  {self.typed} {arguments}".rstrip(), _indented(purpose)]
        if spec:
            lines += ["", f"  {_metavar(spec)}", _indented(spec.metadata["help"])]
        for heading, names in (self.groups or {"": tuple(fields)}).items():
            lines += ["", *([heading] if heading else [])]
            for name in names:
                default = fields[name].default
                also = "".join(f", --{alias}" for alias, of in self.aliases.items() if of == name)
                forms = {bool: f"--[no]{name}", Switch: f"--[no]{name}[=auto]"}
                form = forms.get(fields[name].type, f"--{name}={default}")
                lines.append(f"  {form}{also}")
                lines.append(_indented(fields[name].metadata["help"]))
        if fields:
            lines += [
                "  --flagfile=PATH",
                _indented("A file with one flag per line, or a run's config.json."),
            ]
        return "\n".join([*lines, "", texts.wrapped(self.status, WIDEST)])


def same_flag(settings: type, name: str) -> dataclasses.Field:
    """A field with the default and the help text that `name` has in another dataclass."""
    (spec,) = (spec for spec in dataclasses.fields(settings) if spec.name == name)
    return field(default=spec.default, metadata=spec.metadata)


def _metavar(spec: dataclasses.Field) -> str:
    return spec.metadata.get("metavar", spec.name.upper())


def _indented(text: str) -> str:
    return texts.wrapped(text, WIDEST, indent=4)


def _underscored(arguments: Sequence[str], aliases: Mapping[str, str]) -> list[str]:
    """The arguments with underscores for the dashes in names of flags, and fields for their aliases."""

    def renamed(argument: str) -> str:
        name, equals, value = argument.partition("=")
        name = name[2:].replace("-", "_")
        return f"--{aliases.get(name, name)}{equals}{value}"

    return [renamed(argument) if argument.startswith("--") else argument for argument in arguments]


def _check_values_present(arguments: Sequence[str], fields: Mapping[str, dataclasses.Field]) -> None:
    # absl would take the next flag as the value: `--sheet --task=regression` as --sheet="--task=regression"
    for argument, following in itertools.pairwise([*arguments, "--"]):
        spec = fields.get(argument.removeprefix("--"))
        if (
            argument.startswith("--")
            and spec
            and spec.type not in (bool, Switch)
            and following.startswith("--")
        ):
            example = spec.default if spec.default != "" else "VALUE"
            raise UsageError(f"flag --{spec.name} needs a value, as in --{spec.name}={example}")


def _malformed_value(message: str, fields: Mapping[str, dataclasses.Field]) -> str:
    """absl's message on a malformed value, in one line that gives the rule."""
    if match := re.match(r"flag --(\w+)=(.*?): ", message, re.S):
        name, value = match.groups()
        return f"{name} must be {_VALUES[fields[name].type]}, got {value!r}"
    return message.replace("\n", " ").removeprefix("flag ")


def _with_flagfile(
    arguments: Sequence[str], fields: Mapping[str, object], aliases: Mapping[str, str]
) -> list[str]:
    """The arguments, after those flags of the flag file that the command line does not override.

    Raises:
        UsageError: a flag that is repeated in one place, or a file that cannot be read.
    """
    if "--flagfile" in arguments:
        raise UsageError("flag --flagfile needs a value, as in --flagfile=PATH")
    paths = [a.partition("=")[2] for a in arguments if a.startswith("--flagfile=")]
    arguments = [a for a in arguments if not a.startswith("--flagfile=")]
    if len(paths) > 1:
        raise UsageError(f"flag --flagfile is given {len(paths)} times")
    overriding = _flag_names(arguments, fields)
    from_file = _underscored(_flags_of_file(paths[0]), aliases) if paths else []
    names = _flag_names(from_file, fields)
    return [a for a, name in zip(from_file, names, strict=True) if name not in overriding] + arguments


def _flags_of_file(path: str) -> list[str]:
    """The flags in a file, `--name=value` each.

    Raises:
        UsageError: the file cannot be read, or a line is not a flag.
    """
    try:
        with open(path) as file:
            text = file.read()
        if text.lstrip().startswith("{"):
            return [f"--{name}={value}" for name, value in atomic.parse_json(text).items()]
    except (OSError, ValueError, AttributeError) as error:
        why = getattr(error, "strerror", None) or error
        raise UsageError(f"flagfile {path!r} cannot be read: {why}") from None
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith(("#", "//"))]
    for line in lines:
        if not line.startswith("--") or line == "--" or line.startswith("--flagfile"):
            raise UsageError(f"flagfile {path!r} holds a line that is not a flag: {line!r}")
    return lines


def _flag_names(arguments: Sequence[str], fields: Mapping[str, object]) -> list[str]:
    """Names of the flags among the arguments, `--noloud` as `loud`.

    Raises:
        UsageError: a flag that is repeated.
    """
    names = [a.split("=")[0].lstrip("-") for a in arguments if a.startswith("--") and a != "--"]
    names = [name.removeprefix("no") if name not in fields else name for name in names]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"flag --{name} is given {names.count(name)} times")
    return names
