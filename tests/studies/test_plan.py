import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest

from bnhead.errors import RunDirectoryError, UsageError
from bnhead.runs.provenance import source_sha256
from bnhead.studies.plan import (
    Study,
    amended,
    digest,
    from_json,
    is_edited,
    make,
    plan_differences,
    run_id,
    to_json,
    with_data,
)
from bnhead.training.config import TrainConfig
from tests.studies.fake import FACTS, plan_of

pytestmark = pytest.mark.quick


def test_a_run_id_is_the_hash_of_all_its_settings_and_of_nothing_else():
    plan = plan_of()
    run = plan.runs[5]
    config = TrainConfig(head="bn_fc", seed=1, epochs=2, workdir="anywhere", data_dir="")
    assert (run.cell, run.seed) == ("bn_fc", 1)
    assert run.id == run_id(config.settings()) and len(run.id) == 12
    assert plan.run_settings(run) == config.settings()
    assert run_id(dataclasses.replace(config, momentum=0.8).settings()) != run.id
    assert {run.id for run in plan.runs} == {run.id for run in plan_of(seeds=4, delta=0.02).runs}


def test_the_digest_is_of_canonical_json():
    # echo -n '{"a":[1,2.5],"b":null}' | sha256sum
    assert digest({"b": None, "a": [1, 2.5]}) == (
        "f66b2c50ccae61e3f2445d2439f42efc245581b18ed184ce5d3c22fb58eed9c4"
    )


def test_cells_comparisons_and_shared_settings():
    plan = plan_of("width", seeds=2)
    assert [cell.name for cell in plan.cells[:3]] == [
        "fc at fc_units 32",
        "bn_fc at fc_units 32",
        "fc at fc_units 64",
    ]
    assert plan.cells[1].placement == "P1" and plan.cells[0].placement == ""
    assert plan.cells[1].settings == {"head": "bn_fc", "fc_units": 32}
    assert plan.comparisons[1].name == "bn_fc against fc at fc_units 64"
    assert plan.comparisons[1].control == "fc at fc_units 64" and plan.comparisons[1].stratum == {
        "fc_units": 64
    }
    assert not {"head", "fc_units", "seed", "workdir"} & set(plan.settings)
    assert len(plan.runs) == 2 * 7 * 2


def test_json_round_trip_and_hash():
    plan = with_data(plan_of("learning_rate"), FACTS)
    content = json.loads(json.dumps(to_json(plan)))
    assert from_json(content, "plan.json") == plan
    assert next(iter(content)) == "format" and list(content)[-1] == "sha256"
    assert content["sha256"] == plan.sha256 == digest({k: v for k, v in content.items() if k != "sha256"})


@pytest.mark.parametrize("looks", [(3, 5), (10, 20, 40)])
def test_looks_and_measures_come_back_and_are_hashed(looks):
    plan = plan_of("width", seeds=looks, delta=0.03)
    assert from_json(json.loads(json.dumps(to_json(plan))), "plan.json") == plan
    assert plan.seeds == tuple(range(looks[-1])) and len(plan.runs) == 2 * 7 * looks[-1]
    once = plan_of("width", seeds=looks[-1], delta=0.03)
    assert plan.sha256 != once.sha256 and plan.runs == once.runs


@pytest.mark.parametrize(
    ("key", "value"),
    [("measures", [{"name": "accuracy", "margin": 0.02, "better": 1}]), ("seeds", [0, 1]), ("question", "?"),
     ("looks", [2, 4]), ("trend", "fc_units"), ("alpha", 0.1)],
)  # fmt: skip
def test_an_edited_plan_is_recognised(key, value):
    content = to_json(plan_of())
    assert not is_edited(content) and content[key] != value and is_edited({**content, key: value})


def test_another_format_is_refused():
    with pytest.raises(RunDirectoryError, match="x must be of format 2, got 3"):
        from_json({**to_json(plan_of()), "format": 3}, "x")


def test_a_study_of_the_earlier_rules_is_refused_in_one_line():
    # what such a plan held besides
    earlier = {"format": 1, "study": "bn_before_fc", "delta": 0.01, "alpha": 0.05, "seeds": [0, 1, 2]}
    with pytest.raises(RunDirectoryError, match="x is of a study that began under earlier rules") as refused:
        from_json(earlier, "x")
    assert str(refused.value).endswith("start it again in another --dir")
    assert "\n" not in str(refused.value)


def test_chance_is_that_of_each_measure():
    def chances(**settings):
        classes = settings.pop("classes")
        plan = with_data(plan_of(**settings), {"classes": classes})
        return {row.name: plan.chance(row.name) for row in plan.measures}

    assert chances(classes=4) == {
        "accuracy": 0.25, "dead_share": None, "silent_share": None, "nll": pytest.approx(np.log(4)),
    }  # fmt: skip
    rotation = {"dataset": "digits_rotation", "task": "regression"}
    assert chances(classes=None, **rotation) == {"r2": 0.0, "dead_share": None, "silent_share": None}


def test_the_level_is_shared_by_rows_and_looks():
    assert plan_of(seeds=10).level(1) == 0.05
    assert plan_of(seeds=(10, 20, 40), alpha=0.06).level(4) == pytest.approx(0.06 / 12)


