"""The activation sites of a Keras model, and the selection of those to count."""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import keras

from bnhead.errors import UsageError, nearest
from bnhead.graph import functional, taps, trace


@dataclass(frozen=True)
class Site:
    """An activation or a layer's output, whose units can be counted.

    Attributes:
        name: the layer's path: `encoder/relu` inside the layer or nested model `encoder`, `relu#2` for a
            second call; `block/relu` for a function that the layer `block` calls before it computes its
            output.
        key: identifies it in every pass (`graph.taps.Tap.key`).
        kind: the activation's name, or "recurrent", "norm" or "output" for a layer's output.
        layer: the layer that calls it; None for a call by the model.
        units: number of units; None if unknown or undefined.
        positions: whether its output is a feature map or a sequence, not a vector.
        is_output: whether this is an output of the model.
        groups: sizes of the groups of channels of a preceding concatenation, or ().
        order: its index among all sites, in the order of execution.
        axis: the axis of its units; None if unknown.
        is_layer_output: whether the layer returns it unchanged.
        steps: keys of the calls that are its positions, under `TimeDistributed`, or ().
    """

    name: str
    key: tuple[str, int, bool]
    kind: str
    layer: keras.Operation | None
    units: int | None
    positions: bool
    is_output: bool
    groups: tuple[int, ...]
    order: int
    axis: int | None = -1
    is_layer_output: bool = True
    steps: tuple[tuple[str, int, bool], ...] = ()

    @property
    def rectifies(self) -> bool:
        """Whether it is 0 for every pre-activation of 0 or less, and positive above."""
        return self.kind in taps.RECTIFIERS

    @property
    def counts_by_default(self) -> bool:
        """Whether it is an activation with units, and not a weighting such as softmax."""
        return bool(self.units) and self.kind not in (*taps.NO_UNITS, taps.NORM, taps.OUTPUT)


