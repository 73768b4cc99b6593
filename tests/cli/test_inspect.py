import csv
import dataclasses
import functools
import hashlib
import json
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers

from bnhead.census import Census, count
from bnhead.cli import inspect
from bnhead.cli.inspect import Request
from bnhead.data import load
from bnhead.errors import DataError, RunDirectoryError, UsageError
from bnhead.report.inspected import INITIAL
from bnhead.runs.directory import RunDirectory
from tests.data.small_sets import smooth, write_folder


def test_a_run_in_one_command(short_run, tmp_path, capsys):
    config, result = short_run
    arguments = [config.workdir, f"--data_dir={config.data_dir}", f"--out={tmp_path / 'out'}", "--codeath"]
    assert inspect.main([*arguments, "--gradients", "--clones", "--ablate"]) == 0
    out = capsys.readouterr().out
    assert "head_fc" in out and "layers with no dead units" in out
    assert "the first 360 test images of digits/1.0.0" in out and f"{tmp_path}/out/index.html" in out
    assert "resnet8 with head bn_fc on digits: trained weights of a run" in out
    lines = out.splitlines()
    assert max(map(len, lines[lines.index("", 2) :][:6])) <= 80  # the table; paths stay whole
    content = json.loads((tmp_path / "out" / "census.json").read_text())
    assert len(content["layers"]) == 8 and len(content["classes"]) == 10
    figures = content["layers"]["head_fc"]["figures"]
    for name in ("per_input", "dataset", "always_on"):
        assert figures[name] == pytest.approx(result[f"dead/head_fc/{name}"])
    assert figures["gradient_dead"] >= figures["dataset"] and figures["patterns"] > 1
    assert figures["ablated_dead_loss"] == figures["ablated_dead_metric"] == 0 <= figures["clones"] < 1
    assert any(note.startswith("ablation: loss ") and ", accuracy 0." in note for note in content["notes"])
    again = Census.from_dict(
        {**content, "layers": {n: layer["counts"] for n, layer in content["layers"].items()}}
    )
    assert again.layers["head_fc"].inputs == 360
    table = list(csv.DictReader((tmp_path / "out" / "census.csv").read_text().splitlines()))
    assert [row["layer"] for row in table] == list(content["layers"])
    html = (tmp_path / "out" / "index.html").read_text()
    # activity and classes of every layer; co-death of those in which two units or more change
    assert 16 < html.count("<figure><div role") <= 24


def test_the_mechanisms_of_a_run(short_run, tmp_path, capsys):
    config, result = short_run
    arguments = [config.workdir, f"--data_dir={config.data_dir}", f"--out={tmp_path}", "--layers=last"]
    assert inspect.main([*arguments, "--measure=gap,calibration,interventions"]) == 0
    out = capsys.readouterr().out
    assert "norm head_bn; 360 examples" in out and "accuracy, population" in out
    assert "interventions at head_bn on 360 examples; dead units of head_fc" in out
    content = json.loads((tmp_path / "mechanisms.json").read_text())
    assert content["training_batch"] == config.batch_size and content["norm"] == "head_bn"
    assert content["figures"]["accuracy_moving"] == pytest.approx(result["test_accuracy"])
    none = content["interventions"]["none"]
    assert none["loss"] == pytest.approx(result["test_loss"], rel=1e-4)
    assert none["dead"] == pytest.approx(result["dead/head_fc/dataset"])
    assert content["interventions"]["population"]["loss"] != pytest.approx(none["loss"], rel=0.01)


def test_what_measure_takes():
    assert request(measure="interventions").measured_groups() == ((), True)
    assert request(measure="noise,gap").measured_groups() == (("noise", "gap"), False)
    groups, intervenes = request(measure="all").measured_groups()
    assert len(groups) == 12 and intervenes
    with pytest.raises(UsageError, match="measure 'noize' is not known; did you mean 'noise'"):
        request(measure="noize")
    with pytest.raises(UsageError, match="training_batch must be at least 2"):
        request(measure="noise", training_batch=1)


