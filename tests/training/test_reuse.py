import dataclasses

import keras
import numpy as np
import pytest

from bnhead.data import load
from bnhead.training import reuse, train
from bnhead.training.build import build_model
from bnhead.training.reuse import Reuse, assign_values, data_options


def weights_of(config):
    return keras.saving.load_model(f"{config.workdir}/model.keras").get_weights()


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_data_is_opened_once_for_equal_settings(short_config, monkeypatch):
    shared, config = Reuse(), short_config()
    opened = []
    monkeypatch.setattr(
        reuse, "load", lambda **options: opened.append(options["validation"]) or load(**options)
    )
    for settings in ({}, {"seed": 3, "head": "fc"}, {"validation": 0.1}, {"validation": 0.1, "seed": 1}):
        shared.data(dataclasses.replace(config, **settings))
    assert opened == [0.0, 0.1]


# those whose values are not weights alone: random states, calibrated statistics, a growing bound
@pytest.mark.parametrize(
    "head",
    [
        pytest.param(head, marks=pytest.mark.slow)
        for head in ("bn_fc", "dropout0.5_fc", "fbn_fc", "brn_fc", "noise_fc")
    ],
)
def test_a_run_with_another_runs_graph_is_the_run_of_its_own(head, short_config):
    reused = Reuse()
    first = short_config(head=head, seed=1)
    train(first, reuse=reused)
    second = short_config(head=head, seed=2)
    shared = train(second, reuse=reused)
    alone = short_config(head=head, seed=2)
    assert train(alone) == shared
    assert same(weights_of(second), weights_of(alone)) and not same(weights_of(first), weights_of(alone))


def test_a_graph_is_shared_where_the_seed_alone_differs(short_config):
    shared, config = Reuse(), short_config()
    data = shared.data(config)
    model = shared.model(config, data)
    assert shared.model(dataclasses.replace(config, seed=4), data) is model
    other = shared.model(dataclasses.replace(config, learning_rate=0.05), data)
    assert other is not model
    assert shared.model(config, data) not in (model, other)


def test_a_graph_that_was_left_at_single_steps_is_made_anew(short_config):
    config = short_config(steps_per_execution=5)
    data = load(**data_options(config))
    used, fresh = build_model(config, data), build_model(config, data)
    used.steps_per_execution, used.train_function = 1, print  # as `failures.locate` leaves a model
    assign_values(used, fresh)
    assert used.steps_per_execution == 5 and used.train_function is None


def test_everything_is_taken_over(short_config):
    data = load(**data_options(short_config()))
    used, fresh = (build_model(short_config(head="dropout0.5_fc", seed=seed), data) for seed in (1, 2))
    images = data.train.images[:64]
    used.fit(images, data.train.labels[:64], batch_size=16, verbose=0)
    assign_values(used, fresh)
    for one, other in ((used, fresh), (used.optimizer, fresh.optimizer)):
        assert len(one.variables) == len(other.variables) > 0
        for variable, value in zip(one.variables, other.variables, strict=True):
            np.testing.assert_array_equal(variable, value)
    assert all(not np.any(v) for v in used.metrics_variables)
    for model in (used, fresh):  # and is trained alike
        model.fit(images, data.train.labels[:64], batch_size=16, verbose=0, shuffle=False)
    assert same(used.get_weights(), fresh.get_weights())
