"""A net on an accelerator: a bare `fit`, the same with each kind of census, `predict` and counts beside it.

Every backend has a process of its own. Medians over the epochs of one training, or over as many calls, with
the range, and the seconds of the first, which traces and compiles; the bare `fit` comes first and again last.
Data are uint8 arrays in memory. JAX needs no TensorFlow. PyTorch without Keras is the peer for ResNet-20:
channels_last, eager and, on a GPU, compiled. It runs on a CPU too, where it shows that it runs.

    fit              plain, without a census
    fit, at once     `--at_once` steps per execution
    fit, step        `DeadUnits()`, which counts 16 images of each training batch inside the step
    fit, step, all   the same for every activation
    fit, probe       `DeadUnits` on `--probe` images after the epoch
    predict          on those images
    count            the census of the last activation on them; count, all: of every activation

    python benchmarks/gpu.py [--net=resnet20] [--batch=128] [--side=32] [--precision=float32] [--steps=100]
                             [--probe=2048] [--rounds=5] [--at_once=25] [--backends=tensorflow,jax,torch,peer]
"""

import argparse
import importlib.util
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import checkout  # noqa: F401
import numpy as np

from bnhead.devices import startup

CLASSES, PROBE_BATCH = 10, 256
BACKENDS = ("tensorflow", "jax", "torch")


Way = Callable[[], list[float]]  # the seconds of each repetition, the first with tracing and compiling


def keras_ways(options: argparse.Namespace) -> tuple[str, dict[str, Way]]:
    """The device, and the ways by name; a repetition of `fit` is an epoch of `--steps`."""
    with startup.quiet():
        import keras

        keras.ops.zeros(1)

    from bnhead import DeadUnits, models
    from bnhead.census import Probe

    keras.config.set_dtype_policy(options.precision)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (options.steps * options.batch, options.side, options.side, 3), np.uint8)
    labels = rng.integers(0, CLASSES, len(images)).astype("int32")
    probe = rng.integers(0, 256, (options.probe, options.side, options.side, 3), np.uint8)

    def compiled(at_once: int = 1) -> keras.Model:
        model = models.find(options.net)(
            images.shape[1:],
            head="bn_fc",
            outputs=CLASSES,
            preprocessing=keras.layers.Rescaling(1 / 127.5, -1.0),
            seed=0,
        )
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        sgd = keras.optimizers.SGD(0.01, momentum=0.9)
        model.compile(sgd, loss, metrics=["accuracy"], steps_per_execution=at_once)
        return model

    def fit(model: keras.Model, *callbacks) -> Way:
        def run():
            times = []
            clock = keras.callbacks.LambdaCallback(  # after the census, whose time it has
                on_train_begin=lambda logs: times.append(time.perf_counter()),
                on_epoch_end=lambda epoch, logs: times.append(time.perf_counter()),
            )
            keywords = {"batch_size": options.batch, "epochs": options.rounds + 1, "verbose": 0}
            model.fit(images, labels, callbacks=[*callbacks, clock], **keywords)
            return np.diff(times).tolist()

        return run

    def calls(function: Callable, **keywords) -> Way:
        return lambda: repeated(lambda: function(probe, batch_size=PROBE_BATCH, **keywords), options.rounds)

    bare, at_once = compiled(), {}
    if keras.backend.backend() != "torch":  # Keras has single steps only there
        at_once = {"fit, at once": fit(compiled(options.at_once))}
    ways = {
        "fit": fit(bare),
        **at_once,
        "fit, step": fit(compiled(), DeadUnits()),
        "fit, step, all": fit(compiled(), DeadUnits(layers="all")),
        "fit, probe": fit(compiled(), DeadUnits(probe, batch_size=PROBE_BATCH)),
        "predict": calls(bare.predict, verbose=0),
        "count": calls(Probe(bare).count),
        "count, all": calls(Probe(bare, "all").count),
        "fit, again": fit(bare),
    }
    return device_of(keras.backend.backend()), ways


