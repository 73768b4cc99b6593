"""docs/findings.md and the first page: each number follows from the kept runs."""

import csv
import importlib
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from statsmodels.stats.weightstats import DescrStatsW

from bnhead.report.verify import verify
from bnhead.studies import wording
from bnhead.studies.directory import read_plan, read_study

DOCS = Path(__file__).resolve().parent.parent / "docs"


def test_the_answer_is_that_of_the_result_files(hooks):
    answer = hooks.generate_gallery.generate_answer
    readme = (DOCS.parent / "README.md").read_text()
    assert answer.filled(readme) == readme and answer.table() in readme, "run python docs/generate_answer.py"
    assert answer.PICTURE.read_text() == answer.picture(), "run python docs/generate_answer.py"
    for row in answer.rows():
        pairs = zip(row.score["treatment_scores"], row.score["control_scores"], strict=True)
        differences = [treatment - control for treatment, control in pairs]
        assert row.score["mean"] == pytest.approx(sum(differences) / len(differences), abs=1e-12)
        mean = wording.as_difference(row.score["mean"], row.score["outcome"])
        assert f"| {row.setting} | {row.score['n']} | {mean}" in readme
        assert row.dead["seeds"] == row.score["seeds"]


def test_the_cause_tables_are_those_of_the_kept_study_and_add_up(hooks):
    page = hooks.filled((DOCS / "causes.md").read_text())
    study = read_study(DOCS / "answer" / "causes")
    for table in study.verdict["causes"]:
        means = {row["name"]: row["mean"] for row in table["rows"]}
        parts = [row["mean"] for row in table["rows"] if row["part"] == "sum"]
        assert sum(parts) == pytest.approx(means["total"], abs=1e-12)
        assert wording.as_difference(means["total"], table["outcome"]) in page
    directory = DOCS / "answer" / "summaries" / "causes_cifar10"
    verdict = json.loads((directory / "verdict.json").read_text())
    runs = list(csv.DictReader((directory / "runs.csv").read_text().splitlines()))
    plain = [r for r in runs if r["neutral_init"] != "True" and r["fc_decay"] in ("", "weights")]
    dead = {head: [float(r["dead_share"]) for r in plain if r["head"] == head] for head in ("fc", "bn_fc")}
    assert len(dead["fc"]) == len(dead["bn_fc"]) == 5
    (table,) = (table for table in verdict["causes"] if table["outcome"] == "dead_share")
    (total,) = (row["mean"] for row in table["rows"] if row["part"] == "total")
    assert total == pytest.approx(np.mean(dead["bn_fc"]) - np.mean(dead["fc"]), abs=1e-12)
    traces = {}
    for path in (DOCS / "answer" / "collapse" / "runs").iterdir():
        config, result = (json.loads((path / name).read_text()) for name in ("config.json", "result.json"))
        key = config["head"], config["weight_decay"]
        traces[key] = traces.get(key, 0) + result["mechanisms/pillai"] / 3
    rises = [traces[head, 0.01] - traces[head, 0.0001] for head in ("out", "bn_out")]
    assert "trace rises by {:.4f} with `out` and by {:.4f} with `bn_out`".format(*rises) in page
    assert "bnhead diagnose --seeds=10\n" in page and page.count("| **all together** |") == 6


def test_the_times_of_studies_are_those_measured_or_their_pace(hooks):
    pages = hooks.generate_studies
    times = json.loads(pages.TIMES.read_text())
    measured = times["bn_before_fc"]
    assert measured["runs"] == 20, "the whole first look was timed"
    minutes = measured["cpu_seconds"] / pages.CORES / 60
    texts = [f"{round(one['cpu_seconds']):,} s" for one in times.values()]
    assert all(text in (DOCS / "studies.md").read_text() for text in texts)
    rows = {line.split("`")[1]: line for line in pages.table().splitlines()[2:]}
    assert rows["bn_before_fc"].endswith(f"| {minutes:.1f} min |")
    assert rows["placement"].endswith(f"| about {minutes * 2.5:.1f} min |"), "five heads"
    pace = times["width"]["cpu_seconds"] / times["width"]["runs"]
    assert rows["width"].endswith(f"| about {pace * 2 * 7 * 10 / pages.CORES / 60:.1f} min |"), "7 widths"
    assert rows["batch_size"].endswith("| \N{EN DASH} |"), "its steps are other ones"


