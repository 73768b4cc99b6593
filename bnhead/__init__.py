"""Does a batch norm before the last fully connected layer help, hurt or make no difference?

Public names are loaded at first use: `import bnhead` imports neither Keras nor TensorFlow. Models with layers
of bnhead can be loaded in any program that imports both bnhead and Keras, in either order.

    from bnhead.models import resnet20          # backbones with pluggable heads
    from bnhead import heads, DeadUnits         # the heads; the callback that counts dead units
    from bnhead.training import TrainConfig, train
"""

import os
import sys

from bnhead import public
from bnhead.version import __version__

TYPE_CHECKING = False  # type checkers take it for true; `typing` need not be imported
if TYPE_CHECKING:
    from bnhead import census, data, heads, layers, mechanisms, models, report, studies, training
    from bnhead.census.callback import DeadUnits
    from bnhead.comparison.compare import compare
    from bnhead.lint.linter import check

_MODULES = ("census", "data", "heads", "layers", "mechanisms", "models", "report", "studies", "training")
__all__ = [
    "DeadUnits",
    "__version__",
    "census",
    "check",
    "compare",
    "data",
    "heads",
    "layers",
    "mechanisms",
    "models",
    "report",
    "studies",
    "training",
]
__getattr__, __dir__ = public.names(
    __name__,
    {
        "DeadUnits": "bnhead.census.callback",
        "check": "bnhead.lint.linter",
        "compare": "bnhead.comparison.compare",
        **{name: f"bnhead.{name}" for name in _MODULES},
    },
)

# An install maps the folder models/ to the package bnhead.models. In a bare checkout the root joins this
# package's search path, so that models/ is importable under the same name.
_root = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
if all(os.path.isfile(os.path.join(_root, *name)) for name in (("setup.cfg",), ("models", "__init__.py"))):
    __path__.append(_root)


class _AfterKeras:
    """Imports bnhead's layers right after Keras, which registers them for `load_model`."""

    def find_spec(self, name, path, target=None):
        if name != "keras":
            return None
        import importlib.util

        sys.meta_path.remove(self)  # for this search only: a program may look for Keras without importing it
        spec = importlib.util.find_spec("keras")
        sys.meta_path.insert(0, self)
        if spec is not None:
            spec.loader.exec_module = self._then_layers(spec.loader.exec_module)
        return spec

    def _then_layers(self, exec_module):
        def execute(module):
            sys.meta_path.remove(self)
            exec_module(module)
            import bnhead.layers  # noqa: F401

        return execute


if "keras" in sys.modules:
    import bnhead.layers  # noqa: F401
else:
    sys.meta_path.insert(0, _AfterKeras())
