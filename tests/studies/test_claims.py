import dataclasses
import json

import pytest

from bnhead.errors import UsageError
from bnhead.studies.claims import CLAIMS, OF_NAME, headline, strata
from bnhead.studies.commands import study_command
from bnhead.studies.plan import from_json, to_json
from bnhead.studies.study import named_study
from bnhead.training.config import TrainConfig
from tests.studies import fake, unequal

pytestmark = pytest.mark.quick

SETTINGS = {"imbalance": "longtail:100", "batch_size": 128, "learning_rate": 0.1}


def test_the_strata_are_around_the_studys_imbalance_and_batch():
    assert strata(SETTINGS) == {
        "one": {"imbalance": "one_majority:100"},
        "less": {"imbalance": "one_majority:25"},
        "more": {"imbalance": "one_majority:400"},
        "batch": {"imbalance": "one_majority:100", "batch_size": 32, "learning_rate": 0.025},
        "two": {"imbalance": "two_majorities:100"},
        "sigmoid": {"imbalance": "one_majority:100", "task": "multilabel"},
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"imbalance": "longtail:4"}, "imbalance must have a ratio of at least 8, .* got 'longtail:4'"),
        ({"imbalance": "none"}, "imbalance must have a ratio of at least 8"),
        ({"batch_size": 7}, "batch_size must be at least 8, .* got 7"),
    ],
)
def test_what_cannot_be_quartered(changes, message):
    with pytest.raises(UsageError, match=message):
        strata(SETTINGS | changes)


def test_the_plan_has_its_cells_and_compares_the_first_ones():
    plan = unequal.plan_of()
    names = [cell.name for cell in plan.cells]
    assert names[:8] == [
        *("fc", "bn_gap_fc", "bn_fc", "fc_bn", "fc_out_bn", "cdropout0.5_fc"),
        *("fc at logit_adjustment 1", "fc at class_weights effective:0.999"),
    ]
    assert len(names) == 8 + 6 * 3 and plan.claims == strata(plan.settings)
    assert [(pair.control, pair.treatment, dict(pair.stratum)) for pair in plan.comparisons] == [
        ("fc", name, {}) for name in names[1:8]
    ]
    assert [row.name for row in plan.measures[:2]] == ["balanced_accuracy", "adjusted_balanced_accuracy"]
    assert plan.settings["without_norms"] and plan.settings["measure"] == "initial"
    sigmoid = plan.config(plan.runs[-1], fake.pathlib.Path("here"))
    assert (sigmoid.task, sigmoid.imbalance) == ("multilabel", "one_majority:20")
    assert from_json(json.loads(json.dumps(to_json(plan))), "plan.json") == plan
    assert fake.plan_of("placement").claims == {}


def test_settings_of_a_command_come_before_the_studys_defaults():
    study = named_study("imbalance")
    assert study.base(TrainConfig()).imbalance == "longtail:100"
    given = study.base(TrainConfig(imbalance="step:16", measure="guess"))
    assert (given.imbalance, given.measure, given.without_norms) == ("step:16", "guess", True)
    command = study_command(unequal.plan_of(10), "DIR")
    assert command == (
        "bnhead study imbalance --imbalance=longtail:20 --epochs=2 --batch_size=32 --seeds=10 --dir=DIR"
    )


def test_the_headline_has_the_claims_by_word():
    words = dict.fromkeys(OF_NAME, "CONFIRMED") | {"softmax": "REFUTED", "calibration": "UNDECIDED"}
    rows = [{"claim": name, "head": "fc_bn", "word": word} for name, word in words.items()]
    rows += [{"claim": name, "head": "fc_out_bn", "word": "REFUTED"} for name in words]
    assert headline(rows) == [
        "Published claims about a final batch norm: with fc_bn i, ii, iii, iv, v CONFIRMED; vi REFUTED; "
        "calibration UNDECIDED, and with fc_out_bn i, ii, iii, iv, v, vi, calibration REFUTED."
    ]
    assert headline([]) == headline([{**row, "word": "INVALID"} for row in rows]) == []


def test_every_claim_says_what_is_above_0():
    assert len(CLAIMS) == 7 and [claim.number for claim in CLAIMS] == ["i", "ii", "iii", "iv", "v", "vi", ""]
    for claim in CLAIMS:
        assert claim.meaning and not claim.meaning.endswith(".") and dataclasses.astuple(claim)