def test_the_findings_follow_from_the_rows_of_the_runs(hooks):
    """The mean difference of each comparison, from `runs.csv` alone."""
    lines = hooks.generate_studies.findings().splitlines()
    assert len(lines) == 3
    for name, line in zip(("controls", "width"), lines[1:], strict=True):
        directory = DOCS / "answer" / "summaries" / name
        verdict = json.loads((directory / "verdict.json").read_text())
        runs = list(csv.DictReader((directory / "runs.csv").read_text().splitlines()))
        assert f"`bnhead study {name}`, {len(runs)} runs." in line
        for comparison in verdict["comparisons"]:
            dead = [
                {r["seed"]: float(r["dead_share"]) for r in runs if r["cell"] == comparison[side]}
                for side in ("control", "treatment")
            ]
            mean = sum(dead[1][seed] - dead[0][seed] for seed in dead[0]) / len(dead[0])
            rows = [comparison, *comparison["secondary"]]
            (row,) = (row for row in rows if row["outcome"] == "dead_share")
            assert row["mean"] == pytest.approx(mean, abs=1e-12)
            if row["word"] in ("HELPS", "HURTS"):
                assert f"{100 * mean:+.2f}" in line


def test_the_tables_of_the_findings_follow_from_the_runs(hooks):
    """Dead shares by epoch and at the end, and stretches of dead units, read here from the files."""
    page = hooks.filled((DOCS / "findings.md").read_text())
    runs = [path for path in (DOCS / "answer" / "placement" / "runs").iterdir()]
    of = {}
    for path in runs:
        config, result = (json.loads((path / name).read_text()) for name in ("config.json", "result.json"))
        of.setdefault(config["head"], []).append((result, (path / "history.csv").read_text().splitlines()))
    assert {len(pairs) for pairs in of.values()} == {20}

    def text(values):
        low, high = DescrStatsW(values).tconfint_mean(0.05)
        return f"{np.mean(values):.1%} ({max(low, 0):.1%} to {high:.1%})"

    for figure in ("dataset", "rarely_active", "per_input"):
        assert text([result[f"dead/head_fc/{figure}"] for result, _ in of["fc"]]) in page
    second = [list(csv.DictReader(lines))[1] for _, lines in of["bn_fc"]]
    assert text([float(row["dead/head_fc/dataset"]) for row in second]) in page
    excess = [r["dead/head_fc/runs"] - r["dead/head_fc/runs_expected"] for r, _ in of["fc_bn"]]
    low, high = DescrStatsW(excess).tconfint_mean(0.05)
    minus = "\N{MINUS SIGN}"
    assert f"{np.mean(excess):+.1f} ({low:+.1f} to {high:+.1f})".replace("-", minus) in page.replace(
        "-", minus
    )
    several = np.mean([r["dead/head_fc/dataset"] for r, _ in of["fc_bn"]])
    assert several > 3 * np.mean([r["dead/head_fc/dataset"] for r, _ in of["fc"]]), (
        "more than three times as many"
    )
    assert not any(result["dead/head_fc/certified"] for pairs in of.values() for result, _ in pairs)


