"""The verdict of a study as people use it: it prints, plots and shows itself in a notebook."""

import os
import pathlib
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bnhead import notebook
from bnhead.census import keys
from bnhead.census.figures import DEAD
from bnhead.studies import causes, wording
from bnhead.studies.directory import StudyFiles, read_study
from bnhead.texts import counted, plotted

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes


def read_verdict(directory: str | os.PathLike) -> "Verdict":
    """The verdict in a study's directory.

    Raises:
        RunDirectoryError: the directory holds no study, or its files are damaged; or the study has no verdict
            yet.
    """
    return Verdict(read_study(pathlib.Path(directory)))


@dataclass(frozen=True, repr=False)
class Verdict:
    """The verdict of a study, with its plan and its runs. `print` shows each comparison in a sentence.

    Attributes:
        files: the study's plan, verdict and runs.
    """

    files: StudyFiles

    @property
    def word(self) -> str:
        """HELPS, HURTS, NO MATERIAL DIFFERENCE, UNDECIDED, UNSTABLE, INVALID; MIXED if comparisons differ."""
        return self.files.verdict["word"]

    @property
    def sentence(self) -> str:
        """The finding in one sentence."""
        return self.files.verdict["sentence"]

    @property
    def comparisons(self) -> list[dict[str, Any]]:
        """The comparisons as in `verdict.json`: names, scores and differences by seed, interval, word."""
        return self.files.verdict["comparisons"]

    def rows(self) -> list[dict[str, Any]]:
        """A row for each comparison.

        `comparison`, `control`, `treatment`, `verdict`, `seeds` (number of pairs), `difference` (treatment
        less control, in the metric's own unit: 0.01 is one point of accuracy), `low` and `high` (its
        interval), `control_score` and `treatment_score` (means over the seeds), and `control_dead` and
        `treatment_dead`, the share of dead units in the last counted layer, mean over the seeds.
        """
        rows = []
        for numbers in self.comparisons:
            low, high = numbers.get("interval") or (None, None)
            row = {
                "comparison": numbers["name"],
                "control": numbers["control"],
                "treatment": numbers["treatment"],
                "verdict": numbers["word"],
                "seeds": len(numbers["seeds"]),
                "difference": numbers.get("mean"),
                "low": low,
                "high": high,
            }
            for side in ("control", "treatment"):
                scores = numbers.get(f"{side}_scores") or []
                row[f"{side}_score"] = statistics.fmean(scores) if scores else None
                row[f"{side}_dead"] = self._dead_share(numbers[side])
            rows.append(row)
        return rows

    def to_frame(self) -> "pandas.DataFrame":
        """`rows` as a pandas data frame, indexed by `comparison`.

        Raises:
            UsageError: pandas is not installed.
        """
        return notebook.frame(self.rows(), "comparison")

    def plot_forest(self, ax: "Axes | None" = None) -> "Axes":
        """Draws the paired differences: a row for each comparison, a dot for each seed, mean and interval.

        The grey band holds the differences that are not material.

        Args:
            ax: Matplotlib axes to draw on; None makes a new figure. They are returned.
        """
        plan = self.files.plan
        outcome = plan.measures[0]
        factor = 100 if wording.is_share(outcome.name) else 1
        names = [numbers["name"] for numbers in self.comparisons]
        ax = notebook.axes(ax, 6.4, 1.3 + 0.55 * len(names))
        ax.axvspan(-factor * plan.delta, factor * plan.delta, color=notebook.GREY, alpha=0.25, lw=0)
        ax.axvline(0, color=notebook.GREY, lw=1)
        for y, numbers in enumerate(self.comparisons):
            _draw_comparison(ax, y, numbers, factor)
        ax.set_yticks(range(len(names)), [plotted(name) for name in names])
        ax.set_ylim(len(names) - 0.4, -0.6)
        ax.tick_params(axis="y", length=0)
        ax.spines[["left", "right", "top"]].set_visible(False)
        metric, unit = wording.metric_name(outcome.name), wording.unit(outcome.name)
        left, right = ("control", "treatment")[:: outcome.better]
        ax.set_xlabel(f"\N{LEFTWARDS ARROW} {left} better    {metric}, difference"
                      f"{f' in {unit}' * bool(unit)}    {right} better \N{RIGHTWARDS ARROW}")  # fmt: skip
        return ax

    def __str__(self) -> str:
        return "\n".join(row["sentence"] for row in wording.leading_rows(self.files.verdict))

    def __repr__(self) -> str:
        number = counted(len(self.comparisons), "comparison")
        seeds = counted(self.files.verdict["look"]["seeds"], "seed")
        return f"<Verdict: {self.word}, {self.files.plan.study}, {number}, {seeds}>"

    def _repr_html_(self) -> str:
        plan = self.files.plan
        primary, level = plan.measures[0].name, "judged interval"
        metric, unit = wording.metric_name(primary), wording.unit(primary)
        headings = [
            ("comparison", "treatment against control"),
            ("verdict", ""),
            (f"difference{f', {unit}' * bool(unit)}", "treatment less control, mean over the seeds"),
            (level, "of the difference"),
            (f"{metric}, control", "mean over the seeds"),
            ("treatment", "mean over the seeds"),
            (f"{DEAD.heading}, control", DEAD.meaning),
            ("treatment", DEAD.meaning),
        ]
        rows = [
            [
                row["comparison"],
                row["verdict"],
                wording.as_difference(row["difference"], primary),
                wording.as_interval(row["low"] is not None and (row["low"], row["high"]), primary),
                wording.as_score(row["control_score"], primary),
                wording.as_score(row["treatment_score"], primary),
                _dead_bar(row["control_dead"]),
                _dead_bar(row["treatment_dead"]),
            ]
            for row in self.rows()
        ]
        notes = [f"{DEAD.meaning}; mean over the seeds"]
        exploratory = [f"exploratory: {reason}" for reason in self.files.verdict["exploratory"]]
        title = f"{self.word}. {plan.question} ({counted(self.files.verdict['look']['seeds'], 'seed')})"
        return notebook.table(title, headings, rows, [*notes, *exploratory]) + "".join(self._cause_tables())

    def _cause_tables(self) -> Iterator[str]:
        """The cause tables of a study of causes in HTML."""
        comparison = self.files.plan.comparisons[0]
        for one in self.files.verdict.get("causes", ()):
            sentence = causes.cause_sentence(one, comparison.control, comparison.treatment)
            unit = wording.unit(one["outcome"])
            headings = [
                ("cause", "what differs between two heads of the chain"),
                (
                    f"difference{f', {unit}' * bool(unit)}",
                    "mean over the seeds; * where the interval excludes 0",
                ),
                (f"interval, {100 * one['level']:.4g} %", "the intervals of a table hold together"),
                ("share", "of the difference"),
            ]
            yield notebook.table(sentence, headings, causes.cause_rows(one))

    def _dead_share(self, cell: str) -> float | None:
        """Share of dead units in the last counted layer of a cell, mean over its seeds."""
        dead: Mapping[str, Any] = next(
            (figures["dead"] for figures in self.files.verdict["cells"] if figures["name"] == cell), {}
        )
        shares = [part["mean"] for key, part in dead.items() if keys.short_parts(key)[1] == DEAD.name]
        return shares[-1] if shares else None


def _draw_comparison(ax: "Axes", y: int, numbers: Mapping[str, Any], factor: float) -> None:
    """A row of the forest plot."""
    differences: Sequence[float] = [factor * d for d in numbers["differences"]]
    # above the line, which would hide them
    ax.scatter(differences, [y - 0.17] * len(differences), s=24, color=notebook.BLUE, alpha=0.6, lw=0)
    if numbers.get("interval"):
        ax.hlines(y, *(factor * bound for bound in numbers["interval"]), color=notebook.BLUE, lw=2.5)
        ax.scatter([factor * numbers["mean"]], [y], s=55, color=notebook.BLUE, zorder=3)
    ax.annotate(numbers["word"], (1, y), (6, 0), xycoords=("axes fraction", "data"),
                textcoords="offset points", va="center", annotation_clip=False)  # fmt: skip


def _dead_bar(share: float | None) -> notebook.Bar | str:
    return wording.NONE if share is None else DEAD.bar(share)
