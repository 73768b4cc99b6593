"""Many heads in one program: they read the same features, so a step gathers and normalises these once.

A head alone keeps a processor waiting: its products are small, and every step is a call from Python. `Stack`
trains all heads of a seed together, a batched product per layer, and an epoch is one call. Each head ends as
it would have alone: the same batches, initial weights, random masks, schedule and optimizer.

Heads with the same layers and about the same widths share tensors, whose first axis is the head; the narrower
ones are padded, to less than twice their width, with units whose weights are 0 and stay 0. The same program
trains other heads, too. Heads that read the examples in another order, those of another seed, have a
program of the same form: TensorFlow runs the same graph again with their values, on JAX all orders are one
`vmap` over the `scan` of an epoch, whose steps gather the features of all heads at once.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops
from keras.src.losses.losses import LossFunctionWrapper

from bnhead import layers as ours
from bnhead.errors import UsageError
from bnhead.frozen import batched, updates
from bnhead.graph import calls

Tensor = Any
State = Mapping[str, Any]
_PER_HEAD = ("name", "seed", "units", "kernel_initializer", "bias_initializer")  # settings that may differ


def obstacle(model: keras.Model) -> str:
    """Why a head cannot be stacked, in a clause; "" if it can.

    Args:
        model: a compiled model from features to outputs.
    """
    if keras.backend.backend() not in ("tensorflow", "jax"):
        return f"the backend is {keras.backend.backend()}"
    if calls.functional(model) is None:
        return "its class defines what it computes"
    chain = calls.model_calls(model)
    for call in chain:
        layer = call.operation
        is_chained = len(call.inputs) == 1 or isinstance(layer, ours.ClassConditionalDropout)
        if not isinstance(layer, keras.Layer) or not is_chained or calls.nested(call) is not None:
            return f"{call.operation.name} is not a layer of one input"
        if {layer.compute_dtype, layer.variable_dtype} != {chain[-1].operation.variable_dtype}:
            return f"{layer.name} computes in {layer.compute_dtype}"
        if getattr(layer, "lora_enabled", False) or getattr(layer, "activity_regularizer", None):
            return f"{layer.name} adds a loss or weights"
    if len(chain) != len({id(call.operation) for call in chain}) or len(model.outputs) != 1:
        return "it has several outputs, or calls a layer twice"
    for variable in model.trainable_variables:
        if variable.regularizer is not None or variable.constraint is not None:
            return f"{variable.path} has a regularizer or a constraint"
    if reason := updates.obstacle(model.optimizer):
        return reason
    if not isinstance(model.loss, str | keras.losses.Loss) and not callable(model.loss):
        return "it has several losses"
    if _loss_of(model).reduction != "sum_over_batch_size":
        return "its loss is no mean of the examples' losses"
    if _metrics_of(model) is None:
        return "it has other metrics than the accuracy of class numbers"
    return ""


@dataclass(frozen=True)
class Run:
    """A head in a stack: its order of the examples, its program and its place in it."""

    order: int
    program: int
    group: int
    head: int


class _Group:
    """Heads with the same layers, as the template of a program: no values of a run.

    Args:
        models: one for each head.
    """

    def __init__(self, models: Sequence[keras.Model]):
        chains = [[call.operation for call in calls.model_calls(model)] for model in models]
        self.positions = list(zip(*chains, strict=True))
        self.optimizer, self.loss = models[0].optimizer, _loss_of(models[0])
        self.metrics = _metrics_of(models[0])
        self.named = [[batched.named_variables(layer) for layer in layers] for layers in self.positions]
        trained = {id(variable) for model in models for variable in model.trainable_variables}
        self.trained = [
            (position, name)
            for position, named in enumerate(self.named)
            for name, variable in named[0].items()
            if id(variable) in trained
        ]
        self.shapes = {
            (position, name): tuple(
                np.max([variables[name].shape for variables in named], axis=0).astype(int)
            )
            for position, named in enumerate(self.named)
            for name in named[0]
        }
        decays = models[0].optimizer._use_weight_decay
        self.decayed = [decays(self.named[p][0][name]) for p, name in self.trained]
        schedules = [_schedule_of(model.optimizer) for model in models]
        texts = [_text(schedule) for schedule in schedules]
        self.schedules = [schedules[texts.index(text)] for text in dict.fromkeys(texts)]
        self.schedule_of = np.array([list(dict.fromkeys(texts)).index(text) for text in texts])

    def initial(self, values: Sequence[Mapping[str, Any]]) -> State:
        """The stacked values of the heads, each as `_values_of` returned it."""
        weights = {
            f"{position}/{name}": _padded(
                [copies["weights"][position][name] for copies in values], self.shapes[position, name]
            )
            for position, name in self.shapes
        }
        slots = [
            [
                _padded(parts, self.shapes[key])
                for parts in zip(*(copies["slots"][i] for copies in values), strict=True)
            ]
            for i, key in enumerate(self.trained)
        ]
        return {"weights": weights, "slots": slots, "iterations": np.asarray(values[0]["iterations"])}

    def step(self, state: State, batch: batched.Batch) -> tuple[State, dict[str, Tensor]]:
        """One step of all heads: the new state, and sums of loss and metrics over the batch."""
        keys = [f"{position}/{name}" for position, name in self.trained]
        trained = [state["weights"][key] for key in keys]

        def loss_of(trained):
            weights = {**state["weights"], **dict(zip(keys, trained, strict=True))}
            values = [
                {name: weights[f"{position}/{name}"] for name in named[0]}
                for position, named in enumerate(self.named)
            ]
            outputs, new = batched.forward(self.positions, values, batch)
            losses = self._losses(outputs, batch.y)
            changed = {
                f"{p}/{name}": value for p, variables in enumerate(new) for name, value in variables.items()
            }
            # not `ops.mean`, which is float32 inside on JAX
            return ops.sum(losses) / losses.shape[1], (outputs, losses, changed)

        gradients, (outputs, losses, changed) = _gradients(loss_of, trained)
        trained, slots = self._updated(trained, gradients, state["slots"], state["iterations"])
        weights = {**state["weights"], **changed, **dict(zip(keys, trained, strict=True))}
        weights = {key: ops.cast(value, state["weights"][key].dtype) for key, value in weights.items()}
        sums = {"loss": ops.sum(losses, 1)}
        for name in self.metrics:
            hits = ops.equal(ops.argmax(outputs, -1), ops.cast(ops.reshape(batch.y, (1, -1)), "int32"))
            sums[name] = ops.sum(ops.cast(hits, losses.dtype), 1)
        return {"weights": weights, "slots": slots, "iterations": state["iterations"] + 1}, sums

    def _updated(
        self, trained: list[Tensor], gradients: list[Tensor], slots: list[list[Tensor]], iterations: Tensor
    ) -> tuple[list[Tensor], list[list[Tensor]]]:
        """New weights and slots."""
        rates = [ops.cast(schedule(iterations), keras.config.floatx()) for schedule in self.schedules]
        rates = ops.take(ops.stack(rates), self.schedule_of)
        stepped = [
            updates.updated(self.optimizer, *pair, rates, iterations, slot, decayed=decayed)
            for *pair, slot, decayed in zip(trained, gradients, slots, self.decayed, strict=True)
        ]
        return [weight for weight, _ in stepped], [slot for _, slot in stepped]

    def _losses(self, outputs: Tensor, y: Tensor) -> Tensor:
        """`(heads, batch)`."""
        heads, examples = outputs.shape[:2]
        flat = ops.reshape(ops.cast(outputs, self.loss.dtype), (heads * examples, *outputs.shape[2:]))
        repeated = ops.tile(y, (heads, *[1] * (len(y.shape) - 1)))
        repeated = ops.cast(repeated, self.loss.dtype)  # as Keras casts all targets
        return ops.reshape(self.loss.call(repeated, flat), (heads, examples))


class _Program:
    """The compiled epoch of the heads of one order.

    Args:
        groups: the groups of the heads.
    """

    def __init__(self, groups: Sequence[_Group]):
        self.groups = groups
        layers = (layer for group in groups for layers in group.positions for layer in layers)
        draws = any("seed_generator" in variable.path for layer in layers for variable in layer.variables)
        self._epoch = _compiled(self.epoch, draws)

    def epoch(self, states: list[State], x: Tensor, y: Tensor, indices: Tensor) -> tuple[list[State], list]:
        """The states after the steps, and the sums of loss and metrics over them.

        Args:
            states: of the groups.
            x, y: all examples.
            indices: `(steps, batch)`, those of each step.
        """
        dtype = self.groups[0].positions[-1][0].compute_dtype

        def step(carried, rows):
            states, totals = carried
            batch = batched.Batch(ops.cast(ops.take(x, rows, axis=0), dtype), ops.take(y, rows, axis=0))
            stepped = [group.step(state, batch) for group, state in zip(self.groups, states, strict=True)]
            totals = [
                {name: total[name] + sums[name] for name in sums}
                for total, (_, sums) in zip(totals, stepped, strict=True)
            ]
            return [state for state, _ in stepped], totals

        zeros = [
            {name: ops.zeros(len(group.positions[0]), group.loss.dtype) for name in ("loss", *group.metrics)}
            for group in self.groups
        ]
        return _loop(step, (states, zeros), indices)

    def run(self, states: Any, x: Tensor, y: Tensor, indices: np.ndarray) -> tuple[Any, Any]:
        """`epoch` for several orders, `indices` `(orders, steps, batch)`: states and sums for `_of`."""
        if keras.backend.backend() == "tensorflow":
            # as int64: TensorFlow keeps int32 in the host's memory
            results = [
                self._epoch(state, x, y, ops.convert_to_tensor(rows, "int64"))
                for state, rows in zip(states, indices, strict=True)
            ]
            return [state for state, _ in results], [sums for _, sums in results]
        return self._epoch(states, x, y, ops.convert_to_tensor(indices, "int32"))


class Stack:
    """Compiled models that train together on the same features. Add all, train, and take them back.

    Args:
        x: `(examples, ...)` features, numbers of any type.
        y: `(examples, ...)` labels or targets, as the models' losses take them.
    """

    def __init__(self, x: np.ndarray, y: np.ndarray):
        self._x, self._y = ops.convert_to_tensor(x), ops.convert_to_tensor(y)
        self._models: list[tuple[int, str, keras.Model, dict]] = []  # order, kind, model, values
        self._runs: list[Run] = []
        self._programs: list[_Program] = []
        self._orders: list[list[int]] = []  # of each program
        self._states: list[Any] = []

    def add(self, model: keras.Model, order: int = 0) -> int:
        """Adds a head with the values that the model has now, and returns its number.

        The model itself is not changed; the same object may be added again with other values.

        Args:
            model: compiled, from features to outputs.
            order: heads with the same number see the same batches.

        Raises:
            UsageError: the model cannot be stacked, or the stack has begun.
        """
        if self._programs:
            raise UsageError("the stack has begun to train; add all models before")
        if reason := obstacle(model):
            raise UsageError(f"model {model.name!r} cannot be stacked: {reason}")
        model.optimizer.build(model.trainable_variables)
        self._models.append((order, _structure(model), model, _values_of(model)))
        return len(self._models) - 1

    def epoch(self, indices: Mapping[int, np.ndarray], batch_size: int) -> list[dict[str, float]]:
        """Trains all heads for an epoch.

        Args:
            indices: order -> `(examples,)` indices of the examples, in the order of the epoch; equally many
                in all orders.
            batch_size: of a step; a last partial batch is trained too.

        Returns:
            For each head, in the order of `add`: `loss` and `accuracy`, if the model has it, the means over
            the examples, as `fit` logs them.
        """
        if not self._programs:
            self._begin()
        size = len(next(iter(indices.values())))
        full = size - size % batch_size
        logs: list[dict[str, float]] = [{} for _ in self._runs]
        for start, end in ((0, full), (full, size)):
            if start == end:
                continue
            shape = (-1, min(batch_size, end - start))
            sums = []
            for number, (program, orders) in enumerate(zip(self._programs, self._orders, strict=True)):
                rows = np.stack([indices[order][start:end].reshape(shape) for order in orders])
                self._states[number], part = program.run(self._states[number], self._x, self._y, rows)
                sums.append(keras.tree.map_structure(ops.convert_to_numpy, part))
            for run, log in zip(self._runs, logs, strict=True):
                for name, total in _of(sums[run.program], run).items():
                    share = float(_of_order(total, run)[run.head]) / size
                    log[name] = log.get(name, 0.0) + share
        return logs

    def assign(self, number: int, model: keras.Model) -> None:
        """Gives a model the values of a head: weights, random states and the optimizer's variables.

        Args:
            number: of the head, as `add` returned it.
            model: of the same structure as the one that was added.
        """
        if not self._programs:
            self._begin()
        run = self._runs[number]
        state = _of(self._states[run.program], run)
        model.optimizer.build(model.trainable_variables)
        pairs = []
        for position, call in enumerate(calls.model_calls(model)):
            named = batched.named_variables(call.operation)
            pairs += [(variable, state["weights"][f"{position}/{name}"]) for name, variable in named.items()]
        for variables, slots in zip(updates.slots_of(model.optimizer), state["slots"], strict=True):
            pairs += zip(variables, slots, strict=True)
        for variable, stacked in pairs:
            variable.assign(batched.cropped(_of_order(stacked, run)[run.head], variable.shape))
        model.optimizer.iterations.assign(_of_order(state["iterations"], run))

    def _begin(self) -> None:
        """Groups the heads, and stacks their values."""
        runs: dict[int, Run] = {}
        of_order: dict[int, dict[str, list[int]]] = {}
        for number, (order, structure, _, _) in enumerate(self._models):
            of_order.setdefault(order, {}).setdefault(structure, []).append(number)
        for structures in of_order.values():  # heads of one width are neighbours, in every order the same
            for numbers in structures.values():
                numbers.sort(
                    key=lambda n: (self._widths(n), _text(_schedule_of(self._models[n][2].optimizer)))
                )
        forms: dict[Any, list[int]] = {}
        for order, structures in of_order.items():
            form = tuple(
                (structure, tuple(self._form(number) for number in structures[structure]))
                for structure in sorted(structures)
            )
            forms.setdefault(form, []).append(order)
        for orders in forms.values():
            structures = sorted(of_order[orders[0]])
            groups = [
                _Group([self._models[number][2] for number in of_order[orders[0]][structure]])
                for structure in structures
            ]
            states = []
            for index, order in enumerate(orders):
                states.append([])
                for group, structure in enumerate(structures):
                    numbers = of_order[order][structure]
                    states[-1].append(groups[group].initial([self._models[n][3] for n in numbers]))
                    for head, number in enumerate(numbers):
                        runs[number] = Run(index, len(self._programs), group, head)
            if keras.backend.backend() == "jax":
                states = keras.tree.map_structure(lambda *values: np.stack(values), *states)
            self._programs.append(_Program(groups))
            self._orders.append(orders)
            self._states.append(keras.tree.map_structure(ops.convert_to_tensor, states))
        self._runs = [runs[number] for number in range(len(self._models))]
        self._models = []  # the programs hold what they need

    def _widths(self, number: int) -> tuple:
        return tuple(tuple(v.shape) for v in self._models[number][2].trainable_variables)

    def _form(self, number: int) -> tuple:
        """Two heads with the same form can exchange their places in a program."""
        return self._widths(number), _text(_schedule_of(self._models[number][2].optimizer))


def _structure(model: keras.Model) -> str:
    """A text that is equal for heads that share tensors: layers, loss, optimizer, about the width."""
    chain = []
    for call in calls.model_calls(model):
        layer = call.operation
        config = {key: value for key, value in layer.get_config().items() if key not in _PER_HEAD}
        # a function of several units, such as softmax, would read the padding
        may_pad = getattr(layer, "activation", None) in (None, *batched.ELEMENTWISE)
        widths = [batched.bucket(size or 1) if may_pad else size for size in layer.output.shape[1:]]
        chain.append([type(layer).__name__, config, widths])
    optimizer = model.optimizer.get_config()
    for name in ("name", "learning_rate"):
        optimizer.pop(name)
    decays = [model.optimizer._use_weight_decay(variable) for variable in model.trainable_variables]
    loss, steps = _loss_of(model), int(model.optimizer.iterations)
    settings = [type(loss).__name__, loss.get_config(), type(model.optimizer).__name__, optimizer, decays]
    return _text([chain, settings, steps, _metrics_of(model), tuple(model.output.shape[1:])])


def _text(content: Any) -> str:
    """The same text for equal content: JSON, with Keras objects as their configs."""

    def plain(value):
        if hasattr(value, "get_config"):
            return [type(value).__name__, value.get_config()]
        return value.item() if isinstance(value, np.generic) else repr(value)

    return json.dumps(content, sort_keys=True, default=plain)


def _values_of(model: keras.Model) -> dict[str, Any]:
    """Copies of a model's variables: of each layer by name, and the optimizer's."""

    def copy(variable):
        return np.array(ops.convert_to_numpy(variable))

    return {
        "weights": [
            {name: copy(variable) for name, variable in batched.named_variables(call.operation).items()}
            for call in calls.model_calls(model)
        ],
        "slots": [list(map(copy, slots)) for slots in updates.slots_of(model.optimizer)],
        "iterations": copy(model.optimizer.iterations),
    }


def _schedule_of(optimizer: keras.optimizers.Optimizer) -> Any:
    """The learning rate as a function of the step."""
    if isinstance(optimizer._learning_rate, keras.optimizers.schedules.LearningRateSchedule):
        return optimizer._learning_rate
    return _Constant(float(ops.convert_to_numpy(optimizer.learning_rate)))


class _Constant(keras.optimizers.schedules.LearningRateSchedule):
    def __init__(self, rate: float):
        self._rate = rate

    def __call__(self, step):
        return ops.convert_to_tensor(self._rate, keras.config.floatx())

    def get_config(self):
        return {"rate": self._rate}


def _loss_of(model: keras.Model) -> keras.losses.Loss:
    """The loss as an object; of a function, as Keras wraps it."""
    loss = keras.losses.get(model.loss)
    return loss if isinstance(loss, keras.losses.Loss) else LossFunctionWrapper(loss, name=loss.__name__)


def _metrics_of(model: keras.Model) -> list[str] | None:
    """The names of a model's metrics if all are the accuracy of class numbers, else None."""
    if model._compile_metrics is None:
        return []
    names = []
    metrics = model._compile_metrics._user_metrics, model._compile_metrics._user_weighted_metrics
    for metric in keras.tree.flatten([group or [] for group in metrics]):
        if isinstance(metric, keras.metrics.SparseCategoricalAccuracy):
            names.append(metric.name)
        elif metric in ("accuracy", "acc", "sparse_categorical_accuracy") and _reads_class_numbers(model):
            names.append(metric)
        else:
            return None
    return names


