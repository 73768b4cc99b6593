"""The findings in docs/imbalance.md, from the plans and verdicts of the studies in docs/answer/summaries/."""

import pathlib

from bnhead.report.study_figures import claim_forests, class_table
from bnhead.studies import claims, wording
from bnhead.studies.commands import study_command
from bnhead.studies.directory import StudyFiles, read_study

SUMMARIES = pathlib.Path(__file__).resolve().parent / "answer" / "summaries"
SHOWN = (
    "balanced_accuracy", "adjusted_balanced_accuracy", "minority_recall", "minority_precision", "nll",
    "ece_excess",
)  # fmt: skip


def studies() -> dict[str, StudyFiles]:
    """Name in docs/answer/summaries/ -> the study."""
    return {path.name: read_study(path) for path in sorted(SUMMARIES.glob("imbalance_*"))}


def findings() -> str:
    """For each study its command, its headline and its tables."""
    texts = [text for study in studies().values() for text in _section(study)]
    return "\n\n".join(texts or ["No study is kept yet; this section is made from those that are."])


def _section(study: StudyFiles) -> list[str]:
    plan, verdict = study.plan, study.verdict
    command = study_command(plan, "").removesuffix(" --dir=")
    runs = len(plan.cells) * verdict["look"]["seeds"]
    title = f"### {plan.settings['dataset']}, {plan.settings['imbalance']}"
    backbone, epochs = (plan.settings[key] for key in ("backbone", "epochs"))
    about = f"{backbone}, {epochs} epochs, {verdict['look']['seeds']} seeds, {runs} runs."
    return [title, f"```sh\n{command}\n```", about, wording.headline(plan, verdict),
            _differences(study), _classes(study), *_claims(study)]  # fmt: skip


def _differences(study: StudyFiles) -> str:
    """Difference from the control and interval of each outcome that is shown, a row for each treatment."""
    names = [wording.metric_name(name) for name in SHOWN]
    lines = [f"| against `{claims.CONTROL}` | {' | '.join(names)} |", "|---|" + "---|" * len(names)]
    _, _, treatments = wording.labels(study.plan, study.verdict["comparisons"])
    for label, comparison in zip(treatments, study.verdict["comparisons"], strict=True):
        rows = {row["outcome"]: row for row in (comparison, *comparison["secondary"])}
        texts = []
        for name in SHOWN:
            row = rows.get(name)
            if row is None or not row["interval"]:
                texts.append(wording.NONE)
                continue
            mean = wording.as_difference(row["mean"], name)
            bold = "**" * (row["word"] in ("HELPS", "HURTS"))
            texts.append(f"{bold}{mean}{bold} {wording.as_interval(row['interval'], name)}")
        lines.append(f"| `{label}` | {' | '.join(texts)} |")
    return "\n".join(lines)


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
