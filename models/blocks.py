"""The parts of all families: the arguments that builders share, inputs, convolutions, shortcuts, blocks.

Layer names are paths, `stage2_block1_conv1`. Below, `name` is such a path or its beginning, `x` the tensor
on the trunk, `(batch, height, width, channels)`, `channels` those of the result, and `stride` the step in
height and width.
"""

import functools
import inspect
import re
from collections.abc import Callable, Sequence

import keras
from keras import layers

from bnhead import heads, seeds
from bnhead.errors import UsageError
from bnhead.heads.build import require_channels_last
from bnhead.layers import RoutedNorm

Norm = Callable[[str], keras.layers.Layer]
Features = tuple[keras.KerasTensor, str]  # a feature map and the net's name
_SHARED = {  # argument of every builder -> its line in the docstring
    "input_shape": "`(height, width, channels)` of the images, without the batch axis.",
    "head": 'a head\'s text, such as `"bn_fc"`, or a parsed head; None for the bare feature map.',
    "outputs": "number of outputs; only with a head.",
    "norm": """function from a layer's name to a normalisation layer; with a `layers.RoutedNorm` the model
        and its head read a route, the last input.""",
    "preprocessing": """layer before the first convolution, such as `keras.layers.Rescaling`, so that the
        model takes raw pixels; None if the input is already scaled.""",
    "seed": "seed of the initial weights, one stream per layer (`bnhead.seeds`); None draws a fresh one.",
    "head_options": "other keyword arguments of `bnhead.heads.apply`, such as `fc_units`.",
}


def backbone(stride: int | None = None) -> Callable[[Callable], Callable[..., keras.Model]]:
    """Turns a function that makes features into a builder of models.

    The builder has the function's arguments and those that all builders share: `input_shape`, `head` and
    `outputs` after the function's positional ones, `preprocessing`, `seed` and the head's options by keyword.
    Its signature and docstring list them all.

    Args:
        stride: the net's total stride; the function is `(x, ..., seed) -> (features, name)` with `x` the
            input of the first convolution. None for a function that makes the input itself,
            `(input_shape, preprocessing, ..., seed) -> (inputs, features, name)`.
    """

    def decorate(function: Callable) -> Callable[..., keras.Model]:
        specific = list(inspect.signature(function).parameters.values())[1 if stride else 2 :]
        shared = inspect.signature(_shared_arguments)
        parameters = [*(p for p in specific if p.name != "seed"), *shared.parameters.values()]
        # A stable sort: positional arguments first, the function's before the shared ones.
        signature = shared.replace(parameters=sorted(parameters, key=lambda p: p.kind))

        @functools.wraps(function)
        def build_model(*arguments, **keywords) -> keras.Model:
            bound = signature.bind(*arguments, **keywords)
            bound.apply_defaults()
            values = bound.arguments
            input_shape, preprocessing = values.pop("input_shape"), values.pop("preprocessing")
            head, outputs, options = values.pop("head"), values.pop("outputs"), values.pop("head_options")
            if stride:
                inputs, x = image_input(input_shape, preprocessing, stride)
                features, name = function(x, **values)
            else:
                inputs, features, name = function(input_shape, preprocessing, **values)
            norm = values.get("norm")
            options["norm"] = norm if isinstance(norm, RoutedNorm) else None
            return heads.attach(head, inputs, features, outputs, name=name, seed=values["seed"], **options)

        doc, raises, errors = (inspect.getdoc(function) or "").partition("\n\nRaises:")
        doc += "" if "\n\nArgs:" in doc else "\n\nArgs:"
        missing = [name for name in signature.parameters if f"\n    {name}: " not in doc]
        build_model.__doc__ = (
            "\n".join([doc, *(f"    {name}: {_SHARED[name]}" for name in missing)]) + raises + errors
        )
        build_model.__signature__ = signature
        return build_model

    return decorate


def _shared_arguments(
    input_shape: tuple[int | None, int | None, int],
    head: str | heads.Head | None = None,
    outputs: int | None = None,
    *,
    preprocessing: keras.layers.Layer | None = None,
    seed: int | None = None,
    **head_options,
) -> keras.Model:
    """The common part of all builders' signatures."""


