"""What the census costs: ResNet-20, its 19 ReLUs and the head's, CIFAR-sized images, batches of 128.

Times are CPU times of all threads. Everything is timed in turn within one run, round after
round; medians over the rounds with the range, and ratios round by round. An epoch is 50,000
images, 391 steps; its time is that of the steps measured here, scaled.

    (a) training steps without a census, and with `DeadUnits` counting inside the step
        `DeadUnits` on a probe set of 2,048, once per epoch, beside `predict` on the same images
    (b) the activations of the same 2,048, dumped with `predict` and counted by NumPy; the counts must agree
    (c) one forward pass per layer over the training set, as keras-contrib's DeadReluDetector goes: timed on
        `--images` of them and scaled to 50,000
    (d) the histograms of all weights that `keras.callbacks.TensorBoard(histogram_freq=1)` writes
    (e) the same probe with gradients, and with correlations, in counts without them
    peak memory of the pass over 2,048 and over `--many` images, each in a process of its own

    python benchmarks/census.py [--rounds=15] [--bursts=8] [--steps=4] [--images=512] [--many=16384]
"""

import argparse
import functools
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import checkout  # noqa: F401
import keras
import numpy as np
import scipy.stats
import tensorflow as tf

from bnhead.census import DeadUnits, Probe
from bnhead.census.sites import activations
from bnhead.models import resnet20

EPOCH, BATCH, PROBE = 50_000, 128, 2048
SHAPE = (32, 32, 3)


def images(number: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(number, *SHAPE)).astype("float32"), rng.integers(0, 10, number)


def compiled() -> keras.Model:
    model = resnet20(SHAPE, "bn_fc", 10, seed=0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), loss, metrics=["accuracy"])
    return model


def steps(model: keras.Model, number: int) -> Callable[[], None]:
    """`number` training steps on batches that are already in memory."""
    model.make_train_function()
    endless = iter(tf.data.Dataset.from_tensors(images(BATCH)).repeat())

    def run():
        for _ in range(number):
            logs = model.train_function(endless)
        keras.ops.convert_to_numpy(logs["loss"])

    return run


def dump(model: keras.Model, data: tuple) -> Callable[[], dict]:
    """(b): the share per input and on the whole set, from the activations themselves."""
    outputs = {site.name: site.layer.output for site in activations(model)}
    whole = keras.Model(model.inputs, outputs)

    def run():
        shares = {}
        for name, values in whole.predict(data[0], batch_size=BATCH, verbose=0).items():
            silent = (values.reshape(len(values), -1, values.shape[-1]) == 0).all(1)
            shares[name] = silent.mean(), silent.all(0).mean()
        return shares

    return run


def per_layer(model: keras.Model, data: np.ndarray) -> Callable[[], None]:
    """(c): for each layer a model up to it, run over all images; a unit is dead when it is 0 on all."""
    parts = [keras.Model(model.inputs, site.layer.output) for site in activations(model)]

    def run():
        for part in parts:
            dead = True
            for start in range(0, len(data), BATCH):
                values = part.predict_on_batch(data[start : start + BATCH])
                dead = dead & (values.reshape(-1, values.shape[-1]) == 0).all(0)

    return run


def histograms(model: keras.Model, folder: str) -> Callable[[], None]:
    """(d): what the TensorBoard callback does after an epoch."""
    writer = tf.summary.create_file_writer(folder)

    def run():
        with writer.as_default(step=0):
            for weight in model.weights:
                tf.summary.histogram(weight.path, weight.value)
        writer.flush()

    return run


def timed(function: Callable) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start


def spread(values: list[float], form: str) -> str:
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def memory(number: int) -> int:
    """MiB by which the peak of a process grows when it counts `number` images that are made as they come."""
    model = compiled()
    batches = tf.data.Dataset.range(number // BATCH).map(
        lambda i: (tf.random.stateless_normal((BATCH, *SHAPE), tf.stack([i, i])), tf.zeros(BATCH, tf.int64))
    )
    probe = Probe(model, "all")
    probe.count(batches.take(4))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    probe.count(batches)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--bursts", type=int, default=8)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--many", type=int, default=16_384)
    parser.add_argument("--memory", type=int, default=0, help="internal: one measurement of memory")
    options = parser.parse_args()
    if options.memory:
        print(memory(options.memory))
        return
    compare(options)
    for number in (PROBE, options.many):
        command = [sys.executable, __file__, f"--memory={number}"]
        grown = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1]
        print(f"peak memory grows by {grown} MiB while {number:,} images are counted, 20 layers")