def test_margins_are_the_measures_except_that_of_the_primary_outcome():
    plan = plan_of("width", delta=0.03)
    assert [(row.name, row.margin) for row in plan.measures] == [
        ("dead_share", 0.03), ("accuracy", 0.01), ("silent_share", 0.02), ("nll", 0.05),
    ]  # fmt: skip
    assert plan.delta == 0.03 and plan.trend == "fc_units" and plan_of("width", delta=0).delta == 0.02


def test_primary_follows_the_task():
    assert plan_of().primary == "test_accuracy"
    assert plan_of(dataset="digits_rotation", task="regression").primary == "test_r2"


def test_differences_name_what_differs():
    before = with_data(plan_of(), FACTS)
    assert plan_differences(before, plan_of()) == {}
    found = plan_differences(before, plan_of(seeds=6, delta=0.02, momentum=0.8))
    assert found == {
        "momentum": "0.9 there, 0.8 now",
        "looks": "4 there, 6 now",
        "delta of accuracy": "0.01 there, 0.02 now",
        "seeds": "0 to 3 there, 0 to 5 now",
    }
    looks = plan_differences(plan_of(seeds=(3, 5)), plan_of(seeds=(3, 5, 9)))
    assert looks == {"looks": "3, 5 there, 3, 5, 9 now", "seeds": "0 to 4 there, 0 to 8 now"}
    assert set(plan_differences(before, plan_of("placement"))) == {"study", "question", "cells"}
    other = dataclasses.replace(before, code={**before.code, "source_sha256": "0"})
    assert set(plan_differences(before, other)) == {"code source_sha256"}


def test_amendments_keep_what_was_known_and_say_what_changed():
    before = with_data(plan_of(), FACTS)
    plan = amended(before, plan_of(seeds=6, alpha=0.04))
    assert plan.chance("accuracy") == 0.1 and plan.data == FACTS and len(plan.runs) == 12
    assert plan.amendments == (
        "alpha was changed after the plan was written: 0.05 there, 0.04 now",
        "looks was changed after the plan was written: 4 there, 6 now",
        "seeds was changed after the plan was written: 0 to 3 there, 0 to 5 now",
    )
    again = amended(plan, plan_of(seeds=7, alpha=0.04))
    assert again.amendments[:3] == plan.amendments and len(again.amendments) == 5


def test_other_settings_and_fewer_seeds_are_no_amendment():
    before = with_data(plan_of(), FACTS)
    with pytest.raises(RunDirectoryError, match=r"momentum cannot be amended: 0\.9 there, 0\.8 now"):
        amended(before, plan_of(momentum=0.8))
    with pytest.raises(RunDirectoryError, match="seeds cannot be removed: 3 are in the plan"):
        amended(before, plan_of(seeds=3))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"delta": -0.01}, r"delta must be between 0 and 1, got -0\.01"),
        ({"delta": float("nan")}, "delta must be between 0 and 1, got nan"),
        ({"alpha": 0.5}, r"alpha must be between 0 and 0\.5, got 0\.5"),
        ({"seeds": 0}, "seeds must be at least 1, got 0"),
        ({"seeds": ()}, "seeds must be at least 1, got 0"),
        ({"seeds": (2, 4)}, "seeds must be at least 3 at the first of several looks, got 2"),
        ({"seeds": (5, 3)}, "seeds must increase from look to look, got 5,3"),
        ({"seeds": (3, 3)}, "seeds must increase from look to look, got 3,3"),
    ],
)
def test_bad_numbers(settings, message):
    with pytest.raises(UsageError, match=message):
        plan_of(**settings)


def test_two_cells_of_the_same_runs_are_refused():
    with pytest.raises(UsageError, match="study x: two of its cells have the same runs"):
        make("x", Study("?", ("fc", "gap_fc")), TrainConfig(), looks=(3,))


def test_another_first_seed_gives_other_runs():
    plan = make("x", Study("?", ("fc", "bn_fc")), TrainConfig(), looks=(3, 5), first_seed=40)
    assert plan.seeds == (40, 41, 42, 43, 44)
    with pytest.raises(UsageError, match="first_seed must be at least 0, got -1"):
        make("x", Study("?", ("fc", "bn_fc")), TrainConfig(), looks=(3,), first_seed=-1)


def test_an_outcome_that_the_task_does_not_have():
    study = Study("?", ("fc", "bn_fc"), primary="r2")
    with pytest.raises(UsageError, match="outcome 'r2' is not measured for classification"):
        make("x", study, TrainConfig(), looks=(3,))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("measures", [{"name": "speed", "margin": 0.1, "better": 1}], "there is no outcome called 'speed'"),
        ("measures", [{"name": "accuracy", "margin": 0.1, "better": 2}], "better must be 1 or -1, got 2"),
        ("measures", [], "measures must not be empty"),
        ("looks", [3], "seeds must be 3, as many as at the last look, got 4"),
        ("looks", [], "seeds must be at least 1, got 0"),
    ],
)
def test_plans_that_no_study_writes(key, value, message):
    with pytest.raises(RunDirectoryError, match=f"x: {message}"):
        from_json({**to_json(plan_of()), key: value}, "x")


def test_the_source_hash_is_in_the_plan():
    assert plan_of().code["source_sha256"] == source_sha256()


def test_plans_need_no_tensorflow():
    code = (
        "import sys; from tests.studies.fake import plan_of; plan_of(); "
        "print([m for m in ('tensorflow', 'keras') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
