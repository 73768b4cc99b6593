"""Seven published claims about a final batch norm under class imbalance, and the cells that check them.

Kocaman, Shir and Baeck 2021, arXiv 2109.09016, claim six things and, as a seventh, that softmax outputs are
a worse measure of uncertainty with the norm. Their data have one majority class, and their norm stands
"before the softmax output layer": between the FC and the output layer (`fc_bn`, P2), or on the logits
(`fc_out_bn`, P3). Each claim is checked for both.

The gain of a head is its balanced accuracy less that of `fc`, paired by seed, with one majority class unless
noted. Each claim is that some difference is above 0:

    removable     the gain with the norm taken out of the trained model
    threshold     the gain at the study's imbalance less that at a quarter of it, and less that at four times
    batch         the gain at a quarter of the batch size less that at the study's; or the other way round
    general       the gain: on other data, and with a simpler net, than theirs
    majority      the gain with one majority class less that with two
    softmax       the gain with a softmax less that with a sigmoid for each class
    calibration   the calibration error above its floor, less that of `fc`

CONFIRMED: the interval is above 0. REFUTED: it is below the margin, so that nothing material is above 0.
Where both hold it is REFUTED; where neither does, UNDECIDED. `threshold` needs both differences, and `batch`
has two sides: CONFIRMED where the interval excludes 0, REFUTED where it lies within the margin.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bnhead.errors import UsageError

CONTROL, HEADS = "fc", ("fc_bn", "fc_out_bn")  # P2 and P3
FACTOR = 4  # between imbalances, and between batch sizes
WORDS = ("CONFIRMED", "REFUTED", "UNDECIDED", "INVALID")


@dataclass(frozen=True)
class Claim:
    """A claim.

    Attributes:
        name: in files.
        number: as in the abstract of the paper; "" for the seventh.
        title: in tables.
        meaning: what is above 0 if it is true.
    """

    name: str
    number: str
    title: str
    meaning: str


CLAIMS = tuple(
    Claim(*texts)
    for texts in (
        ("removable", "i", "it outlives the norm", "the gain with the norm taken out of the trained model"),
        (
            "threshold",
            "ii",
            "it peaks at an imbalance",
            f"the gain less that at a {FACTOR}th and at {FACTOR} times the imbalance; the smaller one",
        ),
        (
            "batch",
            "iii",
            "the batch size matters",
            f"the gain at a {FACTOR}th of the batch size less the gain",
        ),
        ("general", "iv", "other data, simple nets", "the gain"),
        ("majority", "v", "with one majority only", "the gain less that with two majority classes"),
        ("softmax", "vi", "hardly with a sigmoid", "the gain less that with a sigmoid for each class"),
        ("calibration", "", "worse calibration", "calibration error above its floor, less that of fc"),
    )
)
OF_NAME = {claim.name: claim for claim in CLAIMS}


def strata(settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Name of a stratum of the checks -> its settings.

    Args:
        settings: of the study: `imbalance`, `batch_size`, `learning_rate`.

    Raises:
        UsageError: the classes are balanced, or an imbalance or batch that has no quarter.
    """
    ratio = float(settings["imbalance"].partition(":")[2] or 0)
    size = settings["batch_size"] // FACTOR
    if ratio < 2 * FACTOR:
        raise UsageError(
            f"imbalance must have a ratio of at least {2 * FACTOR}, so that a {FACTOR}th is still one, "
            f"got {settings['imbalance']!r}"
        )
    if size < 2:
        raise UsageError(
            f"batch_size must be at least {2 * FACTOR}, so that a {FACTOR}th of it can be trained, got "
            f"{settings['batch_size']}"
        )
    one = {"imbalance": f"one_majority:{ratio:g}"}
    rate = float(f"{settings['learning_rate'] / FACTOR:.6g}")  # proportional to the batch size
    return {
        "one": one,
        "less": {"imbalance": f"one_majority:{ratio / FACTOR:g}"},
        "more": {"imbalance": f"one_majority:{ratio * FACTOR:g}"},
        "batch": {**one, "batch_size": size, "learning_rate": rate},
        "two": {"imbalance": f"two_majorities:{ratio:g}"},
        "sigmoid": {**one, "task": "multilabel"},
    }


def cells_of(base: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Head and settings of each cell of the checks.

    Args:
        base: the study's settings, a `TrainConfig`.
    """
    names = ("imbalance", "batch_size", "learning_rate")
    for stratum in strata({name: getattr(base, name) for name in names}).values():
        yield from ((head, stratum) for head in (CONTROL, *HEADS))


def strata_of_cells(plan: Any) -> dict[str, dict[str, Any]]:
    """The strata of a plan's checks, as `strata`; empty if it has no cells for them."""
    try:
        wanted = strata(plan.settings)
    except (KeyError, ValueError, TypeError, AttributeError, UsageError):
        return {}
    present = {(cell.head, tuple(sorted(cell.stratum.items()))) for cell in plan.cells}
    needed = {
        (head, tuple(sorted(stratum.items()))) for stratum in wanted.values() for head in (CONTROL, *HEADS)
    }
    return wanted if needed <= present else {}


def headline(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The claims in one sentence, for both places of the norm; none if none could be judged."""
    if all(row["word"] == "INVALID" for row in rows):
        return []
    parts = []
    for head in HEADS:
        by_word: dict[str, list[str]] = {}
        for row in (row for row in rows if row["head"] == head):
            claim = OF_NAME[row["claim"]]
            by_word.setdefault(row["word"], []).append(claim.number or claim.name)
        texts = [f"{', '.join(by_word[word])} {word}" for word in WORDS if word in by_word]
        parts.append(f"with {head} {'; '.join(texts)}")
    return [f"Published claims about a final batch norm: {', and '.join(parts)}."]