def compare(options: argparse.Namespace) -> None:
    plain, counting, data = compiled(), compiled(), images(PROBE)
    inside = DeadUnits(layers="all")
    inside.set_model(counting)
    inside.set_params({"epochs": 1})
    probe = Probe(plain, "all")
    options_of_probe = {name: Probe(plain, "all", **{name: True}) for name in ("gradients", "clones")}
    with tempfile.TemporaryDirectory() as folder:
        ways = {
            "none": steps(plain, options.steps),
            "inside": steps(counting, options.steps),
            "read": lambda: inside.on_epoch_end(0, {}),
            "probe": lambda: probe.count(data, batch_size=BATCH),
            "predict": lambda: plain.predict(data[0], batch_size=BATCH, verbose=0),
            "dump": dump(plain, data),
            "layers": per_layer(plain, data[0][: options.images]),
            "histograms": histograms(plain, folder),
            **{
                name: functools.partial(optional.count, data, batch_size=BATCH)
                for name, optional in options_of_probe.items()
            },
        }
        for way in ways.values():  # traces the functions and is not counted
            way()
        check(probe.count(data, batch_size=BATCH), ways["dump"]())
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        pair = "none", "inside"
        for number in range(options.rounds):
            for burst in range(options.bursts):  # short ones, in turn: whatever else runs here hits both
                for name in pair if (number + burst) % 2 else reversed(pair):
                    seconds[name].append(timed(ways[name]))
            for name in ways.keys() - pair:
                seconds[name].append(timed(ways[name]))
    report(seconds, options)


def check(census, shares: dict) -> None:
    for name, counts in census.layers.items():
        figures = counts.figures()
        np.testing.assert_allclose([figures["per_input"], figures["dataset"]], shares[name], atol=1e-9)


def report(seconds: dict[str, list[float]], options: argparse.Namespace) -> None:
    one = [s / options.steps * EPOCH / BATCH for s in seconds["none"]]
    rounds = [one[i : i + options.bursts] for i in range(0, len(one), options.bursts)]
    epoch = [statistics.median(bursts) for bursts in rounds]
    whole = [s * EPOCH / options.images for s in seconds["layers"]]
    read = statistics.median(seconds["read"]) / statistics.median(epoch)
    inside = sorted(i / n - 1 + read for i, n in zip(seconds["inside"], seconds["none"], strict=True))
    low = int(scipy.stats.binom.ppf(0.025, len(inside), 0.5))
    middle = f"{statistics.median(inside):+.1%} ({inside[low]:+.1%} to {inside[-1 - low]:+.1%})"

    def line(name: str, text: str) -> None:
        shares = [s / e for s, e in zip(seconds[name], epoch, strict=True)]
        print(f"  {text:<40}{spread(shares, '.2%')} of an epoch, {spread(seconds[name], '.2f')} s")

    times = [w / p for w, p in zip(whole, seconds["probe"], strict=True)]
    print(f"n = {options.rounds} rounds, median (range); TensorFlow {tf.__version__}")
    print(f"  {f'an epoch of {EPOCH:,} without a census':<40}{spread(epoch, '.1f')} s")
    print(f"  {'DeadUnits inside the step':<40}{middle} of an epoch (95 %, {len(inside)} bursts)")
    line("probe", f"DeadUnits on a probe set of {PROBE:,}")
    ratios = [p / q for p, q in zip(seconds["probe"], seconds["predict"], strict=True)]
    print(f"  {'that probe, in calls of predict':<40}{spread(ratios, '.2f')}")
    line("dump", f"(b) predict of {PROBE:,} and NumPy")
    print(f"  {'(c) a forward pass per layer':<40}{spread(whole, '.0f')} s for {EPOCH:,} images,", end="")
    print(f" {spread(times, '.0f')} times the probe set's count")
    line("histograms", "(d) histograms of all weights")
    for name in ("gradients", "clones"):
        times = [s / p for s, p in zip(seconds[name], seconds["probe"], strict=True)]
        print(f"  {f'(e) that probe with {name}=True':<40}{spread(times, '.2f')} times the count without")


if __name__ == "__main__":
    main()
