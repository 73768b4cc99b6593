import subprocess
import sys

import pytest

from bnhead import heads
from bnhead.cli.heads import main


def test_lists_every_preset_with_all_that_is_to_be_said(capsys):
    assert main([]) == 0
    entries = capsys.readouterr().out.strip().split("\n\n")
    assert entries.pop() == "next  bnhead train --head=fastai"
    assert {"fc256", "bn", "gbn16", "dropout0.5"} < set(entries.pop().split())
    assert len(entries) == len(heads.PRESETS)
    for entry, (name, preset) in zip(entries, heads.PRESETS.items(), strict=True):
        assert all(len(line) <= 80 for line in entry.splitlines())
        assert entry.split() == " ".join([
            name,
            f"--head={heads.canonical(name)}",
            heads.describe(name, (8, 8, 64), 10),
            f"{heads.parse(name).parameters((8, 8, 64), 10):,} parameters",
            preset.source,
            preset.note,
        ]).split()  # fmt: skip


def test_flags_and_texts(capsys):
    assert main(["bn_fc", "--features=512", "--outputs=3", "--fc_units=16"]) == 0
    out = capsys.readouterr().out
    assert out == (
        "bn_fc\n  512 -> bn -> fc(16, relu) -> out(3)  [P1]\n  10,307 parameters\n\n"
        "next  bnhead train --head=bn_fc\n"
    )
    assert main(["--help"]) == 0
    assert capsys.readouterr().out.startswith("usage: bnhead heads")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fastia"], "did you mean 'fastai'?"),
        (["--outputz=3"], "flag --outputz is not known; did you mean 'outputs'?"),
        (["--outputs"], "flag --outputs needs a value, as in --outputs=10"),
        (["--outputs=3", "--outputs=4"], "flag --outputs is given 2 times"),
        (["--outputs=0"], "outputs must be at least 1, got 0"),
        (["--features=8x8"], "features must be like 8x8x64 or 64, got '8x8'"),
        (["gmp_out", "--features=64"], "has nothing to pool"),
        (["gn8_fc", "--features=8x8x63"], "groups must divide the 63 features it reads, got 8"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(arguments, message, capsys):
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("bnhead heads: ") and message in captured.err
    assert captured.err.count("\n") == 1 and not captured.out


def test_it_needs_neither_keras_nor_tensorflow():
    code = "import sys; from bnhead.__main__ import main; main(['heads']); sys.exit('keras' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_on_a_vector_the_presets_that_pool_say_so(capsys):
    assert main(["--features=64"]) == 0
    entries = capsys.readouterr().out.strip().split("\n\n")
    assert len(entries) == len(heads.PRESETS) + 2, "the tokens and the next command"
    refused = [e.splitlines()[0] for e in entries if "cannot read features of shape 64" in e]
    assert refused == ["fastai", "arcface", "model_garden"]


def test_who_has_seen_enough_sees_no_error():
    command = f"{sys.executable} -m bnhead heads | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.stdout == "plain\n" and not done.stderr
