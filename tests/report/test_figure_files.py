"""The figures as files: one for each figure of the page, with its numbers, in SVG that any program reads."""

import re
import xml.etree.ElementTree as ET

import pytest

from bnhead.report import figure_files, pages, provisional
from bnhead.report.study_page import study_content
from bnhead.studies.directory import read_study
from tests.studies.fake import write_study

pytestmark = pytest.mark.quick
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module", params=["two", "controls", "width", "regression", "strange"])
def drawn(request, tmp_path_factory):
    content = study_content(read_study(write_study(tmp_path_factory.mktemp("study"), request.param)))
    return content, figure_files.figure_files(content)


def test_each_is_a_figure_alone(drawn):
    content, files = drawn
    assert {f"{forest['file']}.svg" for forest in content["forests"]} < set(files) and "curves.svg" in files
    for name, text in files.items():
        root = ET.fromstring(text)
        assert re.fullmatch(r"[\w.-]+\.svg", name) and root.tag == f"{SVG}svg"
        assert "nan" not in text.lower().replace("nanometre", "") and "href" not in text
        _, _, width, height = map(float, root.get("viewBox").split())
        for element in root.iter(f"{SVG}text"):
            assert 0 <= float(element.get("x")) <= width and 0 <= float(element.get("y")) <= height, name


def test_a_forest_has_the_numbers_of_the_page(drawn):
    content, files = drawn
    for forest in content["forests"]:
        root = ET.fromstring(files[f"{forest['file']}.svg"])
        words = [element.text for element in root.iter(f"{SVG}text")]
        for row in forest["rows"]:
            assert row["mean"] in words and row["name"] in words and row["interval"] in words
        dots = [e for e in root.iter(f"{SVG}circle") if e.get("class") == "dot"]
        assert len(dots) == sum(len(row["chart"]["dots"]) for row in forest["rows"]) > 0
        left, width = 215, 350
        x = [
            left + width * row["chart"]["mean"] / 100
            for row in forest["rows"]
            if row["chart"]["mean"] is not None
        ]
        means = [e for e in root.iter(f"{SVG}circle") if e.get("class") == "mean"]
        assert [left + float(e.get("cx")) for e in means] == pytest.approx(x, abs=0.06)


def test_slopes_of_single_heads_have_no_better_side(tmp_path):
    files = figure_files.figure_files(study_content(read_study(write_study(tmp_path, "width"))))
    assert "better" in files["slopes.svg"] and "better" not in files["slopes_of_heads.svg"]


def test_the_figure_of_an_unfinished_study_speaks_of_no_interval(tmp_path):
    directory = write_study(tmp_path / "s", "two")
    (directory / "verdict.json").unlink()
    study = provisional.without_verdict(read_study(directory), directory)
    text = figure_files.figure_files(study_content(study))["accuracy.svg"]
    assert 'class="dot"' in text and " % interval" not in text and 'class="interval"' not in text


def test_a_path_in_percent_is_placed():
    assert pages.placed("M0 100L50 25.5h0", 10, 20, 200, 80) == "M10.00 100.00L110.00 40.40h0"
    assert pages.placed("M1e-05 -2Z", 0, 0, 100, 100) == "M0.00 -2.00Z"