def image_input(
    input_shape: Sequence[int | None], preprocessing: keras.layers.Layer | None, stride: int
) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """The input tensor, and the same after `preprocessing`, which the first convolution reads.

    Args:
        input_shape: `(height, width, channels)`.
        preprocessing: layer put on the input; None for none.
        stride: the net's total stride, the smallest height and width of an image.

    Raises:
        UsageError: an invalid shape, or an image smaller than the stride.
    """
    if len(input_shape) != 3 or not input_shape[-1]:
        raise UsageError(f"input_shape must be (height, width, channels), got {tuple(input_shape)}")
    require_channels_last("a backbone")
    if any(size is not None and size < stride for size in input_shape[:2]):
        size = f"{input_shape[0]} x {input_shape[1]}"
        raise UsageError(
            f"input_shape must be at least {stride} x {stride} for a net of stride {stride}, got {size}"
        )
    inputs = keras.Input(tuple(input_shape), name="image")
    return inputs, inputs if preprocessing is None else preprocessing(inputs)


def conv(x, channels: int, kernel: int, stride: int, name: str, seed: int | None, *, bias: bool = False):
    """Convolution with kernel // 2 zeros on each side and He's initial weights, from one stream per layer.

    With a stride it is centred on the first pixel of each step, as in PyTorch and like `subsample`. (Keras'
    "same" centres it on the second pixel if the size is even, hence the explicit padding.)
    """
    if stride > 1 and kernel > 1:
        x = layers.ZeroPadding2D(kernel // 2, name=f"{name}_pad")(x)
    stream = None if seed is None else seeds.stream(seed, "backbone", name)
    return layers.Conv2D(
        channels,
        kernel,
        stride,
        "same" if stride == 1 else "valid",
        use_bias=bias,
        kernel_initializer=keras.initializers.HeNormal(stream),
        name=name,
    )(x)


def relu(x, name: str):
    """ReLU layer."""
    return layers.Activation("relu", name=name)(x)


def subsample(x, channels: int, stride: int, name: str):
    """Option A of He et al. 2015, without parameters: every `stride`-th pixel, zeros for new channels."""
    if stride > 1:
        x = layers.AveragePooling2D(1, strides=stride, name=f"{name}_subsample")(x)
    zeros = channels - x.shape[-1]
    return keras.ops.pad(x, ((0, 0), (0, 0), (0, 0), (zeros // 2, zeros - zeros // 2))) if zeros else x


def basic_block(x, channels: int, stride: int, name: str, norm: Norm, seed: int | None, option: str = "B"):
    """Block of He et al. 2015, figure 5 left: two 3x3 convolutions with norms, ReLU after the sum.

    `option` is the shortcut: "A" is `subsample`, "B" a 1x1 convolution and a norm if the shape changes,
    "none" omits shortcut and sum.
    """
    shortcut = x
    if option == "A":
        shortcut = subsample(x, channels, stride, name)
    elif option == "B" and (stride > 1 or x.shape[-1] != channels):
        shortcut = norm(f"{name}_bn0")(conv(x, channels, 1, stride, f"{name}_conv0", seed))
    x = relu(norm(f"{name}_bn1")(conv(x, channels, 3, stride, f"{name}_conv1", seed)), f"{name}_relu1")
    x = norm(f"{name}_bn2")(conv(x, channels, 3, 1, f"{name}_conv2", seed))
    x = x if option == "none" else layers.Add(name=f"{name}_add")([shortcut, x])
    return relu(x, f"{name}_relu2")


def preactivation_block(
    x, channels: int, stride: int, name: str, norm: Norm, seed: int | None, option: str = "B"
):
    """Block of He et al. 2016, figure 4e: norm and ReLU before each of two 3x3 convolutions.

    `option` is the shortcut: "A" is `subsample`, "B" a 1x1 convolution of the activated input if the shape
    changes.
    """
    active = relu(norm(f"{name}_bn1")(x), f"{name}_relu1")
    shortcut = x
    if option == "A":
        shortcut = subsample(x, channels, stride, name)
    elif stride > 1 or x.shape[-1] != channels:
        shortcut = conv(active, channels, 1, stride, f"{name}_conv0", seed)
    x = conv(active, channels, 3, stride, f"{name}_conv1", seed)
    x = conv(relu(norm(f"{name}_bn2")(x), f"{name}_relu2"), channels, 3, 1, f"{name}_conv2", seed)
    return layers.Add(name=f"{name}_add")([shortcut, x])


def endpoints(model: keras.Model) -> dict[str, keras.KerasTensor]:
    """Output of each stage of a backbone from `bnhead.models`: `{"stem": ..., "stage1": ..., ...}`.

    `keras.Model(model.inputs, endpoints(model))` computes all of them.
    """
    stages = {}
    for layer in model.layers:
        stage = re.match(r"(stem|stage\d+)_", layer.name)
        if stage:
            stages[stage[1]] = layer.output
    return stages
