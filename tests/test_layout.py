"""The tree: which room may import which, and where files lie. CONTRIBUTING.md has the same table in words."""

import ast
import configparser
import graphlib
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.quick

ROOT = Path(__file__).resolve().parent.parent
ROOMS = {  # room -> rooms, or single modules, that it may import besides those of ANYBODY
    "runs": {"models"},  # whose source is hashed
    "graph": set(),
    "layers": {"graph"},
    "heads": {"graph", "layers"},
    "models": {"graph", "heads", "layers", "models", "runs.atomic"},
    "census": {"graph", "layers"},
    "mechanisms": {"census", "graph", "heads", "layers"},
    "lint": {"census", "graph", "layers"},
    "data": {"runs.atomic"},
    "devices": {"runs"},
    "frozen": {"census", "data", "devices", "graph", "heads", "layers", "models", "runs", "training"},
    "training": {
        *("census", "data", "devices", "graph", "heads", "layers", "mechanisms", "models", "runs"),
        "frozen.extraction",
    },
    "studies": {
        *("census.figures", "census.keys", "data", "devices", "frozen.stacked", "heads"),
        *("mechanisms.calibration", "models", "runs", "training"),
    },
    "report": {"census", "heads", "mechanisms.figures", "runs", "studies"},
    "comparison": {"census", "data", "devices", "frozen", "graph", "heads", "report", "runs", "studies"},
    "cli": {
        *("census", "data", "devices", "graph", "heads", "lint", "mechanisms", "models", "report", "runs"),
        *("studies", "training"),
    },
}
ANYBODY = {"errors", "notebook", "public", "seeds", "texts", "version"}


TREES = {
    file: ast.parse(file.read_text())
    for room in ("bnhead", "models")
    for file in ROOT.glob(f"{room}/**/*.py")
}


def room_of(file):
    parts = file.relative_to(ROOT).with_suffix("").parts
    return parts[0] if parts[0] == "models" else parts[1]


def module_of(file):
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(["bnhead"] * (parts[0] == "models") + [part for part in parts if part != "__init__"])


def imported_names(nodes):
    """The imported names: `bnhead.heads` for `from bnhead import heads`."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize(
    "file", [file for file in TREES if room_of(file) in ROOMS], ids=lambda file: str(file.relative_to(ROOT))
)
def test_import_direction(file):
    room = room_of(file)
    allowed = ROOMS[room] | ANYBODY | {room}
    for name in imported_names(ast.walk(TREES[file])):
        assert not name.startswith("models"), "in our files it is always bnhead.models"
        if name.startswith("bnhead."):
            parts = name.split(".")[1:]
            prefixes = {".".join(parts[:n]) for n in range(1, len(parts) + 1)}
            assert prefixes & allowed, f"{room} imports {name}"


def test_modules_do_not_import_each_other_in_a_circle():
    """Imports at module level; an import inside a function may close a circle."""
    files = {module_of(file): file for file in TREES}
    imports = {}
    for module, file in files.items():
        names = list(imported_names(TREES[file].body))
        # `from a.b import c` imports a.b.c if that is a module, else a.b
        imports[module] = {
            name if name in files else name.rpartition(".")[0] for name in names if name.startswith("bnhead.")
        } - {module}
    graphlib.TopologicalSorter(imports).prepare()  # raises CycleError with the circle


def test_every_file_lies_in_a_known_room():
    rooms = {room_of(file) for file in TREES}
    assert rooms - set(ROOMS) - ANYBODY == {"__init__", "__main__"}


def test_models_holds_functions_only():
    for file, tree in TREES.items():
        if room_of(file) == "models":
            for node in tree.body:
                allowed = ast.FunctionDef, ast.Import, ast.ImportFrom, ast.Expr, ast.Assign, ast.If
                assert isinstance(node, allowed), f"{file}: {ast.unparse(node)[:60]}"
                if isinstance(node, ast.If):
                    assert ast.unparse(node.test) == "TYPE_CHECKING"
                if isinstance(node, ast.Assign):  # constants and functools.partial: no other calls
                    called = [ast.unparse(p.func) for p in ast.walk(node.value) if isinstance(p, ast.Call)]
                    assert all(
                        re.fullmatch(r"functools\.partial|_\w+\.split|dict\.fromkeys|public\.names", name)
                        for name in called
                    ), called


def test_every_package_is_installed():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    packages = {".".join(file.parent.relative_to(ROOT).parts) for file in ROOT.glob("bnhead/**/__init__.py")}
    assert set(setup["options"]["packages"].split()) == packages | {"bnhead.models"}


def test_every_module_has_its_test_file():
    for file in TREES:
        if file.stem not in (
            "__init__",
            "__main__",
            "version",
            "startup",
        ):  # tests/cli/test_exits.py tests startup
            parts = file.relative_to(ROOT).parts
            folder = ROOT.joinpath("tests", *parts[parts[0] == "bnhead" : -1])
            assert (folder / f"test_{file.stem}.py").is_file(), f"{file.stem} has no test file in {folder}"


def test_no_module_is_called_utils():
    assert not {"utils", "common", "base", "helpers", "misc"} & {file.stem for file in TREES}
