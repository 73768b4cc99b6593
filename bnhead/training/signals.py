"""Signals that end a run: noted at once, obeyed after the current step."""

import contextlib
import signal
import threading
from collections.abc import Iterator

from bnhead.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Pending:
    """A signal that has arrived and is not yet acted on.

    Attributes:
        signal: its number; None before one arrives.
    """

    signal: int | None = None


@contextlib.contextmanager
def deferred() -> Iterator[Pending]:
    """Notes SIGINT and SIGTERM; a second signal raises at once.

    An ignored signal stays ignored, such as SIGINT in a shell's background. Only the main thread of a process
    can change handlers; in another thread nothing changes.

    Yields:
        The object that notes the signal.
    """
    pending = Pending()
    if threading.current_thread() is not threading.main_thread():
        yield pending
        return

    def note(number, frame):
        if pending.signal is not None:
            raise Interrupted(number)
        pending.signal = number

    numbers = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    handlers = {number: signal.signal(number, note) for number in numbers}
    try:
        yield pending
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def obey_termination() -> None:
    """Makes SIGTERM end a command as SIGINT does: by an exception, so that it can clean up."""

    def end(number, frame):
        raise Interrupted(number)

    signal.signal(signal.SIGTERM, end)
