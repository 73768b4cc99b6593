"""A model as a check reads it: the calls of its layers in one traced training pass, and which reads which."""

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import keras
from keras import ops

from bnhead.graph import hooks, taps, trace

NORMS = (keras.layers.BatchNormalization,)
UNKNOWN = -1  # the producer of a tensor that no layer returned


@dataclass(frozen=True, eq=False)
class LayerCall:
    """One call of a layer or operation.

    Attributes:
        index: its place in the order of execution.
        path: names of the layers that are being called, joined by "/".
        name: the path, with "#2" for a second call.
        layer: the layer or operation.
        reads: indices of the calls whose outputs it reads; `UNKNOWN` for a tensor of the model's own `call`.
        shape: of its first input, without the batch; None for an unknown size.
        inside: indices of the calls that run inside it.
    """

    index: int
    path: str
    name: str
    layer: keras.Operation
    reads: tuple[int, ...]
    shape: tuple[int | None, ...]
    inside: tuple[int, ...]

    @property
    def is_norm(self) -> bool:
        """Whether it is a batch norm: it has a moving mean and a moving variance."""
        return is_norm(self.layer)

    @property
    def positions(self) -> int | None:
        """Values of a channel in one example: 1 for a vector, height x width for a map; None if unknown."""
        number = 1
        for size in self.shape[:-1]:
            if size is None:
                return None
            number *= size
        return number


def is_norm(layer: Any) -> bool:
    """Whether a layer is a batch norm or one of its variants."""
    return isinstance(layer, NORMS) or (hasattr(layer, "moving_mean") and hasattr(layer, "moving_variance"))


def trains(norm: keras.Layer) -> bool:
    """Whether a batch norm normalises by the batch in training; a frozen one uses its averages."""
    from bnhead.layers import FrozenBatchNormalization

    return bool(norm.trainable) and not isinstance(norm, FrozenBatchNormalization)


def is_random(layer: Any) -> bool:
    """Whether a layer drops units or adds noise in training, at a rate above 0."""
    name = type(layer).__name__.lower()
    if not any(word in name for word in ("drop", "noise", "stochasticdepth")) or is_norm(layer):
        return False
    rate = getattr(layer, "rate", getattr(layer, "stddev", 1.0))
    return not isinstance(rate, int | float) or rate > 0


@dataclass(frozen=True, eq=False)
class Net:
    """The calls of a model.

    Attributes:
        model: the model.
        calls: in the order of execution; empty if the model could not be traced.
        results: indices of the calls that made the model's outputs, in their order.
        untraced: why calls are missing; "" if they are not.
    """

    model: keras.Model
    calls: list[LayerCall]
    results: tuple[int, ...] = ()
    untraced: str = ""

    @cached_property
    def norms(self) -> list[LayerCall]:
        """The calls of batch norms."""
        return [call for call in self.calls if call.is_norm]

    @cached_property
    def training_norms(self) -> list[LayerCall]:
        """The calls of batch norms that normalise by the batch in training."""
        return [call for call in self.norms if trains(call.layer)]

    @property
    def norm_layers(self) -> list[keras.Layer]:
        """All batch norms, called or not."""
        return [layer for layer in self.model._flatten_layers() if is_norm(layer)]

    def readers(self, index: int) -> list[LayerCall]:
        """The calls that read an output, without the outer layers of those."""
        reading = [call for call in self.calls if index in call.reads]
        indices = {call.index for call in reading}
        return [call for call in reading if indices.isdisjoint(call.inside)]

    def before(self, call: LayerCall) -> set[int]:
        """Indices of all calls whose outputs reach a call.

        A tensor whose producer is unknown may depend on every earlier call.
        """
        reached: set[int] = set()
        pending = [call.index]
        while pending:
            current = self.calls[pending.pop()]
            for index in current.reads:
                earlier = range(current.index) if index == UNKNOWN else (index,)
                pending += [i for i in earlier if i not in reached]
                reached.update(earlier)
        return reached

    def random_before(self, call: LayerCall) -> list[LayerCall]:
        """The calls of dropout whose outputs reach a call, in the order of execution."""
        upstream = self.before(call) if self._random else ()
        return [earlier for earlier in self._random if earlier.index in upstream]

    @cached_property
    def _random(self) -> list[LayerCall]:
        return [call for call in self.calls if is_random(call.layer)]

    def made_by(self, call: LayerCall) -> LayerCall | None:
        """The call whose output is a call's only input; None without one."""
        return self.calls[call.reads[0]] if len(call.reads) == 1 and call.reads[0] >= 0 else None

    def feeding(self, call: LayerCall) -> list[LayerCall]:
        """The nearest calls before it that have kernels: the inputs of a batch norm."""
        readers: dict[int, LayerCall] = {}
        pending, visited = [call.index], set()
        while pending:
            for index in self.calls[pending.pop()].reads:
                if index < 0 or index in visited:
                    continue
                visited.add(index)
                if has_kernel(self.calls[index].layer):
                    readers[index] = self.calls[index]
                else:
                    pending.append(index)
        return list(readers.values())

    def path_of(self, layer: Any) -> str:
        """The path of a layer's first call; its name if it is not called."""
        return next((call.path for call in self.calls if call.layer is layer), layer.name)


