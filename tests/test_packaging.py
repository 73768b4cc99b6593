"""What an index hands out, and `bnhead.models` from every kind of install.

The installs are tried in a folder whose owner has a `models` package too.
"""

import configparser
import email
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

from bnhead.version import __version__

ROOT = Path(__file__).resolve().parent.parent
# The tracked tree: folders and files that lie beside them.
FOLDERS = (".ci", ".github", "benchmarks", "bnhead", "docs", "examples", "models", "tests")
FILES = ("setup.cfg", "setup.py", "pyproject.toml", "MANIFEST.in", "mkdocs.yml", "README.md", "LICENSE",
         "CHANGELOG.md", "CONTRIBUTING.md", "CITATION.cff", ".gitignore", "train.py")  # fmt: skip
PASSING = shutil.ignore_patterns("__pycache__", "*.egg-info", ".ipynb_checkpoints")
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
    for name in FOLDERS:
        shutil.copytree(ROOT / name, place / name, ignore=PASSING)
    for name in FILES:
        shutil.copy(ROOT / name, place)
    return place


def files_of(tree):
    return {path.relative_to(tree).as_posix() for path in tree.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", str(checkout(folder / "checkout")), "-w", str(folder / "wheels"))
    (path,) = (folder / "wheels").iterdir()
    return path


@pytest.fixture(scope="module")
def metadata(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(archive.read(name))


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """An unpacked sdist and the tree of which it was made."""
    folder = tmp_path_factory.mktemp("sdist")
    tree = checkout(folder / "checkout")
    build = "import setuptools.build_meta as b; print(b.build_sdist('..'))"
    done = subprocess.run([sys.executable, "-c", build], cwd=tree, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with tarfile.open(folder / done.stdout.splitlines()[-1]) as archive:
        archive.extractall(folder, filter="data")
    return folder / f"bnhead-{__version__}", tree


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
    assert where_bnhead_is(somebodys_project, place / "benchmarks", IN_A_BENCHMARK) == place
    for path in (ROOT / "benchmarks").glob("*.py"):
        assert path.name == "checkout.py" or "\nimport checkout" in path.read_text()


def test_wheel(somebodys_project, tmp_path, wheel):
    pip("install", str(wheel), "--target", str(tmp_path / "site"))
    assert where_bnhead_is(somebodys_project, tmp_path / "site") == tmp_path / "site"
    installed = {path.name for path in (tmp_path / "site").iterdir()}
    assert "models" not in installed and "tests" not in installed, "nothing but bnhead may be claimed"
    assert (tmp_path / "site" / "bin" / "bnhead").is_file()
    assert (tmp_path / "site" / "bnhead" / "py.typed").is_file(), (
        "type checkers ignore annotations without it"
    )
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


def test_what_an_index_shows_of_the_package(metadata):
    assert (metadata["Name"], metadata["Version"]) == ("bnhead", __version__)
    assert metadata["Author"] == "The bnhead developers" and metadata["License-Expression"] == "Apache-2.0"
    assert not {"Author-email", "Home-page", "Project-URL"} & set(metadata), "there is no public address"
    assert {"batch normalization", "dead units", "Keras"} <= set(metadata["Keywords"].split(","))
    classifiers = metadata.get_all("Classifier")
    versions = {text.rpartition(" ")[2] for text in classifiers if ":: Python :: 3." in text}
    assert versions == {"3.11", "3.12", "3.13"} and metadata["Requires-Python"] == ">=3.11"
    kinds = {text.partition(" ::")[0] for text in classifiers}
    assert kinds >= {"Development Status", "Intended Audience", "Operating System", "Topic", "Typing"}
    assert not any(text.startswith("License ::") for text in classifiers), "an index refuses both"


def test_no_link_of_the_index_page_is_dead(metadata):
    page = metadata.get_payload()
    assert metadata["Description-Content-Type"] == "text/markdown" and page.strip().startswith("# bnhead")
    links = re.findall(r"\]\(([^)\s]+)[^)]*\)|(?:href|src)=[\"']?([^\"'> ]+)", page)
    relative = [link for pair in links for link in pair if link and not re.match("https?://|#", link)]
    assert not relative, relative


def test_relative_links_of_the_readme_become_text_on_the_index():
    spec = importlib.util.spec_from_file_location("setup", ROOT / "setup.py")
    setup = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(setup)
    code = "```python\nrows[0](docs/x.md)\n```\n"
    page = setup.index_page(
        "![curve](docs/curve.png)\n\n[Heads](docs/heads.md#tokens), [docs/data.md](docs/data.md) and "
        f"[TFDS](https://www.tensorflow.org/datasets), [below](#below)\n\n{code}"
    )
    assert page == (
        "Heads (`docs/heads.md`), docs/data.md and "
        f"[TFDS](https://www.tensorflow.org/datasets), [below](#below)\n\n{code}"
    )


def test_the_sdist_holds_the_whole_tree(unpacked):
    sdist, tree = unpacked
    made = {"PKG-INFO", "setup.cfg"}  # setup.cfg gets a section on egg-info
    assert files_of(tree) - files_of(sdist) - {name for name in files_of(tree) if "egg-info" in name} == set()
    extra = {name for name in files_of(sdist) - files_of(tree) if "egg-info" not in name}
    assert extra <= made, extra
    assert (sdist / "tests" / "conftest.py").read_bytes() == (ROOT / "tests" / "conftest.py").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments", [["-m", "quick"], ["--collect-only", "-m", ""]], ids=["quick", "collect"]
)
def test_the_suite_runs_from_the_sdist(unpacked, arguments):
    sdist, _ = unpacked
    command = [sys.executable, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(sdist)}
    done = subprocess.run(command, cwd=sdist, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    assert int(re.search(r"(\d+)(?:/\d+)? (?:passed|tests collected)", done.stdout)[1]) > 300


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    declared = setup["metadata"]
    assert citation["version"] == __version__ and citation["license"] == declared["license_expression"]
    assert citation["authors"] == [{"name": declared["author"]}]
    assert citation["keywords"] == declared["keywords"].split(", ")
    assert citation["cff-version"] == "1.2.0" and citation["message"] and citation["title"]


def test_the_workflows_run_what_a_developer_runs():
    """Every version that is declared, the commands of CONTRIBUTING, and extras that exist."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    workflows = {path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / ".github").rglob("*.yml")}
    assert set(workflows) == {"docs", "tests"}
    jobs = {name: job for workflow in workflows.values() for name, job in workflow["jobs"].items()}
    runs = {name: "\n".join(step.get("run", "") for step in job["steps"]) for name, job in jobs.items()}
    versions = jobs["tests"]["strategy"]["matrix"]["python-version"]
    declared = re.findall(r":: (3\.\d+)$", setup["metadata"]["classifiers"], re.M)
    assert versions == declared
    for command in ("python -m pytest -m quick", "ruff format --check . && ruff check ."):
        assert command in runs["quick"].splitlines()
    assert "python -m pytest" in runs["tests"].splitlines()
    assert "mkdocs build --strict" in runs["site"].splitlines()
    extras = set(re.findall(r"\[(\w+)\]", "".join(runs.values())))
    assert extras == {"test", "docs"} <= set(setup["options.extras_require"])
    assert all(job["steps"][0]["uses"].startswith("actions/checkout@") for job in jobs.values())
