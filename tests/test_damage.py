"""Every file of a run or a study, damaged in every way, and every command that reads it.

A command then gives the right result, or one line on stderr and a status that its help lists; and what it has
no business with is still there. Minutes, so that it runs with `-m slow`.
"""

import contextlib
import json
import os
import shutil
import signal

import pytest

from bnhead import report
from bnhead.__main__ import main
from bnhead.errors import Interrupted
from bnhead.training import TrainConfig, train
from tests.studies import fake
from tests.training.test_resume import SignalAt

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a POSIX file system")]
SECONDS = 120  # a command that waits for a pipe would wait for ever
RUN = ["config.json", "environment.json", "status.json", "history.csv", "result.json", "model.keras"]
FOLDERS = ["checkpoints", "train"]
# what `report` writes into a study's folder
PRODUCTS = ["report.", "runs.csv", *(f"{folder}/" for folder in ("figures", "tensorboard"))]
STUDY = ["plan.json", "verdict.json", *(f"runs/RUN/{name}" for name in RUN[:5])]


def _replaced(make):
    def damage(path):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        make(path)

    return damage


def _folder(path):
    path.mkdir()
    (path / "mine.txt").write_text("mine")


def _edited(change):
    """Damages the content of a file, and in a folder that of the last file in it."""

    def damage(path):
        file = path if path.is_file() else max(one for one in path.rglob("*") if one.is_file())
        file.write_bytes(change(file.read_bytes()))

    return damage


