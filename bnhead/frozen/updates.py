"""The optimizers of stacked heads: Keras' SGD, Adam and AdamW, with a learning rate for each head.

Keras' optimizers have one learning rate. The formulas are theirs, in their order of operations; each changes
a weight by its gradient alone, so stacked weights are updated as single ones. Weight decay is Keras'
decoupled one: before the step a weight loses the share rate * decay.
"""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

Tensor = Any
Update = Callable[[Any, Tensor, Tensor, Tensor, Tensor, list[Tensor]], tuple[Tensor, list[Tensor]]]


def sgd(optimizer, weight, gradient, rate, iterations, slots):
    """SGD, with momentum or Nesterov's."""
    if not slots:
        return weight - gradient * rate, []
    # `ops.cast`, as Keras has it: TensorFlow rounds a number of Python to float32 on the way to float64
    momentum, step = ops.cast(optimizer.momentum, weight.dtype), gradient * rate
    velocity = slots[0] * momentum - step
    return weight + (velocity * momentum - step if optimizer.nesterov else velocity), [velocity]


def adam(optimizer, weight, gradient, rate, iterations, slots):
    """Adam, without amsgrad."""
    mean, square = slots
    step = ops.cast(iterations + 1, weight.dtype)
    betas = (optimizer.beta_1, optimizer.beta_2)
    first, second = (ops.power(ops.cast(beta, weight.dtype), step) for beta in betas)
    mean = mean + (gradient - mean) * (1 - optimizer.beta_1)
    square = square + (ops.square(gradient) - square) * (1 - optimizer.beta_2)
    corrected = rate * ops.sqrt(1 - second) / (1 - first)
    return weight - mean * corrected / (ops.sqrt(square) + optimizer.epsilon), [mean, square]


# type -> its update, and the attributes that hold its slots, a list of a variable per weight each
UPDATES: dict[type, tuple[Update, tuple[str, ...]]] = {
    keras.optimizers.SGD: (sgd, ("momentums",)),
    keras.optimizers.Adam: (adam, ("_momentums", "_velocities")),
    keras.optimizers.AdamW: (adam, ("_momentums", "_velocities")),
}
_OPTIONS = (
    "clipnorm", "global_clipnorm", "clipvalue", "use_ema", "loss_scale_factor",
    "gradient_accumulation_steps", "amsgrad",
)  # fmt: skip


def _type_of(optimizer: keras.optimizers.Optimizer) -> type:
    """Its type; of `bnhead.training.sgd.FusedSGD`, whose import needs TensorFlow, that of Keras."""
    optimizer_type = type(optimizer)
    return keras.optimizers.SGD if optimizer_type.__module__ == "bnhead.training.sgd" else optimizer_type


def obstacle(optimizer: keras.optimizers.Optimizer) -> str:
    """Why an optimizer cannot train stacked heads, in a clause; "" if it can."""
    if _type_of(optimizer) not in UPDATES:
        names = ", ".join(known_type.__name__ for known_type in UPDATES)
        return f"its optimizer is {type(optimizer).__name__}, none of {names}"
    used = [name for name in _OPTIONS if getattr(optimizer, name, None)]
    return f"its optimizer has {used[0]}" if used else ""


def slots_of(optimizer: keras.optimizers.Optimizer) -> list[list[keras.Variable]]:
    """The variables that a built optimizer keeps for each weight."""
    lists = [slots for name in UPDATES[_type_of(optimizer)][1] if (slots := getattr(optimizer, name))]
    return [[slots[index] for slots in lists] for index in range(len(optimizer._trainable_variables))]


def updated(
    optimizer: keras.optimizers.Optimizer,
    weight: Tensor,
    gradient: Tensor,
    rates: Tensor,
    iterations: Tensor,
    slots: list[Tensor],
    *,
    decayed: bool,
) -> tuple[Tensor, list[Tensor]]:
    """A weight after a step, and its slots.

    Args:
        optimizer: its settings; its learning rate is not read.
        weight, gradient: `(heads, ...)`.
        rates: `(heads,)` learning rates.
        iterations: steps done.
        slots: as of `slots_of`, each `(heads, ...)`.
        decayed: whether weight decay applies.
    """
    rate = ops.reshape(ops.cast(rates, weight.dtype), (-1, *[1] * (len(weight.shape) - 1)))
    if decayed and optimizer.weight_decay is not None:
        weight = weight - weight * (ops.cast(optimizer.weight_decay, weight.dtype) * rate)
    update, _ = UPDATES[_type_of(optimizer)]
    return update(optimizer, weight, gradient, rate, iterations, slots)
