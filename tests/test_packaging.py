"""`bnhead.models` from every kind of install, in a folder whose owner has a `models` package too."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CODE = """
import models
assert models.MINE, models
import bnhead, bnhead.models
from bnhead.models import resnet8
assert bnhead.models.__name__ == "bnhead.models" and resnet8.func.__module__ == "bnhead.models.cifar"
assert resnet8((8, 8, 1), "bn_fc", 10).count_params() > 70_000
import bnhead.training.run
print(bnhead.__file__)
"""
IN_A_BENCHMARK = "import checkout, bnhead; print(bnhead.__file__)"


@pytest.fixture
def somebodys_project(tmp_path):
    (tmp_path / "project" / "models").mkdir(parents=True)
    (tmp_path / "project" / "models" / "__init__.py").write_text("MINE = True\n")
    return tmp_path / "project"


def pip(*arguments):
    command = [
        sys.executable,
        "-m",
        "pip",
        *arguments,
        "--no-deps",
        "--no-index",
        "--no-build-isolation",
        "-q",
    ]
    subprocess.run(command, check=True, env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"})


def checkout(place):
    """A copy of the tracked tree, so that building leaves nothing in the real one."""
    place.mkdir()
    subprocess.run(["cp", "-r", *(ROOT / name for name in ("bnhead", "models", "setup.cfg", "pyproject.toml",
                    "README.md", "LICENSE", "train.py")), place], check=True)  # fmt: skip
    return place


def where_bnhead_is(project, path, code=CODE, *, site=False):
    """Runs `code` in somebody's project with `path` on the search path; the folder bnhead came from.

    Without Python's own site directories (-S), where bnhead may be installed as well; their packages are put
    on the path by name, which leaves their .pth files alone. With `site`, those in `path` are run.
    """
    search = os.pathsep.join(
        map(str, [path, *dict.fromkeys(sysconfig.get_paths()[k] for k in ("purelib", "platlib"))])
    )
    add = f"import site; site.addsitedir({str(path)!r})\n" if site else ""
    environment = {**os.environ, "PYTHONPATH": search, "PYTHONSAFEPATH": ""}
    command = [sys.executable, "-S", "-c", add + code]
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.splitlines()[-1]).parent.parent


@pytest.mark.slow
def test_bare_checkout(somebodys_project, tmp_path):
    place = checkout(tmp_path / "checkout")
    assert where_bnhead_is(somebodys_project, place) == place


def test_benchmarks_run_in_a_bare_checkout(somebodys_project, tmp_path):
    place = checkout(tmp_path / "checkout")
    shutil.copytree(ROOT / "benchmarks", place / "benchmarks")
    assert where_bnhead_is(somebodys_project, place / "benchmarks", IN_A_BENCHMARK) == place
    for path in (ROOT / "benchmarks").glob("*.py"):
        assert path.name == "checkout.py" or "\nimport checkout" in path.read_text()


def test_wheel(somebodys_project, tmp_path):
    pip("wheel", str(checkout(tmp_path / "checkout")), "-w", str(tmp_path / "wheels"))
    (wheel,) = (tmp_path / "wheels").iterdir()
    pip("install", str(wheel), "--target", str(tmp_path / "site"))
    assert where_bnhead_is(somebodys_project, tmp_path / "site") == tmp_path / "site"
    installed = {path.name for path in (tmp_path / "site").iterdir()}
    assert "models" not in installed and "tests" not in installed, "nothing but bnhead may be claimed"
    assert (tmp_path / "site" / "bin" / "bnhead").is_file()
    assert (tmp_path / "site" / "bnhead" / "report" / "templates" / "census.html").is_file()
    templates = {path.name for path in (tmp_path / "site" / "bnhead" / "report" / "templates").iterdir()}
    assert templates == {path.name for path in (ROOT / "bnhead" / "report" / "templates").iterdir()}


@pytest.mark.parametrize(
    "mode", [pytest.param(mode, marks=pytest.mark.slow) for mode in ("lenient", "strict", "compat")]
)
def test_editable(somebodys_project, tmp_path, mode):
    place = checkout(tmp_path / "checkout")
    settings = ["--config-settings", f"editable_mode={mode}"] if mode != "lenient" else []
    pip("install", "-e", str(place), "--target", str(tmp_path / "site"), *settings)
    found = where_bnhead_is(somebodys_project, tmp_path / "site", site=True)
    assert found in (place, *place.glob("build/__editable__*"))
