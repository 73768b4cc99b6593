"""Settings that are left to a measurement: `--mixed_precision=auto` and `--jit_compile=auto`.

A run records its choices, and keeps them when it is resumed; a study fixes them in its plan.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import keras

from bnhead.devices import environment
from bnhead.training.config import TrainConfig
from bnhead.training.pace import Pace
from bnhead.training.rules import MEASURED, OPEN

LEAST_GAIN = 0.05  # bfloat16 must save this share of a step: its results differ, and timings too
# On an H200 XLA took 15 to 25 s for a training step and 7 for evaluation, and a step then 0.4 of its time.
COMPILE_SECONDS, COMPILED_SHARE = 27.0, 0.4
Measure = Callable[[TrainConfig], Pace]


class Choices(NamedTuple):
    """The choices for open settings.

    Attributes:
        fields: values by the names of `MEASURED`.
        lines: a line about each.
    """

    fields: Mapping[str, Any]
    lines: tuple[str, ...] = ()

    def of(self, config: TrainConfig) -> TrainConfig:
        """The config with these values for its open settings."""
        known = {name: self.fields[name] for name in MEASURED if name in self.fields}
        return dataclasses.replace(config, **{n: v for n, v in known.items() if getattr(config, n) == OPEN})


def is_open(config: TrainConfig) -> bool:
    """Whether a setting is left to a measurement on this machine."""
    return config.mixed_precision == OPEN or (config.jit_compile == OPEN and _may_compile(config))


def choose(
    config: TrainConfig, steps: int, measure: Measure, chosen: list[tuple[dict, Choices]] | None = None
) -> Choices:
    """Chooses the open settings of a config.

    XLA is chosen first: compiling must take less time than it saves in the steps ahead. Then precision is
    measured as the step is executed.

    Args:
        config: the run's settings.
        steps: optimizer steps ahead.
        measure: config without open settings -> the pace of its training step here.
        chosen: settings and choices before, of which the last one is kept: seeds do not choose differently.
    """
    lines, settings = [], config.without_seed()
    if chosen and chosen[0][0] == settings:
        return chosen[0][1]
    if config.jit_compile == OPEN and _may_compile(config):
        config, line = _choose_compilation(config, steps, measure)
        lines.append(line)
    if config.mixed_precision == OPEN:
        config, line = _choose_precision(config, measure)
        lines.append(line)
    choices = Choices({name: getattr(config, name) for name in MEASURED}, tuple(lines))
    if chosen is not None:
        chosen[:] = [(settings, choices)]
    return choices


def _may_compile(config: TrainConfig) -> bool:
    """Whether XLA is a choice. JAX always compiles, PyTorch never, and a CPU is slower with XLA."""
    if keras.backend.backend() != "tensorflow" or config.distribution != "none":
        return False
    return environment.device_names() != ["CPU"]


def _choose_compilation(config: TrainConfig, steps: int, measure: Measure) -> tuple[TrainConfig, str]:
    plain = dataclasses.replace(config, jit_compile="off")
    single = dataclasses.replace(plain, mixed_precision=config.mixed_precision == True)  # noqa: E712 - or "auto"
    pace = measure(single).each
    ahead = f"{steps:,} steps of {pace * 1e3:.1f} ms"
    if not steps * pace * (1 - COMPILED_SHARE) > COMPILE_SECONDS:  # also for NaN: the run is one execution
        return plain, f"--jit_compile=auto: off; {ahead} end before XLA pays (about {COMPILE_SECONDS:g} s)"
    compiled = measure(dataclasses.replace(single, jit_compile="on"))
    text = f"a step takes {compiled.each * 1e3:.1f} ms with XLA, {pace * 1e3:.1f} without"
    if compiled.each < pace:
        return dataclasses.replace(config, jit_compile="on"), f"--jit_compile=auto: on; {text}"
    return plain, f"--jit_compile=auto: off; {text}"


def _choose_precision(config: TrainConfig, measure: Measure) -> tuple[TrainConfig, str]:
    single, half = (dataclasses.replace(config, mixed_precision=value) for value in (False, True))
    if environment.device_names() == ["CPU"] and environment.cpu_has_bfloat16() is False:
        return single, "--mixed_precision=auto: float32; this CPU has no bfloat16 instructions"
    # in turn, twice: another process on the machine must not decide
    paces = [[measure(one).each for one in (single, half)] for _ in range(2)]
    seconds = [min(pair) for pair in zip(*paces, strict=True)]
    if not all(map(math.isfinite, seconds)):
        return single, "--mixed_precision=auto: float32; a run of one execution is not measured"
    text = "a step takes {:.1f} ms in float32, {:.1f} in bfloat16".format(*(1e3 * s for s in seconds))
    if seconds[1] < seconds[0] * (1 - LEAST_GAIN):
        return half, f"--mixed_precision=auto: bfloat16; {text}"
    return single, f"--mixed_precision=auto: float32; {text}"
