"""Does a batch norm before the last fully connected layer help, hurt or make no difference?

Public names are loaded when they are first used: `import bnhead` brings neither Keras nor TensorFlow. Where
Keras is imported too, before or after, models with layers of bnhead load.

    from bnhead.models import resnet20          # backbones with pluggable heads
    from bnhead import heads, DeadUnits         # the heads; the callback that counts dead units
    from bnhead.training import TrainConfig, train
"""

import os
import sys

from bnhead.version import __version__

_HOME = {  # public name -> the module it lies in
    "heads": "bnhead.heads",
    "census": "bnhead.census",
    "models": "bnhead.models",
    "DeadUnits": "bnhead.census",
}
__all__ = ["DeadUnits", "__version__", "census", "heads", "models"]

# An install maps the folder models/ to the package bnhead.models. In a bare checkout nothing has been
# mapped yet: there the checkout's root joins this package's search path, and models/ is found beside us.
_root = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
if all(os.path.isfile(os.path.join(_root, *name)) for name in (("setup.cfg",), ("models", "__init__.py"))):
    __path__.append(_root)


class _AfterKeras:
    """Imports bnhead's layers when Keras has been imported, which registers them for `load_model`."""

    def find_spec(self, name, path, target=None):
        if name != "keras":
            return None
        import importlib.util

        sys.meta_path.remove(self)  # for the search alone: others may look for Keras and not import it
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


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module 'bnhead' has no attribute {name!r}")
    import importlib  # not before: what is imported first is what Ctrl-C at the start falls into

    module = importlib.import_module(_HOME[name])
    return module if module.__name__ == f"bnhead.{name}" else getattr(module, name)


def __dir__():
    return __all__