@dataclass(frozen=True)
class Inventory:
    """The sites of a model.

    Attributes:
        model: the model's name.
        sites: in the order of execution.
        missed: path of a layer -> why an activation in it cannot be counted.
        classes: number of classes of the model's single output `(batch, outputs)`, 2 for one output unit; 0
            for other outputs.
        inputs: names of the model's inputs.
    """

    model: str
    sites: list[Site]
    missed: dict[str, str]
    classes: int
    inputs: list[str]

    @classmethod
    def of(cls, model: keras.Model, *passes: taps.Pass) -> "Inventory":
        """The sites in passes of a model, or of parts of it in a training step."""
        sites: dict[tuple, Site] = {}
        missed = {}
        for model_pass in passes:
            offset = len(sites)
            for tap in (*model_pass.activations, *model_pass.outputs):
                if tap.key not in sites:
                    sites[tap.key] = Site(
                        name=tap.name,
                        key=tap.key,
                        kind=tap.kind,
                        layer=tap.layer,
                        units=tap.units,
                        positions=len(tap.output.shape) > 2,
                        is_output=tap.is_output,
                        groups=tap.groups,
                        order=tap.order + offset,
                        axis=tap.axis,
                        is_layer_output=tap.is_layer_output or tap.pre_activation is None,
                        steps=tap.steps,
                    )
            missed |= model_pass.missed
        for site in sites.values():
            if not site.units and site.kind not in (taps.OUTPUT, taps.NORM, *taps.NO_UNITS):
                missed.setdefault(site.name, f"{site.kind} whose axis of units is not known")
        shapes = [tuple(result.shape) for result in passes[-1].results]
        outputs = shapes[0][1] if len(shapes) == 1 and len(shapes[0]) == 2 else None
        graph, inputs = functional(model), ["the inputs"]
        if graph is not None and getattr(graph, "inputs", None):
            inputs = [f"input {tensor.name!r}" for tensor in keras.tree.flatten(graph._inputs_struct)]
        return cls(
            model.name,
            sorted(sites.values(), key=lambda site: site.order),
            missed,
            max(2, outputs) if outputs else 0,
            inputs,
        )

    def watched(self, counted: Sequence[Site]) -> list[Site]:
        """The sites whose values must be finite: the counted ones and every rectifier.

        A rectifier may turn NaN into silence.
        """
        keys = {site.key for site in counted}
        return [site for site in self.sites if site.rectifies or site.key in keys]

    @property
    def activations(self) -> list[Site]:
        """All activations, except softmax and except a smooth activation at the model's output."""
        counted = [site for site in self.sites if site.counts_by_default]
        return [site for site in counted if site.rectifies or not site.is_output]

    @property
    def norms(self) -> list[Site]:
        """All batch norms. A dead unit is constant after one."""
        return [site for site in self.sites if site.kind == taps.NORM and site.units]

    @property
    def default(self) -> list[Site]:
        """The last activation before the output.

        In a head with an FC layer that is the FC layer. In a net whose pooling feeds the output it is the
        backbone's last activation, which the pooling reads.

        Raises:
            UsageError: the model has no such activation.
        """
        inner = [site for site in self.activations if not site.is_output]
        if not inner:
            reasons = f" ({'; '.join(self.not_looked_at)})" if self.missed else ""
            candidates = self._candidates()
            raise UsageError(
                f"model {self.model!r} has no activation before its output{reasons}; name the layers to count"
                f"{f', such as {candidates}' * bool(candidates)}"
            )
        return inner[-1:]

    def _candidates(self, most: int = 5) -> str:
        """Names of layers that can be counted at their output, the last ones before the model's output."""
        names = dict.fromkeys(site.name for site in self.sites if site.units and not site.is_output)
        return ", ".join(repr(name) for name in list(names)[-most:])

    @property
    def not_looked_at(self) -> list[str]:
        """One line for each layer with an activation that cannot be counted."""
        return [f"{path or self.model}: {reason}" for path, reason in self.missed.items()]

    def select(self, layers: Sequence[Any] | str | None) -> list[Site]:
        """The sites that `layers` selects.

        Args:
            layers: None for `default`; "all" for every activation; "norms" for every batch norm; or a
                sequence of names, layers and these two words. A layer without an activation is counted at its
                output. A name may be a pattern, such as "stage3_*", of `*`, `?` and `[...]` (`fnmatch`): it
                selects all activations that match, or all other layers that do if no activation does.

        Raises:
            UsageError: a layer that is not called or has no units, with the nearest name.
        """
        if layers is None:
            return self.default
        sites: dict[str, Site] = {}
        for item in [layers] if isinstance(layers, str) else list(layers):
            sites |= {site.name: site for site in self._named(item)}
        if not sites:
            reasons = f": {'; '.join(self.not_looked_at)}" if self.missed else ""
            raise UsageError(f"layers must name at least one layer that model {self.model!r} runs{reasons}")
        return list(sites.values())

    def _named(self, item: Any) -> list[Site]:
        if isinstance(item, keras.Operation):
            names = [site.name for site in self.sites if site.layer is item and site.key[2]]
            if not names:
                raise UsageError(f"layers: model {self.model!r} does not call this layer {item.name!r}")
            item = names[0]
        # an activation takes precedence over the output of the same name
        activations = {site.name: site for site in self.sites if site.kind != taps.OUTPUT}
        by_name = {**{site.name: site for site in self.sites}, **activations}
        if item == "all" and item not in by_name:
            return self.activations
        if item == "norms" and item not in by_name:
            return self.norms
        if item not in by_name and set(str(item)) & set("*?["):
            matching = [site for site in by_name.values() if site.units and fnmatchcase(site.name, item)]
            if matching:
                return [site for site in matching if site in self.activations] or matching
        if item not in by_name:
            raise UsageError(
                f"layers: model {self.model!r} has no layer {item!r}{nearest(str(item), by_name)}"
            )
        if not by_name[item].units:
            raise UsageError(f"layers: {item!r} must have one output of shape (batch, ..., units)")
        return [by_name[item]]


def inventory_of(model: keras.Model, example: Any = None) -> Inventory:
    """The sites of a model, from one traced pass in evaluation mode.

    Args:
        model: a built Keras model.
        example: a batch of inputs; needed if the model does not declare its inputs (subclassed models).

    Raises:
        UsageError: a model that is not built, or whose inputs are not known.
    """
    trace.require_built(model)
    inputs = trace.specs(model)
    inputs = example if inputs is None else inputs
    if inputs is None:
        raise UsageError(f"model {model.name!r}: its inputs are not known; pass data to count on")
    return Inventory.of(model, trace.forward(model, inputs))


def activations(model: keras.Model) -> list[Site]:
    """All activations of a functional or Sequential model (`Inventory.activations`)."""
    return inventory_of(model).activations


def default_layers(model: keras.Model) -> list[str]:
    """Names of the layers that are counted by default: the last activation before the output."""
    return [site.name for site in inventory_of(model).default]
