"""Training on a labelled source domain for a target domain without labels.

source     the source alone; the target is a test
adabn      after it, batch norms have the statistics of the target's images (Li et al. 2016, arXiv 1603.04779)
dsbn_1     norms with a set of statistics for each domain: in each step target images pass through theirs,
           without a loss
dsbn       the same in the first half of the epochs; in the second the target images have pseudo labels too
pseudo     as dsbn, with one set of statistics for both domains

A pseudo label is the class with the largest of (1 - l) teacher + l student: the probabilities of the net at
half of the epochs, kept, and of the present net, both in inference mode. l rises from 0 to 1 over the second
half, as 2 / (1 + exp(-10 p)) - 1 with p from 0 to 1. Every target image counts, whatever the confidence.

A step takes as many target images as source images. Its loss is the mean over the source's plus, once they
have labels, the mean over the target's. The reference (Chang et al. 2019, arXiv 1906.03950;
github.com/woozch/DSBN) has a loss for unlabelled images in its first stage, and begins the second with new
weights. Gain and offset are separate there; here the domains share them, since without a loss the target's
would not be trained.
"""

import contextlib
from typing import Any

import keras
import numpy as np
from keras import ops

from bnhead.errors import UsageError
from bnhead.layers import on_route

SOURCE, TARGET = 0, 1  # routes
ROUTED = ("dsbn_1", "dsbn")
LABELLING = ("pseudo", "dsbn")
MIXING = (*ROUTED, "pseudo")  # whose steps read target images


class Teacher:
    """The probabilities of the target's training images that the net gave at half of the epochs.

    Attributes:
        state: `(images, classes)` float32. A variable of the model, but no weight: a checkpoint has it, a
            file of the model does not.
    """

    def __init__(self, images: int, classes: int):
        self.state = keras.Variable(np.zeros((images, classes), "float32"), trainable=False, name="teacher")


def pseudo_labels(teacher, student, progress):
    """The class of each image, `(batch,)` int32.

    Args:
        teacher, student: probabilities, `(batch, classes)`.
        progress: share of the second half that is done, in [0, 1].
    """
    share = 2 / (1 + ops.exp(-10.0 * progress)) - 1
    return ops.cast(ops.argmax((1 - share) * teacher + share * student, axis=-1), "int32")


def train_with_target(
    model: keras.Model, images: int, *, half: int, steps: int, routed: bool, labelling: bool
) -> keras.Model:
    """Makes a compiled model's training step take target images too; returns the model.

    A batch is `((source images, target images), (source labels, indices of the target images))`.

    Args:
        model: images -> logits; with routes, route 0 is the source and route 1 the target.
        images: number of the target's training images.
        half: optimizer step from which on target images have labels; a `Teaching` sets them.
        steps: of the whole training.
        routed: whether the model has routes.
        labelling: whether target images get pseudo labels from `half` on.

    Raises:
        UsageError: a backend other than TensorFlow.
    """
    if keras.backend.backend() != "tensorflow":
        raise UsageError(f"this adaptation needs the backend tensorflow, got {keras.backend.backend()}")
    teacher = Teacher(images, model.output.shape[-1])
    model._seed_generators.append(teacher)
    step = model.train_step

    def on(route):
        return on_route(route) if routed else contextlib.nullcontext()

    def train_step(data):
        ((source, target), (labels, indices)), size = data[:2], ops.shape(data[1][0])[0]
        done = ops.cast(model.optimizer.iterations, "float32")
        weight = ops.cast(ops.logical_and(labelling, done >= half), "float32")
        with on(TARGET):
            student = ops.softmax(ops.stop_gradient(model(target, training=False)))
        known = ops.take(ops.convert_to_tensor(teacher.state), indices, axis=0)
        progress = ops.clip((done - half) / max(1, steps - half), 0.0, 1.0)
        guessed = ops.cast(pseudo_labels(known, student, progress), labels.dtype)
        # Keras divides by the number of all images, twice that of the source's
        weights = ops.concatenate([ops.full((size,), 2.0), ops.broadcast_to(2 * weight, (size,))])
        batch = ops.concatenate([source, target]), ops.concatenate([labels, guessed]), weights
        is_static = isinstance(size, int)
        with on((size, size) if is_static else ops.cast(ops.arange(2 * size) >= size, "int32")):
            return step(batch)

    model.train_step, model.train_function = train_step, None
    return model


class Teaching(keras.callbacks.Callback):
    """Asks the net for the target's probabilities at the beginning of the second half of the epochs.

    Args:
        target: the target's training split.
        epochs: of the whole training.
    """

    def __init__(self, target: Any, epochs: int):
        super().__init__()
        self._target, self._epoch = target, epochs // 2

    def on_epoch_begin(self, epoch, logs=None):
        if epoch != self._epoch:
            return
        (teacher,) = (each for each in self.model._seed_generators if isinstance(each, Teacher))
        batches = self._target.evaluation_batches(256)
        logits = [self.model.predict_on_batch(images.numpy()) for images, _ in batches]
        teacher.state.assign(ops.softmax(np.concatenate(logits)))
