"""The findings in docs/imbalance.md, from the plans and verdicts of the studies in docs/answer/summaries/."""

import generate_summaries

from bnhead.report.study_figures import claim_forests, class_table
from bnhead.studies.directory import StudyFiles

SHOWN = (
    "balanced_accuracy", "adjusted_balanced_accuracy", "minority_recall", "minority_precision", "nll",
    "ece_excess",
)  # fmt: skip


def findings() -> str:
    """For each study its command, its headline and its tables."""
    texts = [text for study in generate_summaries.studies("imbalance").values() for text in _section(study)]
    return "\n\n".join(texts or [generate_summaries.NO_STUDY])


def _section(study: StudyFiles) -> list[str]:
    about = (generate_summaries.heading(study), generate_summaries.differences(study, SHOWN))
    return [*about, _classes(study), *_claims(study)]


def _classes(study: StudyFiles) -> str:
    """The recall of each class, with and without the prior."""
    table = class_table(study)
    lines = [
        f"| recall of class | | {' | '.join(table['headings'])} |",
        "|---|---|" + "---:|" * len(table["headings"]),
        f"| training examples | | {' | '.join(table['counts'])} | |",
    ]
    lines += [f"| `{cell}` | {about} | {' | '.join(texts)} |" for cell, about, texts in table["rows"]]
    return "\n".join(lines)


def _claims(study: StudyFiles) -> list[str]:
    """The claims, a table for each place of the norm."""
    tables = []
    for forest in claim_forests(study):
        lines = [
            f"| {forest['title']} | verdict | what is above 0 | points | interval, {forest['level']} % |",
            "|---|---|---|---:|---:|",
        ]
        for row in forest["rows"]:
            number = f"{row['number']}. " * bool(row["number"])
            texts = (number + row["name"], *(row[key] for key in ("word", "meaning", "mean", "interval")))
            lines.append(f"| {' | '.join(texts)} |")
        tables.append("\n".join(lines))
    return tables