def test_the_census_of_a_run_is_kept_in_the_run(short_run, tmp_path, capsys):
    config, _ = short_run
    run = RunDirectory(shutil.copytree(config.workdir, tmp_path / "run"))
    arguments = [str(run.path), f"--data_dir={config.data_dir}", "--layers=last", "--examples=50"]
    assert inspect.main(arguments) == 0
    assert f"{run.path}/census/index.html" in capsys.readouterr().out
    first = (run.path / "census" / "census.json").read_bytes()
    assert json.loads(first)["weights"] == f"trained, of the run {run.path}"
    assert inspect.main([*arguments, "--wide"]) == 0  # the same inspection replaces it
    assert (run.path / "census" / "census.json").read_bytes() == first
    assert run.finished_result(config.settings()) is not None and run.changes() == {}
    assert "census" in run.clear() and not (run.path / "census").exists()


def test_a_file_of_somebodys(tmp_path, data_dir, capsys):
    inputs = keras.Input((8, 8, 1))
    x = layers.GlobalMaxPooling2D()(layers.Conv2D(6, 3, activation="relu", name="map")(inputs))
    model = keras.Model(inputs, layers.Dense(10, "softmax")(layers.Dense(9, "relu", name="fc")(x)))
    model.save(tmp_path / "mine.keras")
    flags = ["--dataset=digits", f"--data_dir={data_dir}", f"--out={tmp_path / 'out'}", "--examples=100"]
    assert inspect.main([str(tmp_path / "mine.keras"), *flags, "--layers=last,map", "--batch_size=30"]) == 0
    content = json.loads((tmp_path / "out" / "census.json").read_text())
    assert [step[0] for step in content["steps"]][1:4:2] == ["map", "fc"]
    assert content["steps"][2] == [content["steps"][2][0], "GlobalMaxPooling2D", [1]]
    found = content["layers"]
    assert list(found) == ["fc", "map"]
    images = load("digits", data_dir).test.images[:100].astype("float32")
    expected = count(
        model, images / 127.5 - 1, ["fc", "map"]
    )  # as in training, where nothing else is asked for
    assert "scaled to -1 to 1" in capsys.readouterr().out
    for name, layer in found.items():
        assert layer["counts"]["active"] == expected.layers[name].active.tolist()


def test_a_picture_that_cannot_be_decoded_is_named(tmp_path, monkeypatch, capsys):
    names = [f"{s}/{n}/{i}" for s in ("train", "test") for n in "ab" for i in range(2)]
    root = write_folder(tmp_path / "pictures", {f"{name}.png": smooth(8, 8) for name in names})
    (root / "test/b/1.png").write_bytes(b"\x89PNG\r\n\x1a\n damaged")
    monkeypatch.setattr("bnhead.training.reopen.load", functools.partial(load, memory_limit=0))
    flags = [
        f"--dataset=folder:{root}",
        "--image_size=8",
        f"--data_dir={tmp_path}",
        f"--out={tmp_path / 'out'}",
    ]
    assert inspect.main(["resnet8", *flags]) == 4
    error = capsys.readouterr().err
    assert (
        f"{root}/test/b/1.png cannot be decoded: " in error and error.count("\n") == 1 and "{{" not in error
    )


