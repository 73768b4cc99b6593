import itertools

import keras
import pytest

from bnhead.devices.replicas import Replicas
from bnhead.training import pace
from bnhead.training.build import Reuse
from bnhead.training.pace import Clock
from bnhead.training.run import prepare_training


@pytest.mark.parametrize(
    ("at_once", "steps", "counted"),
    [(1, 50, range(1, 22)), (1, 1, range(1, 22)), (5, 5, range(5, 26, 5)), (30, 390, (30, 60))],
)
def test_steps_are_counted_behind_the_first_execution(at_once, steps, counted):
    """On a GPU the first execution is often longer than all that is timed, or an epoch."""
    clock, model = Clock(), keras.Sequential()
    clock.set_model(model)
    model.stop_training = False
    for step in itertools.takewhile(lambda _: not model.stop_training, itertools.count(step=at_once)):
        clock.on_train_batch_begin(step % steps)
        clock.on_train_batch_end(step % steps + at_once - 1)
    assert clock.steps == list(counted) and len(clock.times) == len(counted)


def test_tracing_is_counted_apart_from_the_step(short_config):
    feed, model, *_ = prepare_training(short_config(epochs=9), Replicas(), Reuse())
    first, again = pace.of_training(model, feed), pace.of_training(model, feed)
    assert first.first > 5 * first.each > 0, "of a net of this size"
    assert again.first < first.first / 2
    assert pace.of_evaluation(model, feed).first > 0
