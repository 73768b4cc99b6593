"""The cause tables in docs/causes.md, from the studies in docs/answer/."""

import statistics

import generate_answer
import numpy as np

from bnhead.mechanisms.figures import FIGURES_BY_GROUP
from bnhead.report.study_figures import cause_forests
from bnhead.studies.directory import StudyFiles, read_study
from bnhead.studies.intervals import crossed

STUDY = generate_answer.ANSWER / "causes"
CIFAR10 = generate_answer.ANSWER / "summaries" / "causes_cifar10"
COLLAPSE = generate_answer.ANSWER / "collapse"
_PARTS = {"sum": "", "total": "**all together**", "beside": "less with "}


def digits() -> str:
    """The cause tables on digits."""
    return tables(read_study(STUDY))


def cifar10() -> str:
    """The cause tables on CIFAR-10, of which plan, verdict and `runs.csv` are kept."""
    return tables(read_study(CIFAR10))


def tables(study: StudyFiles) -> str:
    """The command, a sentence and a table for each outcome."""
    texts = [f"```sh\n{generate_answer.command(study.plan)}\n```", _about(study)]
    for forest in cause_forests(study):
        unit = f", {forest['unit']}" * bool(forest["unit"])
        lines = [
            f"| {forest['title']} | mean{unit} | interval, {forest['level']} % | share |",
            "|---|---|---|---|",
        ]
        for row in forest["rows"]:
            name = _PARTS[row["part"]] if row["part"] == "total" else _PARTS[row["part"]] + row["name"]
            mean = f"**{row['mean']}**" if row["differs"] else row["mean"]
            lines.append(f"| {name} | {mean} | {row['interval']} | {row['share']} |")
        texts += [forest["sentence"], "\n".join(lines)]
    return "\n\n".join(texts)


def collapse() -> str:
    """The command, and neural collapse by weight decay, with and without a batch norm before the output."""
    study = read_study(COLLAPSE)
    rows = {row.name: row for row in FIGURES_BY_GROUP["collapse"]}
    figures = {name: rows[name] for name in ("nc1", "nc1_quotient", "nc2", "pillai")}
    columns = " | ".join(figure.heading for figure in figures.values())
    lines = [
        f"| weight decay | head | {columns} | test accuracy |",
        "|---|---|" + "---|" * (len(figures) + 1),
    ]
    for cell in study.plan.cells:
        runs = [run.result for run in study.of_cell(cell.name)]
        means = [[run[f"mechanisms/{name}"] for run in runs] for name in figures]
        texts = [
            f"{statistics.mean(values):.3g} ({min(values):.3g} to {max(values):.3g})" for values in means
        ]
        accuracy = statistics.mean(run["test_accuracy"] for run in runs)
        row = [f"{cell.stratum['weight_decay']:g}", f"`{cell.head}`", *texts, f"{accuracy:.1%}"]
        lines.append(f"| {' | '.join(row)} |")
    command = generate_answer.command(study.plan)
    return "\n\n".join([f"```sh\n{command}\n```", "\n".join(lines), _interaction(study)])


def _interaction(study: StudyFiles) -> str:
    """How much more the batch norm's Pillai trace rises from the least to the most decay, by seed."""
    of = {(cell.head, cell.stratum["weight_decay"]): study.of_cell(cell.name) for cell in study.plan.cells}
    decays = sorted({decay for _, decay in of})

    def rises(head: str) -> np.ndarray:
        least, most = (
            [run.result["mechanisms/pillai"] for run in of[head, d]] for d in (decays[0], decays[-1])
        )
        return np.array(most) - np.array(least)

    control, treatment = (study.plan.comparisons[0].control, study.plan.comparisons[0].treatment)
    heads = [study.plan.cell(name).head for name in (control, treatment)]
    by_head = [rises(head) for head in heads]
    result = crossed((by_head[1] - by_head[0])[:, None])
    low, high = result.interval(0.05)
    return (
        f"From a decay of {decays[0]:g} to {decays[-1]:g} the Pillai trace rises by {by_head[0].mean():.4f} "
        f"with `{heads[0]}` and by {by_head[1].mean():.4f} with `{heads[1]}`; the difference is "
        f"{result.mean:+.4f} ({low:+.4f} to {high:+.4f}, 95 % over {len(by_head[0])} seeds)."
    )


def _about(study: StudyFiles) -> str:
    settings, seeds = study.plan.settings, study.verdict["look"]["seeds"]
    return (
        f"{settings['dataset']}, {settings['backbone']}, {settings['epochs']} epochs, {seeds} seeds, "
        f"{len(study.judged_runs)} runs. Means in bold: the interval excludes 0."
    )
