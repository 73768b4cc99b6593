"""Keeps which units fall silent together in a study: `python docs/keep_codeath.py studies/bn_before_fc`.

Writes docs/answer/codeath.json: for each run, what `bnhead inspect RUN --codeath` counts of the head's layer
on all test images, and the same of neighbouring units alone. The models are read, and not kept.
"""

import json
import pathlib
import sys

import numpy as np

from bnhead.census import count
from bnhead.studies.directory import read_study
from bnhead.training.reopen import open_source

FILE = pathlib.Path(__file__).resolve().parent / "answer" / "codeath.json"


def keep(directory: pathlib.Path) -> None:
    """Writes the figures of each run of a study, in the order of its plan."""
    study = read_study(directory)
    rows = []
    for planned in study.judged_runs:
        source = open_source(str(study.runs[planned.id].path))
        images = source.dataset.test.size
        ((_, counts),) = count(source.model, source.batches(256, images), together=True).layers.items()
        rows.append({"cell": planned.cell, "seed": planned.seed, **figures(counts.phi, counts.patterns)})
    settings = {key: study.plan.settings[key] for key in ("dataset", "backbone")}
    FILE.write_text(json.dumps({**settings, "images": images, "runs": rows}, indent=1) + "\n")


def figures(phi: np.ndarray, patterns: float) -> dict[str, float]:
    """Of the phi coefficients of all pairs of units; NaN for units that never change.

    Returns:
        `units` that change, effective number of `patterns`, mean |phi| of all `pairs`, mean phi of all pairs
        and of `neighbours`, units whose numbers differ by 1.
    """
    changing = ~np.isnan(np.diagonal(phi))
    upper = phi[np.triu_indices(len(phi), 1)]
    upper, neighbours = upper[~np.isnan(upper)], np.diagonal(phi, 1)
    neighbours = neighbours[~np.isnan(neighbours)]
    return {
        "units": int(changing.sum()),
        "patterns": round(float(patterns), 4),
        "pairs": round(float(np.abs(upper).mean()), 6),
        "mean": round(float(upper.mean()), 6),
        "neighbours": round(float(neighbours.mean()), 6),
    }


if __name__ == "__main__":
    keep(pathlib.Path(sys.argv[1]))