def test_weights_that_are_not_finite_are_unknown_and_the_files_are_valid(tmp_path, data_dir, capsys):
    model = keras.Sequential([keras.Input((8, 8, 1)), layers.Flatten(), layers.Dense(4, "relu", name="fc")])
    model.add(layers.Dense(10))
    model.get_layer("fc").bias.assign(np.full(4, np.nan))
    model.save(tmp_path / "nan.keras")
    flags = ["--dataset=digits", f"--data_dir={data_dir}", f"--out={tmp_path / 'out'}"]
    assert inspect.main([str(tmp_path / "nan.keras"), *flags]) == 0
    assert "fc: unknown, the model's weights are not finite, first fc/bias" in capsys.readouterr().out
    layer = json.loads((tmp_path / "out" / "census.json").read_text())["layers"]["fc"]
    assert layer["figures"]["dataset"] is None and "not finite" in layer["unknown"]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([], 2, "bnhead inspect: MODEL is missing"),
        (
            ["resnet20"],
            2,
            "dataset is missing; only a run has its own: bnhead inspect resnet20 --dataset=digits",
        ),
        (["resnet20", "--dataset=digts"], 2, "data set 'digts' is not known; did you mean 'digits'"),
        (
            ["resnet20", "--dataset=digits", "--layer=all"],
            2,
            "--layer is not known; did you mean 'layers'",
        ),
        (["resnet8", "--dataset=digits", "--layers=,"], 2, "layers must name at least one layer"),
        (["resnet8", "--dataset=digits", "--layers=stm_relu"], 2, "did you mean 'stem_relu'"),
        (["RUN"], 3, "holds no finished run"),
        (["resnet8", "--dataset=digits", "--out=FILE"], 3, "cannot be written"),
    ],
)
def test_errors_are_one_line(arguments, status, message, tmp_path, data_dir, capsys):
    (tmp_path / "file").write_text("")
    places = {"RUN": str(tmp_path), "--out=FILE": f"--out={tmp_path / 'file'}"}
    arguments = [places.get(argument, argument) for argument in arguments]
    if any(argument == "--dataset=digits" for argument in arguments):
        arguments.append(f"--data_dir={data_dir}")
    assert inspect.main(arguments) == status
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_patterns_units_and_an_alert(tmp_path, data_dir, capsys):
    flags = ["--dataset=digits", f"--data_dir={data_dir}", f"--out={tmp_path / 'out'}", "--head=fc64"]
    flags += ["--layers=stage3_*,head_fc", "--examples=100", f"--units={tmp_path / 'units.json'}"]
    assert inspect.main(["resnet8", *flags, "--alert=0.05"]) == 1
    out, error = capsys.readouterr()
    counted = json.loads((tmp_path / "out" / "census.json").read_text())["layers"]
    assert list(counted) == ["stage3_block1_relu1", "stage3_block1_relu2", "head_fc"]
    layers = json.loads((tmp_path / "units.json").read_text())
    assert {name: len(layer["dead"]) for name, layer in layers.items()} == {
        name: layer["counts"]["active"].count(0) for name, layer in counted.items()
    }
    dead = len(layers["head_fc"]["dead"])
    assert f"head_fc ({dead / 64:.1%})" in error and "more than 5.0% of the units are dead: " in error
    assert f"units       {tmp_path / 'units.json'}" in out and "silent on the first" in out
    curve = counted["head_fc"]["dead_after"]
    assert curve["inputs"] == [1, 2, 4, 8, 16, 32, 64, 100] and curve["dead"][-1] == dead


def test_help_and_flag_errors_need_no_tensorflow():
    code = (
        "import sys; from bnhead.__main__ import main; main(['inspect', '--help']); "
        "main(['inspect', 'resnet20']); assert not {'tensorflow', 'keras'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "usage: bnhead inspect MODEL [--flag=value ...]" in done.stdout and "--layers=all" in done.stdout


def test_a_layers_name_that_tensorflow_cannot_trace_is_one_line(tmp_path, data_dir, capsys):
    inputs = keras.Input((8, 8, 1))
    x = layers.Dense(4, "relu", name="<script>\x1b[31m")(layers.Flatten()(inputs))
    keras.Model(inputs, layers.Dense(10)(x), name="mine").save(tmp_path / "named.keras")
    flags = ["--dataset=digits", f"--data_dir={data_dir}", f"--out={tmp_path / 'out'}"]
    assert inspect.main([str(tmp_path / "named.keras"), *flags]) == 2
    told = capsys.readouterr().err
    assert "has a name that TensorFlow cannot trace" in told
    assert told.count("\n") == 1 and "\x1b" not in told
    assert keras.Variable(0.0, name="free").path == "free"


def test_a_count_that_needs_too_much_memory_is_one_line(tmp_path, data_dir, capsys, monkeypatch):
    def short(*_):
        raise MemoryError

    monkeypatch.setattr(inspect, "_count_units", short)
    flags = ["--dataset=digits", f"--data_dir={data_dir}", f"--out={tmp_path / 'out'}", "--head=fc8"]
    assert inspect.main(["resnet8", *flags, "--batch_size=64"]) == 6
    told = capsys.readouterr().err
    assert told.startswith(
        "bnhead inspect: model resnet8 needs more memory than there is; a smaller --batch_size"
    )
    assert told.count("\n") == 1 and not (tmp_path / "out").exists()


def request(**settings):
    return Request(**{"model": "resnet20", "dataset": "digits", **settings})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": ""}, "model is missing"),
        ({"model": "resnt20"}, "backbone 'resnt20' is not known; did you mean 'resnet20'"),
        ({"model": "nothere.keras"}, "model 'nothere.keras': no such file or directory"),
        ({"model": "runs/nothere"}, "model 'runs/nothere': no such file or directory"),
        ({"custom_objects": "my layers"}, "custom_objects 'my layers' must be module:Name or module"),
        ({"data": "held.npz"}, "dataset does not go with --data, whose arrays are the model's inputs"),
        (
            {"data": "held.npz", "dataset": ""},
            r"data is for a run or a \.keras file; resnet20 needs --dataset",
        ),
        ({"dataset": ""}, "dataset is missing; only a run has its own: .*inspect resnet20 --dataset=digits"),
        ({"pixels": "sined"}, "pixels 'sined' is not known; did you mean 'signed'"),
        ({"examples": 0}, "examples must be at least 1, got 0"),
        ({"eps": -0.5}, "eps must be at least 0, got -0.5"),
        ({"eps": float("nan")}, "eps must be at least 0, got nan"),
        ({"alert": 1.5}, "alert must be a share from 0 to 1, got 1.5"),
        ({"units": "units.cvs"}, r"units must be a file that ends in .*, got '.cvs'; did you mean '.csv'"),
        ({"units": "nowhere/units.csv"}, "units nowhere/units.csv: there is no folder nowhere"),
        ({"head": "fcc"}, "'fcc' is not a token; did you mean 'fc'"),
    ],
)
def test_what_makes_no_sense(settings, message):
    with pytest.raises(UsageError, match=message):
        request(**settings)


