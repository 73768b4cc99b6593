"""`build`, the whole of it: the same files give the same bytes."""

import html
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

from bnhead import report
from bnhead.errors import RunDirectoryError
from bnhead.studies.directory import read_study
from tests.studies.fake import change_json, dump, write_study


def contents(directory):
    written = [directory / name for name in ("report.md", "report.html", "runs.csv")]
    written += [*directory.glob("figures/*.svg"), *directory.glob("tensorboard/**/events*")]
    return {str(path.relative_to(directory)): path.read_bytes() for path in written}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    directory = write_study(tmp_path_factory.mktemp("study") / "here", "damaged")
    report.build(directory, name="there")
    return directory


def test_again_and_elsewhere_it_is_the_same(built, tmp_path):
    before = contents(built)
    report.build(built, name="there")
    assert contents(built) == before and len(before) > 20
    shutil.copytree(
        built,
        tmp_path / "another name",
        ignore=shutil.ignore_patterns("report.*", "runs.csv", "figures", "tensorboard"),
    )
    report.build(tmp_path / "another name", name="there")
    assert contents(tmp_path / "another name") == before


def test_neither_the_hash_seed_nor_the_day_nor_the_order_of_files_matter(built, tmp_path):
    place = tmp_path / "copy"
    (place / "runs").mkdir(parents=True)
    for name in ("plan.json", "verdict.json"):
        shutil.copy(built / name, place)
    for run in sorted(built.glob("runs/*"), reverse=True):  # made in another order, so listed in another
        (place / "runs" / run.name).mkdir()
        for file in sorted(run.iterdir(), reverse=True):
            shutil.copy(file, place / "runs" / run.name)
    code = (
        "import pathlib, sys, time; time.time = lambda: 4e9; from bnhead import report; "
        "report.build(pathlib.Path(sys.argv[1]), name='there')"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo", "LC_ALL": "C", "PYTHONUTF8": "0"}
    subprocess.run([sys.executable, "-c", code, str(place)], check=True, env=environment)
    assert contents(place) == contents(built)


def test_what_differs_when_runs_are_done_again_is_not_in_it(built, tmp_path):
    place = shutil.copytree(built, tmp_path / "copy")
    for file in place.glob("runs/*/environment.json"):
        own = json.loads(file.read_text())
        sessions = [*own["sessions"], {"started": "2027-02-03T04:05:06+00:00", "step": 7}]
        again = {"started": "2027-02-03T04:05:06+00:00", "seconds": 99.9, "sessions": sessions}
        dump(file, {**own, **again})
    for file in place.glob("runs/*/history.csv"):
        lines = file.read_text().splitlines()
        if len(lines) > 2:
            file.write_text(
                "\n".join([lines[0], *(line.rpartition(",")[0] + ",1.5" for line in lines[1:])]) + "\n"
            )
    report.build(place, name="there")
    later = {name: text.replace(b"2027-02-03", b"2026-01-01") for name, text in contents(place).items()}
    assert later == contents(built), "only the day differs"


def test_the_commands_name_the_directory_as_it_was_typed(tmp_path, monkeypatch):
    write_study(tmp_path / "some where", seeds=2)
    monkeypatch.chdir(tmp_path)
    report.build(pathlib.Path("some where"))
    for name in ("report.md", "report.html"):
        text = html.unescape(pathlib.Path("some where", name).read_text())
        for command in (
            "bnhead study bn_before_fc --seeds=2 '--dir=some where'",
            "bnhead report 'some where'",
            "bnhead verify 'some where'",
            "tensorboard --logdir 'some where/tensorboard'",
        ):
            assert command in text
        assert str(tmp_path) not in text and "DIR" not in text


def test_an_unfinished_study_is_incomplete(tmp_path):
    directory = write_study(tmp_path, "two", seeds=3)
    verdict, *runs = directory / "verdict.json", *sorted(directory.glob("runs/*"))
    finished = json.loads(verdict.read_text())
    verdict.unlink()
    shutil.rmtree(runs[0])
    (runs[1] / "result.json").unlink()
    assert report.build(directory) == "4 of 6 runs have a result. There is no verdict yet."
    for name in ("report.md", "report.html"):
        text = (directory / name).read_text()
        assert "INCOMPLETE" in text and "The study is not finished." in text and "97." in text
        assert not re.search(
            "HELPS|HURTS|UNDECIDED|INVALID|MATERIAL|Holm", re.sub("<style>.*</style>", "", text)
        )
        assert finished["sentence"] not in text
    assert len((directory / "report.html").read_text().split('class="dot"')) - 1 < 3
    assert not verdict.exists()


def test_no_study_is_an_error_that_leaves_nothing(tmp_path):
    with pytest.raises(RunDirectoryError, match="holds neither a study nor a run"):
        report.build(tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_pages_hold_no_escapes(tmp_path):
    """Names and texts come from files, which may be a stranger's."""
    bad = "a\x1b]0;T\x07\u202e<b>"
    directory = write_study(tmp_path, seeds=2)
    change_json(directory / "verdict.json", ["sentence"], bad)
    change_json(directory / "verdict.json", ["exploratory"], [bad])
    (run, *_) = sorted(directory.glob("runs/*"))
    for name in ("config.json", "environment.json"):
        content = json.loads((run / name).read_text())
        dump(run / name, {**content, "backbone": bad, "devices": [bad], bad: bad})
    for place in (directory, run):
        report.build(place)
        for page in ("report.md", "report.html"):
            text = (place / page).read_text()
            assert "\\x1b]0;T\\x07\\u202e" in text and "<b>T" not in text
            assert all(letter.isprintable() or letter in "\n\t" for letter in text)


def test_files_that_have_been_read_are_not_read_again(tmp_path):
    directory = write_study(tmp_path, seeds=2)
    report.build(directory)
    before, runs = contents(directory), read_study(directory).runs
    (directory / "runs").rename(tmp_path / "elsewhere")
    report.build(directory, runs)
    assert contents(directory) == before


def test_reports_need_no_tensorflow():
    code = (
        "import sys, bnhead.report; "
        "print([name for name in ('tensorflow', 'keras', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
