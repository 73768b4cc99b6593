import pytest

from bnhead import heads
from bnhead.errors import UsageError
from bnhead.studies.study import STUDIES, named_study
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
