"""What cannot be meant or done: one line, the right exit status, and nothing that was good is lost."""

import json
import os
import shutil
import time
from pathlib import Path

import pytest

from bnhead.cli import train
from bnhead.training.config import TrainConfig

USAGE = [  # flags -> what the line says
    (["--haed=fc"], "flag --haed is not known; did you mean 'head'?"),
    (["--epoch=3"], "flag --epoch is not known; did you mean 'epochs'?"),
    (["-epochs=0"], "epochs must be at least 1, got 0"),
    (["fc"], "argument 'fc' is not a flag"),
    (["--head=fc", "--head=bn_fc"], "flag --head is given 2 times"),
    (["--overwrite", "--nooverwrite"], "flag --overwrite is given 2 times"),
    (["--seed"], "flag --seed needs a value, as in --seed=0"),
    (["--seed=1.5"], "seed must be a whole number, got '1.5'"),
    (["--seed=-1"], "seed must be a finite number of at least 0, got -1"),
    (["--epochs=0"], "epochs must be at least 1, got 0"),
    (["--epochs=-1"], "epochs must be at least 1, got -1"),
    (["--epochs="], "epochs must be a whole number, got ''"),
    (["--batch_size=1"], "batch_size must be at least 2"),
    (["--batch_size=0"], "batch_size must be at least 2"),
    (["--learning_rate=nan"], "learning_rate must be a finite number of at least 0, got nan"),
    (["--learning_rate=inf"], "learning_rate must be a finite number of at least 0, got inf"),
    (["--learning_rate=-0.1"], "learning_rate must be a finite number of at least 0, got -0.1"),
    (["--learning_rate=0,1"], "learning_rate must be a number, got '0,1'"),
    (["--warmup_epochs=-1"], "warmup_epochs must be a finite number of at least 0, got -1"),
    (["--momentum=1"], "momentum must be in [0, 1), got 1"),
    (["--momentum=-0.9"], "momentum must be in [0, 1), got -0.9"),
    (["--momentum=nan"], "momentum must be in [0, 1), got nan"),
    (["--weight_decay=-1"], "weight_decay must be a finite number of at least 0, got -1"),
    (["--weight_decay=inf"], "weight_decay must be a finite number of at least 0, got inf"),
    (["--fc_units=0"], "fc_units must be at least 1, got 0"),
    (["--probe_examples=0"], "probe_examples must be at least 1, got 0"),
    (["--image_size=-8"], "image_size must be a finite number of at least 0, got -8"),
    (["--cutout=-1"], "cutout must be a finite number of at least 0, got -1"),
    (["--mixup=-1"], "mixup must be a finite number of at least 0, got -1"),
    (["--mixup=nan"], "mixup must be a finite number of at least 0, got nan"),
    (["--logit_adjustment=-1"], "logit_adjustment must be a finite number of at least 0, got -1"),
    (["--class_weights=effective:2"], "class_weights must have a beta in (0, 1), as effective:0.9999, got"),
    (["--learn_within=-1"], "learn_within must be a finite number of at least 0, got -1"),
    (["--steps_per_execution=-1"], "steps_per_execution must be a finite number of at least 0, got -1"),
    (["--checkpoint_seconds=-1"], "checkpoint_seconds must be a finite number of at least 0, got -1"),
    (["--checkpoint_seconds=nan"], "checkpoint_seconds must be a finite number of at least 0, got nan"),
    (["--jit_compile=yes"], "jit_compile 'yes' is not known"),
    (["--jit_compile=Off"], "jit_compile 'Off' is not known; did you mean 'off'?"),
    (["--task=clasification"], "task 'clasification' is not known; did you mean 'classification'?"),
    (["--augment=flip"], "augment 'flip' is not known; did you mean 'crop_flip'?"),
    (["--pixels=sined"], "pixels 'sined' is not known; did you mean 'signed'?"),
    (["--fc_activation=rlu"], "fc_activation 'rlu' is not known; did you mean 'relu'?"),
    (["--recompute_batch_stats=heads"], "recompute_batch_stats 'heads' is not known; did you mean 'head'?"),
    (["--deterministic=maybe"], "deterministic must be true or false, got 'maybe'"),
    (["--head="], "head"),
    (["--head=bn_fx"], "head 'bn_>>fx<<'"),
    (["--head=BN_FC"], "head '>>BN<<_FC'"),
    (["--head=bn__fc"], "head "),
    (["--head=dropout_fc"], "'dropout' needs its rate"),
    (["--head=dropout1.5_fc"], "head '>>dropout1.5<<_fc'"),
    (["--head=fc_gap"], "head "),
    (["--head=fastia"], "did you mean 'fastai'?"),
    (["--head=out_fc"], "head "),
    (["--backbone=resnet9"], "'resnet9'"),
    (["--backbone=resnett20"], "did you mean 'resnet20'?"),
    (["--backbone=keras:ResNet5"], "did you mean 'ResNet50'?"),
    (["--backbone=nowhere.keras"], "nowhere.keras"),
    (["--dataset=cifr10"], "did you mean 'cifar10'?"),
    (["--dataset=folder:/nowhere"], "/nowhere"),
    (["--dataset=domains:digits"], "domains"),
    (["--dataset="], "data set"),
    (["--imbalance=longtale:10"], "imbalance"),
    (["--imbalance=longtail"], "imbalance"),
    (["--imbalance=longtail:0"], "imbalance"),
    (["--label_noise=2"], "label_noise must be"),
    (["--validation=1"], "validation must be"),
    (["--validation=-0.1"], "validation must be"),
    (["--test_corruption=blur:9"], "test_corruption"),
    (["--test_corruption=fog:1"], "test_corruption"),
    (["--task=regression", "--head=cdropout0.5_fc"], "reads classes, and task regression has none"),
    (["--mixup=1", "--head=cdropout0.5_fc"], "reads classes, and mixup mixes them"),
    (["--task=regression", "--label_noise=0.1"], "are for classes, and task regression has numbers"),
    (["--task=regression", "--imbalance=step:2"], "are for classes, and task regression has numbers"),
    (
        ["--workdir=gs://bucket/run"],
        "workdir must be a path on a disk of this machine, got 'gs://bucket/run'",
    ),
    (["--flagfile=/nowhere/flags"], "flagfile '/nowhere/flags' cannot be read: No such file or directory"),
    (["--flagfile=/"], "flagfile '/' cannot be read: Is a directory"),
    (["--flagfile", "flags"], "flag --flagfile needs a value, as in --flagfile=PATH"),
    (["--flagfile=a", "--flagfile=b"], "flag --flagfile is given 2 times"),
]


