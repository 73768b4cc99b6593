"""Hooks of MkDocs: pages and tables that are made from types, files and the README when the site is built.

A page of docs/ marks the place of a table with a comment: `<!-- generated: figures -->`.
"""

import functools
import importlib
import pathlib
import re
import shutil
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
sys.path[:0] = [str(ROOT), str(DOCS)]

import generate_causes  # noqa: E402
import generate_commands  # noqa: E402
import generate_figures  # noqa: E402
import generate_findings  # noqa: E402
import generate_gallery  # noqa: E402
import generate_heads  # noqa: E402
import generate_imbalance  # noqa: E402
import generate_nets  # noqa: E402
import generate_notebooks  # noqa: E402
import generate_reference  # noqa: E402
import generate_rules  # noqa: E402
import generate_studies  # noqa: E402
import generate_summaries  # noqa: E402

TABLES = {
    "adversarial": functools.partial(
        generate_summaries.findings, "adversarial", ("accuracy", "robust_accuracy", "corrupted_accuracy")
    ),
    "causes": generate_causes.digits,
    "causes_cifar10": generate_causes.cifar10,
    "collapse": generate_causes.collapse,
    "domains": functools.partial(generate_summaries.findings, "domains", ("accuracy", "nll", "dead_share")),
    "figures": generate_figures.table,
    "findings": generate_studies.findings,
    "findings_again": generate_findings.again,
    "findings_controls": functools.partial(generate_studies.finding, "summaries/controls"),
    "findings_definitions": generate_findings.definitions,
    "findings_epochs": generate_findings.by_epoch,
    "findings_everywhere": generate_findings.everywhere,
    "findings_layers": generate_findings.layers,
    "findings_neighbours": generate_findings.neighbours,
    "findings_placement": functools.partial(generate_studies.finding, "placement"),
    "findings_runs": generate_findings.runs,
    "findings_together": generate_findings.together,
    "findings_width": functools.partial(generate_studies.finding, "summaries/width"),
    "gallery": generate_gallery.cards,
    "imbalance": generate_imbalance.findings,
    "mechanisms": generate_figures.mechanisms,
    "nets": generate_nets.table,
    "pretrained": functools.partial(generate_summaries.findings, "pretrained", ("dead_share", "accuracy")),
    "placements": generate_heads.placements,
    "controls": generate_heads.controls,
    "presets": generate_heads.presets,
    "rules": generate_rules.sections,
    "studies": generate_studies.table,
}
PAGES = {"index.md": "README.md", "contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}
MARK = re.compile(r"<!-- generated: (\w+) -->")


def filled(text: str) -> str:
    """The text of a page with its tables."""
    return MARK.sub(lambda mark: TABLES[mark[1]](), text)


def from_root(text: str) -> str:
    """A page of the repository's root as one of the site: links to docs/ and to the root's pages."""
    for page, source in PAGES.items():
        text = text.replace(f"]({source}", f"]({page}")
    text = re.sub(r"\]\((examples/\w+)\.ipynb", r"](\1.md", text)
    return text.replace("](docs/", "](").replace('"docs/', '"')


def generated_pages() -> dict[str, str | bytes]:
    """Path in the site -> content, of everything that docs/ does not hold."""
    return {
        **{page: from_root((ROOT / source).read_text()) for page, source in PAGES.items()},
        **generate_heads.images(),
        **generate_commands.pages(),
        **generate_reference.pages(),
        **generate_gallery.files(),
        **generate_notebooks.files(),
    }


def on_config(config):
    """Puts the generated pages into the navigation, and lets mkdocstrings read bnhead as it is installed."""
    sections = {
        "Examples": [{title: path} for path, title in generate_notebooks.titles().items()],
        "Commands": [{title: path} for path, title in generate_commands.titles().items()],
        "API": [{title: path} for path, title in generate_reference.titles().items()],
    }
    for entry in config.nav:
        for name, pages in sections.items():
            if name in entry:
                entry[name] = pages
    # models/ is bnhead.models in an install, and mkdocstrings reads files
    global _sources
    _sources = tempfile.TemporaryDirectory()
    tree = pathlib.Path(_sources.name) / "bnhead"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "bnhead", tree, ignore=ignored)
    shutil.copytree(ROOT / "models", tree / "models", ignore=ignored)
    config.plugins["mkdocstrings"].config.handlers["python"]["paths"] = [_sources.name]
    return config


on_config.mkdocs_priority = 100  # before mkdocstrings, which reads its settings in this event


def on_files(files, config):
    """Adds the generated pages and pictures."""
    File = importlib.import_module("mkdocs.structure.files").File
    for path, content in generated_pages().items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown, page, config, files):
    """Fills in the tables of a page."""
    return filled(markdown)


def on_post_build(config):
    """Removes the copy that mkdocstrings has read."""
    _sources.cleanup()