def test_the_numbers_in_the_sentences_of_the_findings_are_those_of_the_verdicts(hooks):
    page = " ".join((DOCS / "findings.md").read_text().split())

    def rows(folder):
        verdict = json.loads((DOCS / "answer" / "summaries" / folder / "verdict.json").read_text())
        comparison = next(row for row in verdict["comparisons"] if row["treatment"] == "bn_fc")
        return {row["outcome"]: row for row in (comparison, *comparison["secondary"])}

    accuracy = rows("causes_cifar10")["accuracy"]
    low, high = accuracy["interval"]
    assert (
        f"`bn_fc` was {100 * accuracy['mean']:.2f} points better ({100 * low:.2f} to {100 * high:.2f})"
        in page
    )
    widths = json.loads((DOCS / "answer/summaries/width/verdict.json").read_text())["comparisons"]
    accuracies = [next(row for row in c["secondary"] if row["outcome"] == "accuracy") for c in widths]
    assert [row["word"] for row in accuracies] == ["NO MATERIAL DIFFERENCE"] * 5 + ["UNDECIDED", "HELPS"]
    for row, words in zip(
        accuracies[5:],
        ("undecided (+{:.2f}, {:.2f} to {:.2f})", "was {:.2f} points better ({:.2f} to {:.2f}, 40 seeds"),
        strict=True,
    ):
        assert words.format(*(100 * value for value in (row["mean"], *row["interval"]))) in page
    levels = [f"{100 * accuracies[6][f'{side}_mean']:.1f} %" for side in ("control", "treatment")]
    assert "the mean accuracy is {}, with it {}.".format(*levels) in page
    shares = [widths[at]["control_mean"] for at in (0, 6)]
    assert "it is {:.0f} % at 32 units and {:.0f} % at 2,048".format(*(100 * s for s in shares)) in page
    fashion = rows("placement_fashion")
    mean, (low, high) = fashion["accuracy"]["mean"], fashion["accuracy"]["interval"]
    assert f"was {100 * mean:.2f} points more accurate ({100 * low:.2f} to {100 * high:.2f}, 10 seeds" in page
    assert f"the {100 * fashion['dead_share']['control_mean']:.1f} % of dead units were gone" in page
    assert fashion["dead_share"]["treatment_mean"] == 0
    short = rows("placement_short_run")["accuracy"]
    assert (
        "({:.2f}, {:.2f} to {:.2f})".format(*(100 * v for v in (short["mean"], *short["interval"]))) in page
    )
    quiet = ("batch_size", "head_bn_epsilon", "weight_decay", "plain8", "resnet8")
    assert {rows(f"placement_{name}")["accuracy"]["word"] for name in quiet} == {"NO MATERIAL DIFFERENCE"}
    assert {rows(f"placement_{name}")["accuracy"]["word"] for name in ("learning_rate", "short_run")} == {
        "UNDECIDED"
    }
    frozen = rows("placement_frozen_resnet18")["accuracy"]
    low, high = frozen["interval"]
    words = "images is {:.2f} points lower with the batch norm ({:.2f} to {:.2f}, {} seeds)"
    assert words.format(-100 * frozen["mean"], -100 * high, -100 * low, frozen["n"]) in page
    for folder, words in (
        ("placement_wide_rate_003", "+{:.2f} ({:.2f} to {:.2f}) at 0.03"),
        ("placement_wide_rate_001", "+{:.2f} ({:.2f} to {:.2f}) at 0.01"),
    ):
        row = rows(folder)["accuracy"]
        assert words.format(*(100 * value for value in (row["mean"], *row["interval"]))) in page
    slow, fast = (rows(f"placement_frozen_{name}") for name in ("resnet18", "rate_01"))
    mean, (low, high) = fast["accuracy"]["mean"], fast["accuracy"]["interval"]
    assert f"it is {-100 * mean:.2f} points lower ({-100 * high:.2f} to {-100 * low:.2f})." in page
    dead = [100 * row["dead_share"]["control_mean"] for row in (slow, fast)]
    assert "{:.1f} % of 256 units are dead at a rate of 0.01, and {:.1f} % at 0.1".format(*dead) in page
    assert slow["dead_share"]["treatment_mean"] == fast["dead_share"]["treatment_mean"] == 0
    levels = [100 * row["accuracy"]["control_mean"] for row in (fast, slow)]
    assert "it is {:.1f} % with them and {:.1f} % without.".format(*levels) in page
    of_angles = rows("placement_rotation")
    trends = json.loads((DOCS / "answer/summaries/pretrained_cifar10/verdict.json").read_text())["trends"]
    slope, (low, high) = trends[0]["mean"], trends[0]["interval"]
    assert trends[0]["name"] == "pretrained"
    assert f"{100 * slope:.2f} points per doubling ({100 * low:.2f} to {100 * high:.2f})" in page
    r2, dead = of_angles["r2"], of_angles["dead_share"]
    low, high = r2["interval"]
    assert f"R² by {-r2['mean']:.3f} ({-high:.3f} to {-low:.3f})" in page
    assert f"the {dead['control_mean']:.0%} of units".replace("%", " %") in page


