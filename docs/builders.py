"""An extension of griffe: builders of backbones with the arguments that `models.blocks.backbone` adds."""

import importlib
import inspect

import griffe


class Builders(griffe.Extension):
    """Replaces the written signature and docstring of a builder by those it has when it is called."""

    def on_function(self, *, func: griffe.Function, **_) -> None:
        """Called by griffe for every function that it has read."""
        if not any(str(decorator.value).startswith("backbone(") for decorator in func.decorators):
            return
        builder = getattr(importlib.import_module(func.module.path), func.name)
        func.docstring = griffe.Docstring(inspect.getdoc(builder), parent=func)
        func.parameters = griffe.Parameters(*map(_parameter, inspect.signature(builder).parameters.values()))
        func.returns = "keras.Model"


def _parameter(parameter: inspect.Parameter) -> griffe.Parameter:
    default = parameter.default
    has_default = default is not inspect.Parameter.empty
    return griffe.Parameter(
        parameter.name,
        kind=getattr(griffe.ParameterKind, parameter.kind.name.lower()),
        default=getattr(default, "__name__", repr(default)) if has_default else None,
    )
