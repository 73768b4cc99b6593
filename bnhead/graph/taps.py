"""Taps: what goes into and comes out of every activation of a Keras model, while a real forward pass runs.

The functions that compute activations are hooked while a model is called. So what is seen is what the model
computes, in evaluation and in training, in subclassed models and in layers that hold layers. Nothing is read
off a recorded graph or a class. `opened` installs the hooks and removes them again, whatever happens.

An activation site is a call of an activation function. The outermost call counts: `mish` is one activation,
and the `softplus` inside it is not another. Tensors cannot be read out of loops and conditions: an activation
in one is listed in `Pass.missed`. A recurrent layer is such a loop; it is seen at its output.
"""

import contextlib
import functools
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
NO_UNITS = ("softmax", "log_softmax", "sparsemax", "glu")  # these weigh or gate; they are no layer's units
MARK = "bnhead_tap_"  # name scope of each activation that was seen, with a number that is never used again
LAYER_MARK = "bnhead_layer_"  # name scope of each layer's call, with its number in `Taps.paths`
RECURRENT_MARK = "bnhead_recurrent"  # name scope of what is seen at a recurrent layer's output instead

_marks = itertools.count()


@dataclass(eq=False)
class Tap:
    """One activation, or one layer's output, in one forward pass.

    Attributes:
        path: names of the layers being called, joined by "/", without the model's own.
        number: how many activations (or outputs) this path had before in the same pass.
        kind: the function that was called ("relu", "gelu", ...); "function" for one of the user's own;
            "recurrent", "norm" or "output" for a layer's output.
        layer: the layer that `path` ends in; None directly under the model.
        before: what went in; None for a layer's output.
        after: what came out; of the same shape as `before`.
        function: the activation as a function of `before` alone; None where it cannot be called again.
        mask: `(batch, time)` bool, the Keras mask of what the layer reads; None without one.
        groups: sizes of the groups of channels that a concatenation put side by side, or ().
        axis: the axis of the units; None where it is not known.
        is_layer_output: whether `after` is what the layer returns.
        is_output: whether `after` is an output of the model.
        order: its place among all taps of the pass, as they ran.
        steps: keys of the calls that were put side by side as its positions (`TimeDistributed`), or ().
        name: the layer's path where the layer returns `after`, else path and kind; "#2" for a later call.
    """

    path: str
    number: int
    kind: str
    layer: keras.Operation | None
    before: Any
    after: Any
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
        """What identifies the tap in every pass of the same model and mode."""
        return self.path, self.number, self.before is None

    @property
    def units(self) -> int | None:
        """Number of units; None where the output has no axis of units, or it is not known."""
        shape = self.after.shape
        return shape[self.axis] if self.axis is not None and len(shape) > 1 else None


@dataclass
class Pass:
    """One call of the model (or of one of its layers from outside of it).

    Attributes:
        inputs: the tensors it was called with, flat; None for an optional one that was left out.
        activations: its activations, in the order in which they ran.
        outputs: its layers' outputs, in the order in which they returned.
        missed: path -> why an activation there was not looked at.
        results: what it returned, flat.
    """

    inputs: list[Any] = field(default_factory=list)
    activations: list[Tap] = field(default_factory=list)
    outputs: list[Tap] = field(default_factory=list)
    missed: dict[str, str] = field(default_factory=dict)
    results: list[Any] = field(default_factory=list)


class _Frame:
    """A layer that is being called."""

    def __init__(self, layer: keras.Operation, path: tuple[str, ...], first: int, mask: Any):
        self.layer, self.path, self.first, self.mask = layer, path, first, mask
        self.recurrent = False