def test_the_sentences_about_imbalance_are_those_of_the_runs(hooks):
    page = " ".join((DOCS / "findings.md").read_text().split())
    folder = DOCS / "answer" / "summaries" / "imbalance_digits"
    verdict = json.loads((folder / "verdict.json").read_text())
    runs = list(csv.DictReader((folder / "runs.csv").read_text().splitlines()))
    by_head = {row["treatment"]: row for row in verdict["comparisons"]}
    norms = [by_head[head] for head in ("bn_gap_fc", "bn_fc", "fc_bn", "fc_out_bn")]
    assert all(row["interval"][0] < 0 < row["interval"][1] for row in norms)
    means = [100 * row["mean"] for row in norms]
    assert f"{100 * norms[0]['control_mean']:.1f} % without a batch norm" in page
    assert f"changes by {min(means):.2f} to +{max(means):.2f} points" in page
    adjusted = np.mean([float(run["adjusted_balanced_accuracy"]) for run in runs if run["cell"] == "fc"])
    assert f"which trains nothing, gives {100 * adjusted:.1f} %" in page
    dropout = by_head["cdropout0.5_fc"]
    low, high = (-100 * bound for bound in reversed(dropout["interval"]))
    assert f"costs {-100 * dropout['mean']:.2f} points ({low:.2f} to {high:.2f})" in page
    claims = [row for row in verdict["claims"]["rows"] if row["word"] == "REFUTED"]
    assert (
        "takes {:.0f} points with it (`fc_bn`), or {:.0f} (`fc_out".format(
            *(-100 * row["mean"] for row in claims)
        )
        in page
    )
    assert {row["word"] for row in verdict["claims"]["rows"]} == {"REFUTED", "UNDECIDED"} and len(claims) == 2
    failed = [run["cell"] for run in runs if run["status"] == "failed_to_learn"]
    assert failed == ["fc_bn at imbalance one_majority:80"] * 4
    for head, score in (("fc", "65.5"), ("fc_bn", "71.2"), ("fc_out_bn", "71.2")):
        of_head = [
            run for run in runs if run["cell"] == f"{head} at imbalance one_majority:20, task multilabel"
        ]
        mean = np.mean([float(run["balanced_accuracy"]) for run in of_head])
        assert f"{100 * mean:.1f}" == score
    assert "is 71.2 % at either place, and 65.5 % without the norm" in page


def test_the_sentences_about_adversarial_examples_are_those_of_the_verdict(hooks):
    page = " ".join((DOCS / "findings.md").read_text().split())
    path = DOCS / "answer" / "summaries" / "adversarial_digits" / "verdict.json"
    one, own, _ = json.loads(path.read_text())["comparisons"]
    assert {one["word"], own["word"]} == {"NO MATERIAL DIFFERENCE"}

    def of(comparison, outcome, digits):
        row = next(r for r in (comparison, *comparison["secondary"]) if r["outcome"] == outcome)
        mean, low, high = (f"{100 * value:.{digits}f}" for value in (row["mean"], *row["interval"]))
        return mean, f"({low} to {high})"

    assert "accuracy by +{} points {}, ".format(*of(one, "accuracy", 2)) in page
    assert "AdvProp by +{} {}, ".format(*of(own, "accuracy", 2)) in page
    assert "one set gained {} points {} and AdvProp".format(*of(one, "robust_accuracy", 1)) in page
    assert "AdvProp {} {}.".format(*of(own, "robust_accuracy", 1)) in page


def test_the_sentences_about_domains_are_those_of_the_runs(hooks):
    page = " ".join((DOCS / "findings.md").read_text().split())
    folder = DOCS / "answer" / "summaries" / "domains_digits"
    steps = {
        row["treatment"]: row for row in json.loads((folder / "verdict.json").read_text())["comparisons"]
    }
    runs = list(csv.DictReader((folder / "runs.csv").read_text().splitlines()))

    def scores(adaptation=""):
        cell = f"fc at adaptation {adaptation}" if adaptation else "fc"
        return np.array([float(run["accuracy"]) for run in runs if run["cell"] == cell])

    def of(adaptation, sign=1):
        row = steps[f"fc at adaptation {adaptation}"]
        bounds = sorted(sign * bound for bound in row["interval"])
        return "{:.2f} points ({:.2f} to {:.2f})".format(*(100 * v for v in (sign * row["mean"], *bounds)))

    assert f"is right on {100 * scores().mean():.1f} % of the test images" in page
    assert f"raise that by {of('adabn')}, to {100 * scores('adabn').mean():.1f} %" in page
    assert f"end at {100 * scores('dsbn_1').mean():.1f} %, too" in page
    at_chance = [(scores(name) < 0.115).sum() for name in ("pseudo", "dsbn")]
    assert f"{at_chance[0]} of 10 seeds give nearly all images the same class, with separate ones" in page
    assert f"{at_chance[1]} of 10, which costs {of('dsbn', -1)}" in page


