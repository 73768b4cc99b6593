"""Taps: the input and output of every activation of a Keras model, recorded while a real forward pass runs.

The functions that compute activations are hooked while the model is called (`graph.hooks`). So the taps see
the model's actual computation: in evaluation and in training, in subclassed models and in layers that hold
layers, without reading a recorded graph or a class. `opened` installs the hooks and always removes them.

An activation site is a call of an activation function. Only the outermost call counts: `mish` is one
activation, and the `softplus` inside it is not another. Tensors cannot be read from loops and conditions, so
an activation inside one is listed in `Pass.missed`. A recurrent layer is such a loop; its output is recorded
instead.
"""

import contextlib
import itertools
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import ops
from keras.src import backend

from bnhead.graph import hooks

RECTIFIERS = ("relu", "relu6")  # exactly 0 wherever the pre-activation is 0 or less
RECURRENT, NORM, OUTPUT = "recurrent", "norm", "output"
NO_UNITS = ("softmax", "log_softmax", "sparsemax", "glu")  # these weigh or gate; their outputs are not units
MARK = "bnhead_tap_"  # name scope of each recorded activation, with a number that is unique in the process
LAYER_MARK = "bnhead_layer_"  # name scope of each layer's call, with its index in `Taps.paths`
RECURRENT_MARK = "bnhead_recurrent"  # name scope of a recurrent layer's loop

_marks = itertools.count()


@dataclass(eq=False)
class Tap:
    """One activation, or one layer's output, in one forward pass.

    Attributes:
        path: names of the layers being called, joined by "/", without the model's name.
        number: number of earlier activations (or outputs) of this path in the same pass.
        kind: name of the activation function ("relu", "gelu", ...); "function" for a user's function;
            "recurrent", "norm" or "output" for a layer's output.
        layer: the layer that `path` ends in; None directly in the model.
        pre_activation: the input of the activation; None for a layer's output.
        output: the output of the activation or layer, of the same shape as `pre_activation`.
        function: the activation as a function of `pre_activation` alone; None if it cannot be called again.
        mask: `(batch, time)` bool, the mask of the layer's input; None without one.
        groups: sizes of the groups of channels that a concatenation joined, or ().
        axis: axis of the units; None if unknown.
        is_layer_output: whether the layer returns `output`.
        is_output: whether `output` is an output of the model.
        order: index among all taps of the pass, in order of execution.
        steps: keys of the calls that were stacked to its positions (`TimeDistributed`), or ().
        name: the layer's path if the layer returns `output`, else path and kind; "#2" for a second call.
    """

    path: str
    number: int
    kind: str
    layer: keras.Operation | None
    pre_activation: Any
    output: Any
    function: Callable | None = None
    mask: Any = None
    groups: tuple[int, ...] = ()
    axis: int | None = -1
    is_layer_output: bool = False
    is_output: bool = False
    order: int = 0
    steps: tuple[tuple[str, int, bool], ...] = ()
    name: str = ""

    @property
    def key(self) -> tuple[str, int, bool]:
        """Identifies the tap in every pass of the same model and mode."""
        return self.path, self.number, self.pre_activation is None

    @property
    def units(self) -> int | None:
        """Number of units; None if the output has no axis of units, or it is unknown."""
        shape = self.output.shape
        return shape[self.axis] if self.axis is not None and len(shape) > 1 else None


@dataclass
class Pass:
    """One call of the model, or of one of its layers from outside the model.

    Attributes:
        inputs: the input tensors, flat; None for an omitted optional input.
        activations: the recorded activations, in order of execution.
        outputs: the outputs of the layers, in order of execution.
        missed: path -> reason why an activation there was not recorded.
        results: the tensors that the call returned, flat.
    """

    inputs: list[Any] = field(default_factory=list)
    activations: list[Tap] = field(default_factory=list)
    outputs: list[Tap] = field(default_factory=list)
    missed: dict[str, str] = field(default_factory=dict)
    results: list[Any] = field(default_factory=list)


@dataclass
class _Frame:
    """A layer that is being called.

    Attributes:
        layer: the layer, or the one whose activation is a layer and runs.
        path: as in `Tap`.
        first: index of its first activation in the pass.
        mask: the mask of its input, as of `_mask_of`.
        recurrent: whether it has run a recurrent loop.
    """

    layer: keras.Operation
    path: str = ""
    first: int = 0
    mask: Any = None
    recurrent: bool = False

    def mask_of(self, x: Any) -> Any:
        """The mask of a tensor in the layer: that of its input, if it has the same positions."""
        # of an unknown number of positions, only a layer that supports masks keeps it
        unknown_time = getattr(self.layer, "supports_masking", False)
        return self.mask if _fits(self.mask, x, unknown_time) else None


