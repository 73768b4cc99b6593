"""The training step: attack -> routes -> Keras' own step.

AdvProp (Xie et al. 2020, arXiv 1911.09665, algorithm 1) trains on images and on adversarial copies of them,
which go through separate batch norms: route 0 is clean, route 1 adversarial. The adversarial copies are
made with the net on route 1, in inference mode. Without routes this is adversarial training.

A step on B images with k attack steps costs about k + 2 plain steps. With a share s of the batch, as Fast
AdvProp (Mei et al. 2022, arXiv 2204.09838), the last s B images are attacked and trained on in place of
themselves, which costs about 1 + k s. (There the backward passes of the attack train the net too, here they
do not.)

Nothing else replaces a model's `train_step`.
"""

import contextlib
from typing import Any

import keras
from keras import ops

from bnhead.errors import UsageError
from bnhead.layers import on_route
from bnhead.training.attack import Attack, adversarial

CHEAP_SHARE = 0.2  # of a batch that Fast AdvProp attacks


def train_adversarially(
    model: keras.Model, attack: Attack, *, share: float = 0.0, routed: bool = True, seed: int = 0
) -> keras.Model:
    """Makes a compiled model's training step attack; returns the model.

    The loss is the mean over all clean and adversarial images of a step. Its metrics count both.

    Args:
        model: images, pixels 0 to 255, -> logits.
        attack: the attack.
        share: share of each batch that is replaced by adversarial images, in (0, 1); 0 adds an adversarial
            copy of each image.
        routed: whether adversarial images take route 1 of the model's routed norms, and clean ones route 0.
        seed: of the random starts and targets. The state of their generator is a variable of the model, but
            no weight: a checkpoint has it, a file of the model does not.

    Raises:
        UsageError: on PyTorch.
    """
    backend = keras.backend.backend()
    if backend not in ("tensorflow", "jax"):
        raise UsageError(f"adversarial training needs the backend tensorflow or jax, got {backend}")
    generator = keras.random.SeedGenerator(seed)
    model._seed_generators.append(generator)
    step = model.train_step

    def on(route):
        return on_route(route) if routed else contextlib.nullcontext()

    def extended(data) -> tuple[Any, Any, Any]:
        """Images, labels and routes of the clean and, after it, of the adversarial part of a batch."""
        images, labels, _ = keras.utils.unpack_x_y_sample_weight(data)
        images = ops.cast(images, "float32")
        size = ops.shape(images)[0]  # an integer if it is static
        attacked = _part(size, share) if share else size
        first = size - attacked
        with on(1):
            changed = adversarial(model, images[first:], labels[first:], attack, generator)
        clean = first if share else size
        is_static = isinstance(size, int)
        routes = (clean, attacked) if is_static else ops.cast(ops.arange(clean + attacked) >= clean, "int32")
        return (
            ops.concatenate([images[:clean], changed]),
            ops.concatenate([labels[:clean], labels[first:]]),
            routes,
        )

    def train_step(data):
        images, labels, routes = extended(data)
        with on(routes):
            return step((images, labels))

    def train_step_on_jax(state, data):
        trainable, others, *rest = state
        mapping = [*zip(model.trainable_variables, trainable, strict=True)]
        mapping += zip(model.non_trainable_variables, others, strict=True)
        with keras.StatelessScope(state_mapping=mapping) as scope:
            images, labels, routes = extended(data)
        drawn = scope.get_current_value(generator.state)
        others = [
            drawn if variable is generator.state else value
            for variable, value in zip(model.non_trainable_variables, others, strict=True)
        ]
        with on(routes):
            return step((trainable, others, *rest), (images, labels))

    model.train_step = train_step_on_jax if backend == "jax" else train_step
    model.train_function = None
    return model


def _part(size, share: float):
    """The share of a batch in whole images, at least one."""
    if isinstance(size, int):
        return max(1, round(share * size))
    return ops.maximum(1, ops.cast(ops.round(share * ops.cast(size, "float32")), "int32"))
