import json

import numpy as np
import pytest

from bnhead import report
from bnhead.errors import RunDirectoryError
from bnhead.report import run_page
from tests.report.test_pages import Page
from tests.studies.fake import dump, write_study


@pytest.fixture
def directory(tmp_path):
    """A finished run with the head bn_fc and seed 1."""
    study = write_study(tmp_path, seeds=2)
    return next(
        run
        for run in study.glob("runs/*")
        if {"head": "bn_fc", "seed": 1}.items() <= json.loads((run / "config.json").read_text()).items()
    )


def test_the_page_of_a_run(directory):
    result = json.loads((directory / "result.json").read_text())
    report.build(directory)
    html, markdown = ((directory / f"report.{kind}").read_text() for kind in ("html", "md"))
    sentence = (
        f"bn_fc on digits with resnet20, seed 1: test accuracy {result['test_accuracy']:.2%} of 360 examples."
    )
    assert f"<h1>{sentence}</h1>" in html and f"**{sentence}**" in markdown
    page = Page(html)
    assert page.open == [] and page.headings[:2] == [1, 2]
    share = f"{result['dead/head_fc/per_input']:.1%}"
    assert f"<dd>{share}</dd>" in html and f"| {share} |" in markdown
    assert f"bnhead train --head=bn_fc --seed=1 --workdir={directory}" in markdown
    assert "2026-01-01" in html and "12.3" not in markdown
    reading = f"head_fc: {result['dead/head_fc/dataset']:.1%}".replace("%", " % dead; ")
    assert reading in html and reading in markdown and "silent per input is usual for ReLU" in html
    settings = markdown.partition("## Settings")[2]
    assert (
        settings.index("| head | bn_fc |")
        < settings.index("At their defaults")
        < settings.index("| dataset |")
    )
    before = (directory / "report.html").read_bytes()
    report.build(directory)
    assert (directory / "report.html").read_bytes() == before
    assert not list(directory.glob("*/events*")), "a run's own events are not the report's to write"


def test_curves_are_the_history(directory):
    run = run_page.read_single_run(directory)
    rows = dict(run_page.run_content(run)["curves"]["rows"])
    assert rows["training"][-1] == f"{run.history['accuracy'][-1]:.2%}"
    assert rows["test"][0] == f"{run.history['test_accuracy'][0]:.2%}"
    np.testing.assert_equal(
        run_page.run_content(run)["dead"][1]["largest"], max(run.history["dead/head_fc/per_input"])
    )


def test_a_run_that_goes_on_or_went_wrong(directory):
    (directory / "result.json").unlink()
    said = run_page.run_content(run_page.read_single_run(directory))
    assert said["sentence"] == "bn_fc on digits with resnet20, seed 1: not finished, 15 of 15 epochs."
    assert said["problem"] == "result.json is missing" and said["counts"] == []
    dump(
        directory / "result.json",
        {"status": "diverged", "epochs": 15, "test_accuracy": None, "data": {"test": 9}},
    )
    assert run_page.run_content(run_page.read_single_run(directory))["sentence"].endswith(
        ": diverged in epoch 15 of 15."
    )
    for name in ("history.csv", "environment.json"):
        (directory / name).unlink()
    report.build(directory)
    assert "There is no history." in (directory / "report.html").read_text()


def test_without_settings_there_is_no_run(directory):
    (directory / "config.json").write_text("{")
    with pytest.raises(
        RunDirectoryError, match=r"holds no run that can be read: config\.json cannot be read"
    ):
        report.build(directory)


def test_what_was_measured_of_the_mechanisms(directory):
    report.build(directory)
    assert "Mechanisms" not in (directory / "report.html").read_text()
    result = json.loads((directory / "result.json").read_text())
    dump(
        directory / "result.json",
        {**result, "mechanisms/nc1": 0.25, "mechanisms/nc4": 0.1, "mechanisms/nc2": None},
    )
    run_hashes = json.loads((directory / "status.json").read_text())
    dump(directory / "status.json", {**run_hashes, "sha256": {}})
    report.build(directory)
    html, markdown = ((directory / f"report.{kind}").read_text() for kind in ("html", "md"))
    assert html.count('href="#mechanisms"') == 1 and "<dd>10.00%</dd>" in html and "NC1: tr(" in html
    assert "| NC4 | 10.00% |" in markdown and "NC2" not in markdown
    assert Page(html).open == []
