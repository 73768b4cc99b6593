"""The public names of a package: loaded at first use, and all that `dir()` and Tab show.

Imports nothing heavy, since every package imports it first.
"""

import sys
from collections.abc import Callable, Mapping


def names(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package; its `__all__` lists the public names.

        if TYPE_CHECKING:
            from bnhead.census.census import Census
        __all__ = ["Census"]
        __getattr__, __dir__ = public.names(__name__, {"Census": "bnhead.census.census"})

    Type checkers read the imports under `TYPE_CHECKING`, since they cannot follow `__getattr__`.

    Args:
        package: its `__name__`.
        homes: name -> the module that has it, imported at first use; a module is its own home.
    """

    def load(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        import importlib  # not at the top: Ctrl-C while it is imported would print a traceback

        module = importlib.import_module(homes[name])
        return module if homes[name] == f"{package}.{name}" else getattr(module, name)

    return load, lambda: sorted(sys.modules[package].__all__)
