import pytest
import tensorflow as tf

from bnhead.devices.environment import cpu_has_bfloat16, describe_environment, prepare_devices
from bnhead.runs.provenance import DECISIVE, environment_changes, source_sha256


def test_what_decides_about_digits_is_recorded():
    current = describe_environment()
    assert set(DECISIVE) <= set(current) and current["cores"] >= 1 and len(current["threads"]) == 2
    assert environment_changes(current, describe_environment()) == ""


def test_threads_are_those_of_the_variables_where_none_are_set(monkeypatch):
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "1")
    monkeypatch.setenv("TF_NUM_INTEROP_THREADS", "many")
    monkeypatch.setattr(tf.config.threading, "get_intra_op_parallelism_threads", lambda: 0)
    assert describe_environment()["threads"][0] == 1
    monkeypatch.setattr(tf.config.threading, "get_intra_op_parallelism_threads", lambda: 3)
    monkeypatch.setattr(tf.config.threading, "get_inter_op_parallelism_threads", lambda: 0)
    assert describe_environment()["threads"] == [3, 0]


def test_the_code_is_recorded():
    assert describe_environment()["source_sha256"] == source_sha256()


@pytest.mark.parametrize(
    ("key", "value"), [("keras", "3.14"), ("threads", [1, 1]), ("devices", ["a GPU"]), ("cores", 64)]
)
def test_another_environment_is_told_in_words(key, value):
    current = describe_environment()
    assert (
        environment_changes({**current, key: value}, current) == f"{key} {value} before, {current[key]} now"
    )
    assert environment_changes({**current, "host": "elsewhere"}, current) == ""


def test_gpu_memory_is_taken_as_it_is_needed(monkeypatch):
    grown = []
    monkeypatch.setattr(
        tf.config, "list_physical_devices", lambda device_type: [f"{device_type}:0", f"{device_type}:1"]
    )
    monkeypatch.setattr(tf.config.experimental, "set_memory_growth", lambda gpu, on: grown.append((gpu, on)))
    prepare_devices(deterministic=False)
    assert grown == [("GPU:0", True), ("GPU:1", True)]


def test_determinism_is_switched_on_where_it_is_asked_for(monkeypatch):
    asked = []
    monkeypatch.setattr(tf.config.experimental, "enable_op_determinism", lambda: asked.append(1))
    prepare_devices(deterministic=False)
    assert not asked
    prepare_devices(deterministic=True)
    assert asked == [1]


@pytest.mark.parametrize(
    ("report", "has"),
    [
        ("processor : 0\nflags\t\t: fpu avx2 avx512f avx512_bf16\n\nprocessor : 1", True),
        ("flags : fpu amx_bf16 amx_tile", True),
        ("Features : fp asimd bf16 i8mm", True),
        ("flags : fpu avx2 avx512f", False),
        ("Features : fp asimd", False),
        ("cpu : POWER9", None),
    ],
)
def test_bfloat16_is_what_the_cpu_reports(tmp_path, report, has):
    (tmp_path / "cpuinfo").write_text(report)
    assert cpu_has_bfloat16(tmp_path / "cpuinfo") is has
    assert cpu_has_bfloat16(tmp_path / "nothing") is None
