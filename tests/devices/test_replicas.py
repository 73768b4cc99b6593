"""Several devices train what one does. What needs devices of its own runs in processes of its own."""

import contextlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from bnhead.census import count
from bnhead.data import load
from bnhead.devices.replicas import Replicas, check_shares, open_replicas, padded
from bnhead.errors import UsageError
from bnhead.training import TrainConfig, train

ROOT = Path(__file__).resolve().parents[2]
# At larger rates float32 does not hold 1e-5 for 20 steps. Digits have black margins, where many
# pre-activations are equal: when rounding takes them across 0, a gradient jumps. (At 1e-3 losses were 2e-4
# apart after 15 steps.)
SETTINGS = {"backbone": "resnet8", "fc_units": 32, "epochs": 1, "batch_size": 64, "learning_rate": 1e-4}
# Devices add up the same float32 numbers in another order. The longest sum is a batch norm's, over 64 images
# of up to 16 x 16: it rounds by about eps sqrt(16384) of its size, a squared error doubles that, and each
# step adds as much.
ROUNDING = 2 * float(np.finfo("float32").eps) * (64 * 16 * 16) ** 0.5
VARIABLES = [f"KERAS_DISTRIBUTION_{name}" for name in ("JOB_ADDRESSES", "NUM_PROCESSES", "PROCESS_ID")]


class StepLosses(keras.callbacks.Callback):
    """The loss of every single step; Keras logs the mean over the steps of an epoch so far."""

    def __init__(self):
        super().__init__()
        self.losses = []

    def on_train_batch_end(self, batch, logs=None):
        self.losses.append(float(logs["loss"]))
        if keras.backend.backend() == "jax":
            self.model.jax_state_sync()
        self.model.reset_metrics()


def trained(config):
    """A run's losses, its result and, of what it saved, the dead units counted on one device."""
    steps = StepLosses()
    result = train(config, [steps])
    saved = Path(config.workdir, "model.keras").is_file()
    test = load(config.dataset, task=config.task).test
    again = (
        count(keras.saving.load_model(Path(config.workdir, "model.keras")), test.images) if saved else None
    )
    return {"losses": steps.losses, "result": result, "again": again and again.figures()}


def images():
    return load("digits").test.images


def check_losses(losses, expected, name=""):
    """That the losses of all steps are equal, to what the steps up to each have rounded."""
    steps = 1 + np.arange(len(expected))
    apart = np.abs(np.subtract(losses, expected)) / (np.abs(expected) * steps)
    assert len(losses) == len(expected) and apart.max() < ROUNDING, f"{name}: {apart.max()}"


@contextlib.contextmanager
def started(backend, folder, *runs, **environment):
    """A process that trains several runs, each given by its name and its settings; gives a reader of them."""
    variables = {k: v for k, v in os.environ.items() if k not in VARIABLES}
    variables |= {"KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), **environment}
    command = [sys.executable, __file__, str(folder), json.dumps(runs)]
    process = subprocess.Popen(
        command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )

    def read():
        out, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors
        return json.loads(out.splitlines()[-1])

    try:
        yield read
    finally:
        process.kill()
        process.communicate()


@contextlib.contextmanager
def two_processes(folder, *runs):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with contextlib.ExitStack() as stack:

        def start(process):
            variables = dict(zip(VARIABLES, (f"127.0.0.1:{port}", "2", str(process)), strict=True))
            return stack.enter_context(started("jax", folder / str(process), *runs, **variables))

        readers = [start(process) for process in (0, 1)]
        yield lambda: [read() for read in readers]


TWO_HOST_DEVICES = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory, data_dir):
    """name -> what `trained` returned: one device and two, on both backends."""
    folder = tmp_path_factory.mktemp("replicas")
    mirrored = ("mirrored", {"distribution": "mirrored"})
    on_jax = ("jax", {"distribution": "none"}), ("devices", {"distribution": "data_parallel"})
    with (
        started("tensorflow", folder, mirrored) as read_mirrored,
        started("jax", folder, *on_jax, **TWO_HOST_DEVICES) as read_jax,
    ):
        single = trained(
            TrainConfig(**SETTINGS, head="bn_fc", workdir=str(folder / "single"), data_dir=data_dir)
        )
        return {"tensorflow": single, **read_mirrored(), **read_jax()}


