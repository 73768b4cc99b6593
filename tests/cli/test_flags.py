import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bnhead.cli import flags
from bnhead.devices import startup
from bnhead.errors import DataError, UsageError

ROOT = Path(__file__).resolve().parent.parent


@dataclasses.dataclass(frozen=True)
class Settings:
    where: str = dataclasses.field(default="", metadata={"help": "The place."})
    size: int = dataclasses.field(default=3, metadata={"help": "How large."})
    loud: bool = dataclasses.field(default=False, metadata={"help": "Whether loud."})
    rate: float = dataclasses.field(default=0.5, metadata={"help": "How often."})


def parse(*arguments):
    return flags.parse(Settings, arguments, positional="where")


def test_fields_are_flags_and_one_is_written_without_a_name():
    assert parse("here", "--size=4", "--loud", "--rate=0.25") == Settings("here", 4, True, 0.25)
    assert parse("--noloud", "there") == Settings("there")
    assert flags.parse(Settings, ["--where=a"]) == Settings("a")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "where is missing; write it behind the command"),
        (["a", "b"], "argument 'b' is not a flag; every setting is written --name=value"),
        (
            ["a", "--siz=3"],
            r"flag --siz is not known; did you mean 'size'\? \(there are --size, --loud",
        ),
        (["a", "--size=x"], "--size=x: "),
        (["a", "--size=1", "--size=2"], "flag --size is given 2 times"),
        (["a", "--loud", "--noloud"], "flag --loud is given 2 times"),
        (["a", "--where=b"], "flag --where is not known"),
    ],
)
def test_what_cannot_be_meant(arguments, message):
    with pytest.raises(UsageError, match=message):
        parse(*arguments)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# mine\n--size=4\n\n  --loud\n// and\n--rate=0.25\n", Settings("a", 7, True, 0.25)),
        ('{"size": 4, "loud": true, "rate": 0.25}', Settings("a", 7, True, 0.25)),
        ("--where=/my/flagfile/there\n", None),
    ],
)
def test_a_flag_file_gives_way_to_the_command_line(tmp_path, text, expected):
    file = tmp_path / "flags"
    file.write_text(text)
    if expected:
        assert parse("a", "--size", "7", f"--flagfile={file}") == expected
        assert parse("a", f"--flagfile={file}", "--noloud") == Settings("a", 4, False, 0.25)
    else:
        assert flags.parse(Settings, [f"--flagfile={file}"]) == Settings("/my/flagfile/there")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("--", "holds a line that is no flag: '--'"),
        ("size=3", "holds a line that is no flag: 'size=3'"),
        ("--flagfile=other", "holds a line that is no flag: '--flagfile=other'"),
        ("--size=3\n--size=4", "flag --size is given 2 times"),
        ("--siz=3", "flag --siz is not known; did you mean 'size'"),
        ('{"size": 3', "cannot be read: "),
        ('{"size": "x"}', "--size=x: "),
    ],
)
def test_a_flag_file_that_cannot_be_meant(tmp_path, text, message):
    file = tmp_path / "flags"
    file.write_text(text)
    with pytest.raises(UsageError, match=message):
        parse("a", f"--flagfile={file}")


def test_usage():
    text = flags.usage(Settings, "tool", "Does it.", "Exit status: 0.", positional="where")
    assert text.startswith("usage: tool WHERE [--flag=value ...]\n\nDoes it.\n\n  WHERE\n    The place.\n")
    assert "  --[no]loud\n    Whether loud.\n  --rate=0.5\n" in text and text.endswith("\nExit status: 0.")


def test_errors_become_a_line_and_a_status(capsys):
    def fail(error):
        raise error

    assert flags.reported("tool", lambda: 7) == 7
    assert flags.reported("tool", lambda: fail(UsageError("no"))) == 2
    assert flags.reported("tool", lambda: fail(DataError("none"))) == 4
    assert flags.reported("tool", lambda: fail(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == "tool: no\ntool: none\ntool: interrupted\n"
    with pytest.raises(ZeroDivisionError):
        flags.reported("tool", lambda: 1 // 0)


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
    code = "from bnhead import flags; flags.reported('', lambda: print('x\\udcff') or 0)"
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
