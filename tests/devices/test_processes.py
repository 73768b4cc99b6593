"""Several processes on JAX. Whether they train what one device does is tested with the replicas."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import keras
import pytest
import tensorflow as tf

from bnhead.devices import processes
from bnhead.devices.processes import Processes, join_processes
from bnhead.errors import DataError, RunDirectoryError, UsageError

ROOT = Path(__file__).resolve().parents[2]
VARIABLES = [f"KERAS_DISTRIBUTION_{name}" for name in ("JOB_ADDRESSES", "NUM_PROCESSES", "PROCESS_ID")]


@pytest.mark.slow
def test_the_command_in_two_processes(tmp_path):
    """Both end alike: with the run, with its result a second time, refusing other settings."""
    command = [sys.executable, ROOT / "train.py", "--distribution=data_parallel", "--backbone=resnet8"]
    command += ["--epochs=1", f"--workdir={tmp_path / 'run'}"]

    def run(port, *flags):
        environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
        processes = [
            subprocess.Popen(
                [*command, *flags],
                env={**environment, **dict(zip(VARIABLES, (f"127.0.0.1:{port}", "2", n), strict=True))},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for n in "01"
        ]
        outputs = [process.communicate(timeout=300) for process in processes]
        return [process.returncode for process in processes], *outputs

    ports = []
    for _ in range(3):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            ports.append(probe.getsockname()[1])
    status, (out, _), (silent, _) = run(ports[0])
    assert status == [0, 0] and "2; batch norms normalise over 128 of the 128 images" in " ".join(out.split())
    assert "epoch" not in silent and "accuracy" not in silent
    status, (out, _), (silent, _) = run(ports[1])
    assert status == [0, 0] and "holds this run, finished" in out and "accuracy" not in silent
    status, (_, errors), (_, second_errors) = run(ports[2], "--seed=1")
    assert status == [3, 3] and "holds another run: seed 0 there, 1 now" in errors and errors == second_errors


SLURM = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")
JOINED = """
import json, numpy, jax.experimental.multihost_utils
from bnhead.data.memory import InMemory
from bnhead.devices.replicas import open_replicas
processes = open_replicas("data_parallel", 8).processes
labels = numpy.arange(40)
data = InMemory(numpy.zeros((40, 2, 2, 1), "uint8"), labels)
def first(rows):
    return next(iter(data.training_batches(8, 1, 0, "crop", rows=rows)))[1].numpy()