@pytest.fixture(scope="module")
def more_runs(runs, tmp_path_factory):
    """Those, two processes (the second is `other`), replicas with statistics of their own (`apart`)."""
    folder = tmp_path_factory.mktemp("processes")
    apart = ("apart", {"distribution": "mirrored", "sync_bn": False})
    with two_processes(folder, ("processes", {"distribution": "data_parallel"})) as in_two:
        first, second = in_two()
    with started("tensorflow", folder, apart) as read:
        return {**runs, **first, "other": second["processes"], **read(), "folder": folder}


PAIRS = [("mirrored", "tensorflow"), ("devices", "jax")]


def check_the_same(several, single):
    assert len(single["losses"]) == 22
    check_losses(several["losses"], single["losses"])
    loss, accuracy = (several["result"][f"test_{figure}"] for figure in ("loss", "accuracy"))
    assert loss == pytest.approx(single["result"]["test_loss"], rel=22 * ROUNDING)
    assert accuracy == pytest.approx(
        single["result"]["test_accuracy"], abs=1.5 / 360
    )  # one image may tip over
    assert several["result"]["replicas"] == 2 and single["result"]["replicas"] == 1
    assert several["result"]["batch_norm_examples"] == single["result"]["batch_norm_examples"] == 64


def check_dead_units(results):
    assert results["again"]["dead/head_fc/per_input"] > 0.1
    assert {key: results["result"][key] for key in results["again"]} == pytest.approx(
        results["again"], nan_ok=True
    )


@pytest.mark.parametrize(("several", "single"), PAIRS)
def test_synchronised_replicas_train_what_one_device_does(runs, several, single):
    check_the_same(runs[several], runs[single])


@pytest.mark.parametrize("name", ["mirrored", "jax", "devices"])
def test_dead_units_are_counted_as_on_one_device(runs, name):
    check_dead_units(runs[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["processes", "other"])
def test_two_processes_train_what_one_device_does(more_runs, name):
    check_the_same(more_runs[name], more_runs["jax"])
    check_dead_units(more_runs["processes"])


@pytest.mark.slow
def test_replicas_with_statistics_of_their_own_train_something_else(more_runs):
    apart = more_runs["apart"]
    assert np.abs(np.subtract(apart["losses"], more_runs["tensorflow"]["losses"])).min() > 1e-4
    assert apart["result"]["batch_norm_examples"] == 32
    check_dead_units(apart)  # all replicas hold the averages that are saved
    environment = json.loads((more_runs["folder"] / "apart" / "environment.json").read_text())
    assert environment["batch_statistics_of"] == "each replica's part of the batch"


@pytest.mark.slow
def test_only_the_first_process_writes_and_both_know_the_result(more_runs):
    files = {path.name for path in (more_runs["folder"] / "0" / "processes").iterdir()}
    assert {"config.json", "history.csv", "result.json", "model.keras", "train", "test", "units"} <= files
    assert not (more_runs["folder"] / "1" / "processes").exists()
    assert more_runs["other"]["result"] == more_runs["processes"]["result"]
    environment = json.loads((more_runs["folder"] / "0" / "processes" / "environment.json").read_text())
    assert environment["processes"] == environment["replicas"] == 2
    assert environment["batch_statistics_of"] == "the whole batch"


HEADS = ("gbn16_fc", "brn_fc", "fbn_fc", "center_fc_scale", "noise_fc", "bn_gap_fc")


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_other_norms_and_tasks_too(backend, tmp_path):
    distribution = {"tensorflow": "mirrored", "jax": "data_parallel"}[backend]
    settings = {
        **{head: {"head": head} for head in HEADS},
        "recomputed": {"recompute_batch_stats": "all", "validation": 0.1},
        "regression": {"dataset": "digits_rotation", "task": "regression"},
        "mixed": {"task": "multilabel", "mixup": 0.4},
    }
    if backend == "jax":  # on TensorFlow each replica draws the same numbers for its own part
        settings |= {"dropout": {"head": "dropout0.5_fc"}, "by_class": {"head": "cdropout0.5_bn_fc"}}
    single, several = (
        [(name, {**values, "distribution": distribution_name}) for name, values in settings.items()]
        for distribution_name in ("none", distribution)
    )
    with started(backend, tmp_path / "single", *single) as read:
        single = read()
    with started(backend, tmp_path / "several", *several, **TWO_HOST_DEVICES) as read:
        results = read()
    for name in settings:
        check_losses(results[name]["losses"], single[name]["losses"], name)
        for figure in ("test_loss", "validation_loss"):
            if figure in single[name]["result"]:
                expected = pytest.approx(single[name]["result"][figure], rel=22 * ROUNDING)
                assert results[name]["result"][figure] == expected, name


def test_one_process_is_one_replica():
    assert open_replicas("none", 128) == Replicas()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((128, 3, True), "batch_size must divide by the 3 replicas, got 128; 126 or 129 would"),
        ((2, 4, True), "batch_size must divide by the 4 replicas, got 2; 4 or 8 would"),
        ((4, 4, False), "must leave each replica at least 2 images, .* got 4 for 4 replicas"),
        (
            (64, 8, True, [4, 16]),
            "at least the 16 images of a ghost batch .* got 64 for 8 replicas",
        ),
    ],
)
def test_a_batch_that_cannot_be_shared_is_one_line(arguments, message):
    with pytest.raises(UsageError, match=message) as caught:
        check_shares(*arguments)
    assert "\n" not in str(caught.value)


