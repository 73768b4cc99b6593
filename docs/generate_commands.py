"""A page for each command, from its `Command` and the dataclass of its settings."""

import dataclasses
import importlib

from bnhead.__main__ import COMMANDS
from bnhead.cli.flags import Command, Switch


def titles() -> dict[str, str]:
    """Path in the site -> title in the navigation."""
    return {"commands/index.md": "All commands"} | {f"commands/{name}.md": name for name in COMMANDS}


def pages() -> dict[str, str]:
    """Path in the site -> Markdown."""
    pages = {"commands/index.md": _index()}
    for name in COMMANDS:
        pages[f"commands/{name}.md"] = page(importlib.import_module(f"bnhead.cli.{name}").COMMAND)
    return pages


def page(command: Command) -> str:
    """The page of one command: synopsis, flags in their groups, exit statuses."""
    flags = {spec.name: spec for spec in dataclasses.fields(command.settings)}
    positional = flags.pop(command.positional, None)
    usage = [command.program]
    if positional:
        usage.append(positional.metadata.get("metavar", positional.name.upper()))
    lines = [
        f"# {command.program}",
        "",
        "```text",
        " ".join([*usage, *["[--flag=value ...]"] * bool(flags)]),
        "```",
        "",
        command.headline,
        "",
    ]
    if positional:
        lines += [f"`{usage[-1]}`: {_text(positional)}", ""]
    if command.examples:
        lines += ["```sh"]
        lines += [f"# {purpose}\n{command.typed} {example}" for example, purpose in command.examples]
        lines += ["```", ""]
    for heading, names in (command.groups or {"Flags" if flags else "": tuple(flags)}).items():
        if heading:
            lines += [f"## {heading}", "", "| flag | default | meaning |", "|---|---|---|"]
            lines += [_row(flags[name], command) for name in names]
            lines += [""]
    if command.refused:
        lines += ["## Not taken", ""]
        lines += [f"- `--{name}`: {why}" for name, why in command.refused.items()]
    return "\n".join([*lines, "", "## Exit status", "", command.status, ""])


def _index() -> str:
    rows = [f"| [`bnhead {name}`]({name}.md) | {meaning} |" for name, meaning in COMMANDS.items()]
    return "\n".join(
        [
            "# Commands",
            "",
            "`python train.py` in a checkout is `bnhead train`. Every command describes itself and its flags "
            "with `--help`. `--flagfile=PATH` reads flags from a file, one per line, or from a run's "
            "`config.json`.",
            "",
            "| command | |",
            "|---|---|",
            *rows,
            "",
        ]
    )


def _row(spec: dataclasses.Field, command: Command) -> str:
    is_switch = spec.type in (bool, Switch)
    flag = f"--[no]{spec.name}" if is_switch else f"--{spec.name}"
    others = "".join(f", `--{alias}`" for alias, name in command.aliases.items() if name == spec.name)
    default = str(spec.default).lower() if is_switch else spec.default
    shown = f"`{default}`" if default != "" else ""
    return f'| <span id="{spec.name}"></span>`{flag}`{others} | {shown} | {_text(spec)} |'


def _text(spec: dataclasses.Field) -> str:
    """A help text, with names of files and places shown as they are written."""
    text = spec.metadata["help"]
    for mark in ("\\", "|", "<", ">", "*", "_"):
        text = text.replace(mark, f"\\{mark}" if mark not in "<>" else f"&{'l' if mark == '<' else 'g'}t;")
    return text
