"""The tables in docs/findings.md, from the kept runs of a study in docs/answer/."""

import csv
import json
import math
from collections.abc import Callable, Sequence

import generate_answer
import generate_summaries
import numpy as np
from scipy import stats

from bnhead.census import keys
from bnhead.census.figures import FIGURES, Figure
from bnhead.runs.run_files import RunFiles
from bnhead.studies import wording
from bnhead.studies.directory import StudyFiles, read_plan, read_study
from bnhead.studies.plan import Plan
from bnhead.training import TrainConfig

STUDY = generate_answer.ANSWER / "placement"
HOURS = generate_answer.ANSWER / "hours.json"
CODEATH = generate_answer.ANSWER / "codeath.json"
HEADS = ("fc", "bn_gap_fc", "bn_fc", "fc_bn", "fc_out_bn")
DEFINITIONS = (  # names of figures, from the mildest definition of "dead" to the strictest
    *("per_input", "class_dead", "dormant_01", "dormant_0025", "rarely_active", "dataset", "certified"),
    *("weight_dead", "always_on"),
)
EPOCHS = (1, 2, 4, 8, 15)
VARIED = ("fc_units", "learning_rate", "batch_size", "weight_decay", "head_bn_epsilon", "epochs")
_LEVEL = 0.95


def everywhere() -> str:
    """What each placement changes on each data set and backbone: the metric, then the dead units."""
    studies = [read_study(STUDY), *generate_summaries.studies("placement").values()]
    studies.sort(key=lambda study: (setting(study.plan).count(","), study.plan.task))  # nets, then settings
    tables = []
    for title, outcome in (("metric", ""), ("dead units", "dead_share")):
        rows = [
            [setting(study.plan), str(study.verdict["look"]["seeds"]),
             *(_cell(study, head, outcome) for head in HEADS[1:])]
            for study in studies
        ]  # fmt: skip
        headings = [f"{title}, less that of `fc`", "seeds", *(f"`{head}`" for head in HEADS[1:])]
        tables.append(generate_summaries.table(headings, rows))
    commands = "\n".join(generate_answer.command(study.plan) for study in studies)
    return "\n\n".join([*tables, f"```sh\n{commands}\n```"])


def setting(plan: Plan) -> str:
    """`"digits, resnet8, learning_rate 0.03"`, `"cifar10, frozen resnet18_imagenet"`."""
    settings, net = plan.settings, {**plan.cells[0].settings, **plan.settings}
    usual = TrainConfig(task=settings["task"])
    changed = [
        f"{name} {settings[name]:g}"
        for name in VARIED
        if settings.get(name, getattr(usual, name)) != getattr(usual, name)
    ]
    backbone = "frozen " * net.get("freeze_backbone", False) + net["backbone"].removesuffix(".keras")
    return ", ".join([settings["dataset"], backbone, *changed])


def layers() -> str:
    """Heads of one to three layers, each with and without a batch norm before the first: both accuracies."""
    studies = [read_study(STUDY.with_name("digits")), *generate_summaries.studies("layers").values()]
    rows, commands = [], []
    for study in studies:
        (row,) = study.verdict["comparisons"]
        scores = [wording.as_score(row[f"{side}_mean"], row["outcome"]) for side in ("control", "treatment")]
        heads = f"`{row['control']}`, `{row['treatment']}`"
        difference = generate_summaries.difference(row, row["outcome"])
        rows.append([setting(study.plan), heads, str(row["n"]), *scores, difference])
        commands.append(generate_answer.command(study.plan))
    headings = ["data set, backbone", "heads", "seeds", "accuracy without", "with", "difference in points"]
    block = "\n".join(commands)
    return f"{generate_summaries.table(headings, rows)}\n\n```sh\n{block}\n```"


def _cell(study: StudyFiles, head: str, outcome: str) -> str:
    comparisons = [row for row in study.verdict["comparisons"] if row["treatment"] == head]
    if not comparisons:
        return wording.NONE
    return generate_summaries.difference(comparisons[0], outcome or study.plan.measures[0].name)


def definitions() -> str:
    """The share of the FC's units by each definition of "dead", for the control and the four placements."""
    study = read_study(STUDY)
    by_name = {figure.name: figure for figure in FIGURES}
    rows = [
        [f"**{by_name[name].heading}**: {by_name[name].meaning}",
         *(_share(study, head, by_name[name]) for head in HEADS)]
        for name in DEFINITIONS
    ]  # fmt: skip
    return "\n\n".join(
        [
            _about(study),
            generate_summaries.table(["of the FC's units", *(f"`{head}`" for head in HEADS)], rows),
        ]
    )


def by_epoch() -> str:
    """Units dead and units silent per input after some epochs, with and without a batch norm."""
    study = read_study(STUDY)
    by_name = {figure.name: figure for figure in FIGURES}
    rows = [
        [by_name[name].heading, f"`{head}`",
         *(_interval(_history(study, head, name, epoch)) for epoch in EPOCHS)]
        for name in ("dataset", "per_input")
        for head in ("fc", "bn_fc")
    ]  # fmt: skip
    return generate_summaries.table(["units", "head", *(f"epoch {epoch}" for epoch in EPOCHS)], rows)


