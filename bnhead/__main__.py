"""The command line: `bnhead COMMAND`, also `python -m bnhead COMMAND`."""

import sys
from collections.abc import Sequence

COMMANDS = {  # each is a module of `bnhead.cli` with `main(arguments) -> exit status`
    "train": "train one backbone with one head and count the head's dead units",
    "study": "train heads with many seeds by a plan, and judge what may be concluded",
    "diagnose": "find out which mechanism of a batch norm makes the difference",
    "report": "write the pages of a study or a run again, from its files alone",
    "verify": "recompute everything that a study states from its runs",
    "runs": "list the runs and studies of a folder",
    "diff": "compare two runs: settings, environment, results",
    "inspect": "count the dead units of a run, a .keras file or a backbone, layer by layer",
    "check": "find mistakes around batch norms in a model and its training, before any training",
    "heads": "list the known heads, with diagram, parameters and source",
    "data": "describe a data set, check it as training does, draw sample pictures",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit status. Ctrl-C during the imports ends in one line, too."""
    arguments = sys.argv[1:] if arguments is None else arguments
    name = arguments[0] if arguments else ""
    try:
        # imported here, so that Ctrl-C during the imports is caught below
        import importlib

        from bnhead.cli import exits

        if name in COMMANDS:
            return importlib.import_module(f"bnhead.cli.{name}").main(arguments[1:])
        return exits.run("bnhead", lambda: usage(name))
    except KeyboardInterrupt:
        print("bnhead: interrupted", file=sys.stderr)
        return 130


def usage(name: str) -> int:
    """Prints the commands, or the version, and returns the exit status.

    Args:
        name: the first argument, which is not a command; "" for none.

    Raises:
        UsageError: a name that is neither a command nor a request for help.
    """
    from bnhead.errors import UsageError, nearest
    from bnhead.version import __version__

    if name not in ("", "--help", "-h", "help", "--version"):
        hint = nearest(name, COMMANDS) or f" (commands: {', '.join(COMMANDS)})"
        raise UsageError(f"command {name!r} is not known{hint}")
    if name == "--version":
        print(f"bnhead {__version__}")
        return 0
    program = "python -m bnhead" if sys.argv[0].endswith("__main__.py") else "bnhead"
    commands = "\n".join(f"  {command:<10}{text}" for command, text in COMMANDS.items())
    print(f"usage: {program} COMMAND [--flag=value ...]\n\n{commands}\n")
    print(f"`{program} COMMAND --help` describes a command and its flags.")
    return 0 if name else UsageError.exit_status


if __name__ == "__main__":
    sys.exit(main())