def test_files_of_other_kinds_and_mistyped_paths(tmp_path):
    for name in ("mine.h5", "mine.keras", "held.npz"):
        (tmp_path / name).write_text("")
    h5, keras_file = str(tmp_path / "mine.h5"), str(tmp_path / "mine.keras")
    with pytest.raises(
        UsageError, match=r"mine\.h5' must be a \.keras file.*save\('mine\.keras'\) converts it"
    ):
        request(model=h5)
    with pytest.raises(UsageError, match=r"no such file or directory; did you mean 'mine\.keras'\?"):
        request(model=str(tmp_path / "mne.keras"))
    with pytest.raises(DataError, match=r"hld\.npz': no such file; did you mean 'held\.npz'\?"):
        request(model=keras_file, dataset="", data=str(tmp_path / "hld.npz"))
    with pytest.raises(DataError, match=r"held\.npz must be an \.npz file"):
        request(model=keras_file, dataset="", data=str(tmp_path / "held.npz"))
    with pytest.raises(UsageError, match=r"dataset is missing.*\(or --data=FILE\.npz\)"):
        request(model=keras_file, dataset="")


def test_arrays_of_somebodys(tmp_path, capsys):
    age, job = keras.Input((3,), name="age"), keras.Input((2,), name="job")
    x = layers.Dense(9, "relu", name="fc")(layers.Concatenate()([age, job]))
    model = keras.Model([age, job], layers.Dense(2)(x))
    model.save(tmp_path / "table.keras")
    rng = np.random.default_rng(0)
    data = {"age": rng.normal(size=(50, 3)), "job": rng.normal(size=(50, 2)), "y": rng.integers(0, 2, 50)}
    np.savez(tmp_path / "held.npz", **data)
    flags = [str(tmp_path / "table.keras"), f"--data={tmp_path / 'held.npz'}", f"--out={tmp_path / 'out'}"]
    assert inspect.main([*flags, "--examples=40", "--batch_size=16", "--gradients"]) == 0
    out = capsys.readouterr().out
    assert "the first 40 examples of held.npz" in out and "table on held.npz" in out
    content = json.loads((tmp_path / "out" / "census.json").read_text())
    inputs = {name: array[:40] for name, array in data.items() if name != "y"}
    expected = count(model, (inputs, data["y"][:40]), ["fc"]).layers["fc"]
    counts = content["layers"]["fc"]["counts"]
    assert counts["active"] == expected.active.tolist() and 0 < sum(counts["active"]) < 360
    assert counts["class_active"] == expected.class_active.tolist() and "gradient" in counts
    np.savez(tmp_path / "held.npz", **{**data, "y": 1 - data["y"]})  # other data of the same name
    assert inspect.main([*flags, "--examples=40"]) == 3
    assert "holds another census: data_sha256" in capsys.readouterr().err


