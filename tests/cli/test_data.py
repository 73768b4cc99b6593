import shlex
import subprocess
import sys

import pytest

from bnhead.cli import data, train
from tests.data.small_sets import smooth, write_folder


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("bnhead.texts.shutil.which", lambda name: f"/bin/{name}")


def test_it_tells_what_the_checks_saw_and_draws_a_sheet(data_dir, tmp_path, capsys):
    sheet = tmp_path / "sheet.png"
    given = [f"--data_dir={data_dir}", f"--sheet={sheet}", "--validation=0.1", "--imbalance=one_majority:10"]
    assert data.main(["digits", *given]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "name         digits/1.0.0"
    assert lines[1] == "images       8 x 8 x 1, training in memory"
    assert "validation   142 examples" in lines and "test         360 examples" in lines
    assert "  class      0: 128 / 14 / 36" in lines and "  class      9: 12 / 14 / 36" in lines
    assert "pixels       uint8, 0 to 255, mean 7" in "\n".join(lines)
    assert "0 of test in train" in "\n".join(lines)
    assert lines[-2] == f"sheet        {sheet}" and sheet.stat().st_size > 10_000
    command = lines[-1].removeprefix("next         bnhead train ")
    config = train.COMMAND.parse(shlex.split(command))
    assert config.validation == 0.1 and config.imbalance == "one_majority:10" and config.data_dir == data_dir


def test_numbers_and_domains(data_dir, capsys):
    assert data.main(["digits_rotation", "--task=regression", f"--data_dir={data_dir}"]) == 0
    assert "outputs      1 numbers" in capsys.readouterr().out


def test_a_flat_folder_says_how_it_was_split(data_dir, tmp_path, capsys):
    pictures = {f"{c}/{i}.png": smooth(8, 8, i + 9 * ord(c)) for c in "ab" for i in range(5)}
    root = write_folder(tmp_path / "pictures", pictures)
    assert data.main([f"folder:{root}", f"--data_dir={data_dir}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "split        test has a fifth of each class by file name, whatever the seed" in lines
    assert "  class      a: 4 / 1" in lines and not any("warning" in line for line in lines)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["digits", "folder"])
def test_the_command_is_bnheads_and_quiet(name, data_dir, tmp_path):
    if name == "folder":
        pictures = {f"{s}/{n}/0.png": smooth(8, 8, ord(n)) for s in ("train", "test") for n in "ab"}
        name = f"folder:{write_folder(tmp_path / 'pictures', pictures)}"
    done = subprocess.run(
        [sys.executable, "-m", "bnhead", "data", name, f"--data_dir={data_dir}"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    if name == "digits":
        assert "fingerprint  train 02042eeda642d6e5, test 75576534f3d6ea6a" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([], 2, "NAME is missing; usage: bnhead data NAME [--flag=value ...]"),
        (["digits", "mnist"], 2, "argument 'mnist' is not a flag"),
        (["digts"], 2, "data set 'digts' is not known; did you mean 'digits'"),
        (["digits", "--shete=x"], 2, "flag --shete is not known; did you mean 'sheet'?"),
        (["digits", "--sheet"], 2, "flag --sheet needs a value, as in --sheet=VALUE"),
        (["digits", "--task=a", "--task=b"], 2, "flag --task is given 2 times"),
        (["digits", "--task=multi"], 2, "task must be classification, multilabel or regression, got 'multi'"),
        (["digits", "--image_size=big"], 2, "image_size must be a whole number, got 'big'"),
        (["digits", "--image_size=-1"], 2, "image_size must be at least 0, got -1"),
        (["digits", "--validation=1"], 2, "validation must be a share in [0, 1), got 1.0"),
        (["digits", "--label_noise=nan"], 2, "label_noise must be a share in [0, 1], got nan"),
        (["digits", "--imbalance=long"], 2, "imbalance 'long' is not known"),
        (["digits", "--test_corruption=blur:9"], 2, "test_corruption must have a severity of 1 to 5"),
        (["folder:/nowhere"], 2, "data set 'folder:/nowhere' needs a folder"),
        (["cifar10"], 4, "data set 'cifar10' is not prepared in "),
    ],
)
def test_bad_input_is_one_line(arguments, status, message, capsys, data_dir):
    assert data.main([*arguments, f"--data_dir={data_dir}"]) == status
    captured = capsys.readouterr()
    assert captured.err.startswith("bnhead data: ") and message in captured.err
    assert captured.err.count("\n") == 1 and not captured.out


def test_usage_needs_no_tensorflow():
    code = (
        "import sys; from bnhead.cli import data; print(data.main(sys.argv[1:])); "
        "print('tensorflow' in sys.modules)"
    )
    for arguments, status in ((["--help"], 0), (["digits", "--imbalance=long"], 2)):
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
        assert done.stdout.splitlines()[-2:] == [str(status), "False"]
