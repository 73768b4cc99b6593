import dataclasses
import math
from pathlib import Path

import keras
import numpy as np
import pytest

from bnhead.cli.console import EpochLines
from bnhead.data import load
from bnhead.devices import environment
from bnhead.errors import UsageError
from bnhead.heads import grammar
from bnhead.training import build, train
from bnhead.training.build import (
    Reuse,
    assign_values,
    build_model,
    decisions,
    describe_head,
    executed_at_once,
    optimizer,
)


@pytest.fixture(scope="module")
def digits(data_dir):
    return load("digits", data_dir)


def test_a_head_is_parsed_once(short_config, digits, monkeypatch):
    parsed, spell = [], grammar.spell
    monkeypatch.setattr(grammar, "spell", lambda tokens: parsed.append(tokens) or spell(tokens))
    config = short_config(head="bn_fc")
    assert describe_head(config, build_model(config, digits)).endswith("[P1]") and len(parsed) == 1


def test_images_that_are_kept_are_checked_once(short_config, monkeypatch):
    inspected = []
    monkeypatch.setattr(build, "inspect_data", lambda data: inspected.append(data) or {"warnings": []})
    reuse = Reuse()
    reuse.images(short_config())
    early = reuse.sibling()
    for batch_size in (64, 128):
        config = short_config(batch_size=batch_size)
        batches = {"size": batch_size, "steps": 1437 // batch_size, "left_out": 1437 % batch_size}
        assert reuse.checks(config) == {"warnings": [], "batches": batches}
    for kept in (early, reuse.sibling(), reuse.stage()):
        kept.checks(config)
    assert len(inspected) == 1
    reuse.checks(short_config(label_noise=0.1))
    assert len(inspected) == 2, "other data"


def test_batch_renorms_schedule_is_the_papers_in_proportion(short_config, digits):
    """40,000 of 130,000 steps."""
    config = short_config(head="brn_fc", epochs=26, batch_size=143)
    assert build_model(config, digits).get_layer("head_brn").steps == 80  # of 26 epochs x 10 steps


def test_learning_rate_warms_up_linearly_and_falls_by_a_cosine(short_config, digits):
    config = short_config(epochs=10, warmup_epochs=2, learning_rate=0.4)
    rate = optimizer(config, build_model(config, digits), 11)._learning_rate
    assert [float(rate(step)) for step in (0, 11, 22)] == pytest.approx([0, 0.2, 0.4])
    for step in (22, 50, 66, 110):
        assert float(rate(step)) == pytest.approx(0.2 * (1 + math.cos(math.pi * (step - 22) / 88)), abs=1e-6)
    short = short_config(epochs=1, warmup_epochs=2, learning_rate=0.4)
    rate = optimizer(short, build_model(short, digits), 11)._learning_rate
    assert float(rate(5)) == pytest.approx(0.4), "at most half of the training warms up"
    cold = short_config(epochs=10, warmup_epochs=0, learning_rate=0.4)
    assert float(optimizer(cold, build_model(cold, digits), 11)._learning_rate(0)) == pytest.approx(0.4)


def test_only_kernels_decay_and_a_step_is_nesterovs(short_config, digits):
    config = short_config(weight_decay=0.01, learning_rate=0.5, warmup_epochs=0)
    model = build_model(config, digits)
    before = [np.array(v) for v in model.trainable_variables]
    gradients = [np.ones(v.shape, "float32") for v in model.trainable_variables]
    sgd = optimizer(config, model, 5)
    sgd.build(model.trainable_variables)
    sgd.apply([keras.ops.convert_to_tensor(g) for g in gradients], model.trainable_variables)
    kinds = set()
    for old, variable in zip(before, model.trainable_variables, strict=True):
        kind = variable.path.split("/")[-1]
        kinds.add(kind)
        kept = old * (1 - 0.5 * 0.01) if kind == "kernel" else old
        np.testing.assert_allclose(np.array(variable), kept - 0.5 * 1.9, rtol=1e-5, err_msg=variable.path)
    assert kinds == {"kernel", "bias", "gamma", "beta"}


def test_another_runs_weights_are_where_training_starts(short_run, short_config, data_dir):
    first, _ = short_run
    model = build_model(short_config(weights=first.workdir, head="fc", seed=7), load("digits", data_dir))
    given = keras.saving.load_model(Path(first.workdir) / "model.keras")
    for name in ("stem_conv", "stage3_block1_bn2"):
        for one, other in zip(
            model.get_layer(name).get_weights(), given.get_layer(name).get_weights(), strict=True
        ):
            np.testing.assert_array_equal(one, other)


def test_raw_pixels_are_scaled_inside_the_model(short_config, digits):
    model = build_model(short_config(), digits)
    assert model.get_layer("scale_pixels")(np.array([[0.0, 127.5, 255.0]])).numpy().tolist() == [[-1, 0, 1]]
    assert describe_head(short_config(), model).startswith("2x2x64 -> gap")


@pytest.mark.parametrize(
    ("steps", "at_once"),
    [(1, 1), (11, 11), (390, 30), (391, 23), (397, 31), (64, 32), (31, 31), (62, 31), (74, 25)],
)
def test_on_a_gpu_several_steps_are_executed_at_once(monkeypatch, steps, at_once):
    assert executed_at_once(steps) == 1, "on a CPU"
    monkeypatch.setattr(environment, "device_names", lambda: ["a GPU"])
    assert executed_at_once(steps) == at_once
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    assert executed_at_once(steps) == executed_at_once(steps, 1) == 1
    with pytest.raises(UsageError, match="steps_per_execution must be 1 on PyTorch, got 2"):
        executed_at_once(steps, 2)


def test_executions_that_would_reach_into_the_next_epoch_are_refused(short_config, digits):
    """Keras takes whole executions: of 11 steps by 4 it makes 12, and by the end the data runs out."""
    assert [executed_at_once(12, wanted) for wanted in (1, 3, 12)] == [1, 3, 12]
    for wanted, nearest in ((5, 4), (11, 6), (13, 12), (100, 12)):
        with pytest.raises(
            UsageError, match=f"divide the 12 steps of an epoch, got {wanted}; {nearest} would"
        ):
            executed_at_once(12, wanted)
    with pytest.raises(UsageError, match="steps_per_execution must divide the 5 steps"):
        build_model(short_config(steps_per_execution=3), digits)


def test_how_steps_are_executed(short_config, digits):
    model = build_model(short_config(steps_per_execution=5, jit_compile="on"), digits)
    assert model.steps_per_execution == 5 and model.jit_compile is True
    model = build_model(short_config(), digits)
    assert model.steps_per_execution == 1 and model.jit_compile is False, "never XLA on a CPU unless asked"


def test_the_kernels_of_separable_convolutions_decay_too(short_config):
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.SeparableConv2D(4, 3)(keras.layers.DepthwiseConv2D(3)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(x)))
    sgd = optimizer(short_config(weight_decay=0.01), model, 5)
    sgd.build(model.trainable_variables)
    decays = {v.name for v in model.trainable_variables if sgd._use_weight_decay(v)}
    assert decays == {"kernel", "depthwise_kernel", "pointwise_kernel"}


