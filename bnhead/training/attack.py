"""Adversarial images by projected gradient descent (PGD; Madry et al. 2018, arXiv 1706.06083, section 2.1).

An image x of class y, pixels 0 to 255, is changed by at most epsilon at each pixel. From a random point of
that box, each step goes by `step_size` along the sign of the gradient of the loss, back into the box and into
0 to 255. A targeted attack goes down the loss of another class, drawn at random.

The net attacks in inference mode, so each image's attack is its own, and no statistics change.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from bnhead.census.gradients import sensitivities

FROM_CLEAN = 0.2  # share of images whose attack starts at the image itself, as in AdvProp's code


@dataclass(frozen=True)
class Attack:
    """An attack; lengths are in pixel values, of 255.

    Attributes:
        epsilon: largest change of a pixel, at least 0.
        steps: number of steps, at least 0.
        step_size: length of a step; 0 takes the larger of 1 and epsilon / steps.
        targeted: whether it goes towards a wrong class, drawn at random, instead of away from the right one.
        random_start: whether it starts at a random point, except for `FROM_CLEAN` of the images.
    """

    epsilon: float = 1.0
    steps: int = 1
    step_size: float = 0.0
    targeted: bool = False
    random_start: bool = True

    @property
    def length(self) -> float:
        """The length of a step."""
        return self.step_size or max(1.0, self.epsilon / max(1, self.steps))


def perturbed(images, gradient: Callable[[Any], Any], attack: Attack, start=0.0):
    """The images after the steps of an attack, in its box and in 0 to 255.

    Args:
        images: `(batch, height, width, channels)` float32, 0 to 255.
        gradient: images -> the direction to go at each pixel, of which the sign counts.
        attack: the box and the steps.
        start: the first change of the images.
    """
    low, high = ops.maximum(images - attack.epsilon, 0.0), ops.minimum(images + attack.epsilon, 255.0)

    def into_box(x):
        return ops.minimum(ops.maximum(x, low), high)

    x = into_box(images + start)
    for _ in range(attack.steps):
        x = into_box(x + attack.length * ops.sign(gradient(x)))
    return x


def adversarial(
    model: keras.Model,
    images,
    labels,
    attack: Attack,
    generator: keras.random.SeedGenerator,
    loss: Callable[[Any, Any], Any] | None = None,
):
    """Adversarial images for a classifier, in inference mode.

    Args:
        model: images -> logits.
        images: `(batch, height, width, channels)` float32, 0 to 255.
        labels: targets of the loss; for a targeted attack `(batch,)` class numbers.
        attack: the attack.
        generator: draws starts and targets.
        loss: (labels, logits) -> the loss that is attacked; None for that of the compiled model.

    Returns:
        A tensor like `images`; no gradient goes through it.
    """
    shape, start, direction = ops.shape(images), 0.0, 1.0
    if attack.random_start:
        start = keras.random.uniform(shape, -attack.epsilon, attack.epsilon, seed=generator)
        moves = keras.random.uniform((shape[0], 1, 1, 1), seed=generator) >= FROM_CLEAN
        start = ops.where(moves, start, 0.0)
    if attack.targeted:
        classes, direction = model.output.shape[-1], -1.0
        shift = keras.random.randint((shape[0],), 1, classes, seed=generator)
        labels = (ops.cast(labels, "int32") + ops.cast(shift, "int32")) % classes

    def gradient(x):
        def forward(watch):
            watched = watch("images", x)
            logits = model(watched, training=False)
            if loss is not None:
                return {"images": watched}, loss(labels, logits)
            return {"images": watched}, model.compute_loss(None, labels, logits, training=False)

        return direction * sensitivities(forward)["images"]

    return ops.stop_gradient(perturbed(images, gradient, attack, start))
