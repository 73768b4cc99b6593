"""What a study takes beyond its training steps: `bnhead study bn_before_fc` against its bare compute.

    study      the command, in an empty directory: 20 runs at its first look, with verdict and report
    steps      the training steps of the same runs alone: in as many processes, of one thread each as the
               study's, every process does its share of the runs by a bare `fit` after one epoch that compiles
    commands   the same runs by `python train.py`, one command each, as many at a time; `--commands` of them
               are timed, scaled to all

In turn, round after round; medians with the range, and ratios round by round. Beside wall time stands the CPU
time of all processes, which others on the machine disturb less.

    python benchmarks/study.py [--rounds=3] [--seeds=10] [--epochs=15] [--workers=0] [--commands=4]
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import checkout  # noqa: F401

from bnhead.studies import worker
from bnhead.studies.pool_local import cores
from bnhead.studies.study import named_study

HEADS = named_study("bn_before_fc").heads
CHECKOUT = pathlib.Path(__file__).resolve().parent.parent


def study(options: argparse.Namespace) -> tuple[float, float]:
    flags = [f"--seeds={options.seeds}", f"--epochs={options.epochs}", f"--workers={options.workers}"]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "bnhead", "study", "bn_before_fc", f"--dir={folder}/study", *flags]
        return timed(lambda: run(command))


def steps(options: argparse.Namespace) -> tuple[float, float]:
    """The longest time of a process that does its share of the runs' steps, and the CPU time of all."""
    runs = len(HEADS) * options.seeds
    shares = [len(range(index, runs, options.workers)) for index in range(options.workers)]
    command = [sys.executable, __file__, f"--epochs={options.epochs}"]
    processes = [
        subprocess.Popen(
            [*command, f"--steps_of={share}", f"--head={HEADS[index % len(HEADS)]}"],
            stdout=subprocess.PIPE,
            text=True,
        )
        for index, share in enumerate(shares)
    ]
    times = [json.loads(process.communicate()[0].splitlines()[-1]) for process in processes]
    return max(wall for wall, _ in times), sum(cpu for _, cpu in times)


def steps_of(runs: int, head: str, epochs: int) -> None:
    """Prints wall and CPU seconds of so many runs' steps in this process."""
    keras = worker.start_keras()
    from bnhead.devices.replicas import Replicas
    from bnhead.training import TrainConfig
    from bnhead.training.build import Reuse
    from bnhead.training.run import prepare_training

    config = TrainConfig(head=head, epochs=epochs, workdir="unused")
    feed, model, *_ = prepare_training(config, Replicas(), Reuse())
    options = {"steps_per_epoch": feed.steps, "shuffle": False, "verbose": 0}
    model.fit(feed.train(0, 0), epochs=1, **options)  # compiles
    clock = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: starts.append((time.perf_counter(), time.process_time()))
    )
    wall = cpu = 0.0
    for _ in range(runs):
        starts: list[tuple[float, float]] = []
        model.fit(feed.train(0, 0), epochs=epochs, callbacks=[clock], **options)
        wall += time.perf_counter() - starts[0][0]
        cpu += time.process_time() - starts[0][1]
    print(json.dumps([wall, cpu]))


def commands(options: argparse.Namespace) -> tuple[float, float]:
    """The times of a few `train.py`, scaled to all runs of the study."""
    runs = [(HEADS[index % len(HEADS)], index // len(HEADS)) for index in range(options.commands)]
    with tempfile.TemporaryDirectory() as folder:

        def train(head: str, seed: int) -> None:
            flags = [f"--head={head}", f"--seed={seed}", f"--epochs={options.epochs}"]
            run([sys.executable, CHECKOUT / "train.py", *flags, f"--workdir={folder}/{head}{seed}"])

        def train_all() -> None:
            with concurrent.futures.ThreadPoolExecutor(options.workers) as pool:
                list(pool.map(train, *zip(*runs, strict=True)))

        wall, cpu = timed(train_all)
    factor = len(HEADS) * options.seeds / len(runs)
    return wall * factor, cpu * factor


def run(command: list) -> None:
    """Runs a command of this checkout, on one thread as the study's workers."""
    path = os.pathsep.join(filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, **worker.ENVIRONMENT, "PYTHONPATH": path}
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)


def timed(function: Callable[[], None]) -> tuple[float, float]:
    """Wall seconds, and CPU seconds of the processes that the function starts and waits for."""

    def children() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    start = time.perf_counter(), children()
    function()
    return time.perf_counter() - start[0], children() - start[1]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--workers", type=int, default=0, help="processes; 0 is one for each core")
    parser.add_argument("--commands", type=int, default=4, help="commands that are timed; 0 for none")
    parser.add_argument("--steps_of", type=int, default=0, help="internal: so many runs' steps, here")
    parser.add_argument("--head", default="fc", help="internal: their head")
    options = parser.parse_args()
    if options.steps_of:
        return steps_of(options.steps_of, options.head, options.epochs)
    options.workers = options.workers or cores()
    ways = {"study": study, "steps": steps, "commands": commands}
    if not options.commands:
        del ways["commands"]
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for number in range(1, options.rounds + 1):
        for name, way in ways.items():
            times[name].append(way(options))
            wall, cpu = times[name][-1]
            print(f"round {number}: {name:<9} {wall:7.1f} s, CPU {cpu:7.1f} s", flush=True)
    runs = f"{len(HEADS) * options.seeds} runs of {options.epochs} epochs, {options.workers} at a time"
    print(f"{runs}; medians of {options.rounds} rounds (range)")
    for index, kind in enumerate(("wall", "CPU")):
        seconds = {name: [pair[index] for pair in pairs] for name, pairs in times.items()}
        for name, values in seconds.items():
            ratios = [value / bare for value, bare in zip(values, seconds["steps"], strict=True)]
            text = "" if name == "steps" else f", {spread(ratios, '.2f')} times the steps"
            print(f"  {kind:<5}{name:<10}{spread(values, '.1f')} s{text}")


def spread(values: list[float], form: str) -> str:
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


if __name__ == "__main__":
    main()
