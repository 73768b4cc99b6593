"""What to count in a Keras model: every activation that a forward pass runs, or what is named."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras

from bnhead.errors import UsageError, nearest
from bnhead.graph import taps, trace


@dataclass(frozen=True)
class Site:
    """A place in a model whose units can be counted.

    Attributes:
        name: the layer's path: `encoder/relu` inside the layer or nested model `encoder`, `relu#2` for a
            second call; `block/relu` for a function that the layer `block` calls and does something else
            after.
        key: what identifies it in every pass (`graph.taps.Tap.key`).
        kind: the activation's name, or "recurrent", "norm" or "output" for what a layer returns.
        layer: the layer that calls it; None directly under the model.
        units: number of units; None where there is no such thing, or it is not known.
        positions: whether its output is a feature map or a sequence rather than a vector.
        is_output: whether this is an output of the model.
        groups: sizes of the groups of channels that a concatenation before it put side by side, or ().
        order: its place among all sites, as they ran.
        axis: the axis of its units; None where it is not known.
        is_layer_output: whether the layer returns it as it is.
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
    """What a forward pass of a model ran.

    Attributes:
        model: the model's name.
        sites: in the order in which they ran.
        missed: path of a layer -> why an activation there was not looked at.
        classes: number of classes that the model's one output `(batch, outputs)` tells apart, 2 for a single
            one; 0 for other outputs.
    """

    model: str
    sites: list[Site]
    missed: dict[str, str]
    classes: int

    @classmethod
    def of(cls, model: keras.Model, *passes: taps.Pass) -> "Inventory":
        """What the passes saw, which are those of a whole model, or of parts of it in a training step."""
        every, missed = {}, {}
        for seen in passes:
            after = len(every)
            every |= {
                tap.key: _site(tap, after)
                for tap in (*seen.activations, *seen.outputs)
                if tap.key not in every
            }
            missed |= seen.missed
        every = list(every.values())
        for site in every:
            if not site.units and site.kind not in (taps.OUTPUT, taps.NORM, *taps.NO_UNITS):
                missed.setdefault(site.name, f"{site.kind} whose axis of units is not known")
        every.sort(key=lambda site: site.order)
        shapes = [tuple(result.shape) for result in passes[-1].results]
        outputs = shapes[0][1] if len(shapes) == 1 and len(shapes[0]) == 2 else None
        return cls(model.name, every, missed, max(2, outputs) if outputs else 0)

    def watched(self, counted: Sequence[Site]) -> list[Site]:
        """The sites whose values must be finite: the counted ones, and every rectifier.

        A rectifier may turn NaN into silence.
        """
        keys = {site.key for site in counted}
        return [site for site in self.sites if site.rectifies or site.key in keys]

    @property
    def activations(self) -> list[Site]:
        """Every activation worth counting: not softmax, and no smooth one at the model's output."""
        counted = [site for site in self.sites if site.counts_by_default]
        return [site for site in counted if site.rectifies or not site.is_output]

    @property
    def norms(self) -> list[Site]:
        """Every batch norm, where a dead unit turns constant."""
        return [site for site in self.sites if site.kind == taps.NORM and site.units]

    @property
    def default(self) -> list[Site]:
        """The last activation before the output.

        In a head with an FC layer that is the FC layer; in a net that goes from the pooling straight to the
        output it is the backbone's last activation, the units that the pooling reads.

        Raises:
            UsageError: there is none.
        """
        before = [site for site in self.activations if not site.is_output]
        if not before:
            seen = f" ({'; '.join(self.not_looked_at)})" if self.missed else ""
            raise UsageError(
                f"model {self.model!r} has no activation before its output{seen}; name the layers to count"
            )
        return before[-1:]

    @property
    def not_looked_at(self) -> list[str]:
        """A line for each layer with an activation that could not be seen."""
        return [f"{path or self.model}: {why}" for path, why in self.missed.items()]

    def select(self, layers: Sequence[Any] | str | None) -> list[Site]:
        """The sites that `layers` asks for.

        Args:
            layers: None for `default`; "all" for every activation; "norms" for every batch norm; or a
                sequence of names, layers and these two words. A layer without an activation is counted at its
                output.

        Raises:
            UsageError: a layer that is not called or has no units, with the nearest name.
        """
        if layers is None:
            return self.default
        chosen: list[Site] = []
        for item in [layers] if isinstance(layers, str) else list(layers):
            chosen += self._named(item)
        if not chosen:
            why = f": {'; '.join(self.not_looked_at)}" if self.missed else ""
            raise UsageError(f"layers must name at least one layer that model {self.model!r} runs{why}")
        return list({site.name: site for site in chosen}.values())

    def _named(self, item: Any) -> list[Site]:
        if isinstance(item, keras.Operation):
            returned = [site.name for site in self.sites if site.layer is item and site.key[2]]
            if not returned:
                raise UsageError(f"layers: model {self.model!r} does not call this layer {item.name!r}")
            item = returned[0]
        activations = {site.name: site for site in self.sites if site.kind != taps.OUTPUT}
        every = {**{site.name: site for site in self.sites}, **activations}
        if item == "all" and item not in every:
            return self.activations
        if item == "norms" and item not in every:
            return self.norms
        if item not in every:
            raise UsageError(f"layers: model {self.model!r} has no layer {item!r}{nearest(str(item), every)}")
        if not every[item].units:
            raise UsageError(f"layers: {item!r} must have one output of shape (batch, ..., units)")
        return [every[item]]


def _site(tap: taps.Tap, after: int) -> Site:
    return Site(
        name=tap.name,
        key=tap.key,
        kind=tap.kind,
        layer=tap.layer,
        units=tap.units,
        positions=len(tap.after.shape) > 2,
        is_output=tap.is_output,
        groups=tap.groups,
        order=tap.order + after,
        axis=tap.axis,
        is_layer_output=tap.is_layer_output or tap.before is None,
        steps=tap.steps,
    )


def inventory_of(model: keras.Model, example: Any = None) -> Inventory:
    """What a forward pass of a model runs, in evaluation mode.

    Args:
        model: a built Keras model.
        example: inputs of a batch; needed where the model's inputs are not known (subclassed models).

    Raises:
        UsageError: a model that is not built, or whose inputs are not known.
    """
    trace.require_built(model)
    inputs = trace.specs(model)
    inputs = example if inputs is None else inputs
    if inputs is None:
        raise UsageError(f"model {model.name!r}: its inputs are not known; give data to count on")
    return Inventory.of(model, trace.forward(model, inputs))


def activations(model: keras.Model) -> list[Site]:
    """Every activation of a functional or Sequential model that is worth counting."""
    return inventory_of(model).activations


def default_layers(model: keras.Model) -> list[str]:
    """Names of the layers that are counted when none is named: the last activation before the output."""
    return [site.name for site in inventory_of(model).default]
