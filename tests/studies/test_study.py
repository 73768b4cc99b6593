import dataclasses
import itertools
import shlex

import pytest

from bnhead import heads
from bnhead.cli.study import plan_of as plan_of_command
from bnhead.errors import UsageError
from bnhead.studies.commands import study_command
from bnhead.studies.plan import from_json, make, to_json
from bnhead.studies.study import STUDIES, named_study
from bnhead.studies.width import trends
from bnhead.studies.wording import labels
from bnhead.training.config import TrainConfig
from tests.studies.fake import plan_of

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(
    ("name", "strata"),
    [
        (
            "batch_size",
            [
                {"batch_size": 16, "learning_rate": 0.0125},
                {"batch_size": 32, "learning_rate": 0.025},
                {"batch_size": 64, "learning_rate": 0.05},
                {"batch_size": 128, "learning_rate": 0.1},
                {"batch_size": 256, "learning_rate": 0.2},
            ],
        ),
        ("learning_rate", [{"learning_rate": rate} for rate in (0.01, 0.03, 0.1, 0.3)]),
        ("width", [{"fc_units": width} for width in (32, 64, 128, 256, 512, 1024, 2048)]),
    ],
)
def test_each_stratum_has_its_control(name, strata):
    comparisons = plan_of(name).comparisons
    assert [dict(one.stratum) for one in comparisons] == strata
    for one in comparisons:
        at = one.control.removeprefix("fc")
        assert (one.control, one.treatment) == (f"fc{at}", f"bn_fc{at}")


def test_learning_rates_go_with_the_bases():
    rates = [one.stratum["learning_rate"] for one in plan_of("learning_rate", learning_rate=0.05).comparisons]
    assert rates == [0.005, 0.015, 0.05, 0.15]


@pytest.mark.parametrize(
    ("name", "placements"),
    [("bn_before_fc", ["", "P1"]), ("placement", ["", "P0", "P1", "P2", "P3"])],
)
def test_the_placements_that_are_compared(name, placements):
    plan = plan_of(name)
    assert [cell.placement for cell in plan.cells] == placements
    assert [(one.control, one.treatment) for one in plan.comparisons] == [
        ("fc", cell.name) for cell in plan.cells[1:]
    ]


def test_every_part_of_a_batch_norm_against_the_usual_head():
    plan = plan_of("controls")
    kinds = [[token.name for token in heads.parse(cell.head).tokens] for cell in plan.cells]
    before_fc = [tokens[tokens.index("fc") - 1] for tokens in kinds]
    assert before_fc[1:] == ["bn", "gbn", "fbn", "center", "scale", "noise", "ln"]
    assert {comparison.control for comparison in plan.comparisons} == {"fc"} and len(plan.comparisons) == 7


def test_the_width_study_starts_from_initial_weights():
    assert plan_of("width").settings["weights"] == ""


def test_a_name_that_is_not_known_names_the_nearest():
    assert all(study.question.endswith("?") for study in STUDIES.values())
    with pytest.raises(UsageError, match="study 'widht' is not known; did you mean 'width'"):
        named_study("widht")


def test_the_arms_of_the_pretrained_study(tmp_path):
    base = TrainConfig(weights="runs/net")
    plan = make("pretrained", named_study("pretrained"), base, looks=(3,))
    assert len(plan.cells) == 6 * 8 and plan.trend == "fc_units" and plan.delta == 0.02
    narrow = {cell.arm: cell for cell in plan.cells if cell.stratum["fc_units"] == 32}
    assert list(narrow) == ["pretrained", "random", "shuffled", "centred", "bn", "scratch"]
    assert {arm: cell.head for arm, cell in narrow.items() if cell.head != "fc"} == {
        "centred": "fcenter_fc",
        "bn": "bn_fc",
    }
    configs = {run.cell: plan.run_settings(run) for run in plan.runs}
    frozen, scratch = configs["pretrained at fc_units 32"], configs["scratch at fc_units 32"]
    assert frozen["freeze_backbone"] and frozen["weights"] == "runs/net" and frozen["augment"] == "none"
    assert frozen["learning_rate"] == 0.01 and frozen["weights_control"] == "none"
    assert not scratch["freeze_backbone"] and not scratch["weights"] and scratch["backbone"] == "resnet20"
    assert configs["shuffled at fc_units 32"]["weights_control"] == "shuffled"
    assert {(c.control.split(" at")[0], c.treatment.split(" at")[0]) for c in plan.comparisons} == {
        ("pretrained", arm) for arm in list(narrow)[1:]
    }
    assert from_json(to_json(plan), "plan.json") == plan
    (tmp_path / "net.keras").touch()
    file = TrainConfig(backbone=str(tmp_path / "net.keras"), image_size=224, augment="none")
    small = named_study("pretrained").arms(file)["scratch"]
    assert (small["backbone"], small["image_size"]) == ("resnet8", 32)
    rate = make("pretrained", named_study("pretrained"), TrainConfig(learning_rate=0.003), looks=(3,))
    assert rate.settings["learning_rate"] == 0.003  # a flag
    assert rate.run_settings(rate.runs[0])["pretrain_on"] == "fashion_mnist"


def test_each_adaptation_is_compared_with_the_one_before_it():
    plan = make("domains", named_study("domains"), TrainConfig(), looks=(3,))
    steps = [(comparison.control, comparison.treatment) for comparison in plan.comparisons]
    assert steps == list(itertools.pairwise(cell.name for cell in plan.cells)) and len(steps) == 4
    assert [cell.stratum.get("adaptation") for cell in plan.cells] == [
        None,
        "adabn",
        "pseudo",
        "dsbn_1",
        "dsbn",
    ]
    assert all(comparison.stratum == {} for comparison in plan.comparisons)
    subject, heading, names = labels(plan, [dataclasses.asdict(c) for c in plan.comparisons])
    assert (subject, heading) == (", each against the one before", "step")
    assert names == ["adabn", "pseudo", "dsbn_1", "dsbn"]


def test_settings_beside_the_control_are_named_with_their_values():
    plan = make("adversarial", named_study("adversarial"), TrainConfig(), looks=(3,))
    subject, heading, names = labels(plan, [dataclasses.asdict(c) for c in plan.comparisons])
    assert (subject, heading) == (" against fc", "head")
    assert names == ["pgd_one_bn", "pgd", "pgd_cheap"]


def test_a_plan_without_arms_has_the_hash_that_it_had():
    plan = make("bn_before_fc", named_study("bn_before_fc"), TrainConfig(), looks=(3,))
    assert all("arm" not in cell for cell in to_json(plan)["cells"])


def test_the_slopes_are_of_arms():
    plan = make("pretrained", named_study("pretrained"), TrainConfig(), looks=(3,))
    rows = trends(plan, [])
    assert [row["name"] for row in rows[:2]] == ["pretrained", "random"] and len(rows) == 11
    subject, heading, names = labels(plan, [dataclasses.asdict(c) for c in plan.comparisons])
    assert (subject, heading) == (" against pretrained", "head, fc_units")
    assert names[0] == "random, 32" and names[-1] == "scratch, 4096"


def test_the_command_of_a_study_of_arms_makes_its_plan_again():
    base = TrainConfig(backbone="resnet8", pretrain_on="digits", learning_rate=0.003)
    plan = make("pretrained", named_study("pretrained"), base, looks=(3, 6))
    words = shlex.split(study_command(plan, "here"))
    assert words[:3] == ["bnhead", "study", "pretrained"] and "--backbone=resnet8" in words
    assert plan_of_command(words[2:])[1] == plan
