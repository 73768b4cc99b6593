import os
import signal
import threading

import pytest

from bnhead.errors import Interrupted
from bnhead.training.signals import deferred, obey_termination


@pytest.fixture(autouse=True)
def heard():
    """SIGINT as in a terminal: in a shell's background it is ignored."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, handler)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_is_noted_and_a_second_one_obeyed(number, status):
    handler = signal.getsignal(number)
    said = []
    with deferred(said.append) as pending:
        assert pending.signal is None
        os.kill(os.getpid(), number)
        assert pending.signal == number
        again = "; Ctrl-C again to stop now" if number == signal.SIGINT else ""
        assert said == [f"stopping after this step{again}"]
        pending.kept = "step 3 is saved"
        with pytest.raises(Interrupted, match=f"interrupted by {number.name}; step 3 is saved") as caught:
            os.kill(os.getpid(), number)
            signal.sigtimedwait([], 1)
        assert caught.value.exit_status == status and isinstance(caught.value, KeyboardInterrupt)
    assert signal.getsignal(number) == handler


def test_what_is_ignored_stays_ignored():
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with deferred(print) as pending:
            os.kill(os.getpid(), signal.SIGINT)
            assert pending.signal is None
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, handler)


def test_in_another_thread_signals_do_what_they_did():
    observed = []

    def work():
        with deferred(print) as pending:
            observed.append((pending.signal, signal.getsignal(signal.SIGTERM)))

    handler = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert observed == [(None, handler)]


def test_termination_ends_a_command_by_an_exception():
    handler = signal.getsignal(signal.SIGTERM)
    try:
        obey_termination()
        with pytest.raises(Interrupted):
            os.kill(os.getpid(), signal.SIGTERM)
            signal.sigtimedwait([], 1)
    finally:
        signal.signal(signal.SIGTERM, handler)
