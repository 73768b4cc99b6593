"""What to count in a Keras model: every activation, wherever it stands, or what is named."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from bnhead.errors import UsageError, nearest
from bnhead.graph import Call, functional, named_calls, nested

RECTIFIER, ACTIVATION, NORM, OTHER = "rectifier", "activation", "norm", "other"

# layers that apply their `activation` last, to something linear
LINEAR_LAYERS = (
    keras.layers.Dense,
    keras.layers.EinsumDense,
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
    keras.layers.DepthwiseConv1D,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv1D,
    keras.layers.SeparableConv2D,
)
_RECTIFIERS = ("relu", "relu6")  # exactly 0 wherever the pre-activation is 0 or less
# functions of `keras.ops` and `keras.activations` that are called on tensors, and the activation layers
_ELEMENTWISE = frozenset(
    {
        *("celu", "elu", "exponential", "gelu", "hard_shrink", "hard_sigmoid", "hard_silu", "hard_tanh"),
        *("leaky_relu", "mish", "prelu", "relu", "relu6", "selu", "silu", "soft_shrink", "softplus"),
        *("softsign", "sparse_plus", "squareplus", "tanh", "tanh_shrink", "threshold"),
    }
)
_KEEPING = (  # layers whose output channel u is their input channel u
    keras.layers.Activation,
    keras.layers.BatchNormalization,
    keras.layers.Dropout,
    keras.layers.ReLU,
    keras.layers.LeakyReLU,
    keras.layers.ELU,
    keras.layers.PReLU,
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.SpatialDropout3D,
)


@dataclass(frozen=True)
class Site:
    """A place in a model whose units can be counted.

    Attributes:
        name: the layer's name; `encoder.relu` inside the nested model `encoder`, `relu#2` for a second call.
        call: the call of the layer or operation.
        kind: "rectifier" (0 for every pre-activation <= 0: ReLU, ReLU6), "activation" (another one),
            "norm" (batch norm) or "other".
        fused: whether the layer applies its activation itself, so that its pre-activation is inside it.
        is_output: whether this is an output of the model.
        groups: sizes of the groups of channels that a concatenation before it put side by side, or ().
    """

    name: str
    call: Call
    kind: str
    fused: bool
    is_output: bool
    groups: tuple[int, ...]

    @property
    def operation(self) -> keras.Operation:
        return self.call.operation

    @property
    def units(self) -> int | None:
        """Size of the last axis of its one output; None where there is no such thing."""
        outputs = self.call.outputs
        return outputs[0].shape[-1] if len(outputs) == 1 and len(outputs[0].shape) > 1 else None

    @property
    def positions(self) -> bool:
        """Whether its output is a feature map or a sequence rather than a vector."""
        return len(self.call.outputs[0].shape) > 2


def sites(model: keras.Model) -> list[Site]:
    """Every call inside a model, in the order in which they run; a nested model comes before its inside.

    Raises:
        UsageError: the model is no built functional or Sequential model.
    """
    if functional(model) is None or not model.inputs:
        raise UsageError(
            f"model {getattr(model, 'name', model)!r} must be a built functional or Sequential model"
        )
    return list(_sites(functional(model), "", {id(tensor) for tensor in functional(model).outputs}))


def _sites(graph: Any, prefix: str, outputs: set[int]) -> Iterator[Site]:
    named = named_calls(graph, prefix)
    makers = {id(tensor): call for _, call in named for tensor in call.outputs}
    for name, call in named:
        is_output = bool(outputs & set(map(id, call.outputs)))
        kind, fused = kind_of(call.operation)
        yield Site(name, call, kind, fused, is_output, _groups(call, makers))
        if (inside := nested(call)) is not None:
            yield from _sites(inside, f"{name}.", {id(t) for t in inside.outputs} if is_output else set())


def activations(model: keras.Model) -> list[Site]:
    """Every activation worth counting: all but softmax, and but a smooth one at the model's output."""
    found = (site for site in sites(model) if site.kind in (RECTIFIER, ACTIVATION) and site.units)
    return [site for site in found if not (site.is_output and site.kind == ACTIVATION)]


def norms(model: keras.Model) -> list[Site]:
    """Every batch norm, where a dead unit turns constant."""
    return [site for site in sites(model) if site.kind == NORM and site.units]


def default_layers(model: keras.Model) -> list[str]:
    """The layer that is counted when none is named: the last activation before the output.

    In a head with an FC layer that is the FC layer; in a net that goes from the pooling straight to the
    output it is the backbone's last activation, the units that the pooling reads.

    Raises:
        UsageError: there is no activation before the output, or the last one is inside a nested model that is
            no functional one.
    """
    for site in reversed(sites(model)):
        if site.kind in (RECTIFIER, ACTIVATION) and not site.is_output and site.units:
            return [site.name]
        if isinstance(site.operation, keras.Model) and nested(site.call) is None:
            inside = f"the last activation may be inside the nested model {site.name!r}"
            raise UsageError(f"model {model.name!r}: {inside}; name the layers to count")
    raise UsageError(f"model {model.name!r} has no activation before its output; name the layers to count")


