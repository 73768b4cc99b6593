"""A routed batch norm against Keras' own: forward and backward in training mode, in one compiled function.

The layers take turns, round by round, on the same inputs; ratios are taken round by round, so that a machine
that slows down slows both. The routed layer has two routes that share a batch half and half, in any order.

    python benchmarks/routed.py [--rounds=15] [--calls=10] [--threads=1]
"""

import argparse
import os
import statistics
import time

import checkout  # noqa: F401
import numpy as np

SHAPES = [(128, 256), (128, 32, 32, 16), (128, 16, 16, 32), (128, 8, 8, 64)]  # features; maps of ResNet-20


def function_of(layer, **route):
    """A compiled forward and backward pass of a layer, in training mode."""
    import tensorflow as tf

    @tf.function
    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = layer(x, **route, training=True)
        return tape.gradient(outputs, [x, *layer.trainable_variables], outputs)[0]

    return step


def cpu_seconds(step, x, calls: int) -> float:
    start = time.process_time()
    for _ in range(calls):
        step(x)
    step(x).numpy()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--calls", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    os.environ |= {"TF_NUM_INTRAOP_THREADS": str(options.threads), "TF_NUM_INTEROP_THREADS": "1"}
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import keras
    import tensorflow as tf

    from bnhead.layers import RoutedBatchNormalization

    print(f"{options.rounds} rounds of {options.calls} calls, {options.threads} threads")
    print(f"{'shape':<20}{'against':<10}{'ratio: median (range)':>24}")
    for shape in SHAPES:
        rng = np.random.default_rng(0)
        x = tf.constant(rng.normal(size=shape).astype("float32"))
        route = tf.constant(rng.permutation(np.arange(shape[0]) % 2))
        steps = {
            "Keras": function_of(keras.layers.BatchNormalization()),
            "routed": function_of(RoutedBatchNormalization(2), route=route),
            "one route": function_of(RoutedBatchNormalization(2), route=1),
        }
        for step in steps.values():
            cpu_seconds(step, x, 2)
        rounds = [
            {k: cpu_seconds(s, x, options.calls) for k, s in steps.items()} for _ in range(options.rounds)
        ]
        for name in list(steps)[1:]:
            ratios = [times[name] / times["Keras"] for times in rounds]
            spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            print(f"{' x '.join(map(str, shape)):<20}{name:<10}{spread:>24}")


if __name__ == "__main__":
    main()