class Taps:
    """Collects the passes that one thread runs.

    Args:
        model: the model whose layers are looked at; calls of other models are not.
        evaluating: whether rematerialised layers run plainly; a training step needs them as they are.
        watch: `(key, tensor) -> tensor`, called with what goes into each activation and with what each layer
            returns; the pass continues with its result. None changes nothing.
        paths: the paths of which tensors are kept; None for all. The memory of the others is freed early.
        marked: whether name scopes say in the traced program what was seen, for `graph.audit`.
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
        self.model, self.evaluating, self.watch, self._kept = model, evaluating, watch, paths
        self._marked = marked
        self.plain = not evaluating and watch is None and paths is None and not marked
        self.passes: list[Pass] = []
        self.paths: list[str] = []  # of the layers called, in order
        self.operations: set[str] = set()  # names of TensorFlow's operations that were seen as such
        self._layers = {id(layer) for layer in model._flatten_layers()}
        self._scope = _scope()
        self._stack: list[_Frame] = []
        self._inside = 0  # depth inside an activation that is being recorded
        self._inner: tuple | None = None  # the activation that the recorded one called last
        self._loop = ""  # what cannot be looked into, while it runs
        self._numbers: Counter = Counter()
        self._facts: dict[int, tuple] = {}  # id of a tensor -> the tensor, its groups, its axis of units
        self._mixed_formats = any(
            getattr(layer, "data_format", None) == "channels_first" for layer in model._flatten_layers()
        )

    @property
    def current(self) -> Pass:
        return self.passes[-1]

    @contextlib.contextmanager
    def calling(self, inputs: Any) -> Iterator[None]:
        """The model's own call, where it does not go through `Layer.__call__` (`stateless_call` on JAX)."""
        if self._stack:
            yield
            return
        with self._pass(self.model, inputs):
            self._stack.append(_Frame(self.model, (), 0, None))
            try:
                yield
            finally:
                self._stack.pop()

    @contextlib.contextmanager
    def _pass(self, root: keras.Operation, inputs: Any) -> Iterator[None]:
        flat = keras.tree.flatten(inputs)
        given = [x for x in flat if x is None or ops.is_tensor(x) or isinstance(x, np.ndarray)]
        self.passes.append(Pass(given))
        self._numbers.clear()
        try:
            yield
        finally:
            self._facts.clear()
            _finish(self.current)

    def call(self, layer: keras.Operation, original: Callable, args: tuple, kwargs: dict) -> Any:
        """Runs a call of a layer or operation, and what is in it one level deeper."""
        if self._inside or _symbolic(args, kwargs) or _in_backward():
            return original(layer, *args, **kwargs)
        if not self._stack:
            if id(layer) not in self._layers:  # a metric's or another model's
                with hooks.reporting_to(None):
                    return original(layer, *args, **kwargs)
            with self._pass(layer, args or kwargs):
                results = self._framed(layer, original, args, kwargs)
                self.current.results = keras.tree.flatten(results)
                outputs = {id(x) for x in self.current.results} if layer is self.model else set()
                for tap in (*self.current.activations, *self.current.outputs):
                    tap.is_output = id(tap.after) in outputs
                return results
        return self._framed(layer, original, args, kwargs)

    def _framed(self, layer, original, args, kwargs):
        path = self._stack[-1].path if self._stack else ()
        held = self._stack and _is_activation_of(layer, self._stack[-1].layer)
        if layer is not self.model and not held:
            path = (*path, layer.name)
        mask = backend.get_keras_mask(args[0]) if args and ops.is_tensor(args[0]) else None
        named = self._stack[-1].layer if held else layer
        frame = _Frame(named, path, len(self.current.activations), mask)
        self._stack.append(frame)
        try:
            self.paths.append("/".join(path))
            with self._scope_named(f"{LAYER_MARK}{len(self.paths) - 1}_"):
                results = original(layer, *args, **kwargs)
        finally:
            self._stack.pop()
        if held or self._loop or _scope() != self._scope:
            return results
        return self._returned(frame, args, results)

    def _returned(self, frame: _Frame, args: tuple, results: Any) -> Any:
        """Notes a layer's output."""
        flat = keras.tree.flatten(results)
        if not flat or not ops.is_tensor(flat[0]):
            return results
        after, path = flat[0], "/".join(frame.path)
        if isinstance(frame.layer, keras.layers.TimeDistributed):
            _merge_steps(self.current, frame.first, args[0].shape[1])
        returned = [
            tap for tap in self.current.activations[frame.first :] if tap.path == path and tap.after is after
        ]
        for tap in returned:
            tap.is_layer_output = True
        if not path:
            return results
        kind = RECURRENT if frame.recurrent else OUTPUT
        if isinstance(frame.layer, keras.layers.BatchNormalization):
            kind = NORM
        number = self._numbered(path, "output")
        if self.watch is not None:
            mask = backend.get_keras_mask(after)
            after = self.watch((path, number, True), after)
            if mask is not None:
                backend.set_keras_mask(after, mask)
            results = keras.tree.pack_sequence_as(results, [after, *flat[1:]])
        self._pass_on_facts(frame.layer, args, after)
        groups, axis = self._known(after)
        for tap in returned:  # a layer that applies its own activation says where its channels are
            tap.axis = axis
        mask = backend.get_keras_mask(after)
        tap = Tap(path, number, kind, frame.layer, None, after, None, mask, groups, axis)
        self._add(self.current.outputs, tap)
        return results

    def activation(self, kind: str, function: Callable, args: tuple, kwargs: dict, first: int = 0) -> Any:
        """Runs a call of an activation function, and notes what went in and came out."""
        before = args[first] if len(args) > first else next(iter(kwargs.values()), None)
        if not ops.is_tensor(before) or isinstance(before, keras.KerasTensor):
            return function(*args, **kwargs)
        if self._inside:
            after = function(*args, **kwargs)
            self._inner = kind, before, after
            return after
        if not self._stack or self._loop == hooks.RECURRENT_LAYER or _in_backward():
            return function(*args, **kwargs)
        frame = self._stack[-1]
        path = "/".join(frame.path)
        if self._loop or _scope() != self._scope:
            self.current.missed[path] = f"{kind} inside {self._loop or 'a compiled function'}"
            return function(*args, **kwargs)
        number = self._numbered(path, "activation")
        if self.watch is not None:
            before = self.watch((path, number, False), before)
        of_before = functools.partial(_at, function, args, kwargs, first)
        self._inside, self._inner = 1, None
        try:
            with self._scope_named(f"{MARK}{next(_marks)}_"):
                after = of_before(before)
        finally:
            self._inside = 0
        if self._inner is not None and self._inner[1] is before and self._inner[2] is after:
            kind = self._inner[0]  # a wrapper that does nothing else
        if ops.is_tensor(after) and len(after.shape) == len(before.shape):
            groups, axis = self._known(before)
            self._note(after, groups, axis)
            mask = frame.mask if _covers(frame.mask, before) else None
            tap = Tap(path, number, kind, frame.layer, before, after, of_before, mask, groups, axis)
            if all(a == b or None in (a, b) for a, b in zip(before.shape, after.shape, strict=True)):
                self._add(self.current.activations, tap)
        return after

    def by_value(self, kind: str, before: Any, after: Any, function: Callable) -> None:
        """Notes an activation that no hook of a function saw, only the backend (TensorFlow's operations)."""
        if self._inside:
            self._inner = kind, before, after
        if self._inside or not self._stack or self._loop == hooks.RECURRENT_LAYER:
            return
        frame = self._stack[-1]
        path = "/".join(frame.path)
        if self._loop or _scope() != self._scope:
            self.current.missed[path] = f"{kind} inside {self._loop or 'a compiled function'}"
            return
        self.operations.add(getattr(after, "name", "").split(":")[0])
        groups, axis = self._known(before)
        number = self._numbered(path, "activation")
        tap = Tap(path, number, kind, frame.layer, before, after, function, None, groups, axis)
        self._add(self.current.activations, tap)

    @contextlib.contextmanager
    def loop(self, name: str) -> Iterator[None]:
        """Where tensors cannot be read from."""
        previous, self._loop = self._loop, self._loop or name
        if name == hooks.RECURRENT_LAYER and self._stack:
            self._stack[-1].recurrent = True
        scope = (
            self._scope_named(RECURRENT_MARK) if name == hooks.RECURRENT_LAYER else contextlib.nullcontext()
        )
        try:
            with scope:
                yield
        finally:
            self._loop = previous

    def _scope_named(self, name: str) -> contextlib.AbstractContextManager:
        """A name scope, where marks are wanted: names change the order in which TensorFlow adds gradients."""
        return _named(name) if self._marked else contextlib.nullcontext()

    def concatenated(self, tensors: Sequence[Any], axis: int, result: Any) -> None:
        """Notes the groups of channels of a concatenation along the last axis."""
        if not self._stack or self._inside or not ops.is_tensor(result):
            return
        sizes = tuple(getattr(tensor, "shape", (None,))[-1] for tensor in tensors)
        if axis in (-1, len(result.shape) - 1) and len(sizes) > 1 and None not in sizes:
            self._note(result, sizes, self._known(result)[1])

    def _add(self, to: list[Tap], tap: Tap) -> None:
        tap.order = len(self.current.activations) + len(self.current.outputs)
        if self._kept is not None and tap.path not in self._kept:
            tap.before = tap.after = tap.function = tap.mask = None
        to.append(tap)

    def _numbered(self, path: str, what: str) -> int:
        self._numbers[path, what] += 1
        return self._numbers[path, what] - 1

    def _known(self, tensor: Any) -> tuple[tuple[int, ...], int | None]:
        _, groups, axis = self._facts.get(id(tensor), (None, (), None if self._mixed_formats else -1))
        return groups, -1 if len(tensor.shape) < 3 else axis

    def _note(self, tensor: Any, groups: tuple[int, ...], axis: int | None) -> None:
        if groups or self._mixed_formats:
            self._facts[id(tensor)] = tensor, groups, axis

    def _pass_on_facts(self, layer: keras.Operation, args: tuple, after: Any) -> None:
        """What is known of a layer's output from its own settings, or from what it reads."""
        form = getattr(layer, "data_format", None)
        read = [x for x in keras.tree.flatten(args) if ops.is_tensor(x)]
        if form in ("channels_first", "channels_last"):
            groups = self._facts.get(id(after), (None, ()))[1]
            self._note(after, groups, 1 if form == "channels_first" else -1)
        elif isinstance(layer, _KEEPING) and read:
            facts = {self._known(x) for x in read}
            if len(facts) == 1:
                self._note(after, *facts.pop())


