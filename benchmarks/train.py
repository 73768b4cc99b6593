"""What `train()` adds to a bare `model.fit`: records, census, checkpoints, events, checks, the saved model.

One epoch of CIFAR-10 through `train(config)` against the same data and the same compiled net in a bare
`model.fit` with the same evaluation, in turn, in one process; medians over the rounds with the range, and
the ratio round by round, of wall time and of the CPU time of all threads, which another process on the
machine disturbs less. Both open the data, build the net and compile it anew each time.

    python benchmarks/train.py [--rounds=5] [--backbone=resnet20] [--checkpoint_seconds=30] [--steps=0]
    python benchmarks/train.py --dataset=digits --epochs=8 --noevaluate

`--steps` cuts the epoch of both short after so many steps; 0 does it whole. With several epochs the median
epoch is compared, without the first, which traces; `--noevaluate` leaves evaluation out of the bare `fit`.
"""

import argparse
import functools
import itertools
import statistics
import tempfile
import time

import checkout  # noqa: F401
import keras

from bnhead.devices.replicas import Replicas
from bnhead.training import TrainConfig, train
from bnhead.training.build import Reuse
from bnhead.training.run import prepare_training


class StopAfter(keras.callbacks.Callback):
    """Ends the epoch after some steps."""

    def __init__(self, steps: int):
        super().__init__()
        self._steps = steps

    def on_train_batch_end(self, batch, logs=None):
        if batch + 1 == self._steps:
            self.model.stop_training = True


class Epochs(keras.callbacks.Callback):
    """Wall and CPU time at the beginning of each epoch and at the end."""

    def __init__(self):
        super().__init__()
        self.times: list[tuple[float, float]] = []

    def on_epoch_begin(self, epoch, logs=None):
        self.times.append((time.perf_counter(), time.process_time()))

    def median(self) -> tuple[float, float]:
        """Seconds of the median epoch but the first, which traces, and the last, which has no successor."""
        pairs = list(itertools.pairwise(self.times))[1:]
        wall, cpu = ([after[k] - before[k] for before, after in pairs] for k in (0, 1))
        return statistics.median(wall), statistics.median(cpu)


def bare(config: TrainConfig, callbacks: list, *, evaluate: bool) -> None:
    feed, model, *_ = prepare_training(config, Replicas(), Reuse())
    options = {"validation_data": feed.test() if evaluate else None, "shuffle": False, "verbose": 0}
    fitted = {"epochs": config.epochs, "steps_per_epoch": feed.steps, "callbacks": callbacks}
    model.fit(feed.train(0, 0), **fitted, **options)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--backbone", default="resnet20")
    parser.add_argument("--checkpoint_seconds", type=float, default=30.0)
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--noevaluate", action="store_true")
    given = parser.parse_args()
    if 1 < given.epochs < 4:
        parser.error("--epochs must be 1, or at least 4: the first and the last are not counted")
    times = {"model.fit": [], "train()": []}  # wall seconds, CPU seconds
    for number in range(given.rounds + 1):
        fit = functools.partial(bare, evaluate=not given.noevaluate)
        for name, run in (("model.fit", fit), ("train()", train)):
            with tempfile.TemporaryDirectory() as folder:
                config = TrainConfig(
                    dataset=given.dataset,
                    augment="crop" if given.dataset == "digits" else "crop_flip",
                    backbone=given.backbone,
                    head="bn_fc",
                    epochs=given.epochs,
                    checkpoint_seconds=given.checkpoint_seconds,
                    workdir=f"{folder}/run",
                )
                start, epochs = (time.perf_counter(), time.process_time()), Epochs()
                run(config, [epochs, *([StopAfter(given.steps)] if given.steps else [])])
                seconds = time.perf_counter() - start[0], time.process_time() - start[1]
                if given.epochs > 1:
                    seconds = epochs.median()
            keras.backend.clear_session()
            if number:  # the first round opens files and compiles for the first time
                times[name].append(seconds)
                print(f"round {number}: {name:<10} {seconds[0]:.2f} s, CPU {seconds[1]:.2f} s", flush=True)
    for index, kind in enumerate(("wall", "CPU")):
        ours, theirs = ([one[index] for one in times[name]] for name in ("train()", "model.fit"))
        print(f"{kind:<5} model.fit {_spread(theirs, '.2f')} s, train() {_spread(ours, '.2f')} s")
        ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
        print(f"{kind:<5} train() / model.fit, round by round: {_spread(ratios, '.3f')}")


def _spread(values: list[float], form: str) -> str:
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


if __name__ == "__main__":
    main()
