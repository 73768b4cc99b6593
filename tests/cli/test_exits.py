import os
import subprocess
import sys
from pathlib import Path

import pytest

from bnhead.cli import exits
from bnhead.devices import startup
from bnhead.errors import DataError, UsageError

ROOT = Path(__file__).resolve().parents[2]


def test_errors_become_a_line_and_a_status(capsys):
    def fail(error):
        raise error

    assert exits.run("tool", lambda: 7) == 7
    assert exits.run("tool", lambda: fail(UsageError("no"))) == 2
    assert exits.run("tool", lambda: fail(DataError("none"))) == 4
    assert exits.run("tool", lambda: fail(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == "tool: no\ntool: none\ntool: interrupted\n"
    with pytest.raises(ZeroDivisionError):
        exits.run("tool", lambda: 1 // 0)


def test_what_is_held_back_is_shown_when_the_import_fails(capfd):
    with pytest.raises(ImportError), startup.quiet():
        os.write(2, b"the reason\n")
        raise ImportError
    with startup.quiet():
        os.write(2, b"chatter\n")
    assert capfd.readouterr().err == "the reason\n"


def test_a_name_that_is_no_utf_8_can_be_printed_where_stdout_is_strict(tmp_path):
    place = os.fsencode(tmp_path) + b"/run\xff"
    os.mkdir(place)
    Path(os.fsdecode(place), "config.json").write_text("{}")
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    for command in (["diff", place, place], ["verify", place], ["heads", place]):
        done = subprocess.run(
            [sys.executable, "-m", "bnhead", *command], env=environment, capture_output=True, text=True
        )
        assert "Traceback" not in done.stderr and done.stderr.count("\n") <= 1
        assert "run\\udcff" in done.stdout + done.stderr, command
    code = "from bnhead.cli import exits; exits.run('', lambda: print('x\\udcff') or 0)"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "x\\udcff\n")


@pytest.mark.parametrize("command", [["train", "--help"], ["heads"], ["study"]])
def test_a_reader_that_goes_away_is_no_error(command):
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "bnhead", *command], stdout=writing, stderr=subprocess.PIPE, text=True
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "command",
    [
        "-m bnhead heads",
        *(
            pytest.param(c, marks=pytest.mark.slow)
            for c in ("-m bnhead study", "-m bnhead", "train.py --help")
        ),
    ],
)
def test_commands_end_well_without_a_stdout_and_with_a_full_one(command):
    """A daemon has no stdout; a full disk takes nothing."""
    run = f"exec {sys.executable} {command}"
    closed = subprocess.run(f"{run} >&-", shell=True, cwd=ROOT, capture_output=True, text=True)
    assert closed.returncode in (0, 2) and "Traceback" not in closed.stderr, closed.stderr
    if Path("/dev/full").exists():
        full = subprocess.run(f"{run} >/dev/full", shell=True, cwd=ROOT, capture_output=True, text=True)
        assert "Traceback" not in full.stderr and full.returncode in (2, 6), full.stderr
