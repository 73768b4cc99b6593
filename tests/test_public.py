import ast
import importlib
import inspect
import json
import subprocess
import sys

import pytest

from bnhead import public

PACKAGES = ("census", "data", "graph", "heads", "layers", "lint", "models", "report", "studies", "training")
EVERY = ["bnhead", *(f"bnhead.{name}" for name in PACKAGES)]


EACH_FIRST = """
import importlib, json, os, sys
import keras, tensorflow_datasets  # once for all of the processes below
for package in sys.argv[1:]:
    if not (process := os.fork()):
        module = importlib.import_module(package)
        shown = dir(module)
        [getattr(module, name) for name in shown]
        print(json.dumps([package, shown, sorted(module.__all__)]), flush=True)
        os._exit(0)
    os.waitpid(process, 0)
"""


def test_tab_shows_the_public_names_and_nothing_else():
    """Each in a new process, where nothing has imported a module of the package."""
    done = subprocess.run([sys.executable, "-c", EACH_FIRST, *EVERY], capture_output=True, text=True)
    packages = [json.loads(line) for line in done.stdout.splitlines()]
    assert [name for name, *_ in packages] == EVERY, done.stderr
    for package, shown, listed in packages:
        assert shown == listed, package
        assert not [name for name in shown if name.startswith("_") and name != "__version__"], package


@pytest.mark.parametrize("package", EVERY)
def test_type_checkers_see_every_name_that_is_loaded_at_first_use(package):
    module = importlib.import_module(package)
    tree = ast.parse(inspect.getsource(module))
    bound = {getattr(node, "name", None) for node in tree.body}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            bound |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            bound.add(node.id)
    assert not set(module.__all__) - bound


def test_an_unknown_name():
    load, _ = public.names("here", {"there": "bnhead.seeds"})
    with pytest.raises(AttributeError, match="module 'here' has no attribute 'nowhere'"):
        load("nowhere")
