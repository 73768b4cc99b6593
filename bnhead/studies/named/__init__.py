"""The studies that have a name, each a module with its question and its heads, the control first."""

import importlib
import pkgutil

from bnhead.errors import UsageError, nearest
from bnhead.studies.plan import Study

NAMES = tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def find(name: str) -> Study:
    """The study called `name`.

    Raises:
        UsageError: there is none.
    """
    if name not in NAMES:
        there = f"there are {', '.join(NAMES)}"
        raise UsageError(f"study {name!r} is not known{nearest(name, NAMES)} ({there})")
    return importlib.import_module(f"{__name__}.{name}").STUDY
