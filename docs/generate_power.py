"""Writes the tables of error rates and power in docs/studies.md: `python docs/generate_power.py`.

Every figure is a share of simulated studies of one comparison of test accuracy. The difference of seed s and
image i is d[s, i] = mean + S_s + I_i + E_si with normal parts. Their variances are those of real runs, those
with one part missing, and those where images vary most. A study is judged as any other: interval and word are
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
# Components of d of `bn_fc` against `fc` on digits with resnet20, as `Crossed.components` has them: of seeds,
# images and their interaction: 5 seeds of 3 epochs; 10 seeds of 15 epochs, where that of seeds is 0.
SHORT, FULL = (3.5e-3, 6.8e-4, 0.27), (0.0, 1.9e-4, 1.68e-2)
VARIANCES = {
    "3 epochs": SHORT,
    "no seeds": (0.0, *SHORT[1:]),
    "no images": (SHORT[0], 0.0, SHORT[2]),
    "no interaction": (*SHORT[:2], 0.0),
    "15 epochs": FULL,
    "images most": (0.0, 0.35 * FULL[2], FULL[2]),
}
# A margin far below the spread lets no interval pass as NO MATERIAL DIFFERENCE, one far above it nearly all:
# with the first, HELPS and HURTS are most frequent, with the last NO MATERIAL DIFFERENCE at the margin.
MARGINS = (DELTA / 100, DELTA, 100 * DELTA)
DIFFERENCES = (0.0, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03)
_CHUNK = 4_000_000  # differences in memory at a time
_WORST = {"found": max, "missed": max, "coverage": min, "seeds_only": min}
Simulations = dict[tuple[str, str], list[Crossed]]  # names of design and variances -> the result at each look


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
    rng, size = np.random.default_rng(0), max(1, _CHUNK // (looks[-1] * images))
    results = []
    for first in range(0, studies, size):
        d = differences(rng, min(size, studies - first), looks[-1], images, variances)
        results.append([crossed(d[:, :n]) for n in looks])
    return [_joined(parts) for parts in zip(*results, strict=True)]


def differences(
    rng: np.random.Generator, studies: int, seeds: int, images: int, variances: Sequence[float]
) -> np.ndarray:
    """Paired differences `(studies, seeds, images)` with the mean 0; arguments as of `simulated`."""
    shapes = ((studies, seeds, 1), (studies, 1, images), (studies, seeds, images))
    parts = (sd * rng.standard_normal(shape) for sd, shape in zip(np.sqrt(variances), shapes, strict=True))
    return sum(parts)


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


def error_table(studies: Simulations) -> Iterator[str]:
    """A row for each design, with the worst rate over all variances."""
    yield "| seeds | HELPS or HURTS | NO MATERIAL DIFFERENCE | coverage | coverage over seeds alone |"
    yield "|---|---|---|---|---|"
    for design in DESIGNS:
        cases = [rates(studies[design, name]) for name in VARIANCES]
        worst = [pick(case[key] for case in cases) for key, pick in _WORST.items()]
        yield f"| {design} | {' | '.join(f'{share:.1%}' for share in worst)} |"


def power_table(studies: Simulations) -> Iterator[str]:
    """A row for each true difference, a column for each design, with the variances of full runs."""
    yield f"| true difference | {' | '.join(f'{design} seeds' for design in DESIGNS)} |"
    yield "|---" * (len(DESIGNS) + 1) + "|"
    for difference in DIFFERENCES:
        cells = []
        for design in DESIGNS:
            judged = words(studies[design, "15 epochs"], difference, DELTA)
            shares = (judged == "HELPS").mean(), (judged == "NO MATERIAL DIFFERENCE").mean()
            cells.append(" / ".join(f"{share:.0%}" for share in shares))
        yield f"| {100 * difference:g} points | {' | '.join(cells)} |"


def simulations() -> Simulations:
    """The studies of each design and variance."""
    return {
        (design, name): simulated(looks, variances)
        for design, looks in DESIGNS.items()
        for name, variances in VARIANCES.items()
    }


def with_tables(text: str, studies: Simulations) -> str:
    """The page with both tables replaced by those of the simulations."""
    for start, rows in (("seeds", error_table(studies)), ("true difference", power_table(studies))):
        table = "\n".join([*rows, ""])
        text = re.sub(rf"\| {start} \|.*\n(\|.*\n)+", lambda _, table=table: table, text)
    return text


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text(), simulations()))
