"""docs/: what is generated is complete, and the built site has no dead link."""

import dataclasses
import html.parser
import importlib
import inspect
import json
import re
import subprocess
import sys
import urllib.parse
from pathlib import Path

import pytest

from bnhead import heads
from bnhead.__main__ import COMMANDS
from bnhead.census.figures import FIGURES
from bnhead.cli import train
from bnhead.lint.rules import RULES
from bnhead.studies.study import STUDIES
from tests.test_public import PACKAGES

DOCS = Path(__file__).resolve().parent.parent / "docs"


@pytest.mark.parametrize("package", PACKAGES)
def test_columns_of_a_docstring_are_a_code_block(package):
    """Markdown joins the lines of a paragraph."""
    text = inspect.getdoc(importlib.import_module(f"bnhead.{package}"))
    assert [line for line in text.splitlines() if re.match(r"\S.*\S {2,}\S", line)] == []


def test_every_mark_of_a_page_is_filled(hooks):
    marks = [mark for page in DOCS.glob("*.md") for mark in hooks.MARK.findall(page.read_text())]
    assert sorted(marks) == sorted(hooks.TABLES)
    assert "| `per_input` | share of units" in hooks.filled((DOCS / "census.md").read_text())


def test_every_figure_head_and_study_is_in_its_table(hooks):
    for name, expected in (("figures", [row.name for row in FIGURES]), ("studies", list(STUDIES))):
        assert re.findall(r"^\| `(\w+)` \|", hooks.TABLES[name](), re.M) == expected
    assert re.findall(r"^### `(\w+)`", hooks.TABLES["presets"](), re.M) == list(heads.PRESETS)
    for name in ("placements", "controls", "presets"):
        pictures = re.findall(r"\((heads/\S+\.svg)\)", hooks.TABLES[name]())
        assert pictures and set(pictures) <= set(hooks.generate_heads.images())


def test_every_rule_has_its_section_and_an_example_beyond_its_threshold(hooks):
    page = hooks.TABLES["rules"]()
    assert re.findall(r"^### (BN\d+) ", page, re.M) == list(RULES)
    for rule in RULES.values():
        kept = " ".join(hooks.generate_rules.output(rule.id).read_text().split())
        assert kept.startswith(f"{rule.severity} {rule.id} {rule.name}"), "run python docs/generate_rules.py"
        assert f"({rule.limit}) fix: {rule.fix} " in kept, "run python docs/generate_rules.py"
        code = hooks.generate_rules.script(rule.id).read_text()
        assert f'select=["{rule.id}"]' in code and "\nassert " in code.replace("    assert", "assert")
        assert code.rstrip() in page and f"](#{hooks.generate_rules.anchor(rule)})" in page


@pytest.mark.slow
@pytest.mark.parametrize("rule", RULES)
def test_the_examples_of_the_rules_print_what_the_page_shows(hooks, rule):
    printed = hooks.generate_rules.run(rule)
    kept = hooks.generate_rules.output(rule).read_text()
    assert re.sub(r"[\d.e-]+", "0", printed) == re.sub(r"[\d.e-]+", "0", kept)


def test_the_table_of_nets_is_that_of_their_counts(hooks):
    nets, table = hooks.generate_nets.nets(), hooks.TABLES["nets"]()
    assert len(nets) == 4
    for name, net in nets.items():
        layers = [layer["counts"] for layer in net.content["layers"].values()]
        units = sum(len(counts["active"]) for counts in layers)
        dead = sum(counts["active"].count(0) for counts in layers)
        inputs = sum(layers[0]["inputs_by_silent"])
        on = sum(counts["saturated"].count(inputs) for counts in layers)
        silent = sum(k * n for counts in layers for k, n in enumerate(counts["inputs_by_silent"]))
        shares = f"{dead:,} ({dead / units:.1%}) | {on / units:.1%} | {silent / inputs / units:.1%}"
        assert f"| `{name}` | {len(layers)} | {units:,} | {inputs:,} | {shares} | `" in table
        assert f"\nbnhead inspect {name}.keras --dataset=cifar10" in table
        text = json.dumps(net.content)
        assert not re.search(r'"[^"]*(/home|/tmp|/root|/work)', text) and "class_active" not in text


@pytest.mark.slow
def test_the_gallery_has_the_page_of_a_net(hooks):
    (page,) = (one for one in hooks.generate_gallery.reports() if "pre-trained" in one.title)
    html = page.make().decode()
    assert ">The net</h2>" in html and html.count('<svg class="lanes"') > 50
    assert "By depth" in html and not re.search(r"https?:|<script|<img", html)