def test_the_sentences_about_pretraining_are_those_of_the_runs(hooks):
    page = " ".join((DOCS / "frozen.md").read_text().split())
    table = (DOCS / "answer" / "summaries" / "pretrained_cifar10" / "runs.csv").read_text()
    shares = {}
    for row in csv.DictReader(table.splitlines()):
        shares.setdefault(row["cell"], []).append(float(row["dead_share"]))

    def of(arm, width, digits=0):
        return f"{np.mean(shares[f'{arm} at fc_units {width}']):.{digits}%}".replace("%", " %")

    wide = sorted({of("pretrained", width, 1) for width in (256, 512, 1024, 2048, 4096)})
    assert f"{of('pretrained', 32)} of 32 units are dead, and {wide[0][:3]} to {wide[-1]} of 256" in page
    for arm, words in (
        ("random", "leaves {} of 32 units dead and {} of 4,096"),
        ("shuffled", "they leave {} of 32 units dead and {} of 4,096"),
        ("scratch", "from scratch has {} and {}."),
    ):
        assert words.format(of(arm, 32), of(arm, 4096)) in page
    for arm in ("centred", "bn"):
        assert not any(any(shares[cell]) for cell in shares if cell.startswith(arm)), arm


def test_kept_studies_name_no_directory_of_a_machine():
    for path in sorted((DOCS / "answer").rglob("*.json")):
        assert not re.search(r'["\s](/|[A-Z]:)[\w.]', path.read_text()), path


