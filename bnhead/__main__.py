"""The command line: `bnhead COMMAND`, also `python -m bnhead COMMAND`."""

import sys
from collections.abc import Callable, Sequence

from bnhead.errors import nearest


def _train(arguments: Sequence[str]) -> int:
    from bnhead.training import command

    return command.main(arguments)


def _heads(arguments: Sequence[str]) -> int:
    from bnhead.heads import command

    return command.main(arguments)


def _inspect(arguments: Sequence[str]) -> int:
    from bnhead.inspection import command

    return command.main(arguments)


def _data(arguments: Sequence[str]) -> int:
    from bnhead.data import command

    return command.main(arguments)


def _study(arguments: Sequence[str]) -> int:
    from bnhead.studies import command

    return command.main(arguments)


def _verify(arguments: Sequence[str]) -> int:
    from bnhead.studies import command

    return command.main_verify(arguments)


COMMANDS: dict[str, tuple[Callable[[Sequence[str]], int], str]] = {
    "train": (_train, "train one backbone with one head and count the head's dead units"),
    "study": (_study, "train heads with many seeds by a plan, and say what may be concluded"),
    "verify": (_verify, "compute all that a study says again from its runs"),
    "heads": (_heads, "list the heads that have a name, with diagram, parameters and source"),
    "inspect": (_inspect, "count the dead units of a run, a .keras file or a backbone, layer by layer"),
    "data": (_data, "tell what a data set is, check it as training does, draw sample pictures"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("--help", "-h", "help"):
        print("usage: bnhead COMMAND [--flag=value ...]\n")
        print("\n".join(f"  {name:<8}{text}" for name, (_, text) in COMMANDS.items()))
        print("\n`bnhead COMMAND --help` tells a command's flags.")
        return 0 if arguments else 2
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
