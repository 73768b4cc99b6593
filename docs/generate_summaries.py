"""What studies of one name found, from the plans and verdicts that are kept in docs/answer/summaries/."""

import pathlib
from collections.abc import Sequence
from typing import Any

import generate_answer

from bnhead.studies import wording
from bnhead.studies.directory import StudyFiles, read_study

SUMMARIES = generate_answer.ANSWER / "summaries"
NO_STUDY = "No study is kept yet; this section is made from those that are."


def studies(name: str = "") -> dict[str, StudyFiles]:
    """Folder in docs/answer/summaries/ -> its study; with a name, of folders that begin with it and `_`."""
    paths = sorted(SUMMARIES.glob(f"{name}_*" if name else "*"))
    return {path.name: read_study(path) for path in paths}


def findings(name: str, outcomes: Sequence[str]) -> str:
    """For each kept study its command, its headline and its differences."""
    texts = []
    for study in studies(name).values():
        if study.plan.cells[0].stratum:  # a headline of so many comparisons is longer than their table
            texts += [about(study), by_stratum(study, outcomes)]
        else:
            texts += [heading(study), differences(study, outcomes)]
    return "\n\n".join(texts or [NO_STUDY])


def heading(study: StudyFiles) -> str:
    """Title, command, size and headline of a study."""
    return f"{about(study)}\n\n{wording.headline(study.plan, study.verdict)}"


def about(study: StudyFiles) -> str:
    """Title, command and size of a study."""
    plan, verdict = study.plan, study.verdict
    settings = plan.run_settings(plan.runs[0])  # of the control
    backbone = pathlib.PurePath(settings["backbone"]).name
    imbalance = settings["imbalance"].replace("none", "")
    title = ", ".join(filter(None, (settings["dataset"], imbalance, backbone)))
    runs = len(plan.cells) * verdict["look"]["seeds"]
    images = f"{plan.data['train']:,} training and {plan.data['test']:,} test images" if plan.data else ""
    sizes = (f"{settings['epochs']} epochs", images, f"{verdict['look']['seeds']} seeds", f"{runs:,} runs")
    parts = (
        f"### {title}",
        f"```sh\n{generate_answer.command(plan)}\n```",
        ", ".join(filter(None, sizes)) + ".",
    )
    return "\n\n".join(parts)


def differences(study: StudyFiles, outcomes: Sequence[str]) -> str:
    """Difference from the control and interval of each outcome, a row for each treatment."""
    names = [wording.metric_name(name) for name in outcomes]
    subject, _, treatments = wording.labels(study.plan, study.verdict["comparisons"])
    rows = [
        [f"`{label}`", *(difference(comparison, name) for name in outcomes)]
        for label, comparison in zip(treatments, study.verdict["comparisons"], strict=True)
    ]
    return table([subject.strip(" ,") or "comparison", *names], rows)


def by_stratum(study: StudyFiles, outcomes: Sequence[str]) -> str:
    """A table for each outcome: the mean of the control, each difference from it, a row for each stratum."""
    strata: dict[str, list[Any]] = {}
    for comparison in study.verdict["comparisons"]:
        (value,) = comparison["stratum"].values()
        strata.setdefault(f"{value}", []).append(comparison)
    (setting,) = study.plan.cells[0].stratum
    cells = {cell.name: cell for cell in study.plan.cells}
    first = next(iter(strata.values()))
    control, *treatments = (
        cells[name].arm or cells[name].head
        for name in (first[0]["control"], *(comparison["treatment"] for comparison in first))
    )
    tables = []
    for name in outcomes:
        rows = [
            [value, wording.as_score(_outcome(comparisons[0], name)["control_mean"], name),
             *(difference(comparison, name) for comparison in comparisons)]
            for value, comparisons in strata.items()
        ]  # fmt: skip
        if study.verdict["trends"] and name == study.verdict["trends"][0]["outcome"]:
            rows.append(["per doubling", *_slopes(study, name)])
        title = f"{wording.metric_name(name)}, by {setting}"
        tables.append(table([title, f"`{control}`", *(f"`{arm}` less that" for arm in treatments)], rows))
    return "\n\n".join(tables)


def _slopes(study: StudyFiles, name: str) -> list[str]:
    """The control's slope, and each treatment's difference of slopes."""
    trends = study.verdict["trends"]
    (control,) = (row for row in trends if row["name"] == trends[0]["name"])
    rows = [control, *(row for row in trends if row["control"])]
    return [mean_text(row, name) for row in rows]


def _outcome(comparison: dict, name: str) -> dict | None:
    rows = {row["outcome"]: row for row in (comparison, *comparison["secondary"])}
    return rows.get(name)


def difference(comparison: dict, name: str) -> str:
    """Mean and interval of an outcome's difference, bold where a head helps or hurts; a dash without any."""
    row = _outcome(comparison, name)
    if row is None or not row["interval"]:
        return wording.NONE
    return mean_text(row, name)


def mean_text(row: dict, name: str) -> str:
    """Mean and interval of a row of `verdict.json`, the mean bold if the row has a direction."""
    marks = "**" * (row["word"] in ("HELPS", "HURTS"))
    mean = wording.as_difference(row["mean"], name)
    return f"{marks}{mean}{marks} {wording.as_interval(row['interval'], name)}"


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
