"""Signals that end a run: noted at once, obeyed when a step is done."""

import contextlib
import signal
import threading
from collections.abc import Iterator

from bnhead.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Pending:
    """Attributes:
    signal: number of the signal that has come; None before.
    """

    signal: int | None = None


@contextlib.contextmanager
def deferred() -> Iterator[Pending]:
    """Notes SIGINT and SIGTERM instead of obeying; a second one is obeyed at once.

    What is ignored stays ignored (SIGINT is, in a shell's background). Only the main thread of a process can
    do so; in another, signals do what they did.
    """
    pending = Pending()
    if threading.current_thread() is not threading.main_thread():
        yield pending
        return

    def note(number, frame):
        if pending.signal is not None:
            raise Interrupted(number)
        pending.signal = number

    heard = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, note) for number in heard}
    try:
        yield pending
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def obey_termination() -> None:
    """Makes SIGTERM end a command as SIGINT does, with what must be tidied up: by an exception."""

    def end(number, frame):
        raise Interrupted(number)

    signal.signal(signal.SIGTERM, end)
