"""Signals that end a run: noted at once, obeyed after the current step."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

from bnhead.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Pending:
    """A signal that has arrived and is not yet acted on.

    Attributes:
        signal: its number; None before one arrives.
        kept: a clause for the message of `Interrupted`: the work that a run keeps if it ends now.
    """

    signal: int | None = None
    kept: str = ""


@contextlib.contextmanager
def deferred(say: Callable[[str], object]) -> Iterator[Pending]:
    """Records SIGINT and SIGTERM and reports them; a second signal raises at once.

    An ignored signal stays ignored, such as SIGINT in a shell's background. Only the main thread of a process
    can change handlers; in another thread nothing changes.

    Args:
        say: called with a line for the user.

    Yields:
        The object that records the signal.
    """
    pending = Pending()
    if threading.current_thread() is not threading.main_thread():
        yield pending
        return

    def note(number, frame):
        if pending.signal is not None:
            raise Interrupted(number, pending.kept)
        pending.signal = number
        again = "; Ctrl-C again to stop now" if number == signal.SIGINT else ""
        with contextlib.suppress(RuntimeError):  # the signal came in the middle of a line on the same stream
            say(f"stopping after this step{again}")

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