def test_a_study_that_is_not_there_replaces_no_kept_one(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(DOCS)
    keep_study = importlib.import_module("keep_study")
    monkeypatch.setattr(keep_study, "ANSWER", tmp_path)
    kept = tmp_path / "summaries" / "width" / "plan.json"
    kept.parent.mkdir(parents=True)
    kept.write_text("{}")
    with pytest.raises(SystemExit, match="nothing was changed"):
        keep_study.keep(tmp_path / "studies" / "widht", "summaries/width")
    assert kept.is_file()


def test_every_kept_study_has_its_command(hooks):
    answer = hooks.generate_gallery.generate_answer
    for path in (DOCS / "answer").rglob("plan.json"):
        assert answer.command(read_plan(path.parent)).startswith("bnhead "), path.parent.name


def test_the_table_of_what_was_run_counts_the_runs_that_are_kept(hooks):
    hours = json.loads((DOCS / "answer" / "hours.json").read_text())["cpu_seconds"]
    table = hooks.TABLES["findings_runs"]()
    assert table.startswith(f"{sum(hours.values()) / 3600:.1f} hours of CPU time")
    rows = [line.strip("| ").split(" | ") for line in table.splitlines()[4:]]
    assert len(rows) == len(hours)
    for (folder, seconds), (command, seeds, runs, minutes) in zip(hours.items(), rows, strict=True):
        directory = DOCS / "answer" / folder
        summary = directory / "runs.csv"
        kept = summary.read_text().count("\n") - 1 if summary.is_file() else len([*directory.glob("runs/*")])
        verdict = json.loads((directory / "verdict.json").read_text())
        assert (seeds, runs) == (str(verdict["look"]["seeds"]), str(kept)), folder
        assert command.startswith("`bnhead ") and minutes == f"{seconds / 60:.0f} min"


def test_units_that_are_silent_together_are_counted_as_kept(hooks):
    page = hooks.TABLES["findings_together"]()
    kept = json.loads((DOCS / "answer" / "codeath.json").read_text())["runs"]
    for cell in ("fc", "bn_fc"):
        runs = [row for row in kept if row["cell"] == cell]
        assert len(runs) == 10
        for name, form in (("patterns", ".1f"), ("pairs", ".3f")):
            values = [row[name] for row in runs]
            low, high = DescrStatsW(values).tconfint_mean(0.05)
            assert f"{np.mean(values):{form}} ({low:{form}} to {high:{form}})" in page
        apart = DescrStatsW([row["neighbours"] - row["mean"] for row in runs])
        assert apart.tconfint_mean(0.05)[0] < 0 < apart.tconfint_mean(0.05)[1], (
            "neighbours are as other pairs"
        )


def test_a_finding_was_found_again_with_other_seeds(hooks):
    """Two means of equal spread differ by sqrt(2) half-widths as rarely as one misses its interval."""
    folders = (DOCS / "answer" / "digits", DOCS / "answer" / "summaries" / "again_digits")
    verdicts = [json.loads((folder / "verdict.json").read_text()) for folder in folders]
    (first,), (second,) = (verdict["comparisons"] for verdict in verdicts)
    assert not set(first["seeds"]) & set(second["seeds"])
    runs = list(csv.DictReader((folders[1] / "runs.csv").read_text().splitlines()))
    for one, other in zip((first, *first["secondary"]), (second, *second["secondary"]), strict=True):
        name = one["outcome"]
        values = [np.mean([float(r[name]) for r in runs if r["cell"] == cell]) for cell in ("fc", "bn_fc")]
        assert other["mean"] == pytest.approx(values[1] - values[0], abs=1e-9)
        low, high = one["interval"]
        assert abs(other["mean"] - one["mean"]) < 1.41 * (high - low) / 2, name
        assert wording.as_difference(other["mean"] - one["mean"], name) in hooks.TABLES["findings_again"]()


def test_the_findings_on_imbalance_follow_from_the_rows_of_the_runs(hooks):
    """Differences, and gains of the claims with one majority class, from `runs.csv` alone."""
    page = hooks.TABLES["imbalance"]()
    studies = hooks.generate_summaries.studies("imbalance")
    assert page.count("```sh\nbnhead study imbalance ") == len(studies)
    for name, study in studies.items():
        rows = list(
            csv.DictReader((DOCS / "answer" / "summaries" / name / "runs.csv").read_text().splitlines())
        )
        assert len(rows) == len(study.judged_runs)

        def of(cell, outcome, rows=rows):
            return {r["seed"]: float(r[outcome]) for r in rows if r["cell"] == cell}

        for comparison in study.verdict["comparisons"]:
            for row in (comparison, *comparison["secondary"]):
                control, treatment = (
                    of(comparison[side], row["outcome"]) for side in ("control", "treatment")
                )
                mean = sum(treatment[seed] - control[seed] for seed in control) / len(control)
                assert row["mean"] == pytest.approx(mean, abs=1e-12)
                if row["outcome"] in hooks.generate_imbalance.SHOWN:
                    assert wording.as_difference(mean, row["outcome"]) in page
        one = f"at imbalance {study.plan.claims['one']['imbalance']}"
        for claim, outcome in (("general", "balanced_accuracy"), ("calibration", "ece_excess")):
            for row in (row for row in study.verdict["claims"]["rows"] if row["claim"] == claim):
                control, treatment = (of(f"{head} {one}", outcome) for head in ("fc", row["head"]))
                differences = [treatment[seed] - control[seed] for seed in control]
                assert differences == pytest.approx(row["differences"], abs=1e-12)
                assert wording.as_interval(row["interval"], outcome) in page


@pytest.mark.parametrize("name", ["adversarial", "domains", "pretrained"])
def test_the_findings_of_a_study_follow_from_the_rows_of_its_runs(hooks, name):
    table = hooks.TABLES[name]
    page, (_, outcomes) = table(), table.args
    studies = hooks.generate_summaries.studies(name)
    assert page.count(f"```sh\nbnhead study {name} ") == len(studies)
    for folder, study in studies.items():
        path = DOCS / "answer" / "summaries" / folder / "runs.csv"
        rows = list(csv.DictReader(path.read_text().splitlines()))
        assert len(rows) == len(study.judged_runs)
        for comparison in study.verdict["comparisons"]:
            for outcome in outcomes:
                control, treatment = (
                    {r["seed"]: float(r[outcome]) for r in rows if r["cell"] == comparison[side]}
                    for side in ("control", "treatment")
                )
                mean = sum(treatment[seed] - control[seed] for seed in control) / len(control)
                assert wording.as_difference(mean, outcome) in page


def test_the_verdicts_follow_from_the_runs(hooks, tmp_path):
    studies = hooks.generate_gallery.generate_answer.studies()
    assert studies
    for name in studies:
        shutil.copytree(DOCS / "answer" / name, tmp_path / name)
        hooks.generate_gallery.report.build(tmp_path / name)
        assert verify(tmp_path / name) == []
