"""Images per second that reach the training step: CIFAR-10 with pad-crop-flip, in batches of 128.

bnhead's path in memory, textbook tf.data on `tfds.load` with and without its cache, and a PyTorch DataLoader
with two workers, where PyTorch is there; beside them the images per second that a ResNet-20 trains. Every
contender has a process of its own and the processes take turns, one round after the other; ratios are taken
round by round.

    python benchmarks/pipeline.py [--rounds=7] [--seconds=2] [--data_dir=...]
"""

import argparse
import multiprocessing
import os
import signal
import statistics
import time

import checkout  # noqa: F401

BATCH, SIZE, PADDING = 128, 32, 4
OURS, TRAINING = "bnhead in memory", "ResNet-20 trains"
NAMES = (OURS, "tfds.load, cached", "tfds.load", "PyTorch DataLoader", TRAINING)


def bnhead_batches(data_dir: str | None):
    from bnhead.data import load

    return iter(load("cifar10", data_dir).train.training_batches(BATCH, 1000, 0, "crop_flip"))


def textbook_batches(data_dir: str | None, *, cached: bool):
    """As TensorFlow's guides have it: cache, shuffle, augment one by one in parallel, batch, prefetch."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    def augment(image, label):
        padded = tf.image.resize_with_crop_or_pad(image, SIZE + 2 * PADDING, SIZE + 2 * PADDING)
        return tf.image.random_flip_left_right(tf.image.random_crop(padded, (SIZE, SIZE, 3))), label

    examples = tfds.load("cifar10", split="train", data_dir=data_dir, as_supervised=True, shuffle_files=True)
    examples = examples.cache() if cached else examples
    examples = examples.shuffle(10_000).repeat().map(augment, num_parallel_calls=tf.data.AUTOTUNE)
    return iter(examples.batch(BATCH, drop_remainder=True).prefetch(tf.data.AUTOTUNE))


def torch_batches(data_dir: str | None):
    """A Dataset of a tensor in memory, augmented one by one in two worker processes.

    The pixels are random: reading CIFAR-10 would bring TensorFlow's threads, which cannot be forked.
    """
    import torch

    padded = torch.nn.functional.pad(
        torch.randint(0, 256, (50_000, 3, SIZE, SIZE), dtype=torch.uint8), (PADDING,) * 4
    )
    labels = torch.randint(0, 10, (50_000,))

    class Cropped(torch.utils.data.Dataset):
        def __len__(self):
            return len(labels)

        def __getitem__(self, i):
            top, left = torch.randint(0, 2 * PADDING + 1, (2,)).tolist()
            image = padded[i, :, top : top + SIZE, left : left + SIZE]
            return (image.flip(-1) if torch.rand(()) < 0.5 else image), labels[i]

    loader = torch.utils.data.DataLoader(
        Cropped(), BATCH, shuffle=True, num_workers=2, drop_last=True, multiprocessing_context="fork"
    )
    while True:
        yield from loader


def training_steps(data_dir: str | None):
    """Steps of bnhead's ResNet-20 on one batch that is always there."""
    import keras
    import numpy as np

    from bnhead.models import resnet20

    x = np.random.default_rng(0).normal(size=(BATCH, SIZE, SIZE, 3)).astype("float32")
    y = np.random.default_rng(0).integers(0, 10, BATCH)
    model = resnet20((SIZE, SIZE, 3), "fc", 10, seed=0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss)
    while True:
        yield model.train_on_batch(x, y)


CONTENDERS = {
    OURS: bnhead_batches,
    "tfds.load, cached": lambda data_dir: textbook_batches(data_dir, cached=True),
    "tfds.load": lambda data_dir: textbook_batches(data_dir, cached=False),
    "PyTorch DataLoader": torch_batches,
    TRAINING: training_steps,
}


def serve(name: str, data_dir: str | None, pipe) -> None:
    """Delivers batches for as many seconds as it is asked to and sends images per second."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    try:
        batches = CONTENDERS[name](data_dir)
        next(batches)
    except ImportError:
        pipe.send(None)
        return
    pipe.send(0.0)
    while True:
        seconds = pipe.recv()
        start, count = time.perf_counter(), 0
        while (passed := time.perf_counter() - start) < seconds:
            next(batches)
            count += 1
        pipe.send(count * BATCH / passed)


class Turns:
    """A contender's process, which stands still but in its turn, so that no buffer fills meanwhile."""

    def __init__(self, name: str, data_dir: str | None):
        context = multiprocessing.get_context("spawn")
        self._pipe, there = context.Pipe()
        # no daemon: the DataLoader has children of its own
        self._process = context.Process(target=serve, args=(name, data_dir, there))
        self._process.start()
        self.is_there = self._pipe.recv() is not None
        if self.is_there:
            os.kill(self._process.pid, signal.SIGSTOP)

    def take(self, seconds: float) -> float:
        """Images per second over some seconds."""
        os.kill(self._process.pid, signal.SIGCONT)
        self._pipe.send(seconds)
        rate = self._pipe.recv()
        os.kill(self._process.pid, signal.SIGSTOP)
        return rate

    def end(self) -> None:
        """Without waiting for threads that are still reading ahead."""
        self._process.kill()
        self._process.join()


def spread(values: list[float], form: str) -> str:
    return f"{statistics.median(values):{form}}  ({min(values):{form}} to {max(values):{form}})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a turn")
    parser.add_argument("--data_dir", default=None)
    options = parser.parse_args()
    contenders = {name: Turns(name, options.data_dir) for name in NAMES}
    contenders = {name: turns for name, turns in contenders.items() if turns.is_there}
    for turns in contenders.values():  # not counted: fills what is cached, an epoch and more
        turns.take(5 * options.seconds)
    rates = {name: [] for name in contenders}
    for _ in range(options.rounds):
        for name, turns in contenders.items():
            rates[name].append(turns.take(options.seconds))
    for turns in contenders.values():
        turns.end()
    print(f"{options.rounds} rounds on {os.cpu_count()} cores, images per second: median (range)")
    for name, own in rates.items():
        print(f"  {name:<22}{spread(own, '10,.0f')}")
    print(f"{OURS} against, round by round: median (range)")
    for name, own in rates.items():
        if name != OURS:
            ratios = [one / other for one, other in zip(rates[OURS], own, strict=True)]
            print(f"  {name:<22}{spread(ratios, '10.2f')}")


if __name__ == "__main__":
    main()