class Taps:
    """Collects the passes that one thread runs.

    Args:
        model: the model whose layers are observed; calls of other models are not.
        evaluating: whether rematerialised layers run directly. A training step needs rematerialisation.
        watch: `(key, part, tensor) -> tensor`, called with the input and the output of each activation and
            the output of each layer; the pass continues with its result. `part` is the attribute of `Tap`
            that holds the tensor: "pre_activation" or "output". None changes nothing.
        paths: paths whose tensors are retained; None for all. The memory of the other tensors is freed early.
        marked: whether to mark recorded activations by name scopes in the traced program, for `graph.audit`.
    """

    def __init__(
        self,
        model: keras.Model,
        *,
        evaluating: bool = False,
        watch: Callable | None = None,
        paths: Collection[str] | None = None,
        marked: bool = False,
    ):
        self.model, self.evaluating, self.watch = model, evaluating, watch
        self._retained_paths, self._marked = paths, marked
        self.plain = not evaluating and watch is None and paths is None and not marked
        self.passes: list[Pass] = []
        self.paths: list[str] = []  # of the called layers, in order
        self.operations: set[str] = set()  # names of the TensorFlow operations recorded by `record_operation`
        self._layers = {id(layer) for layer in model._flatten_layers()}
        self._scope = _trace_scope()
        self._stack: list[_Frame] = []
        self._is_recording = False  # an activation, whose inner activations do not count
        self._inner: tuple | None = None  # name, input and output of the last inner activation
        self._loop = ""  # name of the running loop or recurrent layer
        self._numbers: Counter = Counter()
        # id of a tensor -> the tensor, its groups, its axis of units. Holding the tensor keeps its id unique.
        self._channels: dict[int, tuple] = {}
        self._has_channels_first = any(
            getattr(layer, "data_format", None) == "channels_first" for layer in model._flatten_layers()
        )

    @property
    def current(self) -> Pass:
        return self.passes[-1]

    @contextlib.contextmanager
    def calling(self, inputs: Any) -> Iterator[None]:
        """The model's call if it does not go through `Layer.__call__` (`stateless_call` on JAX)."""
        if self._stack:
            yield
            return
        with self._pass(inputs):
            self._stack.append(_Frame(self.model))
            try:
                yield
            finally:
                self._stack.pop()

    @contextlib.contextmanager
    def _pass(self, inputs: Any) -> Iterator[None]:
        """Begins a pass, and names its taps at its end."""
        tensors = [
            x
            for x in keras.tree.flatten(inputs)
            if x is None or ops.is_tensor(x) or isinstance(x, np.ndarray)
        ]
        self.passes.append(Pass(tensors))
        self._numbers.clear()
        try:
            yield
        finally:
            self._channels.clear()
            current = self.current
            # a layer with a missed activation is left out entirely
            current.activations = [tap for tap in current.activations if tap.path not in current.missed]
            for tap in current.activations:
                is_path = tap.is_layer_output and tap.path
                tap.name = tap.path if is_path else f"{tap.path}/{tap.kind}".lstrip("/")
            for tap in current.outputs:
                tap.name = tap.path
            for taps in (current.activations, current.outputs):
                uses: Counter = Counter()
                for tap in taps:
                    uses[tap.name] += 1
                    if uses[tap.name] > 1:
                        tap.name = f"{tap.name}#{uses[tap.name]}"

    def call(self, layer: keras.Operation, original: Callable, args: tuple, kwargs: dict) -> Any:
        """Runs a call of a layer or operation and records its output and the activations inside it."""
        is_symbolic = any(isinstance(x, keras.KerasTensor) for x in keras.tree.flatten((args, kwargs)))
        if self._is_recording or is_symbolic or _in_backward_pass():
            return original(layer, *args, **kwargs)
        if self._stack:
            return self._call_layer(layer, original, args, kwargs)
        if id(layer) not in self._layers:  # a metric's, a loss's or another model's
            with hooks.reporting_to(None):
                return original(layer, *args, **kwargs)
        with self._pass(args or kwargs):
            results = self._call_layer(layer, original, args, kwargs)
            self.current.results = keras.tree.flatten(results)
            outputs = {id(x) for x in self.current.results} if layer is self.model else set()
            for tap in (*self.current.activations, *self.current.outputs):
                tap.is_output = id(tap.output) in outputs
            return results

    def _call_layer(self, layer, original, args, kwargs):
        parent = self._stack[-1] if self._stack else _Frame(layer)
        attributes = {**vars(parent.layer), **getattr(parent.layer, "_modules", {})}  # `_modules`: PyTorch's
        # a layer that serves as the parent's activation runs under the parent's path
        is_activation = any(value is layer and "activation" in name for name, value in attributes.items())
        frame = _Frame(parent.layer if is_activation else layer, parent.path, len(self.current.activations))
        if layer is not self.model and not is_activation:
            frame.path = f"{parent.path}/{layer.name}".lstrip("/")
        frame.mask = _mask_of(args, kwargs, parent.mask)
        self._stack.append(frame)
        try:
            self.paths.append(frame.path)
            with self._name_scope(f"{LAYER_MARK}{len(self.paths) - 1}_"):
                results = original(layer, *args, **kwargs)
        finally:
            self._stack.pop()
        if is_activation or self._loop or _trace_scope() != self._scope:
            return results
        return self._record_output(frame, args, results)

    def _record_output(self, frame: _Frame, args: tuple, results: Any) -> Any:
        """Records a layer's output. Returns the layer's results, with the output replaced by `watch`."""
        flat = keras.tree.flatten(results)
        if not flat or not ops.is_tensor(flat[0]) or not _has_rank(flat[0]):
            return results
        output, layer = flat[0], frame.layer
        if isinstance(layer, keras.layers.TimeDistributed):
            self._merge_steps(frame.first, args[0].shape[1])
        returned = [
            tap
            for tap in self.current.activations[frame.first :]
            if tap.path == frame.path and tap.output is output
        ]
        for tap in returned:
            tap.is_layer_output = True
        if not frame.path:
            return results
        role = RECURRENT if frame.recurrent else OUTPUT
        if isinstance(layer, keras.layers.BatchNormalization):
            role = NORM
        number = self._next_number(frame.path, "output")
        mask = backend.get_keras_mask(output)
        if self.watch is not None:
            output = self.watch((frame.path, number, True), "output", output)
            if mask is not None:
                backend.set_keras_mask(output, mask)
            results = keras.tree.pack_sequence_as(results, [output, *flat[1:]])
        self._pass_on_channels(layer, args, output)
        groups, axis = self._channels_of(output)
        for tap in returned:  # known only now: the layer's activation runs before the layer returns
            tap.axis = axis
        mask = frame.mask_of(output) if mask is None else mask
        tap = Tap(frame.path, number, role, layer, None, output, None, mask, groups, axis)
        self._append(self.current.outputs, tap)
        return results

    def _merge_steps(self, first: int, steps: int | None) -> None:
        """Stacks the activations of the steps of a `TimeDistributed` layer, as positions."""
        taps = self.current.activations[first:]
        if not taps or not steps or len(taps) % steps:
            return
        per_step = len(taps) // steps
        for i, tap in enumerate(taps[:per_step]):
            calls = taps[i::per_step]
            if tap.output is not None:  # None if the path's tensors are not retained
                tap.pre_activation = ops.stack([call.pre_activation for call in calls], axis=1)
                tap.output = ops.stack([call.output for call in calls], axis=1)
            tap.mask, tap.axis, tap.steps = None, -1, tuple(call.key for call in calls)
        self.current.activations[first:] = taps[:per_step]

    def _is_readable(self, name: str, x: Any) -> bool:
        """Whether an activation of x can be recorded now. Lists it as missed if a loop hides its tensors."""
        if not self._stack or self._loop == hooks.RECURRENT_LAYER or _in_backward_pass():
            return False
        if self._loop or _trace_scope() != self._scope:
            reason = f"{name} inside {self._loop or 'a compiled function'}"
            self.current.missed[self._stack[-1].path] = reason
            return False
        if not _has_rank(x):
            self.current.missed[self._stack[-1].path] = f"{name} of a tensor of unknown rank"
            return False
        return True

    def activation(self, name: str, function: Callable, args: tuple, kwargs: dict, position: int = 0) -> Any:
        """Runs a call of an activation function and records its input and output.

        Args:
            name: its name, `Tap.kind`.
            function: the function.
            args: its positional arguments.
            kwargs: its keyword arguments.
            position: index of the pre-activation among `args`; it may also be the first keyword argument.
        """
        is_positional = len(args) > position
        x = args[position] if is_positional else next(iter(kwargs.values()), None)
        if isinstance(x, keras.Variable) and not self._is_recording:  # weights are not units
            with self._only_outermost():
                return function(*args, **kwargs)
        if not ops.is_tensor(x) or isinstance(x, keras.KerasTensor):
            return function(*args, **kwargs)
        if self._is_recording:
            output = function(*args, **kwargs)
            self._inner = name, x, output
            return output
        if not self._is_readable(name, x):
            return function(*args, **kwargs)
        frame = self._stack[-1]
        number = self._next_number(frame.path, "activation")
        if self.watch is not None:
            x = self.watch((frame.path, number, False), "pre_activation", x)

        def of_pre_activation(value):
            if is_positional:
                return function(*args[:position], value, *args[position + 1 :], **kwargs)
            return function(*args, **{**kwargs, next(iter(kwargs)): value})

        with self._only_outermost():
            output = of_pre_activation(x)
        if self._inner is not None and self._inner[1] is x and self._inner[2] is output:
            name = self._inner[0]  # the function only wraps another one
        if self.watch is not None and ops.is_tensor(output):
            output = self.watch((frame.path, number, False), "output", output)
        if ops.is_tensor(output) and len(output.shape) == len(x.shape):
            groups, axis = self._channels_of(x)
            self._set_channels(output, groups, axis)
            mask = frame.mask_of(x)
            tap = Tap(frame.path, number, name, frame.layer, x, output, of_pre_activation, mask, groups, axis)
            if all(a == b or None in (a, b) for a, b in zip(x.shape, output.shape, strict=True)):
                self._append(self.current.activations, tap)
        return output

    @contextlib.contextmanager
    def _only_outermost(self) -> Iterator[None]:
        """An activation, under its mark: those inside it do not count."""
        self._is_recording, self._inner = True, None
        try:
            with self._name_scope(f"{MARK}{next(_marks)}_"):
                yield
        finally:
            self._is_recording = False

    def record_operation(self, name: str, x: Any, output: Any, function: Callable) -> None:
        """Records an activation that only the backend reports (TensorFlow's operations)."""
        if self._is_recording:
            self._inner = name, x, output
        elif self._is_readable(name, x):
            self.operations.add(getattr(output, "name", "").split(":")[0])
            frame = self._stack[-1]
            number = self._next_number(frame.path, "activation")
            channels, mask = self._channels_of(x), frame.mask_of(x)
            tap = Tap(frame.path, number, name, frame.layer, x, output, function, mask, *channels)
            self._append(self.current.activations, tap)

    @contextlib.contextmanager
    def loop(self, name: str) -> Iterator[None]:
        """A loop or condition, from which tensors cannot be read."""
        previous, self._loop = self._loop, self._loop or name
        is_recurrent = name == hooks.RECURRENT_LAYER
        if is_recurrent and self._stack:
            self._stack[-1].recurrent = True
        try:
            with self._name_scope(RECURRENT_MARK) if is_recurrent else contextlib.nullcontext():
                yield
        finally:
            self._loop = previous

    def _name_scope(self, name: str) -> contextlib.AbstractContextManager:
        """A name scope in the traced program, if `marked`.

        Training steps are not marked: names change the order in which TensorFlow adds gradients.
        """
        if self._marked and keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            return tf.name_scope(name)
        if self._marked and keras.backend.backend() == "jax":
            import jax

            return jax.named_scope(name)
        return contextlib.nullcontext()

    def concatenated(self, tensors: Sequence[Any], axis: int, result: Any) -> None:
        """Stores the groups of channels of a concatenation along the last axis."""
        if not self._stack or self._is_recording or not ops.is_tensor(result):
            return
        sizes = tuple(getattr(tensor, "shape", (None,))[-1] for tensor in tensors)
        if axis in (-1, len(result.shape) - 1) and len(sizes) > 1 and None not in sizes:
            self._set_channels(result, sizes, self._channels_of(result)[1])

    def _append(self, taps: list[Tap], tap: Tap) -> None:
        tap.order = len(self.current.activations) + len(self.current.outputs)
        if self._retained_paths is not None and tap.path not in self._retained_paths:
            tap.pre_activation = tap.output = tap.function = tap.mask = None
        taps.append(tap)

    def _next_number(self, path: str, role: str) -> int:
        self._numbers[path, role] += 1
        return self._numbers[path, role] - 1

    def _channels_of(self, tensor: Any) -> tuple[tuple[int, ...], int | None]:
        """Groups of channels and axis of units of a tensor; the axis is None if unknown."""
        default = None, (), None if self._has_channels_first else -1
        _, groups, axis = self._channels.get(id(tensor), default)
        return groups, -1 if len(tensor.shape) < 3 else axis

    def _set_channels(self, tensor: Any, groups: tuple[int, ...], axis: int | None) -> None:
        if groups or self._has_channels_first:
            self._channels[id(tensor)] = tensor, groups, axis

    def _pass_on_channels(self, layer: keras.Operation, args: tuple, output: Any) -> None:
        """Stores the channels of a layer's output, from the layer's data format or from its inputs."""
        data_format = getattr(layer, "data_format", None)
        inputs = [x for x in keras.tree.flatten(args) if ops.is_tensor(x)]
        if data_format in ("channels_first", "channels_last"):
            groups = self._channels.get(id(output), (None, ()))[1]
            self._set_channels(output, groups, 1 if data_format == "channels_first" else -1)
        elif isinstance(layer, _CHANNELWISE) and inputs:
            channels = {self._channels_of(x) for x in inputs}
            if len(channels) == 1:
                self._set_channels(output, *channels.pop())


