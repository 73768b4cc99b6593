import dataclasses
import json
import pathlib

import pytest

from bnhead.devices import environment
from bnhead.devices.replicas import Replicas
from bnhead.errors import UsageError
from bnhead.training import TrainConfig, choices, pace, run
from bnhead.training.build import Reuse
from bnhead.training.choices import Choices, choose
from bnhead.training.pace import Pace
from bnhead.training.rules import MEASURED


@pytest.fixture
def on_a_gpu(monkeypatch):
    monkeypatch.setattr(environment, "device_names", lambda: ["a GPU"])


def paces(seconds):
    """`measure` with the pace of each (mixed_precision, jit_compile), and the list of what it measured."""
    asked = []

    def measure(config):
        key = config.mixed_precision, config.jit_compile
        asked.append(key)
        return Pace(1.0, seconds[key])

    return measure, asked


@pytest.mark.parametrize(
    ("has_bfloat16", "half", "chosen", "line"),
    [
        (True, 0.010, True, "bfloat16; a step takes 20.0 ms in float32, 10.0 in bfloat16"),
        (True, 0.0195, False, "float32; a step takes 20.0 ms in float32, 19.5 in bfloat16"),
        (None, 0.010, True, "bfloat16; a step takes 20.0 ms in float32, 10.0 in bfloat16"),
        (True, float("nan"), False, "float32; a run of one execution is not measured"),
    ],
)
def test_bfloat16_is_chosen_where_it_is_faster(monkeypatch, has_bfloat16, half, chosen, line):
    monkeypatch.setattr(environment, "device_names", lambda: ["CPU"])
    monkeypatch.setattr(environment, "cpu_has_bfloat16", lambda: has_bfloat16)
    measure, asked = paces({(False, "auto"): 0.020, (True, "auto"): half})
    config = TrainConfig(mixed_precision="auto")
    assert choices.is_open(config) and not choices.is_open(TrainConfig())
    made = choose(config, 100, measure)
    assert made == Choices(
        {"mixed_precision": chosen, "jit_compile": "auto"}, (f"--mixed_precision=auto: {line}",)
    )
    assert made.of(config) == dataclasses.replace(config, mixed_precision=chosen)
    assert asked == [(False, "auto"), (True, "auto")] * 2, "in turn"


def test_nothing_is_measured_on_a_cpu_without_bfloat16(monkeypatch):
    monkeypatch.setattr(environment, "device_names", lambda: ["CPU"])
    monkeypatch.setattr(environment, "cpu_has_bfloat16", lambda: False)
    made = choose(TrainConfig(mixed_precision="auto"), 100, lambda config: 1 / 0)
    assert made.fields["mixed_precision"] is False and "no bfloat16 instructions" in made.lines[0]


@pytest.mark.parametrize(
    ("steps", "compiled", "chosen", "asked", "line"),
    [
        # 27 s of compiling are saved by 0.6 x 10 ms in 4,500 steps
        (4500, 0.004, "off", 1, "off; 4,500 steps of 10.0 ms end before XLA pays (about 27 s)"),
        (4501, 0.004, "on", 2, "on; a step takes 4.0 ms with XLA, 10.0 without"),
        (9000, 0.011, "off", 2, "off; a step takes 11.0 ms with XLA, 10.0 without"),
    ],
)
def test_xla_is_chosen_where_compiling_pays(on_a_gpu, steps, compiled, chosen, asked, line):
    measure, measured = paces({(False, "off"): 0.010, (False, "on"): compiled})
    made = choose(TrainConfig(), steps, measure)
    assert made.fields["jit_compile"] == chosen and made.lines == (f"--jit_compile=auto: {line}",)
    assert len(measured) == asked


def test_precision_is_measured_as_the_step_is_executed(on_a_gpu):
    measure, measured = paces({(False, "off"): 0.01, (False, "on"): 0.004, (True, "on"): 0.003})
    made = choose(TrainConfig(mixed_precision="auto"), 10**6, measure)
    assert made.fields == {"mixed_precision": True, "jit_compile": "on"} and len(made.lines) == 2
    assert measured[:2] == [(False, "off"), (False, "on")] and set(measured[2:]) == {
        (False, "on"),
        (True, "on"),
    }


def test_what_is_set_is_not_measured(on_a_gpu):
    config = TrainConfig(mixed_precision=True, jit_compile="off")
    assert not choices.is_open(config)
    assert choose(config, 10**6, lambda config: 1 / 0).of(config) == config


@pytest.mark.parametrize("value", ["half", 1, None])
def test_other_precisions_are_refused(value):
    with pytest.raises(UsageError, match=f"mixed_precision must be true, false or auto, got {value!r}"):
        TrainConfig(mixed_precision=value)
    with pytest.raises(UsageError, match="mixed_precision=auto measures one device; with distribution mirr"):
        TrainConfig(mixed_precision="auto", distribution="mirrored")


def test_a_run_records_its_choices_and_keeps_them(short_config, monkeypatch, capsys):
    """The chosen model trains, with what was compiled for the measurement, from its initial values."""
    monkeypatch.setattr(choices, "LEAST_GAIN", -1e9)  # bfloat16 is chosen however slow it is here
    monkeypatch.setattr(environment, "cpu_has_bfloat16", lambda: True)
    config = short_config(mixed_precision="auto", epochs=1)
    reuse = Reuse()
    result = run.train(config, reuse=reuse)
    assert "bnhead: --mixed_precision=auto: bfloat16; a step takes" in capsys.readouterr().err
    place = pathlib.Path(config.workdir)
    assert json.loads((place / "config.json").read_text())["mixed_precision"] == "auto"
    recorded = json.loads((place / "environment.json").read_text())["choices"]
    assert recorded == {"mixed_precision": True, "jit_compile": "auto"} and set(recorded) == set(MEASURED)
    assert run.train(short_config(mixed_precision=True, epochs=1)) == result, "of initial values"
    monkeypatch.setattr(pace, "of_training", lambda *_: 1 / 0)
    for kept, fields in ((reuse, {}), (Reuse(), recorded)):  # made by the process, recorded by the run
        made = run.prepare_training(config, Replicas(), kept, fields).choices
        assert made.of(config).mixed_precision is True
