import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from bnhead.report import pages
from bnhead.report.study_page import study_content
from bnhead.studies import wording
from bnhead.studies.directory import read_study
from tests.studies.fake import SHAPES, write_study

VOID = {"meta", "img", "br", "wbr"}


class Page(HTMLParser):
    """Tables as rows of texts, attributes by tag, and whether every tag is closed where it should be."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.tables, self.text, self.headings = [], [], [], "", []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data if "style" not in self.open else ""
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data


@pytest.fixture(scope="module", params=SHAPES)
def written(request, tmp_path_factory):
    study = read_study(write_study(tmp_path_factory.mktemp(request.param), request.param))
    said = study_content(study)
    return study, pages.html_page(said, "study.html"), pages.markdown_page(said, "study.md")


def test_tags_are_closed_and_nothing_is_loaded(written):
    _, html, _ = written
    page = Page(html)
    assert page.open == []
    assert not re.search(r"<script|<link|@import|url\(|https?:(?!//www\.w3\.org/2000/svg)", html)
    sources = [attributes["src"] for _, attributes in page.tags if "src" in attributes]
    assert sources and all(source.startswith("data:image/svg+xml;base64,") for source in sources)
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert "prefers-color-scheme: dark" in html and "width=device-width" in html and len(html) < 300_000


def test_it_can_be_heard(written):
    page = Page(written[1])
    assert page.headings[0] == 1 and page.headings.count(1) == 1
    assert all(after - before <= 1 for before, after in zip(page.headings, page.headings[1:], strict=False))
    for tag, attributes in page.tags:
        if attributes.get("role") == "img":
            assert len(attributes["aria-label"]) > 20
        if tag == "img":
            assert attributes["alt"].startswith("The head ")
        if tag == "svg":
            assert "aria-hidden" in attributes or "aria-label" in attributes or "viewbox" in attributes
    figures = [tag for tag, _ in page.tags].count("figure")
    assert figures == [tag for tag, _ in page.tags].count("figcaption") >= 4


def forest_rows(verdict):
    """The judged rows of a verdict, forest by forest, in the order of the pages."""
    comparisons = verdict["comparisons"]
    rows = [*comparisons, *(row for one in comparisons for row in one["secondary"])]
    outcomes = dict.fromkeys(row["outcome"] for row in rows)
    by_outcome = [[row for row in rows if row["outcome"] == name] for name in outcomes]
    differences = [row for row in verdict["trends"] if row["control"]]
    of_heads = [row for row in verdict["trends"] if not row["control"]]
    return [differences, of_heads, *by_outcome] if differences else by_outcome


def test_the_numbers_are_those_of_the_files(written):
    study, html, _ = written
    tables = Page(html).tables

    def near(value, name):
        factor, step = (100, 0.01) if wording.is_share(name) else (1, 0.0001)
        return pytest.approx(factor * value, abs=0.51 * step)

    def number(text):
        return float(text.replace("−", "-").rstrip("%"))  # noqa: RUF001

    statistics = [table for table in tables if table[0][0] == "comparison"]
    for table, rows in zip(statistics, forest_rows(study.verdict), strict=True):
        for row, one in zip(table[1:], rows, strict=True):
            name, images = one["outcome"], one.get("images")
            assert row[:3] == [one["name"], str(one["n"]), f"{images:,}" if images else wording.NONE]
            assert number(row[3]) == near(one["mean"], name) and number(row[4]) == near(one["sd"], name)
            for text, interval in ((row[5], one["interval"]), (row[6], one.get("interval_seeds"))):
                if interval is None:
                    assert text == wording.NONE
                else:
                    bounds = [number(bound) for bound in text.strip("[]").split(", ")]
                    assert bounds == [near(value, name) for value in interval]
    (cells,) = [table for table in tables if table[0][:2] == ["cell", "n"]]
    for row, cell in zip(cells[1:], study.verdict["cells"], strict=True):
        assert row[0].startswith(cell["name"]) and number(row[2]) == near(cell["mean"], study.plan.primary)


def test_every_seed_is_a_dot(written):
    study, html, _ = written
    rows = [row for forest in forest_rows(study.verdict) for row in forest]
    rows += [row for table in study.verdict.get("causes", ()) for row in table["rows"]]
    differences = [d for row in rows for d in row["differences"] if d is not None]
    beyond = [int(n) for n in re.findall(r">(?:&#9664; )?(\d+) beyond", html)]
    assert html.count('<circle class="dot"') + sum(beyond) == len(differences)


def test_the_better_side_is_that_of_the_outcome(tmp_path):
    html = pages.html_page(study_content(read_study(write_study(tmp_path))), "study.html")
    sides = re.findall(r"<span>&#8592; (\w+) better</span><span>(\w+) better &#8594;</span>", html)
    higher, lower = ("control", "treatment"), ("treatment", "control")
    assert sides == [higher, lower, lower, lower]  # accuracy; dead and silent units, log-likelihood


def test_both_pages_say_the_same(written):
    study, html, markdown = written
    tables = [
        block for block in re.findall(r"(?:^\|.*\n)+", markdown, re.M) if block.startswith("| comparison")
    ]
    for table, rows in zip(tables, forest_rows(study.verdict), strict=True):
        for line, one in zip(table.splitlines()[2:], rows, strict=True):
            start = f"| {pages.escaped(one['name'])} | {one['word']} | "
            assert line.startswith(start)
            mean, interval, inner, *_ = line.removeprefix(start).split(" | ")
            assert f"<b>{mean}</b>" in html and f">{interval}</span>" in html and f">{inner}</td>" in html
    assert markdown.startswith(f"# {study.verdict['word']}\n\n**") and html.index("<h1") < html.index("<h2")
    assert "\n\n\n" not in markdown
    for heading in re.findall(r"^## (.*)$", markdown, re.M):
        assert f">{heading}</h2>" in html
    for limit in study_content(study)["limits"]:
        assert pages.escaped(limit) in markdown


def test_tables_in_markdown_have_equal_rows(written):
    for block in re.findall(r"(?:^\|.*\n)+", written[2], re.M):
        columns = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(columns) == 1, block


def test_names_are_escaped(tmp_path):
    said = study_content(read_study(write_study(tmp_path, "strange")))
    html, markdown = pages.html_page(said, "study.html"), pages.markdown_page(said, "study.md")
    assert "<script" not in html and "<i>" not in html and "&lt;i&gt;weiter&lt;/i&gt;" in html
    assert "größe" in html and "höher" in markdown
    outside_code = re.sub(r"```.*?```|`[^`]*`", "", markdown, flags=re.DOTALL)
    assert not re.search(r"(?<!\\)<(script|i|b)", outside_code)
    assert (
        "Exploratory." in html
        and "seeds 10 to 14 were added later" in html
        and "**Exploratory.**" in markdown
    )
    assert r"\| \`code\` \*x\*" in markdown


def test_what_is_not_there_is_said(tmp_path):
    study = read_study(write_study(tmp_path, seeds=2))
    study.verdict.update(comparisons=[], cells=[], word="INVALID")
    for run in study.runs.values():
        for own in (run.history, run.environment, run.result):
            own.clear()
    said = study_content(study)
    html, markdown = pages.html_page(said, "study.html"), pages.markdown_page(said, "study.md")
    for sentence in (
        "Nothing could be compared.",
        "No run has a history of test accuracy.",
        "No run has a history of dead units.",
    ):
        assert sentence in html and sentence in markdown


def test_null_numbers_are_dashes(tmp_path):
    study = read_study(write_study(tmp_path, seeds=2))
    names = ("control_mean", "treatment_mean", "mean", "sd", "level", "images", "margin")
    nothing = dict.fromkeys((*names, "interval", "interval_seeds", "variance"))
    (comparison,) = study.verdict["comparisons"]
    for row in (comparison, *comparison["secondary"]):
        row.update(nothing, n=0, seeds=[], differences=[])
    study.verdict["cells"][0].update(dict.fromkeys(("mean", "sd", "min", "max")), n=0, dead={})
    said = study_content(study)
    page, markdown = Page(pages.html_page(said, "study.html")), pages.markdown_page(said, "study.md")
    tables = [table for table in page.tables if table[0][0] == "comparison"]
    assert len(tables) == 4 and all(set(table[1][2:]) == {wording.NONE} for table in tables)
    for text in (page.text.replace("None covers", ""), markdown.replace("None covers", "")):
        assert "None" not in text and "nan" not in text and "+–" not in text  # noqa: RUF001


def test_units_that_never_die_are_a_sentence(tmp_path):
    study = read_study(write_study(tmp_path, seeds=2))
    for run in study.runs.values():
        run.history["dead/head_fc/dataset"] = [0.0] * 15
    html = pages.html_page(study_content(study), "study.html")
    assert "None, in any run, after any epoch." in html


def test_plain_and_code():
    assert pages.escaped("a|b <c>\n*d* [e](f) `g` \\") == r"a\|b \<c\> \*d\* \[e\](f) \`g\` \\"
    assert pages.as_code("x`y") == "`x'y`" and pages.as_code("a|b") == r"a\|b"


def test_letters_stand_out_in_both_themes():
    css = (Path(pages.__file__).parent / "templates" / "frame.html").read_text()
    light, dark = (
        dict(re.findall(r"--(\w+): #(\w{6})", block)) for block in css.split("(prefers-color-scheme")[:2]
    )

    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    assert len(light) == len(dark) == 13
    for theme in (light, dark):
        for ink in ("ink", "faint", "control", "treatment", "good", "bad", "even", "open"):
            for paper in ("paper", "raised"):
                low, high = sorted((luminance(theme[ink]), luminance(theme[paper])))
                assert (high + 0.05) / (low + 0.05) >= 4.5, (ink, paper)  # WCAG 2, 1.4.3
