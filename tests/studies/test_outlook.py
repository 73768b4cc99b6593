import dataclasses

import pytest

from bnhead.studies import outlook
from bnhead.studies.custom import custom_study
from bnhead.studies.plan import make
from bnhead.training.config import TrainConfig
from tests.studies import fake

pytestmark = pytest.mark.quick


def test_varied_epochs_can_be_estimated(tmp_path):
    plan = make("heads", custom_study("heads", ("fc", "bn_fc"), vary="epochs=4,2"), TrainConfig(), looks=[3])
    text = outlook.estimate_time(plan, tmp_path, 2, lambda: 60.0)
    assert text.startswith("12 runs of 2 or 4 epochs, 0 done, 2 at a time: about 6 min")


def test_the_estimate_goes_by_the_runs_that_are_done(tmp_path):
    plan = fake.plan_of(seeds=5)
    for run in plan.runs[:2]:
        fake.write_run(plan.config(run, tmp_path))
    text = outlook.estimate_time(plan, tmp_path, 2, None)  # 2 s each
    assert text == "10 runs of 2 epochs, 2 done, 2 at a time: about 8 s, going by those done"


def test_the_estimate_of_a_study_that_has_not_begun_goes_by_the_first_steps(tmp_path):
    text = outlook.estimate_time(fake.plan_of(seeds=5), tmp_path, 2, lambda: 60.0)
    assert text == "10 runs of 2 epochs, 0 done, 2 at a time: about 5 min, going by the first steps of one"
    text = outlook.estimate_time(fake.plan_of(seeds=5), tmp_path, 2, lambda: None)
    assert text.endswith("2 at a time; how long they take is known when the first has ended")


def test_few_test_images_and_few_seeds_are_cautions():
    plan = fake.plan_of("width", seeds=4)
    assert outlook.plan_cautions(dataclasses.replace(plan, data={"test": 99})) == [
        "99 test images are few: one is 1.0 points of accuracy"
    ]
    assert outlook.plan_cautions(dataclasses.replace(plan, data={"test": 100})) == []
    (line,) = outlook.plan_cautions(fake.plan_of(seeds=3))
    assert line == "3 seeds show large differences only; the default is 10,20,40"
