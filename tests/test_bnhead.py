import subprocess
import sys
from pathlib import Path

import pytest

import bnhead
from bnhead.models import resnet8


def python(code, **options):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, **options)


def test_import_brings_nothing_heavy():
    heavy = "('tensorflow', 'keras', 'numpy', 'absl', 'rich')"
    done = python(
        f"import sys, bnhead, bnhead.heads, bnhead.models; print([m for m in {heavy} if m in sys.modules])"
    )
    assert done.stdout == "[]\n", done.stderr


def test_the_figures_and_the_report_bring_neither_keras_nor_scipy():
    heavy = "('tensorflow', 'keras', 'scipy')"
    code = (
        f"import sys, bnhead.census.figures, bnhead.report; print([m for m in {heavy} if m in sys.modules])"
    )
    done = python(code)
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.parametrize(
    "imports",
    [
        "import bnhead, importlib.util; importlib.util.find_spec('keras'); import keras",
        pytest.param("import keras, bnhead", marks=pytest.mark.slow),
    ],
)
def test_models_with_our_layers_load_once_bnhead_is_imported(tmp_path, imports):
    """In a new process, where nothing else has registered the layers; in either order."""
    resnet8((8, 8, 1), "bn_l2_fc16", 10).save(tmp_path / "net.keras")
    done = python(f"{imports}; print(len(keras.saving.load_model({str(tmp_path / 'net.keras')!r}).layers))")
    assert done.returncode == 0 and int(done.stdout) > 30, done.stderr


def test_public_names_are_there():
    for name in bnhead.__all__:
        assert getattr(bnhead, name) is not None
    assert set(bnhead.__all__) <= set(dir(bnhead))
    assert isinstance(bnhead.DeadUnits, type)
    with pytest.raises(AttributeError, match="no attribute 'DeadUnit'"):
        bnhead.DeadUnit  # noqa: B018


def test_commands():
    def run(*arguments):
        return subprocess.run([sys.executable, "-m", "bnhead", *arguments], capture_output=True, text=True)

    assert run("--help").returncode == 0 and "  train " in run("--help").stdout
    assert run("--help").stdout.startswith("usage: python -m bnhead COMMAND [--flag=value ...]")
    assert run("--version").stdout == run("heads", "--version").stdout == f"bnhead {bnhead.__version__}\n"
    assert run().returncode == 2
    unknown = run("trian")
    assert unknown.returncode == 2
    assert unknown.stderr == "bnhead: command 'trian' is not known; did you mean 'train'?\n"
    assert run("train", "--help").stdout.startswith("usage: bnhead train [--flag=value ...]")


@pytest.mark.parametrize("name", ["bnhead.cli.flags", "absl", "bnhead.cli.train", "tensorflow"])
@pytest.mark.parametrize("program", ["bnhead", "train.py"])
def test_an_interrupt_while_modules_are_imported_is_one_line(program, name):
    code = f"""
import runpy, sys
class Finder:
    def find_spec(self, name, *_):
        if name == {name!r}:
            raise KeyboardInterrupt
sys.meta_path.insert(0, Finder())
sys.argv = ["bnhead", "train"] if {program!r} == "bnhead" else ["train.py"]
if {program!r} == "bnhead":
    runpy.run_module("bnhead", run_name="__main__")
else:
    runpy.run_path("train.py", run_name="__main__")
"""
    done = python(code, cwd=Path(__file__).resolve().parent.parent)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr in (f"{program}: interrupted\n", "bnhead train: interrupted\n")
