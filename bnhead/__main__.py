"""The command line: `bnhead COMMAND`, also `python -m bnhead COMMAND`."""

import sys
from collections.abc import Callable, Sequence


def _train(arguments: Sequence[str]) -> int:
    from bnhead.training import command

    return command.main(arguments)


def _heads(arguments: Sequence[str]) -> int:
    from bnhead.heads import command

    return command.main(arguments)


def _report(arguments: Sequence[str]) -> int:
    from bnhead.report import command

    return command.main(arguments)


def _inspect(arguments: Sequence[str]) -> int:
    from bnhead.inspection import command

    return command.main(arguments)


def _data(arguments: Sequence[str]) -> int:
    from bnhead.data import command

    return command.main(arguments)


def _diff(arguments: Sequence[str]) -> int:
    from bnhead.training import difference

    return difference.main(arguments)


def _study(arguments: Sequence[str]) -> int:
    from bnhead.studies import command

    return command.main(arguments)


def _verify(arguments: Sequence[str]) -> int:
    from bnhead.studies import command

    return command.main_verify(arguments)


COMMANDS: dict[str, tuple[Callable[[Sequence[str]], int], str]] = {
    "train": (_train, "train one backbone with one head and count the head's dead units"),
    "study": (_study, "train heads with many seeds by a plan, and say what may be concluded"),
    "report": (_report, "write the pages of a study or a run anew, from its files alone"),
    "verify": (_verify, "compute all that a study says again from its runs"),
    "diff": (_diff, "tell in what two runs differ: settings, what they ran on, results"),
    "inspect": (_inspect, "count the dead units of a run, a .keras file or a backbone, layer by layer"),
    "heads": (_heads, "list the heads that have a name, with diagram, parameters and source"),
    "data": (_data, "tell what a data set is, check it as training does, draw sample pictures"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit status. Ctrl-C while it is being imported is one line as well."""
    try:
        return _run(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:
        print("bnhead: interrupted", file=sys.stderr)
        return 130


def _run(arguments: Sequence[str]) -> int:
    from bnhead import flags
    from bnhead.errors import nearest

    if not arguments or arguments[0] in ("--help", "-h", "help"):
        commands = "\n".join(f"  {name:<8}{text}" for name, (_, text) in COMMANDS.items())
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
    return COMMANDS[arguments[0]][0](arguments[1:])


if __name__ == "__main__":
    sys.exit(main())