def _flipped(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def _odd(content):
    """The same JSON, or else the same bytes, with another type in the place of every second value."""
    try:
        values = json.loads(content)
    except ValueError:
        return b"\xff" + content
    return json.dumps(
        {key: [None] if at % 2 else value for at, (key, value) in enumerate(values.items())}
    ).encode()


def _huge(path):
    path.touch()
    os.truncate(path, 2**41)


DAMAGES = {
    "deleted": _replaced(lambda path: None),
    "folder": _replaced(_folder),
    "dangling link": _replaced(lambda path: path.symlink_to(path.with_name("nowhere"))),
    "pipe": _replaced(os.mkfifo),
    "huge": _replaced(_huge),
    "empty": _edited(lambda content: b""),
    "cut": _edited(lambda content: content[: len(content) // 2]),
    "flipped": _edited(_flipped),
    "array": _edited(lambda content: b"[1]"),
    "object": _edited(lambda content: b"{}"),
    "odd types": _edited(_odd),
    "deep": _edited(lambda content: b'{"a":' * 100_000),
}


class Late(BaseException):
    """Not an Exception, so that no command reports it as one of its own errors."""


@contextlib.contextmanager
def in_time():
    """Ends what takes too long, were it only waiting."""

    def late(*_):
        raise Late(f"not done after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def snapshot(place):
    """Path -> what is there, without following links or opening pipes."""
    found = {}
    for path in sorted(place.rglob("*")):
        plain = path.is_file() and not path.is_symlink() and path.stat().st_size < 2**30
        found[str(path.relative_to(place))] = path.read_bytes() if plain else path.lstat().st_mode
    return found


def run(command, arguments, capsys):
    """Runs a command here; returns its status and whether it ended well."""
    capsys.readouterr()
    with in_time():
        status = main([command, *map(str, arguments)])
    told = capsys.readouterr()
    assert "Traceback" not in told.err + told.out
    if status == 3 and command == "verify" and not told.err:  # its findings are its result
        assert told.out.strip()
        return False
    if status:
        assert status in (2, 3, 4, 6) and told.err.count("\n") == 1 and told.err.startswith("bnhead"), (
            told.err
        )
    assert all(line.startswith("bnhead") for line in told.err.splitlines()), told.err
    assert (told.err + told.out).replace("\n", "").replace("\t", "").isprintable()
    return not status


def lost(before, place, allowed=()):
    """What was there before a command and is not so any more, but for what it may write."""
    after = snapshot(place)
    gone = [name for name, content in before.items() if after.get(name) != content]
    return [name for name in gone if before[name] == b"mine" or not name.startswith(tuple(allowed))]


@pytest.fixture(scope="module")
def settings(data_dir):
    return {
        "data_dir": data_dir, "backbone": "resnet8", "head": "bn_fc", "fc_units": 16, "epochs": 2,
        "warmup_epochs": 0.5, "batch_size": 512, "checkpoint_seconds": 0.0,
    }  # fmt: skip


def line(settings, place):
    return [f"--{name}={value}" for name, value in {**settings, "workdir": place}.items()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, settings):
    place = tmp_path_factory.mktemp("finished") / "run"
    train(TrainConfig(**settings, workdir=str(place)))
    return place


@pytest.fixture(scope="module")
def stopped(tmp_path_factory, settings):
    place = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.raises(Interrupted):
        train(TrainConfig(**settings, workdir=str(place)), [SignalAt(signal.SIGTERM, 4)])
    return place


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    place = tmp_path_factory.mktemp("study") / "study"
    fake.study(place, fake.plan_of(seeds=3))
    report.build(place)
    return place


def damaged(place, tmp_path, name, how):
    """A copy with one thing damaged, beside somebody's own files."""
    copy = tmp_path / place.name
    shutil.copytree(place, copy)
    for folder in (copy, *(copy / name for name in [*FOLDERS, "figures", "tensorboard"])):
        if not folder.is_dir():
            continue
        (folder / "notes.txt").write_text("mine")
    DAMAGES[how](copy / name)
    return copy


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("name", [*RUN, "train"])
def test_a_finished_run(finished, settings, tmp_path, capsys, name, how):
    place = damaged(finished, tmp_path, name, how)
    before = snapshot(place)
    run("diff", [place, finished], capsys)
    run("report", [place], capsys)
    assert lost(before, place, ["report."]) == []
    if name in ("config.json", "model.keras"):
        run("inspect", [place, f"--data_dir={settings['data_dir']}", f"--out={tmp_path / 'out'}",
                        "--examples=64", "--layers=last"], capsys)  # fmt: skip
    if run("train", line(settings, place), capsys):
        assert (place / "result.json").read_bytes() == (finished / "result.json").read_bytes()
        assert (place / "notes.txt").read_text() == "mine"
    else:
        assert lost(before, place, ["report."]) == []


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("name", ["config.json", "environment.json", "history.csv", *FOLDERS])
def test_a_stopped_run(stopped, finished, settings, tmp_path, capsys, name, how):
    place = damaged(stopped, tmp_path, name, how)
    before = snapshot(place)
    run("diff", [place, finished], capsys)
    run("report", [place], capsys)
    mine = [file for file, content in before.items() if content == b"mine"]
    if run("train", line(settings, place), capsys):
        assert (place / "result.json").read_bytes() == (finished / "result.json").read_bytes()
        assert [file for file in mine if (place / file).read_text() != "mine"] == []
    else:
        assert lost(before, place, ["report.", "status.json"]) == []


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("name", STUDY)
def test_a_study(study, tmp_path, capsys, name, how):
    first = sorted((study / "runs").iterdir())[0].name
    place = damaged(study, tmp_path, name.replace("RUN", first), how)
    before = snapshot(place)
    agrees = run("verify", [place], capsys)
    assert not agrees and lost(before, place) == []
    run("report", [place], capsys)
    assert lost(before, place, PRODUCTS) == []


def test_what_is_whole_is_found_whole(finished, stopped, study, settings, tmp_path, capsys):
    """The control: without a damage every command ends well."""
    for place in (finished, stopped):
        shutil.copytree(place, tmp_path / place.parent.name)
        assert run("train", line(settings, tmp_path / place.parent.name), capsys)
    assert run("diff", [finished, stopped], capsys) and run("verify", [study], capsys)
