"""What `train()` adds to a bare `model.fit`: records, census, checkpoints, events, checks, the saved model.

One epoch of CIFAR-10 through `train(config)` against the same data and the same compiled net in a bare
`model.fit` with the same evaluation, in turn, in one process; medians over the rounds with the range, and
the ratio round by round, of wall time and of the CPU time of all threads, which another process on the
machine disturbs less. Both open the data, build the net and compile it anew each time.

    python benchmarks/train.py [--rounds=5] [--backbone=resnet20] [--checkpoint_seconds=30] [--steps=0]

`--steps` cuts the epoch of both short after so many steps; 0 does it whole.
"""

import argparse
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


def bare(config: TrainConfig, callbacks: list) -> None:
    feed, model = prepare_training(config, Replicas(), Reuse())
    options = {"validation_data": feed.test(), "shuffle": False, "verbose": 0, "callbacks": callbacks}
    model.fit(feed.train(0, 0), epochs=1, steps_per_epoch=feed.steps, **options)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--backbone", default="resnet20")
    parser.add_argument("--checkpoint_seconds", type=float, default=30.0)
    parser.add_argument("--steps", type=int, default=0)
    given = parser.parse_args()
    times = {"model.fit": [], "train()": []}  # wall seconds, CPU seconds
    for number in range(given.rounds + 1):
        for name, run in (("model.fit", bare), ("train()", train)):
            with tempfile.TemporaryDirectory() as folder:
                config = TrainConfig(
                    dataset="cifar10",
                    augment="crop_flip",
                    backbone=given.backbone,
                    head="bn_fc",
                    epochs=1,
                    checkpoint_seconds=given.checkpoint_seconds,
                    workdir=f"{folder}/run",
                )
                start = time.perf_counter(), time.process_time()
                run(config, [StopAfter(given.steps)] if given.steps else [])
                seconds = time.perf_counter() - start[0], time.process_time() - start[1]
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