def has_kernel(layer: Any) -> bool:
    """Whether a layer itself has a weight matrix or filters."""
    variables = [*getattr(layer, "_trainable_variables", ()), *getattr(layer, "_non_trainable_variables", ())]
    return any(len(weight.shape) > 1 for weight in variables)


def read_net(model: keras.Model, example: Any = None) -> Net:
    """The calls of a model, from one traced training pass that changes nothing.

    Args:
        model: a built Keras model.
        example: a batch of inputs; None uses the inputs that the model declares.

    Raises:
        UsageError: a model that is not built.
    """
    trace.require_built(model)
    inputs = trace.specs(model) if example is None else trace.abstract(example)
    if inputs is None:
        return Net(model, [], untraced="a model that does not declare its inputs needs data")
    recorders: list[_Recorder] = []

    def run(x):
        recorder = _Recorder(model)
        with keras.StatelessScope(), hooks.reporting_to(recorder):
            recorder.outputs = keras.tree.flatten(model(x, training=True))
        recorders.append(recorder)
        return [output for output in recorder.outputs if ops.is_tensor(output)]

    name = keras.backend.backend()
    if name == "tensorflow":
        import tensorflow as tf

        tf.function(trace.separate(run)).get_concrete_function(inputs)
    elif name == "jax":
        import jax

        jax.eval_shape(run, inputs)
    else:
        import torch

        with torch.no_grad():
            run(inputs)
    return recorders[-1].net()


@dataclass(eq=False)
class _Open:
    """A call that is running or has run."""

    path: str
    layer: keras.Operation
    inputs: list[Any]
    inside: list[int] = field(default_factory=list)
    index: int = UNKNOWN


class _Recorder(taps.Taps):
    """Taps that also record which call reads which tensor."""

    def __init__(self, model: keras.Model):
        super().__init__(model, evaluating=True, paths=())
        self.outputs: list[Any] = []
        self._open: list[_Open] = []
        self._done: list[_Open] = []
        self._producers: dict[int, int] = {}
        self._tensors: list[Any] = []  # holding them keeps their ids unique

    def call(self, layer, original, args, kwargs):
        tensors = [x for x in keras.tree.flatten((args, kwargs)) if ops.is_tensor(x)]
        if any(isinstance(x, keras.KerasTensor) for x in tensors) or (
            not self._open and layer is not self.model
        ):
            return super().call(layer, original, args, kwargs)
        outer = self._open[-1].path if self._open else ""
        path = "" if layer is self.model else f"{outer}/{layer.name}".lstrip("/")
        current = _Open(path, layer, tensors)
        self._open.append(current)
        try:
            results = super().call(layer, original, args, kwargs)
        finally:
            self._open.pop()
        self._tensors += tensors
        if not self._open:  # the model itself
            return results
        current.index = len(self._done)
        self._done.append(current)
        for opened in self._open:
            opened.inside.append(current.index)
        for tensor in keras.tree.flatten(results):
            if ops.is_tensor(tensor) and not any(tensor is x for x in tensors):  # else the identity
                self._tensors.append(tensor)
                # the innermost layer that returned it
                self._producers.setdefault(id(tensor), current.index)
        return results

    def net(self) -> Net:
        """The calls. Its tensors are freed with the recorder."""
        inputs = {id(x) for x in (self.passes[0].inputs if self.passes else ())}
        uses: Counter = Counter()
        calls = []
        for opened in self._done:
            uses[opened.path] += 1
            number = uses[opened.path]
            reads = [self._producers.get(id(x), UNKNOWN) for x in opened.inputs if id(x) not in inputs]
            # an output that a layer inside made is not read by the layer itself
            reads = [i for i in dict.fromkeys(reads) if i == UNKNOWN or i < opened.index]
            name = opened.path if number == 1 else f"{opened.path}#{number}"
            shape = tuple(opened.inputs[0].shape[1:]) if opened.inputs else ()
            calls.append(
                LayerCall(
                    opened.index, opened.path, name, opened.layer, tuple(reads), shape, tuple(opened.inside)
                )
            )
        results = tuple(
            self._producers[id(x)] for x in self.outputs if ops.is_tensor(x) and id(x) in self._producers
        )
        return Net(self.model, calls, results)
