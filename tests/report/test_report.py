"""`build`, the whole of it: the same files give the same bytes."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from bnhead import report
from bnhead.errors import RunDirectoryError
from tests.report import studies


def contents(directory):
    written = [directory / "report.md", directory / "report.html", *directory.glob("tensorboard/**/events*")]
    return {str(path.relative_to(directory)): path.read_bytes() for path in written}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    directory = studies.write(tmp_path_factory.mktemp("study") / "here", "damaged")
    report.build(directory)
    return directory


def test_again_and_elsewhere_it_is_the_same(built, tmp_path):
    before = contents(built)
    report.build(built)
    assert contents(built) == before and len(before) > 20
    shutil.copytree(
        built, tmp_path / "another name", ignore=shutil.ignore_patterns("report.*", "tensorboard")
    )
    report.build(tmp_path / "another name")
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
        "report.build(pathlib.Path(sys.argv[1]))"
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
        studies.dump(file, {**own, **again})
    for file in place.glob("runs/*/history.csv"):
        lines = file.read_text().splitlines()
        if len(lines) > 2:
            file.write_text(
                "\n".join([lines[0], *(line.rpartition(",")[0] + ",1.5" for line in lines[1:])]) + "\n"
            )
    report.build(place)
    assert contents(place) == contents(built)


def test_no_study_is_an_error_that_leaves_nothing(tmp_path):
    with pytest.raises(RunDirectoryError, match="holds neither a study nor a run"):
        report.build(tmp_path)
    assert not list(tmp_path.iterdir())