def test_placements_are_those_of_the_table(hooks):
    rows = re.findall(r"^\| (P\d).*`(\w+)` \|", hooks.TABLES["placements"](), re.M)
    assert len(rows) == 5
    for placement, text in rows:
        assert heads.placement(text) == (placement,)


def test_every_flag_of_every_command_has_a_row(hooks):
    pages = hooks.generate_commands.pages()
    assert set(pages) == {"commands/index.md"} | {f"commands/{name}.md" for name in COMMANDS}
    for name in COMMANDS:
        command = importlib.import_module(f"bnhead.cli.{name}").COMMAND
        rows = re.findall(r"</span>`--(?:\[no\])?(\w+)`", pages[f"commands/{name}.md"])
        flags = [spec.name for spec in dataclasses.fields(command.settings)]
        assert sorted(rows) == sorted(flag for flag in flags if flag != command.positional)
        assert command.status in pages[f"commands/{name}.md"]


def test_every_question_has_an_answer_a_command_and_a_link():
    questions = (DOCS / "questions.md").read_text().split("\n## ")[1:]
    assert [question.partition(".")[0] for question in questions] == [str(n) for n in range(1, 16)]
    for question in questions:
        title, answer, command, links = re.fullmatch(
            r"(.+\?)\n\n(.+?)\n\n```sh\n(.+?)```\n\n(.+)", question.strip(), re.S
        ).groups()
        assert "\n\n" not in answer and command.startswith("bnhead ")
        assert "](https://" in links and ".md" in links, title


def test_the_commands_of_the_scale_page_are_taken():
    page = (DOCS / "scale.md").read_text()
    lines = [line for block in re.findall(r"```sh\n(.*?)```", page, re.DOTALL) for line in block.splitlines()]
    commands = [line.partition("python train.py ")[2].split() for line in lines if "train.py" in line]
    distributions = [train.COMMAND.parse(arguments).distribution for arguments in commands]
    assert distributions == ["none", "none", "mirrored", "data_parallel", "data_parallel"]
    assert all(f"`{flag}`" in page for flag in ("--sync_bn", "--nosync_bn"))


class Page(html.parser.HTMLParser):
    """The ids and the addresses of a page."""

    def __init__(self, path):
        super().__init__()
        self.ids, self.addresses, self.loaded = {""}, [], []
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.ids |= {value for name in ("id", "name") if (value := values.get(name))}
        for name in ("href", "src"):
            if values.get(name) is not None:
                self.addresses.append(values[name])
                if name == "src" or (
                    tag == "link" and values.get("rel") in ("stylesheet", "preconnect", "icon")
                ):
                    self.loaded.append(values[name])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built strictly: path -> page."""
    pytest.importorskip("mkdocs", reason="the site is built where the extra `docs` is installed")
    place = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", place],
        cwd=DOCS.parent, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return {path: Page(path) for path in place.rglob("*.html")}


def test_no_link_of_the_site_is_dead(site):
    links = 0
    for path, page in site.items():
        for address in page.addresses:
            parts = urllib.parse.urlsplit(address)
            if parts.scheme or address.startswith(("//", "/")):
                continue  # elsewhere, or of the page for missing pages
            target = (path.parent / urllib.parse.unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            assert target.is_file(), f"{path}: {address}"
            if target in site:
                assert urllib.parse.unquote(parts.fragment) in site[target].ids, f"{path}: {address}"
                links += 1
    assert links > 1000


def test_the_site_loads_nothing_from_elsewhere(site):
    loaded = {address for page in site.values() for address in page.loaded}
    assert loaded and not [address for address in loaded if re.match(r"(https?:)?//", address)]


def test_every_public_name_has_its_place_in_the_site(site, hooks):
    (index,) = [path for path in site if path.name == "index.html" and path.parent.name == "bnhead"]
    modules = hooks.generate_reference.public_modules()
    assert {"bnhead", "bnhead.census", "bnhead.heads", "bnhead.models", "bnhead.errors"} <= set(modules)
    for module in modules:
        page = site[index.parent.parent / module / "index.html"]
        shown = dir(importlib.import_module(module))
        names = [name for name in hooks.generate_reference.public_names(module) if name in shown]
        assert names and {f"{module}.{name}" for name in names} <= page.ids
