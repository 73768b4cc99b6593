"""The command line: `bnhead COMMAND`, also `python -m bnhead COMMAND`."""

import sys
from collections.abc import Sequence

COMMANDS = {  # each is a module of `bnhead.cli` with `main(arguments) -> exit status`
    "train": "train one backbone with one head and count the head's dead units",
    "study": "train heads with many seeds by a plan, and judge what may be concluded",
    "report": "write the pages of a study or a run again, from its files alone",
    "verify": "recompute everything that a study states from its runs",
    "diff": "compare two runs: settings, environment, results",
    "inspect": "count the dead units of a run, a .keras file or a backbone, layer by layer",
    "heads": "list the known heads, with diagram, parameters and source",
    "data": "describe a data set, check it as training does, draw sample pictures",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit status. Ctrl-C while it is being imported is one line as well."""
    try:
        return _run(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:
        print("bnhead: interrupted", file=sys.stderr)
        return 130


def _run(arguments: Sequence[str]) -> int:
    from bnhead.cli import flags
    from bnhead.errors import nearest

    if not arguments or arguments[0] in ("--help", "-h", "help"):
        commands = "\n".join(f"  {name:<8}{text}" for name, text in COMMANDS.items())
        usage = "usage: bnhead COMMAND [--flag=value ...]\n\n" + commands
        status = flags.told(f"{usage}\n\n`bnhead COMMAND --help` tells a command's flags.")
        return status if arguments else status or 2
    if arguments[0] not in COMMANDS:
        there = f"there are {', '.join(COMMANDS)}"
        print(
            f"bnhead: command {arguments[0]!r} is not known{nearest(arguments[0], COMMANDS)} ({there})",
            file=sys.stderr,
        )
        return 2
    import importlib

    return importlib.import_module(f"bnhead.cli.{arguments[0]}").main(arguments[1:])


if __name__ == "__main__":
    sys.exit(main())