def _reads_class_numbers(model: keras.Model) -> bool:
    return _loss_of(model).name == keras.losses.SparseCategoricalCrossentropy().name


def _padded(arrays: Sequence[np.ndarray], shape: Sequence[int]) -> np.ndarray:
    """`(len(arrays), *shape)`: each array with zeros after it."""
    stacked = np.zeros((len(arrays), *shape), arrays[0].dtype)
    for row, array in enumerate(arrays):
        stacked[(row, *map(slice, array.shape))] = array
    return stacked


def _of(values: Any, run: Run) -> Any:
    """The part of a program's states or sums for a run's group, on TensorFlow in the run's order alone."""
    return values[run.order][run.group] if keras.backend.backend() == "tensorflow" else values[run.group]


def _of_order(value: Tensor, run: Run) -> Tensor:
    """What such a part has for the order of a run: on JAX its first axis are the orders."""
    return value if keras.backend.backend() == "tensorflow" else value[run.order]


def _gradients(loss_of: Any, values: list[Tensor]) -> tuple[list[Tensor], Any]:
    """The gradients of a function's first result, and its other results."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.grad(loss_of, has_aux=True)(values)
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(values)
        loss, further = loss_of(values)
    return tape.gradient(loss, values, unconnected_gradients="zero"), further


def _loop(step: Any, carried: Any, rows: Tensor) -> Any:
    """`carried` after `step(carried, rows[i])` for every i."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.lax.scan(lambda carried, row: (step(carried, row), None), carried, rows)[0]
    import tensorflow as tf

    flat, steps = keras.tree.flatten(carried), rows.shape[0]

    def body(number, *flat):
        stepped = step(keras.tree.pack_sequence_as(carried, flat), rows[number])
        return number + 1, *keras.tree.flatten(stepped)

    # TensorFlow keeps int32 in the host's memory, and so the counter
    loop = tf.while_loop(lambda number, *_: number < steps, body, (0, *flat), parallel_iterations=1)
    return keras.tree.pack_sequence_as(carried, loop[1:])


def _compiled(epoch: Any, draws: bool) -> Any:
    """An epoch, compiled by XLA; on JAX for all orders, which are the first axis of states and indices.

    On a CPU XLA's steps of small heads take half as long as TensorFlow's (64 features, 8 different heads). If
    layers draw random numbers TensorFlow computes them, since XLA's numbers are others than Keras'.
    """
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(jax.vmap(epoch, in_axes=(0, None, None, 0)), donate_argnums=0)
    import tensorflow as tf

    return tf.function(epoch, autograph=False, jit_compile=not draws)