def test_a_batch_that_can_be_shared_passes():
    check_shares(64, 4, True, [16])
    assert TrainConfig(head="gbn16_fc_gbn8").ghost_sizes == [16, 8]


def test_the_last_evaluation_batch_is_filled_up_with_what_does_not_count():
    x, y = np.arange(20.0).reshape(10, 2).astype("float32"), np.arange(10)
    data = tf.data.Dataset.from_tensor_slices(((x, y), y)).batch(4)
    (first, _, weights), _, ((last, labels), targets, last_weights) = padded(data, 10, 4).as_numpy_iterator()
    np.testing.assert_array_equal(first[0], x[:4])
    np.testing.assert_array_equal(last, x[[8, 9, 9, 9]])
    assert labels.tolist() == targets.tolist() == [8, 9, 9, 9]
    np.testing.assert_allclose(weights, [1.2] * 4)
    np.testing.assert_allclose(last_weights, [1.2, 1.2, 0, 0])


def test_evaluation_batches_are_shared_equally():
    assert [Replicas(n).evaluation_batch for n in (1, 2, 3, 8, 300)] == [256, 256, 258, 256, 300]
    data = tf.data.Dataset.range(7).map(lambda i: (i, i)).batch(258)
    (x, _, weights), *remainder = Replicas(3).evaluation(data, 7).as_numpy_iterator()
    assert len(x) == 258 and not remainder and weights.sum() == pytest.approx(258)
    assert Replicas().evaluation(data, 7) is data


def test_what_a_batch_norm_sees_is_said():
    assert Replicas(4).batch_norm_examples(128) == 128
    apart = Replicas(4, synchronized=False)
    assert apart.batch_norm_examples(128) == 32
    assert apart.describe()["batch_statistics_of"] == "each replica's part of the batch"


def test_alone_nothing_is_distributed(monkeypatch):
    set_to = []
    monkeypatch.setattr(keras.distribution, "distribution", lambda: "before")
    monkeypatch.setattr(keras.distribution, "set_distribution", set_to.append)
    with Replicas().alone():
        assert set_to == [None]
    assert set_to == [None, "before"]


if __name__ == "__main__":
    if keras.backend.backend() == "tensorflow" and "mirrored" in sys.argv[2]:
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    results = {}
    for name, settings in json.loads(sys.argv[2]):
        workdir = str(Path(sys.argv[1]) / name)
        results[name] = trained(TrainConfig(**{"head": "bn_fc", **SETTINGS, "workdir": workdir, **settings}))
    print(json.dumps(results))