@contextlib.contextmanager
def opened(model: keras.Model, **options: Any) -> Iterator[Taps]:
    """Collects what `model` computes in the calls that this thread makes meanwhile.

    Where taps of the same model are open already, and neither has options, these are given: two that count
    inside a training step see the same passes.

    Args:
        model: any Keras model.
        options: as for `Taps`.
    """
    outer = hooks.current()
    if not options and outer is not None and outer.model is model and outer.plain:
        yield outer
        return
    with hooks.reporting_to(Taps(model, **options)) as collecting:
        yield collecting


_KEEPING = (  # layers whose output channel u is their input channel u
    keras.layers.Add,
    keras.layers.BatchNormalization,
    keras.layers.Dropout,
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.SpatialDropout3D,
)


def _finish(found: Pass) -> None:
    """Drops what was seen in part, and names the rest."""
    found.activations = [tap for tap in found.activations if tap.path not in found.missed]
    times: Counter = Counter()
    for tap in found.activations:
        name = tap.path if tap.is_layer_output and tap.path else f"{tap.path}/{tap.kind}".lstrip("/")
        times[name] += 1
        tap.name = name if times[name] == 1 else f"{name}#{times[name]}"
    times.clear()
    for tap in found.outputs:
        times[tap.path] += 1
        tap.name = tap.path if times[tap.path] == 1 else f"{tap.path}#{times[tap.path]}"