def place(tmp_path: Path) -> Path:
    return tmp_path / "run"


def begun(tmp_path, **changes):
    """A run's directory with a good checkpoint and a good result of other settings, or the given changes."""
    root = place(tmp_path)
    (root / "checkpoints").mkdir(parents=True)
    settings = {**TrainConfig(backbone="resnet8").settings(), **changes}
    (root / "config.json").write_text(json.dumps(settings))
    (root / "checkpoints" / "step-0000000001").write_bytes(b"precious")
    (root / "notes.txt").write_text("mine")
    return root


def is_file(tmp_path):
    place(tmp_path).write_text("precious")


def lies_in_a_file(tmp_path):
    (tmp_path / "file").write_text("precious")
    return ["--workdir", str(tmp_path / "file" / "run")]


def holds_something_else(tmp_path):
    place(tmp_path).mkdir()
    (place(tmp_path) / "thesis.tex").write_text("precious")


def holds_something_else_and_overwrites(tmp_path):
    holds_something_else(tmp_path)
    return ["--overwrite"]


def hangs_in_the_air(tmp_path):
    place(tmp_path).symlink_to(tmp_path / "nowhere")


def links_to_itself(tmp_path):
    place(tmp_path).symlink_to(place(tmp_path))


def other_seed(tmp_path):
    begun(tmp_path, seed=7)


def other_head_and_rate(tmp_path):
    begun(tmp_path, head="bn_fc", learning_rate=0.5)


def older_settings(tmp_path):
    begun(tmp_path, forgotten=1)


def settings_cut_short(tmp_path):
    path = begun(tmp_path) / "config.json"
    path.write_text(path.read_text()[:-20])


