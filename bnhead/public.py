"""The public names of a package: loaded at first use, and all that `dir()` and Tab show."""

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def names(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package; its `__all__` lists the public names.

        if TYPE_CHECKING:
            from bnhead.census.counts import Census
        __all__ = ["Census"]
        __getattr__, __dir__ = public.names(__name__, {"Census": "bnhead.census.counts"})

    Type checkers read the imports under `TYPE_CHECKING`, since they cannot see what is loaded later.

    Args:
        package: its `__name__`.
        homes: name -> the module that has it, imported at first use; a module is its own home.
    """

    def load(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = importlib.import_module(homes[name])
        return module if homes[name] == f"{package}.{name}" else getattr(module, name)

    return load, lambda: sorted(sys.modules[package].__all__)