_CHANNELWISE = (  # layers whose output channel u depends on their input channel u alone
    keras.layers.Add,
    keras.layers.BatchNormalization,
    keras.layers.Dropout,
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.SpatialDropout3D,
)


@contextlib.contextmanager
def opened(model: keras.Model, **options: Any) -> Iterator[Taps]:
    """Collects the activations of `model` in the calls that this thread makes in the context.

    Yields the taps that are already open if they are of the same model and neither has options: two counters
    inside a training step then share one pass.

    Args:
        model: any Keras model.
        options: arguments of `Taps`.
    """
    outer = hooks.current()
    if not options and outer is not None and outer.model is model and outer.plain:
        yield outer
        return
    with hooks.reporting_to(Taps(model, **options)) as taps:
        yield taps


_MASKS = ("mask", "padding_mask", "decoder_padding_mask")  # arguments of layers of Keras and of keras-hub


def _mask_of(args: tuple, kwargs: dict, outer: Any) -> Any:
    """The mask of a layer's input: passed as an argument, or attached to it, or that of the outer layer.

    Attention removes the masks from the tensors that it reads, so the rest of a transformer block has none.
    """
    for name in _MASKS:
        if ops.is_tensor(mask := kwargs.get(name)) and len(mask.shape) == 2:
            return ops.cast(mask, "bool")
    x = next((x for x in keras.tree.flatten((args, kwargs)) if ops.is_tensor(x)), None)
    if x is None:
        return None
    mask = backend.get_keras_mask(x)
    return outer if mask is None and _fits(outer, x) else mask


