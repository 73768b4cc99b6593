import ast
import importlib
import inspect
import subprocess
import sys

import pytest

from bnhead import public

PACKAGES = ("census", "data", "graph", "heads", "layers", "lint", "models", "report", "studies", "training")
EVERY = ["bnhead", *(f"bnhead.{name}" for name in PACKAGES)]


@pytest.mark.parametrize("package", EVERY)
def test_tab_shows_the_public_names_and_nothing_else(package):
    """In a new process, where no test has imported a module of the package."""
    code = (
        f"import {package} as p; print(*dir(p)); print(*sorted(p.__all__)); [getattr(p, n) for n in dir(p)]"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    shown, listed = done.stdout.splitlines()
    assert shown == listed and not any(
        name.startswith("_") for name in shown.split() if name != "__version__"
    )


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
