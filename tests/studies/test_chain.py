"""The heads of a chain differ from each other in one thing; a plan has all of them and five controls."""

import pytest

from bnhead.errors import UsageError
from bnhead.studies.chain import chain, chain_of
from bnhead.studies.plan import make
from bnhead.studies.study import cause_study, named_study
from bnhead.training.config import TrainConfig

pytestmark = pytest.mark.quick


def test_the_ten_heads():
    assert chain("gap_bn_fc_out") == {
        "": "fc",
        "C": "fcenter_fc",
        "S": "fscale_fc",
        "CS": "fbn-beta-gamma_fc",
        "N": "noise_fc",
        "CN": "noise_fcenter_fc",
        "SN": "noise_fscale_fc",
        "CSN": "noise_fbn-beta-gamma_fc",
        "statistics": "bn-beta-gamma_fc",
        "bn": "bn_fc",
    }
    assert chain("bn_out")[""] == "out" and chain("bn_out")["CN"] == "noise_fcenter_out"
    assert chain("catpool_bn_dropout0.5_fc64")["S"] == "catpool_fscale_dropout0.5_fc64"


@pytest.mark.parametrize(
    "head", ["fc", "fc_bn", "bn_gap_fc", "gbn16_fc", "bn_fc_bn", "bn-beta_fc", "noise_bn_fc"]
)
def test_heads_without_a_chain(head):
    with pytest.raises(UsageError, match=f"head must have a bn on the pooled features and .* got '{head}'"):
        chain(head)


def test_a_plan_of_causes():
    plan = make("causes", named_study("causes"), TrainConfig(epochs=3), looks=(10,))
    assert [comparison.name for comparison in plan.comparisons] == ["bn_fc against fc"]
    assert len(plan.cells) == 15 and len(plan.runs) == 150
    assert plan.causes == {name: head for name, head in chain("bn_fc").items()} == chain_of(plan.cells)
    assert plan.settings["population_stats"] and plan.settings["neutral_init"] is False
    of = {cell.name: {**plan.settings, **cell.settings} for cell in plan.cells}
    assert of["noise_fc"]["fc_decay"] == "weights" and of["noise_fc"]["epochs"] == 3
    controls = [(c.head, dict(c.stratum)) for c in plan.cells if c.stratum]
    assert controls == [
        ("fc", {"neutral_init": True}),
        ("bn_fc", {"neutral_init": True}),
        ("fc", {"fc_decay": "none"}),
        ("bn_fc", {"fc_decay": "none"}),
        ("bn_fc", {"fc_decay": "features"}),
    ]
    for run in plan.runs[:15]:
        TrainConfig(**plan.run_settings(run))


def test_other_heads_and_other_studies():
    plan = make("causes", cause_study("bn_out"), TrainConfig(), looks=(3,))
    assert plan.causes[""] == "out" and plan.comparisons[0].treatment == "bn_out"
    for name in ("controls", "bn_before_fc", "width", "placement"):
        assert make(name, named_study(name), TrainConfig(), looks=(3,)).causes == {}