def _fits(mask: Any, x: Any, unknown_time: bool = False) -> bool:
    """Whether a mask is one of the positions of a series `(batch, time, units)`.

    Args:
        mask: the mask or None.
        x: the series.
        unknown_time: whether it is one if the number of positions is unknown.
    """
    if mask is None or len(mask.shape) != 2 or len(x.shape) != 3:
        return False
    (rows, time), (batch, positions) = mask.shape, x.shape[:2]
    return rows == batch and time == positions and (time is not None or unknown_time)


def _has_rank(tensor: Any) -> bool:
    """Whether the number of axes is known; some loops of TensorFlow return tensors without a shape."""
    return getattr(tensor.shape, "rank", 0) is not None


def _trace_scope() -> Any:
    """A token of the running trace. Tensors can be read only from a trace with an equal token."""
    name = keras.backend.backend()
    if name == "tensorflow":
        import tensorflow as tf

        return None if tf.executing_eagerly() else id(tf.compat.v1.get_default_graph())
    if name == "jax":
        import jax.extend

        return jax.extend.core.get_opaque_trace_state()
    import torch

    return torch._C._functorch.maybe_current_level()


def _in_backward_pass() -> bool:
    """PyTorch: whether a checkpointed layer runs again, for the gradients."""
    if keras.backend.backend() != "torch":
        return False
    import torch

    return torch._C._current_graph_task_id() != -1