def settings_of_no_kind(tmp_path):
    (begun(tmp_path) / "config.json").write_text("[1, 2]")


def settings_in_bytes(tmp_path):
    (begun(tmp_path) / "config.json").write_bytes(bytes(range(128, 256)))


def settings_are_a_folder(tmp_path):
    path = begun(tmp_path) / "config.json"
    path.unlink()
    path.mkdir()


def result_cut_short(tmp_path):
    (begun(tmp_path) / "result.json").write_text('{"status": "fini')


def name_too_long(tmp_path):
    return ["--workdir", str(tmp_path / ("x" * 300))]


def in_a_system_folder(tmp_path):
    return ["--workdir", "/proc/nowhere/run"]


def below_a_device(tmp_path):
    return ["--workdir", "/dev/null/run"]


def written_on_another_machine(tmp_path):
    root = begun(tmp_path)
    (root / "lock").write_text(json.dumps({"pid": 1, "host": "elsewhere"}))
    os.utime(root / "lock", (time.time() - 5,) * 2)


def a_name_of_two_lines(tmp_path):
    path = tmp_path / "two\nlines"
    path.write_text("precious")
    return ["--workdir", str(path)]


def batch_too_large(tmp_path):
    return ["--batch_size", "1438"]


def all_held_out(tmp_path):
    return ["--validation", "0.9999"]


def no_such_layer(tmp_path):
    return ["--dead_layers", "head_fx"]


def not_prepared(tmp_path):
    return ["--dataset", "cifar100", "--data_dir", str(tmp_path)]


def empty_folder(tmp_path):
    (tmp_path / "pictures" / "train").mkdir(parents=True)
    return ["--dataset", f"folder:{tmp_path / 'pictures'}"]