rows, whole = first(processes.rows(8)), first(None)
joined = jax.experimental.multihost_utils.process_allgather(rows.astype("int32"), tiled=True)
print(json.dumps([processes.number, processes.index, rows.tolist(), joined.tolist() == whole.tolist()]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("cluster", ["slurm", "ompi", "keras"])
def test_two_processes_meet_and_make_one_batch(cluster):
    """On loopback, by each way of finding each other."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])

    def variables(index):
        return {
            "slurm": dict(zip(SLURM, ("7", "127.0.0.1", "2", index, index), strict=True)),
            "ompi": {
                "OMPI_MCA_orte_hnp_uri": "7.0;tcp://127.0.0.1:34911",
                "OMPI_COMM_WORLD_SIZE": "2",
                "OMPI_COMM_WORLD_RANK": index,
                "OMPI_COMM_WORLD_LOCAL_RANK": index,
            },
            "keras": dict(zip(VARIABLES, (f"127.0.0.1:{port}", "2", index), strict=True)),
        }[cluster] | {"JAX_COORDINATOR_PORT": port}

    jax = {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", JOINED], env={**os.environ, **jax, **variables(index)}, **options
        )
        for index in "01"
    ]
    outputs = [process.communicate(timeout=300) for process in started]
    assert [process.returncode for process in started] == [0, 0], outputs
    first, second = (json.loads(out.splitlines()[-1]) for out, _ in outputs)
    assert first[:2] == [2, 0] and second[:2] == [2, 1] and first[3] and second[3]
    assert len(first[2]) == len(second[2]) == 4 and not set(first[2]) & set(second[2])


@pytest.fixture
def no_variables(monkeypatch):
    for name in [*VARIABLES, *SLURM, "TF_CONFIG"]:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_a_cluster_is_for_runs_that_ask_for_several_devices(no_variables):
    """A job's tasks may each do a run by itself."""
    for name, value in zip(SLURM, ("7", "10.0.0.1", "4", "3", "0"), strict=True):
        no_variables.setenv(name, value)
    assert processes._named_processes("none") == Processes()
    assert processes._named_processes("data_parallel") == Processes(4, 3)
    no_variables.setenv("SLURM_NTASKS", "4(x2)")
    with pytest.raises(UsageError, match=r"the cluster slurm cannot be read \(ValueError: invalid literal"):
        processes._named_processes("data_parallel")


def test_the_rows_of_the_processes_are_the_batch():
    assert [Processes(3, index).rows(6) for index in range(3)] == [slice(0, 2), slice(2, 4), slice(4, 6)]


def test_one_process_is_the_first(no_variables):
    assert join_processes("none") == Processes() and Processes().first


@pytest.mark.parametrize(
    ("backend", "distribution", "variables", "message"),
    [
        (
            "jax",
            "mirrored",
            {},
            r"distribution mirrored is TensorFlow's, and Keras runs on jax: --distribution=data_par",
        ),
        (
            "tensorflow",
            "data_parallel",
            {},
            "distribution data_parallel needs JAX, and Keras runs on tensorflow: set KERAS_BACKEND=jax, or",
        ),
        (
            "tensorflow",
            "mirrored",
            {"TF_CONFIG": '{"cluster": {"chief": ["a:1"], "worker": ["b:1"]}}'},
            "TF_CONFIG names 2 workers, and one model on several machines is KERAS_BACKEND=jax and --dist",
        ),
        ("tensorflow", "mirrored", {"TF_CONFIG": "{"}, "TF_CONFIG is not the JSON that TensorFlow reads"),
        (
            "tensorflow",
            "none",
            {VARIABLES[1]: "2"},
            "JOB_ADDRESSES and KERAS_.*PROCESS_ID must be set too, since",
        ),
        (
            "tensorflow",
            "none",
            dict(zip(VARIABLES, ("a:1", "2", "0"), strict=True)),
            "NUM_PROCESSES is 2 and distribution none: one model on several machines is KERAS_BACKEND=jax",
        ),
        (
            "jax",
            "data_parallel",
            dict(zip(VARIABLES, ("a:1", "2", "2"), strict=True)),
            "PROCESS_ID must be less than the 2 processes, got 2",
        ),
        (
            "jax",
            "data_parallel",
            dict(zip(VARIABLES, ("a:1", "two", "0"), strict=True)),
            "NUM_PROCESSES must be a whole number, got 'two'",
        ),
    ],
)
def test_what_cannot_be_is_one_line(no_variables, backend, distribution, variables, message):
    no_variables.setattr(keras.backend, "backend", lambda: backend)
    for name, value in variables.items():
        no_variables.setenv(name, value)
    with pytest.raises(UsageError, match=message) as caught:
        join_processes(distribution)
    assert "\n" not in str(caught.value)


def test_processes_share_each_batch_in_order():
    data = tf.data.Dataset.range(12).map(lambda i: ((i, -i), 2 * i)).batch(6)
    parts = [list(Processes(3, process).part(data).as_numpy_iterator()) for process in range(3)]
    assert [[y.tolist() for _, y in part] for part in parts] == [
        [[0, 2], [12, 14]],
        [[4, 6], [16, 18]],
        [[8, 10], [20, 22]],
    ]
    assert parts[1][0][0][1].tolist() == [-2, -3]


def test_a_process_that_is_not_the_first_writes_nothing(tmp_path):
    directory = Processes(2, 1).directory(str(tmp_path / "run"))
    assert not directory.writable
    directory.begin({"a": 1})
    directory.write("result.json", {"a": 1})
    directory.write_history([{"a": 1}])
    assert not (tmp_path / "run").exists() and directory.read("result.json") is None


@pytest.mark.parametrize("error", [UsageError, RunDirectoryError, DataError])
def test_what_the_first_process_finds_the_others_are_told(monkeypatch, error):
    sent = []
    monkeypatch.setattr(processes, "broadcast", lambda text: sent.append(text) or sent[0])
    first, second = Processes(2, 0), Processes(2, 1)
    assert first.agree(lambda: {"a": [1, None]}) == {"a": [1, None]}
    assert second.agree(lambda: 1 / 0) == {"a": [1, None]}
    sent.clear()

    def fail():
        raise error("no such place")

    for several in (first, second):
        with pytest.raises(error, match="no such place"):
            several.agree(fail)
