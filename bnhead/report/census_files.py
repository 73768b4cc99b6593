"""The files of a census. A directory holds those of one inspection: a model, its weights and the data.

`census.json` records which one. The same inspection replaces its files; another one does so only on request.
"""

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from bnhead.census.census import Census
from bnhead.errors import RunDirectoryError
from bnhead.report import census_page, census_tables
from bnhead.report.inspected import Inspected
from bnhead.report.net_diagram import Step
from bnhead.runs import atomic
from bnhead.runs.directory import CENSUS_FILES, MECHANISMS, RunDirectory, changed_settings

_OF_MODEL = ("net", "weights_sha256")


def check_directory(directory: RunDirectory, inspected: Inspected) -> None:
    """Checks that the directory holds the census of no other inspection. Writes nothing.

    Args:
        directory: the directory, which need not exist.
        inspected: the inspection whose files are to be written.

    Raises:
        RunDirectoryError: it cannot be written, or holds the census of another inspection, which the message
            compares, or other files of the same names.
    """
    if directory.path.exists() and not directory.path.is_dir():
        raise RunDirectoryError(f"out {directory.path} cannot be written: it is a file")
    parent = next(path for path in (directory.path, *directory.path.absolute().parents) if path.exists())
    if not os.access(parent, os.W_OK):
        raise RunDirectoryError(
            f"out {directory.path} cannot be written: {parent} is read-only; give --out=DIR"
        )
    present = [name for name in CENSUS_FILES if (directory.path / name).exists()]
    if not present:
        return
    advice = "(--overwrite replaces it, --out=DIR writes elsewhere)"
    record = _record(directory)
    if record is None:
        raise RunDirectoryError(f"out {directory.path} holds {present[0]} of an unknown model {advice}")
    if not inspected.is_same(record):
        current = dataclasses.asdict(inspected)
        if record.get("model") != inspected.model:  # the others follow from it
            record, current = (
                {k: v for k, v in settings.items() if k not in _OF_MODEL} for settings in (record, current)
            )
        differences = changed_settings(record, current)
        raise RunDirectoryError(f"out {directory.path} holds another census: {differences} {advice}")


def write_census(
    directory: RunDirectory,
    census: Census,
    inspected: Inspected,
    about: Mapping[str, str],
    classes: Sequence[str] = (),
    steps: Sequence[Step] = (),
) -> None:
    """Writes `census.json`, `census.csv` and `index.html`, each completely or not at all.

    Files of another inspection are removed first, and `census.json` is written first: the directory never
    mixes two.

    Args:
        directory: the directory.
        census: the counts.
        inspected: the subject of the counts.
        about: rows of facts for the page.
        classes: names of the classes.
        steps: the calls of the net (`graph.outline.steps_of`), for its diagram.

    Raises:
        RunDirectoryError: the directory cannot be written.
        ResourcesError: the disk is full.
    """
    origin = {"inspected": dataclasses.asdict(inspected), "weights": inspected.source}
    content = {
        **origin,
        "about": dict(about),
        "classes": list(classes),
        "steps": list(steps),
        **census_tables.census_data(census),
    }
    texts = {
        "census.json": json.dumps(atomic.finite_or_none(content), allow_nan=False) + "\n",
        "census.csv": census_tables.census_csv(census),
        "index.html": census_page.census_html(census, inspected, about=about, classes=classes, steps=steps),
    }
    try:
        directory.path.mkdir(parents=True, exist_ok=True)
        record = _record(directory)
        if record is None or not inspected.is_same(record):
            for name in (MECHANISMS, *reversed(CENSUS_FILES)):
                (directory.path / name).unlink(missing_ok=True)
    except OSError as error:
        raise atomic.unwritable(error, f"out {directory.path}") from error
    for name, text in texts.items():
        directory.replace(name, lambda path, text=text: path.write_text(text, encoding="utf-8"))


def census_in(content: Mapping[str, Any]) -> Census:
    """The counts in the content of a `census.json`."""
    layers = {name: layer["counts"] for name, layer in content["layers"].items()}
    return Census.from_dict({**content, "layers": layers})


def add_mechanisms(directory: RunDirectory, content: Mapping[str, Any]) -> None:
    """Adds `mechanisms.json` to the files of a census, and writes the page again with it.

    Args:
        directory: with the files of `write_census`.
        content: `training_batch`, `norm`, `figures` and `interventions`, as far as they were measured.
    """
    content = atomic.finite_or_none(dict(content))
    directory.write(MECHANISMS, content)
    page = page_of(directory.read("census.json"), content)
    directory.replace("index.html", lambda path: path.write_text(page, encoding="utf-8"))


def page_of(content: Mapping[str, Any], mechanisms: Mapping[str, Any] | None = None) -> str:
    """The page of a census, made again from the content of its `census.json` and `mechanisms.json`."""
    return census_page.census_html(
        census_in(content),
        Inspected(**content["inspected"]),
        about=content["about"],
        classes=content["classes"],
        steps=content["steps"],
        mechanisms=mechanisms,
    )


def _record(directory: RunDirectory) -> dict | None:
    """The recorded subject of the census in the directory; None if that is not recorded."""
    try:
        record = (directory.read("census.json") or {}).get("inspected")
    except RunDirectoryError:
        return None
    return record if isinstance(record, dict) else None
