"""How far to trust the scores of a run: the interval of an accuracy, and reasons for caution."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

FEW_IMAGES = 100  # of a test split: one image is a point of accuracy
AT_CHANCE = 1.5  # times the share of the largest class


def wilson(share: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """The interval of a share that was observed among `n` independent cases.

    Args:
        share: in [0, 1].
        n: at least 1.
        confidence: of the two-sided interval, in (0, 1).

    Reference: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    z = statistics.NormalDist().inv_cdf((1 + confidence) / 2)
    centre, shrink = share + z * z / (2 * n), 1 + z * z / n
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, (centre - half) / shrink), min(1.0, (centre + half) / shrink)


def cautions(
    settings: Mapping[str, Any], result: Mapping[str, Any], rows: Sequence[Mapping[str, float]]
) -> list[str]:
    """Reasons for not taking a finished run's test score at face value, each with what to do.

    Args:
        settings: the content of `config.json`.
        result: the content of `result.json`.
        rows: of `history.csv`.
    """
    lines = []
    images = result["data"]["test"]
    if images < FEW_IMAGES:
        lines.append(f"{images} test images are few: one is {100 / images:.1f} points of accuracy")
    test, trained = result.get("test_accuracy"), rows[-1].get("accuracy") if rows else None
    counts = result["data"].get("checks", {}).get("class_counts", {}).get("test")
    if settings.get("task") != "classification" or not counts or test is None or trained is None:
        return lines
    chance = max(counts) / sum(counts)
    if not (test <= AT_CHANCE * chance and trained > 2 * AT_CHANCE * chance):
        return lines
    steps = result["data"]["checks"].get("batches", {}).get("steps", 0) * result["epochs"]
    line = f"test accuracy is at chance, {test:.1%}, and training accuracy is not, {trained:.1%}: "
    if settings.get("recompute_batch_stats") == "all":
        lines.append(f"{line}test and training images may differ, or their labels")
    else:
        lines.append(
            f"{line}after {steps} steps the moving averages of the batch norms may still lag; "
            "--recompute_batch_stats=all measures them at the end, and more epochs let them follow"
        )
    return lines