def repeated(function: Callable[[], object], rounds: int) -> list[float]:
    """Seconds of each call."""
    times = [time.perf_counter()]
    for _ in range(rounds + 1):
        function()
        times.append(time.perf_counter())
    return np.diff(times).tolist()


def device_of(backend: str) -> str:
    if backend == "jax":
        import jax

        return jax.devices()[0].device_kind
    if backend == "torch":
        import torch

        return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    return tf.config.experimental.get_device_details(gpus[0])["device_name"] if gpus else "cpu"


def peer_ways(options: argparse.Namespace) -> tuple[str, dict[str, Way]]:
    """ResNet-20 in PyTorch alone."""
    import backbones
    import torch

    backbones.BATCH, backbones.SIZE = options.batch, options.side
    on_gpu = torch.cuda.is_available()
    torch.backends.cudnn.benchmark = True
    half = options.precision == "mixed_bfloat16"

    def steps(step: Callable[[], None], number: int) -> Way:
        def run():
            with torch.autocast("cuda" if on_gpu else "cpu", torch.bfloat16, enabled=half):
                for _ in range(number):
                    step()
            if on_gpu:
                torch.cuda.synchronize()

        return lambda: repeated(run, options.rounds)

    def make(kind: str, task: str) -> Callable[[], None]:
        return backbones.torch_contender(kind, options.precision, task, "cuda" if on_gpu else "cpu")

    ways = {"fit": steps(make("PyTorch", "train"), options.steps)}
    if on_gpu:
        ways["fit, compiled"] = steps(make("PyTorch compiled", "train"), options.steps)
    ways["predict"] = steps(make("PyTorch", "predict"), -(-options.probe // options.batch))
    return device_of("torch"), ways


def measure(options: argparse.Namespace) -> None:
    """Times all ways in this process and prints them."""
    device, ways = (peer_ways if options.inside == "peer" else keras_ways)(options)
    print(f"{options.inside} on {device}", flush=True)
    medians: dict[str, float] = {}
    for name, way in ways.items():
        first, *times = way()
        trains, of = name.startswith("fit"), "fit" if name.startswith("fit") else "predict"
        medians[name], low, high = (
            1e3 * statistic(times) / (options.steps if trains else 1)
            for statistic in (statistics.median, min, max)
        )
        text = f"{medians[name]:9.2f} ({low:.2f} to {high:.2f}) ms{' a step' if trains else ''}"
        if name != of:
            text += f", {medians[name] / medians[of]:.2f} times {of}"
        print(f"  {name:<18}{text}; first {first:.1f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--net", default="resnet20")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--probe", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--at_once", type=int, default=25)
    parser.add_argument("--backends", default="tensorflow,jax,torch,peer")
    parser.add_argument("--inside", default="", help="internal: the backend of this process")
    options = parser.parse_args()
    if options.inside:
        return measure(options)
    shape = f"{options.net}, batch {options.batch}, {options.side} x {options.side}, {options.precision}"
    print(f"{shape}; {options.steps} steps, {options.probe} images, {options.rounds} times: median (range)")
    failed = False
    for backend in options.backends.split(","):
        module = backend.replace("peer", "torch")
        if importlib.util.find_spec(module) is None:
            print(f"{backend}: left out, {module} is not installed", flush=True)
            continue
        if backend == "peer" and options.net != "resnet20":
            print(f"peer: left out, it is ResNet-20 and --net is {options.net}", flush=True)
            continue
        variables = {"KERAS_BACKEND": backend} if backend in BACKENDS else {}
        variables |= {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_FORCE_GPU_ALLOW_GROWTH": "true"}
        command = [sys.executable, __file__, *sys.argv[1:], f"--inside={backend}"]
        failed |= bool(subprocess.run(command, env={**os.environ, **variables}).returncode)
    sys.exit(failed)


if __name__ == "__main__":
    main()