def find(model: keras.Model, layers: Sequence[Any] | str | None = None) -> list[Site]:
    """The sites that `layers` asks for.

    Args:
        model: a built functional or Sequential model.
        layers: None for `default_layers`; "all" for every activation; "norms" for every batch norm; or a
            sequence of names, layers and these two words.

    Raises:
        UsageError: a model or a layer that cannot be counted, with the nearest name.
    """
    if keras.config.image_data_format() != "channels_last":
        raise UsageError("units are counted with Keras' image data format channels_last alone")
    wanted = (
        [layers] if isinstance(layers, str) else default_layers(model) if layers is None else list(layers)
    )
    every = {site.name: site for site in sites(model)}
    found: list[Site] = []
    for item in wanted:
        found += _named(model, every, getattr(item, "name", item))
    if not found:
        raise UsageError("layers must name at least one layer, or be None for the last activation")
    return list({site.name: site for site in found}.values())


def _named(model: keras.Model, every: dict[str, Site], name: str) -> list[Site]:
    groups: dict[str, Callable] = {"all": activations, "norms": norms}
    if name in groups and name not in every:
        return groups[name](model)
    if name not in every:
        raise UsageError(f"layers: model {model.name!r} has no layer {name!r}{nearest(str(name), every)}")
    if not every[name].units:
        raise UsageError(f"layers: {name!r} must have one output of shape (batch, ..., units)")
    return [every[name]]


def watched(model: keras.Model, counted: Sequence[Site]) -> list[Site]:
    """The sites whose values must be finite, in the order in which they are there.

    They are the counted ones and every rectifier, since a rectifier may turn NaN into silence.
    """
    names = {site.name for site in counted}
    found = [site for site in sites(model) if site.kind == RECTIFIER or site.name in names]

    def place(site: Site) -> tuple[int, int]:  # a nested model is named before its inside and there after it
        inside = [i for i, other in enumerate(found) if other.name.startswith(f"{site.name}.")]
        return (max(inside), 1) if inside else (found.index(site), 0)

    return sorted(found, key=place)


def kind_of(operation: keras.Operation) -> tuple[str, bool]:
    """What an operation is to the census, and whether its pre-activation is inside it (see `Site`)."""
    if isinstance(operation, keras.layers.BatchNormalization):
        return NORM, False
    if isinstance(operation, keras.Model):
        return OTHER, False
    if isinstance(operation, LINEAR_LAYERS):
        kind = _function_kind(operation.activation)
        return kind, kind != OTHER
    if isinstance(operation, keras.layers.Activation):
        return _function_kind(operation.activation), False
    if isinstance(operation, keras.layers.TimeDistributed):
        kind, fused = kind_of(operation.layer)
        return (ACTIVATION if fused or kind == RECTIFIER else kind), False
    if hasattr(operation, "activation"):  # a recurrent layer, or a layer of somebody's own
        return (ACTIVATION if _function_kind(operation.activation) != OTHER else OTHER), False
    return _function_kind(operation) if _is_elementwise(operation) else OTHER, False


def _is_elementwise(operation: keras.Operation) -> bool:
    return type(operation).__module__.startswith("keras.") and _snake(operation) in _ELEMENTWISE


def _function_kind(function: Any) -> str:
    """The kind of an activation: a function, a layer in its place, or an operation."""
    if function is None:
        return OTHER
    name = _snake(function) if isinstance(function, keras.Operation) else getattr(function, "__name__", "")
    if name in ("linear", "softmax", "log_softmax"):
        return OTHER
    exact = not any(getattr(function, option, 0) for option in ("negative_slope", "threshold"))
    return RECTIFIER if name in _RECTIFIERS and exact else ACTIVATION


def _snake(operation: keras.Operation) -> str:
    """A class's name as a function's: LeakyReLU and LeakyRelu are `leaky_relu`."""
    name = type(operation).__name__.replace("ReLU", "Relu").replace("ELU", "Elu").replace("PRelu", "Prelu")
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")


def _groups(call: Call, makers: dict[int, Call]) -> tuple[int, ...]:
    """Sizes of what the nearest concatenation joined, before a call through layers that keep channels."""
    while not isinstance(call.operation, keras.layers.Concatenate):
        keeps = isinstance(call.operation, _KEEPING) or _is_elementwise(call.operation)
        if not keeps or len(call.inputs) != 1 or id(call.inputs[0]) not in makers:
            return ()
        call = makers[id(call.inputs[0])]
    last = call.operation.axis in (-1, len(call.outputs[0].shape) - 1)
    sizes = tuple(tensor.shape[-1] for tensor in call.inputs)
    return sizes if last and len(sizes) > 1 and None not in sizes else ()


@contextlib.contextmanager
def without_activation(layer: keras.layers.Layer) -> Iterator[Callable]:
    """Takes a fused site's activation away while the pre-activation is computed, and yields it."""
    activation = layer.activation
    layer.activation = keras.activations.linear
    try:
        yield activation
    finally:
        layer.activation = activation
