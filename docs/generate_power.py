"""Writes the tables of error rates and power in docs/studies.md: `python docs/generate_power.py`.

Every figure is a share of simulated studies of one comparison of test accuracy. The difference of seed s and
image i is d[s, i] = mean + S_s + I_i + E_si with normal parts, whose variances are those of real runs of
`bn_fc` and `fc` on digits, or those with one of them 0. A study is judged as any other: interval and word are
the package's. That takes minutes; a slow test compares the page with the tables.
"""

import pathlib
import re
import sys
from collections.abc import Iterator, Sequence

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bnhead.studies.intervals import Crossed, crossed  # noqa: E402
from bnhead.studies.verdict import word_of  # noqa: E402

PAGE = ROOT / "docs" / "studies.md"
STUDIES = 10_000
IMAGES = 360  # the test split of digits
ALPHA = 0.05
DELTA = 0.01  # a point of accuracy
DESIGNS = {"3": (3,), "5": (5,), "10": (10,), "20": (20,), "10, 20, 40": (10, 20, 40)}  # looks
REAL = (1.0e-4, 2.0e-3, 2.0e-2)  # variances of seeds, images and interaction
VARIANCES = {
    "as in real runs": REAL,
    "none of seeds": (0.0, *REAL[1:]),
    "none of images": (REAL[0], 0.0, REAL[2]),
    "no interaction": (*REAL[:2], 0.0),
}
# A margin far below the spread lets no interval pass as NO MATERIAL DIFFERENCE, one far above it nearly all:
# with the first, HELPS and HURTS are most frequent, with the last NO MATERIAL DIFFERENCE at the margin.
MARGINS = (DELTA / 100, DELTA, 100 * DELTA)
DIFFERENCES = (0.0, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03)
_CHUNK = 4_000_000  # differences in memory at a time


def simulated(
    looks: Sequence[int], variances: Sequence[float], studies: int = STUDIES, images: int = IMAGES
) -> list[Crossed]:
    """Mean and variances at each look of studies without a difference. Another mean is a true difference.

    Args:
        looks: numbers of seeds; the seeds of a look are among those of the next.
        variances: of seeds, images and their interaction.
        studies: number of studies.
        images: number of test images.
    """
    rng = np.random.default_rng(0)
    seed_sd, image_sd, sd = np.sqrt(variances)
    size = max(1, _CHUNK // (looks[-1] * images))
    results = []
    for first in range(0, studies, size):
        chunk = min(size, studies - first)
        seeds, rows = rng.standard_normal((chunk, looks[-1], 1)), rng.standard_normal((chunk, 1, images))
        d = sd * rng.standard_normal((chunk, looks[-1], images)) + seed_sd * seeds + image_sd * rows
        results.append([crossed(d[:, :n]) for n in looks])
    return [_joined(parts) for parts in zip(*results, strict=True)]


def _joined(parts: Sequence[Crossed]) -> Crossed:
    squares = zip(*(part.mean_squares for part in parts), strict=True)
    mean = np.concatenate([part.mean for part in parts])
    return Crossed(parts[0].seeds, parts[0].images, mean, tuple(map(np.concatenate, squares)))


def words(results: Sequence[Crossed], difference: float, margin: float) -> np.ndarray:
    """The word of each study: at the first look that decides, else at the last.

    Args:
        results: of `simulated`.
        difference: the true difference.
        margin: a difference inside +-margin is not material.
    """
    judged = np.full(len(results[0].mean), "UNDECIDED", dtype="U22")
    for result in results:
        low, high = (bound + difference for bound in result.interval(ALPHA / len(results)))
        for study in np.flatnonzero(judged == "UNDECIDED"):
            judged[study] = word_of((low[study], high[study]), margin, 1)
    return judged


def coverage(results: Sequence[Crossed], *, seeds_only: bool = False) -> float:
    """The share of studies whose intervals, at all looks, hold the true difference."""
    bounds = [result.interval(ALPHA / len(results), seeds_only=seeds_only) for result in results]
    return float(np.all([(low <= 0) & (high >= 0) for low, high in bounds], axis=0).mean())


def rates(results: Sequence[Crossed]) -> dict[str, float]:
    """The shares of wrong words, each at the margin at which it is most frequent, and both coverages."""
    found = max(np.isin(words(results, 0.0, margin), ("HELPS", "HURTS")).mean() for margin in MARGINS)
    missed = max((words(results, m, m) == "NO MATERIAL DIFFERENCE").mean() for m in MARGINS)
    return {
        "found": float(found),
        "missed": float(missed),
        "coverage": coverage(results),
        "seeds_only": coverage(results, seeds_only=True),
    }


def error_table(simulations: dict[tuple[str, str], list[Crossed]]) -> Iterator[str]:
    """A row for each design and its variances."""
    yield "| seeds | variance | HELPS or HURTS | NO MATERIAL DIFFERENCE | coverage | over seeds alone |"
    yield "|---|---|---|---|---|---|"
    for (design, variance), results in simulations.items():
        shares = " | ".join(f"{share:.1%}" for share in rates(results).values())
        yield f"| {design} | {variance} | {shares} |"


def power_table(simulations: dict[tuple[str, str], list[Crossed]]) -> Iterator[str]:
    """A row for each true difference, a column for each design, with the variances of real runs."""
    yield f"| true difference | {' | '.join(f'{design} seeds' for design in DESIGNS)} |"
    yield "|---" * (len(DESIGNS) + 1) + "|"
    for difference in DIFFERENCES:
        cells = []
        for design in DESIGNS:
            judged = words(simulations[design, "as in real runs"], difference, DELTA)
            shares = (judged == "HELPS").mean(), (judged == "NO MATERIAL DIFFERENCE").mean()
            cells.append(" / ".join(f"{share:.0%}" for share in shares))
        yield f"| {100 * difference:g} points | {' | '.join(cells)} |"


def with_tables(text: str) -> str:
    """The page with both tables replaced by ones of new simulations."""
    simulations = {
        (design, name): simulated(looks, variances)
        for design, looks in DESIGNS.items()
        for name, variances in VARIANCES.items()
    }
    for start, rows in (("seeds", error_table(simulations)), ("true difference", power_table(simulations))):
        table = "\n".join([*rows, ""])
        text = re.sub(rf"\| {start} \|.*\n(\|.*\n)+", lambda _, table=table: table, text)
    return text


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text()))