@pytest.fixture
def colour_net(tmp_path):
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(4, 3)(keras.layers.Rescaling(1 / 255)(inputs))
    keras.Model(inputs, keras.layers.BatchNormalization()(x)).save(tmp_path / "net.keras")
    return str(tmp_path / "net.keras")


def test_what_was_decided_is_said(short_config, colour_net, monkeypatch):
    def lines(**settings):
        config = short_config(**settings)
        return decisions(config, build_model(config, load("digits", config.data_dir)))

    assert lines() == []
    assert lines(backbone=colour_net) == [
        "pixels as they are, 0 to 255, since the file's net scales them itself"
    ]
    monkeypatch.setattr(environment, "cpu_has_bfloat16", lambda: False)
    monkeypatch.setattr(environment, "device_names", lambda: ["CPU"])
    assert lines() == [], "only where it is asked for"
    (slow,) = lines(mixed_precision=True)
    assert slow.startswith("--mixed_precision: this CPU has no bfloat16 instructions") and "0.47" in slow
    monkeypatch.setattr(environment, "cpu_has_bfloat16", lambda: True)
    kept = lines(mixed_precision=True, backbone=colour_net)[-1]
    assert kept.startswith("--mixed_precision: 2 of the backbone's 2 layers with weights compute in float32")
    assert lines(mixed_precision=True) == []
    monkeypatch.setattr(environment, "cpu_has_bfloat16", lambda: None)
    assert lines(mixed_precision=True) == [], "nothing is said where it is not known"


def test_what_was_decided_is_printed_before_the_first_epoch(short_config, colour_net, capsys):
    config = short_config(backbone=colour_net, epochs=1)
    with EpochLines(config) as printed:
        train(config, [printed])
    out = capsys.readouterr().out.splitlines()
    assert out[1].startswith("pixels as they are") and out[2].startswith("epoch 1/1")


def weights_of(config):
    return keras.saving.load_model(f"{config.workdir}/model.keras").get_weights()


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_data_is_opened_once_for_equal_settings(short_config, monkeypatch):
    shared, config = Reuse(), short_config()
    opened = []
    monkeypatch.setattr(
        build, "load", lambda **options: opened.append(options["validation"]) or load(**options)
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
    assert shared.model(config, data) is model, "candidates of a measurement are kept"
    probe, file = shared.keep(other, data)
    assert shared.model(config, data) not in (model, other), "until one is chosen"
    assert shared.keep(other, data) == (probe, file) and probe.model is file.model is other
    assert shared.holds_model(dataclasses.replace(config, learning_rate=0.05, seed=9))
    assert not shared.holds_model(dataclasses.replace(config, head="fc"))


def test_a_graph_that_was_left_at_single_steps_is_made_anew(short_config):
    config = short_config(steps_per_execution=5)
    data = load(**config.data_options())
    used, fresh = build_model(config, data), build_model(config, data)
    used.steps_per_execution, used.train_function = 1, print  # as `failures.locate` leaves a model
    assign_values(used, fresh)
    assert used.steps_per_execution == 5 and used.train_function is None


def test_everything_is_taken_over(short_config):
    data = load(**short_config().data_options())
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