def written_run(path, **settings):
    """A directory with what `inspect` reads of a run before it opens the model."""
    path.mkdir(parents=True)
    settings = {
        "backbone": "resnet8",
        "head": "bn_fc",
        "dataset": "digits",
        "task": "classification",
        **settings,
    }
    (path / "config.json").write_text(json.dumps(settings))
    (path / "model.keras").write_text("a model")
    return path


def place(**settings):
    made = request(**settings)
    return str(inspect.output_directory(made, inspect.inspected_by(made)).path)


def test_every_inspection_has_its_place(tmp_path):
    assert place() == "census/digits-resnet20-out-seed0"
    assert place(model="keras:ResNet50", head="bn_fc", weights="imagenet", seed=2) == (
        "census/digits-keras-ResNet50-bn_fc-imagenet-seed2"
    )
    assert place(out="elsewhere") == "elsewhere"
    (tmp_path / "mine.keras").write_text("a model")
    name = place(model=str(tmp_path / "mine.keras"))
    assert name == f"census/digits-mine-{hashlib.sha256(b'a model').hexdigest()[:8]}"
    run = written_run(tmp_path / "seed0")
    assert place(model=str(run), dataset="") == place(model=str(run)) == f"{run}/census"
    assert place(model=str(run), dataset="digits/rotation") == f"{run}/census/digits-rotation"


def test_weights_are_known_before_they_are_loaded(tmp_path):
    run = written_run(tmp_path / "seed0")
    of_run = inspect.inspected_by(request(model=str(run), dataset=""))
    assert (of_run.weights, of_run.net, of_run.head, of_run.seed) == ("run", "resnet8", "bn_fc", None)
    assert of_run.weights_sha256 == hashlib.sha256(b"a model").hexdigest() and of_run.dataset == "digits"
    named = inspect.inspected_by(request(seed=5))
    assert (named.weights, named.seed, named.weights_sha256) == (INITIAL, 5, "")
    pretrained = inspect.inspected_by(request(weights=str(run)))
    assert pretrained.weights == str(run) and pretrained.weights_sha256 == of_run.weights_sha256
    with pytest.raises(RunDirectoryError, match="holds no finished run"):
        inspect.inspected_by(request(model=str(tmp_path)))


def test_the_census_of_another_model_is_refused_before_tensorflow_is_imported(tmp_path):
    out = tmp_path / "out"
    code = (
        "import sys; from bnhead.cli import inspect\n"
        "from bnhead.census.census import Census; from bnhead.report import census_files\n"
        "made = inspect.Request(model='resnet20', dataset='digits', out=sys.argv[1])\n"
        "directory = inspect.output_directory(made, inspect.inspected_by(made))\n"
        "import json; directory.path.mkdir(); import dataclasses\n"
        "record = {'inspected': dataclasses.asdict(inspect.inspected_by(made))}\n"
        "(directory.path / 'census.json').write_text(json.dumps(record))\n"
        "status = inspect.main(['resnet20', '--dataset=digits', '--seed=1', f'--out={sys.argv[1]}'])\n"
        "assert status == 3 and not {'tensorflow', 'keras'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(out)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"out {out} holds another census: seed 0 there, 1 now (--overwrite replaces it" in done.stderr


@pytest.mark.parametrize(
    ("settings", "command"),
    [
        ({"head": "bn_fc"}, "train --backbone=resnet20 --dataset=digits --head=bn_fc"),
        (
            {"weights": "imagenet"},
            "train --backbone=resnet20 --dataset=digits --head=out --weights=imagenet",
        ),
    ],
)
def test_the_next_command(settings, command, tmp_path):
    assert inspect.next_command(request(**settings)).endswith(f" {command}")
    (tmp_path / "my net.keras").write_text("")
    mine = request(model=str(tmp_path / "my net.keras"))
    quoted = f"'{tmp_path}/my net.keras'"
    assert inspect.next_command(mine).endswith(
        f" inspect {quoted} --dataset=digits --codeath --gradients --clones --ablate"
    )
    everything = dict.fromkeys(inspect.OPTIONAL, True)
    assert inspect.next_command(dataclasses.replace(mine, **everything)) == ""
    run = written_run(tmp_path / "seed0")
    assert inspect.next_command(request(model=str(run))).endswith(f" report {run}")


def test_every_field_has_its_help():
    assert all(spec.metadata["help"].endswith(".") for spec in dataclasses.fields(Request))