def no_picture(tmp_path):
    for name in ("train/a", "train/b", "test/a", "test/b"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        (tmp_path / "pictures" / name / "1.png").write_bytes(b"no picture")
    return ["--dataset", f"folder:{tmp_path / 'pictures'}", "--image_size", "8"]


def classes_for_numbers(tmp_path):
    return ["--task", "regression"]


def numbers_for_classes(tmp_path):
    return ["--dataset", "digits_rotation"]


def weights_nowhere(tmp_path):
    return ["--weights", str(tmp_path / "nowhere.weights.h5")]


def weights_cut_short(tmp_path):
    (tmp_path / "net.keras").write_bytes(b"PK\x03\x04 half a file")
    return ["--weights", str(tmp_path / "net.keras")]


def colour_is_missing(tmp_path):
    return ["--backbone", "keras:VGG16", "--image_size", "32"]


ARRANGED = [
    (is_file, 3, "is a file"),
    (lies_in_a_file, 3, "cannot be"),
    (holds_something_else, 3, "is not empty and holds no run; choose another"),
    (holds_something_else_and_overwrites, 3, "is not empty and holds no run; choose another"),
    (hangs_in_the_air, 3, "nowhere, which does not exist"),
    (links_to_itself, 3, "Too many levels of symbolic links"),
    (
        other_seed,
        3,
        "another run: seed 7 there, 0 now (--overwrite removes it; another --workdir keeps both)",
    ),
    (other_head_and_rate, 3, "head 'bn_fc' there, 'fc' now, learning_rate 0.5 there, 0.1 now"),
    (older_settings, 3, "forgotten 1 there, None now"),
    (settings_cut_short, 3, "config.json cannot be read"),
    (settings_of_no_kind, 3, "config.json cannot be read: it does not hold a JSON object"),
    (settings_in_bytes, 3, "config.json cannot be read"),
    (settings_are_a_folder, 3, "config.json cannot be read"),
    (result_cut_short, 3, "result.json cannot be read"),
    (name_too_long, 3, "a longer name than disks take"),
    (in_a_system_folder, 3, "cannot be written"),
    (below_a_device, 3, "cannot be"),
    (a_name_of_two_lines, 3, "two lines is a file"),
    (written_on_another_machine, 3, "is being written by process 1 on elsewhere"),
    (batch_too_large, 4, "batch_size must be at most the 1437 training images, got 1438"),
    (all_held_out, 4, "validation must leave examples on both sides"),
    (no_such_layer, 2, "has no layer 'head_fx'; did you mean 'head_fc'?"),
    (not_prepared, 4, "is not prepared in"),
    (empty_folder, 4, "there are none"),
    (no_picture, 4, "cannot be decoded"),
    (classes_for_numbers, 4, "has 10 classes as labels, but task regression needs numbers"),
    (numbers_for_classes, 4, "is not a classification set"),
    (weights_nowhere, 2, "nowhere.weights.h5"),
    (weights_cut_short, 2, "net.keras"),
    (colour_is_missing, 2, "reads 3 channels, the images have 1"),
]


def contents(folder: Path) -> dict:
    """Every file's bytes, and every link's target."""
    return {
        path: os.readlink(path) if path.is_symlink() else path.read_bytes()
        for path in folder.rglob("*")
        if path.is_symlink() or path.is_file()
    }


def told(capsys) -> str:
    seen = capsys.readouterr()
    assert not seen.out and seen.err.count("\n") == 1 and seen.err.startswith("train.py: "), seen
    return seen.err


def test_there_are_a_hundred():
    assert len(USAGE) + len(ARRANGED) >= 100
    assert len({str(arguments) for arguments, _ in USAGE}) == len(USAGE)


@pytest.mark.parametrize(("arguments", "message"), USAGE, ids=lambda value: " ".join(value)[:40])
def test_flags(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert train.main(arguments, "train.py") == 2
    assert message in told(capsys)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arrange", "status", "message"), ARRANGED, ids=lambda value: getattr(value, "__name__", "")
)
def test_places_and_data(arrange, status, message, capsys, tmp_path, monkeypatch, data_dir):
    monkeypatch.chdir(tmp_path)
    more = arrange(tmp_path) or []
    arguments = ["--backbone=resnet8"] * ("--backbone" not in more)
    arguments += [f"--workdir={place(tmp_path)}"] * ("--workdir" not in more)
    arguments += [f"--data_dir={data_dir}"] * ("--data_dir" not in more)
    before = contents(tmp_path)
    assert train.main([*arguments, *more], "train.py") == status
    assert message in told(capsys)
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("operation", "after"),
    [
        ("replace", 3),
        *(
            pytest.param(operation, after, marks=pytest.mark.slow)
            for operation in ("fsync", "replace")
            for after in (0, 3, 9)
            if (operation, after) != ("replace", 3)
        ),
    ],
)
def test_a_full_disk_loses_nothing_that_was_there(
    short_run, short_config, tmp_path, monkeypatch, capsys, operation, after
):
    finished, _ = short_run
    root = place(tmp_path)
    config = short_config(workdir=str(root), epochs=1, checkpoint_seconds=0.0)
    shutil.copytree(finished.workdir, tmp_path / "other")
    before, left, real = contents(tmp_path), [after], getattr(os, operation)

    def full(*arguments, **keywords):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        return real(*arguments, **keywords)

    monkeypatch.setattr(os, operation, full)
    settings = {**config.settings(), "workdir": config.workdir, "data_dir": config.data_dir}
    flags = [f"--{name}={value}" for name, value in settings.items()]
    assert train.main([*flags, "--checkpoint_seconds=0"], "train.py") == 6
    assert "the disk is full" in capsys.readouterr().err
    assert {path: content for path, content in contents(tmp_path).items() if path in before} == before
    monkeypatch.undo()
    assert train.main(flags, "train.py") == 0, "with room again it goes on"
    assert not list(root.glob(".writing-*"))


def test_memory_that_is_full_is_said(short_config, tmp_path, monkeypatch, capsys):
    import tensorflow as tf

    from bnhead.training import run

    def fit(*_, **__):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor\nwith a long story")

    monkeypatch.setattr(run, "fit", fit)
    config = short_config(workdir=str(place(tmp_path)))
    arguments = [f"--{name}={getattr(config, name)}" for name in ("data_dir", "workdir", "backbone")]
    assert train.main(arguments, "train.py") == 6
    assert "out of memory with batch_size 128; a smaller --batch_size needs less" in told(capsys)
    status = json.loads((place(tmp_path) / "status.json").read_text())
    assert status["status"] == "failed" and status["error"].startswith("ResourceExhaustedError")
