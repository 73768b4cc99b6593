import pytest

from bnhead.errors import UsageError
from bnhead.studies.custom import custom_study
from bnhead.studies.study import STUDIES
from bnhead.training.config import TrainConfig

pytestmark = pytest.mark.quick


def test_a_study_of_heads_has_a_control_first_and_asks_whether_the_others_differ():
    study = custom_study("mine", ["fc", "bn_fc", "ln_fc"], control="bn_fc", outcome="nll")
    assert study.heads == ("bn_fc", "fc", "ln_fc") and study.primary == "nll" and study.varies == ()
    assert study.question == "Do fc and ln_fc differ from bn_fc?"
    assert custom_study("mine", ["fc", "bn_fc"]).question == "Does bn_fc differ from fc?"
    assert custom_study("mine", ["fc", "bn_fc"], question="Why?").question == "Why?"


def test_values_of_a_varied_setting_have_its_type():
    study = custom_study("mine", ["fc", "bn_fc"], vary="mixed_precision=False,true")
    assert study.varies == ("mixed_precision",)
    assert list(study.strata(TrainConfig())) == [{"mixed_precision": False}, {"mixed_precision": True}]
    strata = custom_study("mine", ["fc", "bn_fc"], vary="fc_units=8,64").strata(TrainConfig())
    assert [stratum["fc_units"] for stratum in strata] == [8, 64]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [  # the others are rows of tests/cli/test_study.py, where each is one line
        ({"heads": ["fc"]}, "heads must be at least 2"),
        ({"control": "gap"}, "control must be one of the heads"),
        ({"name": "../mine"}, "name must be up to 60 letters"),
        ({"name": next(iter(STUDIES))}, "is that of another study"),
        ({"vary": "seed=1,2"}, "vary must be a setting=values"),
        ({"vary": "dataset=digits,cifar10"}, "all runs of a study have one dataset"),
        ({"vary": "fc_units=8,x"}, "fc_units cannot be 'x'"),
        ({"vary": "fc_units=8,08"}, "given twice"),
    ],
)
def test_arguments_that_do_not_fit(arguments, message):
    with pytest.raises(UsageError, match=message):
        custom_study(**{"name": "mine", "heads": ["fc", "bn_fc"], **arguments})
