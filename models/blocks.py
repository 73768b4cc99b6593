"""What all families are made of: the arguments that builders share, inputs, convolutions, shortcuts, stages.

Layer names carry the path, `stage2_block1_conv1`; `name` below is such a path.
"""

import functools
import inspect
import re
from collections.abc import Callable, Iterable, Sequence

import keras
from keras import layers

from bnhead import heads, seeds
from bnhead.errors import UsageError

Norm = Callable[[str], keras.layers.Layer]
Features = tuple[keras.KerasTensor, str]  # a feature map and the net's name
_SHARED = {  # argument that every builder has -> its docstring line
    "input_shape": "`(height, width, channels)` of the images, without the batch axis.",
    "head": 'a head\'s text, such as `"bn_fc"`, or a parsed one; None for the bare feature map.',
    "outputs": "number of outputs; needed with a head, forbidden without.",
    "norm": "function from a layer's name to a normalisation layer.",
    "preprocessing": """layer put before the first convolution, such as `keras.layers.Rescaling`, so that the
        model takes raw pixels; None when the input is already scaled.""",
    "seed": "seed of the initial weights; every layer has its own stream (`bnhead.seeds`). None draws fresh.",
    "head_options": "`bnhead.heads.apply`'s other keyword arguments, such as `fc_units`.",
}


def backbone(stride: int | None = None) -> Callable[[Callable], Callable[..., keras.Model]]:
    """Makes a builder of a function that makes features.

    The builder has the function's arguments and those that all builders share: `input_shape`, `head` and
    `outputs` after its positional ones, `preprocessing`, `seed` and the head's options by name. They are in
    its signature and its docstring.

    Args:
        stride: the net's total stride; the function is `(x, ..., seed) -> (features, name)`, from the tensor
            that the first convolution reads. None for a function that makes its own input,
            `(input_shape, preprocessing, ..., seed) -> (inputs, features, name)`.
    """

    def decorate(function: Callable) -> Callable[..., keras.Model]:
        own = list(inspect.signature(function).parameters.values())[1 if stride else 2 :]
        shared = inspect.signature(_shared)
        together = [*(p for p in own if p.name != "seed"), *shared.parameters.values()]
        signature = shared.replace(parameters=sorted(together, key=lambda p: p.kind))

        @functools.wraps(function)
        def build(*arguments, **keywords) -> keras.Model:
            bound = signature.bind(*arguments, **keywords)
            bound.apply_defaults()
            given = bound.arguments
            input_shape, preprocessing = given.pop("input_shape"), given.pop("preprocessing")
            head, outputs, options = given.pop("head"), given.pop("outputs"), given.pop("head_options")
            if stride:
                inputs, x = image(input_shape, preprocessing, stride)
                features, name = function(x, **given)
            else:
                inputs, features, name = function(input_shape, preprocessing, **given)
            return heads.attach(head, inputs, features, outputs, name=name, seed=given["seed"], **options)

        build.__signature__ = signature
        build.__doc__ = _documented(inspect.getdoc(function) or "", signature.parameters)
        return build

    return decorate


def _shared(
    input_shape: tuple[int | None, int | None, int],
    head: str | heads.Head | None = None,
    outputs: int | None = None,
    *,
    preprocessing: keras.layers.Layer | None = None,
    seed: int | None = None,
    **head_options,
) -> keras.Model:
    """The signature that all builders have in common."""


def _documented(doc: str, names: Iterable[str]) -> str:
    """A builder's docstring with the lines of the shared arguments that it does not describe itself."""
    before, raises, after = doc.partition("\n\nRaises:")
    before += "" if "\n\nArgs:" in before else "\n\nArgs:"
    lines = [f"    {name}: {_SHARED[name]}" for name in names if f"\n    {name}: " not in before]
    return "\n".join([before, *lines]) + raises + after


def image(
    input_shape: Sequence[int | None], preprocessing: keras.layers.Layer | None, stride: int
) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """The input tensor and what the first convolution reads, the input after `preprocessing`.

    Args:
        input_shape: `(height, width, channels)`.
        preprocessing: layer put on the input; None for none.
        stride: the net's total stride: an image must be at least that high and wide.

    Raises:
        UsageError: a shape that is no image's, or an image smaller than the stride.
    """
    if len(input_shape) != 3 or not input_shape[-1]:
        raise UsageError(f"input_shape must be (height, width, channels), got {tuple(input_shape)}")
    if keras.config.image_data_format() != "channels_last":
        raise UsageError("backbones need Keras' image data format channels_last, got channels_first")
    if any(size is not None and size < stride for size in input_shape[:2]):
        size = f"{input_shape[0]} x {input_shape[1]}"
        raise UsageError(
            f"input_shape must be at least {stride} x {stride} for a net of stride {stride}, got {size}"
        )
    inputs = keras.Input(tuple(input_shape), name="image")
    return inputs, inputs if preprocessing is None else preprocessing(inputs)


def conv(x, channels: int, kernel: int, stride: int, name: str, seed: int | None, *, bias: bool = False):
    """Convolution with kernel // 2 zeros on each side, He's initial weights from a stream of its own.

    A strided one is centred on the first pixel of each step, as in PyTorch and on the pixels that a
    subsampling shortcut keeps. (Keras' "same" would centre it on the second where the size is even.)
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
    new = channels - x.shape[-1]
    return keras.ops.pad(x, ((0, 0), (0, 0), (0, 0), (new // 2, new - new // 2))) if new else x


def endpoints(model: keras.Model) -> dict[str, keras.KerasTensor]:
    """Output of each stage, `{"stem": ..., "stage1": ..., ...}`, of a backbone from `bnhead.models`.

    `keras.Model(model.inputs, endpoints(model))` gives them all at once.
    """
    found = {}
    for layer in model.layers:
        stage = re.match(r"(stem|stage\d+)_", layer.name)
        if stage:
            found[stage[1]] = layer.output
    return found