def _merge_steps(found: Pass, first: int, steps: int | None) -> None:
    """Puts the activations of the steps of a `TimeDistributed` layer side by side, as positions."""
    taps = found.activations[first:]
    if not taps or not steps or len(taps) % steps:
        return
    each = len(taps) // steps
    for i in range(each):
        same = taps[i::each]
        for part in ("before", "after"):
            setattr(taps[i], part, ops.stack([getattr(tap, part) for tap in same], axis=1))
        taps[i].mask, taps[i].axis, taps[i].steps = None, -1, tuple(tap.key for tap in same)
    found.activations[first:] = taps[:each]


def _at(function: Callable, args: tuple, kwargs: dict, first: int, value: Any) -> Any:
    """`function`, with `value` in the place of the tensor it was called on."""
    if len(args) > first:
        return function(*args[:first], value, *args[first + 1 :], **kwargs)
    return function(*args, **{**kwargs, next(iter(kwargs)): value})


def _covers(mask: Any, tensor: Any) -> bool:
    return mask is not None and len(mask.shape) == 2 and len(tensor.shape) == 3


def _is_activation_of(layer: keras.Operation, holder: keras.Operation) -> bool:
    held = {**vars(holder), **getattr(holder, "_modules", {})}  # a PyTorch module keeps its layers apart
    return any(value is layer and "activation" in name for name, value in held.items())


def _symbolic(args: tuple, kwargs: dict) -> bool:
    return any(isinstance(x, keras.KerasTensor) for x in keras.tree.flatten((args, kwargs)))


def _scope() -> Any:
    """A token of the trace that is running: equal tokens can read each other's tensors."""
    name = keras.backend.backend()
    if name == "tensorflow":
        import tensorflow as tf

        return None if tf.executing_eagerly() else id(tf.compat.v1.get_default_graph())
    if name == "jax":
        import jax.extend

        return jax.extend.core.get_opaque_trace_state()
    import torch

    return torch._C._functorch.maybe_current_level()


def _in_backward() -> bool:
    """torch: whether a checkpointed layer is run once more, for the gradients."""
    if keras.backend.backend() != "torch":
        return False
    import torch

    return torch._C._current_graph_task_id() != -1


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    """A name scope in the traced program."""
    backend_name = keras.backend.backend()
    if backend_name == "tensorflow":
        import tensorflow as tf

        with tf.name_scope(name):
            yield
    elif backend_name == "jax":
        import jax

        with jax.named_scope(name):
            yield
    else:
        yield
