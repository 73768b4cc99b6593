"""The house: who may import whom, and what lies where."""

import ast
import configparser
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = {  # room -> rooms, or single modules, that it may import; everybody may import those of ANYBODY
    "runs": {"models"},  # whose source is hashed
    "graph": set(),
    "layers": {"graph"},
    "heads": {"graph", "layers"},
    "models": {"graph", "heads", "layers", "models", "runs.atomic"},
    "census": {"graph"},
    "data": {"runs.atomic"},
    "devices": {"runs"},
    "training": {"census", "data", "devices", "graph", "heads", "layers", "models", "runs"},
    "studies": {
        "census.keys",
        "census.figures",
        "data",
        "devices",
        "heads",
        "models",
        "runs",
        "training",
    },
    "report": {"census", "heads", "runs", "studies"},
    "cli": {"census", "data", "devices", "heads", "models", "report", "runs", "studies", "training"},
}
ANYBODY = {"errors", "seeds", "texts", "version"}


def sources():
    files = [*ROOT.glob("bnhead/**/*.py"), *ROOT.glob("models/**/*.py")]
    return {file: ast.parse(file.read_text()) for file in files}


def room_of(file):
    parts = file.relative_to(ROOT).with_suffix("").parts
    return parts[0] if parts[0] == "models" else parts[1]


def imported(tree):
    """Names of what is imported: of `from bnhead import heads`, that is `bnhead.heads`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize(
    "file", [f for f in sources() if room_of(f) in ROOMS], ids=lambda f: str(f.relative_to(ROOT))
)
def test_import_direction(file):
    room = room_of(file)
    allowed = ROOMS[room] | ANYBODY | {room}
    for name in imported(sources()[file]):
        assert not name.startswith("models"), "in our files it is always bnhead.models"
        if name.startswith("bnhead."):
            parts = name.split(".")[1:]
            prefixes = {".".join(parts[:n]) for n in range(1, len(parts) + 1)}
            assert prefixes & allowed, f"{room} imports {name}"


def test_every_file_lies_in_a_known_room():
    rooms = {room_of(file) for file in sources()}
    assert rooms - set(ROOMS) - ANYBODY == {"__init__", "__main__"}


def test_models_holds_functions_only():
    for file, tree in sources().items():
        if room_of(file) == "models":
            for node in tree.body:
                kinds = ast.FunctionDef, ast.Import, ast.ImportFrom, ast.Expr, ast.Assign, ast.If
                assert isinstance(node, kinds), f"{file}: {ast.unparse(node)[:60]}"
                if isinstance(node, ast.If):
                    assert ast.unparse(node.test) == "TYPE_CHECKING"
                if isinstance(node, ast.Assign):  # constants and functools.partial: no other calls
                    called = [ast.unparse(p.func) for p in ast.walk(node.value) if isinstance(p, ast.Call)]
                    assert all(re.fullmatch(r"functools\.partial|_\w+\.split", name) for name in called), (
                        called
                    )


def test_every_package_is_installed():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    there = {".".join(file.parent.relative_to(ROOT).parts) for file in ROOT.glob("bnhead/**/__init__.py")}
    assert set(setup["options"]["packages"].split()) == there | {"bnhead.models"}


def test_every_module_has_its_test_file():
    for file in sources():
        if file.stem not in (
            "__init__",
            "__main__",
            "version",
            "digits",
            "startup",
            "console",
            "verify",
            "diff",
        ):
            folder = "tests" / file.relative_to(ROOT).parent.relative_to(
                "bnhead" if room_of(file) != "models" else "."
            )
            assert (ROOT / folder / f"test_{file.stem}.py").is_file(), (
                f"{file.stem} has no test file in {folder}"
            )


def test_no_drawers_without_a_label():
    assert not {"utils", "common", "base", "helpers", "misc"} & {file.stem for file in sources()}