def neighbours() -> str:
    """How the dead units of the heads that have any lie: runs of dead units against chance."""
    study = read_study(STUDY)
    rows = []
    for head in HEADS:
        results = [run.result for run in study.of_cell(head)]
        values = {name: [_value(result, name) for result in results] for name in
                  ("dataset", "runs", "runs_expected", "runs_p", "runs_z_per_input")}  # fmt: skip
        some = [at for at, share in enumerate(values["dataset"]) if share > 0]
        z = _interval(values["runs_z_per_input"], lambda value: f"{value:+.2f}")
        if not some:
            rows.append([f"`{head}`", "0", *["\N{EN DASH}"] * 3, z])
            continue
        excess = [values["runs"][at] - values["runs_expected"][at] for at in some]
        small = sum(values["runs_p"][at] < 0.05 for at in some)
        rows.append(
            [f"`{head}`", str(len(some)), f"{np.mean([values['runs_expected'][at] for at in some]):.1f}",
             _interval(excess, lambda value: f"{value:+.1f}"), f"{small} of {len(some)}", z]
        )  # fmt: skip
    headings = ["head", "seeds with dead units", "runs of dead units expected", "runs more than expected",
                "seeds with p < .05", "z of runs per input"]  # fmt: skip
    return generate_summaries.table(headings, rows)


def together() -> str:
    """Which units fall silent on the same images: all pairs of units, and neighbours."""
    kept = json.loads(CODEATH.read_text())
    cells = dict.fromkeys(row["cell"] for row in kept["runs"])
    rows = []
    for cell in cells:
        runs = [row for row in kept["runs"] if row["cell"] == cell]
        shown = [
            (lambda row: row["units"], "{:.0f}"),
            (lambda row: row["patterns"], "{:.1f}"),
            (lambda row: row["pairs"], "{:.3f}"),
            (lambda row: row["neighbours"] - row["mean"], "{:+.4f}"),
        ]
        rows.append([f"`{cell}`", *(_interval([of(run) for run in runs], form.format) for of, form in shown)])
    headings = ["head", "units that are silent on some images and not on all", "independent patterns",
                "correlation of two units", "neighbours less all pairs"]  # fmt: skip
    seeds = len({row["seed"] for row in kept["runs"]})
    about = (
        f"{kept['dataset']}, {kept['backbone']}, {seeds} seeds, {kept['images']} test images. Means, with "
        "95 % intervals over the seeds (t)."
    )
    return f"{about}\n\n{generate_summaries.table(headings, rows)}"


def again() -> str:
    """The first page's study on digits, and the same with other seeds: a row for each outcome."""
    studies = [read_study(generate_answer.ANSWER / name) for name in ("digits", "summaries/again_digits")]
    comparisons = [comparison for study in studies for comparison in study.verdict["comparisons"]]
    rows = []
    for pair in zip(*([row, *row["secondary"]] for row in comparisons), strict=True):
        first, second = pair
        name = first["outcome"]
        texts = [generate_summaries.mean_text(row, name) for row in pair]
        apart = wording.as_difference(second["mean"] - first["mean"], name)
        bound = math.sqrt(2) * (first["interval"][1] - first["interval"][0]) / 2
        rows.append(
            [wording.metric_name(name), *texts, apart, wording.as_difference(bound, name).lstrip("+")]
        )
    seeds = [f"seeds {study.plan.seeds[0]} to {study.plan.seeds[0] + 9}" for study in studies]
    headings = ["`bn_fc` less `fc`", *seeds, "apart", "at most"]
    command = generate_answer.command(studies[1].plan)
    return f"```sh\n{command}\n```\n\n{generate_summaries.table(headings, rows)}"


def runs() -> str:
    """The studies whose time was measured: command, seeds, runs, CPU time."""
    kept = json.loads(HOURS.read_text())
    rows = []
    for folder, seconds in kept["cpu_seconds"].items():
        plan = read_plan(generate_answer.ANSWER / folder)
        verdict = json.loads((generate_answer.ANSWER / folder / "verdict.json").read_text())
        seeds = verdict["look"]["seeds"]
        rows.append([f"`{generate_answer.command(plan)}`", str(seeds), f"{len(plan.cells) * seeds:,}",
                     f"{seconds / 60:.0f} min"])  # fmt: skip
    hours = sum(kept["cpu_seconds"].values()) / 3600
    about = f"{hours:.1f} hours of CPU time (user and system), on {kept['hardware']}:"
    return f"{about}\n\n{generate_summaries.table(['command', 'seeds', 'runs', 'CPU time'], rows)}"


def _about(study: StudyFiles) -> str:
    settings, seeds = study.plan.settings, study.verdict["look"]["seeds"]
    images = study.of_cell("fc")[0].result["data"]["test"]
    return (
        f"`{generate_answer.command(study.plan)}`: {settings['dataset']}, {settings['backbone']}, "
        f"{seeds} seeds, {images} test images. Means, with 95 % intervals over the seeds (t)."
    )


def _value(values: dict, name: str) -> float:
    (key,) = (key for key in values if keys.is_key(key) and keys.parts(key)[-1] == name)
    return float(values[key])


def _share(study: StudyFiles, head: str, figure: Figure) -> str:
    return _interval([_value(run.result, figure.name) for run in study.of_cell(head)])


def _history(study: StudyFiles, head: str, name: str, epoch: int) -> list[float]:
    def of_run(run: RunFiles) -> float:
        rows = list(csv.DictReader((run.path / "history.csv").read_text().splitlines()))
        return _value(rows[epoch - 1], name)

    return [of_run(run) for run in study.of_cell(head)]


def _interval(values: Sequence[float], text: Callable[[float], str] = wording.as_share) -> str:
    """`"7.0% (6.3% to 7.7%)"`: mean and t interval; the mean alone if all values are equal."""
    values = np.asarray(values)
    mean, half = values.mean(), stats.sem(values) * stats.t.ppf((1 + _LEVEL) / 2, len(values) - 1)
    if math.isclose(half, 0, abs_tol=1e-12):
        return text(mean)
    # a share cannot be below 0
    low = max(mean - half, 0.0) if (values >= 0).all() else mean - half
    return f"{text(mean)} ({text(low)} to {text(mean + half)})"
