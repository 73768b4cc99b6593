"""How a trained net does on test images that are attacked, or corrupted."""

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from bnhead.data.corruptions import CORRUPTIONS
from bnhead.data.split import Split
from bnhead.graph import trace
from bnhead.heads import inference
from bnhead.training.attack import Attack, adversarial

STEPS = 10  # of the attack of a test
SEVERITY = 3  # of 5, of the corruptions


def robust_figures(
    model: keras.Model, test: Split, epsilon: float, *, batch_size: int = 256
) -> dict[str, float]:
    """Accuracy of a trained classifier on changed test images, in inference mode.

    Args:
        model: a classifier, images to logits; an input of labels gets none.
        test: the test split.
        epsilon: largest change of a pixel, of 255.
        batch_size: images at a time.

    Returns:
        `test_robust_accuracy` under an untargeted attack of 10 steps of epsilon / 4 from random starts, made
        with the net itself; `test_corrupted_accuracy`, the mean over those of `data.corruptions` that change
        an image, at severity 3.
    """
    model, attack = inference(model), Attack(epsilon, STEPS, epsilon / 4)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)  # also of a net trained with mixup
    generator = keras.random.SeedGenerator(0)

    def attacked(images, labels):
        changed = adversarial(model, images, labels, attack, generator, loss)
        return model(changed, training=False)

    compiled = trace.compiled(attacked, model)
    attacked_logits = [
        ops.convert_to_numpy(
            compiled(ops.cast(ops.convert_to_tensor(x), "float32"), ops.convert_to_tensor(y))
        )
        for x, y in _batches(test, batch_size)
    ]
    by_corruption = []
    for name in CORRUPTIONS:
        changed, logits = False, []
        splits = test.with_corruption(f"{name}:{SEVERITY}"), test
        pairs = zip(*(_batches(split, batch_size) for split in splits), strict=True)
        for (x, _), (clean, _) in pairs:
            logits.append(model.predict_on_batch(x.astype("float32")))
            changed = changed or bool((x != clean).any())
        if changed:  # a blur of less than a pixel changes no small image
            by_corruption.append(_accuracy(logits, test.labels))
    return {
        "test_robust_accuracy": _accuracy(attacked_logits, test.labels),
        "test_corrupted_accuracy": float(np.mean(by_corruption)),
    }


def _batches(split: Split, batch_size: int):
    for x, y in split.evaluation_batches(batch_size):
        yield x.numpy(), tf.cast(y, tf.int32).numpy()  # JAX has no 64-bit integers


def _accuracy(logits: list[np.ndarray], labels: np.ndarray) -> float:
    return float(np.mean(np.concatenate(logits).argmax(-1) == labels))
