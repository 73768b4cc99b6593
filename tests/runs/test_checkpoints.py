import os

import numpy as np
import pytest

from bnhead.runs import checkpoints
from bnhead.runs.checkpoints import Checkpoint, newest_checkpoint, save_checkpoint
from bnhead.runs.directory import RunDirectory

pytestmark = pytest.mark.quick

SETTINGS = {"head": "bn_fc", "learning_rate": 0.1}


def checkpoint(step, **settings):
    draw = np.random.default_rng(step)
    arrays = {
        "00000/kernel": draw.normal(size=(3, 2)).astype("float32"),
        "00001/seed/generator_state": np.array([1, 2**32 - 1], "uint32"),
        "00002/iteration": np.array(step, "int64"),
        "00003/bad": np.array([np.nan, -0.0, np.inf, 1e-45], "float32"),
    }
    records = {"rows": [{"loss": 0.1 + 0.2, "x": float("nan")}], "events": {"a/b": 7}}
    return Checkpoint({**SETTINGS, **settings}, step, arrays, records)


def check_same(first, second):
    assert (
        first.settings == second.settings
        and first.step == second.step
        and first.arrays.keys() == second.arrays.keys()
    )
    for name, array in first.arrays.items():
        assert array.dtype == second.arrays[name].dtype and array.tobytes() == second.arrays[name].tobytes()
    assert repr(first.records) == repr(second.records)


def test_what_is_written_comes_back_bit_for_bit():
    check_same(checkpoints.decode_checkpoint(checkpoints.encode_checkpoint(checkpoint(5))), checkpoint(5))


def test_any_flipped_bit_and_any_cut_is_noticed():
    content = checkpoints.encode_checkpoint(checkpoint(5))
    draw = np.random.default_rng(0)
    places = {0, 25, 60, 85, 86, len(content) - 1, *draw.integers(0, len(content), 60).tolist()}
    for position in places:
        damaged = bytearray(content)
        damaged[position] ^= 1 << int(draw.integers(8))
        with pytest.raises(ValueError, match=r"it is not a checkpoint|not those that were written"):
            checkpoints.decode_checkpoint(bytes(damaged))
        with pytest.raises(ValueError, match=r"it is not a checkpoint|not those that were written"):
            checkpoints.decode_checkpoint(content[:position])
    with pytest.raises(ValueError, match="not those that were written"):
        checkpoints.decode_checkpoint(content + b"\0")


def test_a_few_are_kept_and_the_newest_counts(tmp_path):
    directory = RunDirectory(tmp_path)
    assert newest_checkpoint(directory, SETTINGS) == (None, [])
    for step in (2, 9, 10, 11, 100):
        save_checkpoint(directory, checkpoint(step))
    assert len(list((tmp_path / "checkpoints").iterdir())) == checkpoints.KEPT == 3
    restored, complaints = newest_checkpoint(directory, SETTINGS)
    check_same(restored, checkpoint(100))
    assert not complaints


def test_damaged_ones_are_said_set_aside_and_passed_over(tmp_path):
    directory = RunDirectory(tmp_path)
    for step in (1, 2):
        save_checkpoint(directory, checkpoint(step))
    save_checkpoint(directory, checkpoint(3, head="fc"))
    second = tmp_path / "checkpoints" / "step-0000000002"
    second.write_bytes(second.read_bytes()[:-1])
    restored, complaints = newest_checkpoint(directory, SETTINGS)
    check_same(restored, checkpoint(1))
    assert [line.split(" is not used: ")[1] for line in complaints] == [
        "it is of a run with other settings",
        "its bytes are not those that were written",
    ]
    assert all(str(tmp_path) in line and "\n" not in line for line in complaints)
    names = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert names == {"step-0000000001", "step-0000000002.damaged", "step-0000000003.damaged"}
    assert newest_checkpoint(directory, SETTINGS)[1] == [], "said once"


def test_what_is_no_plain_file_or_of_no_sane_size_is_passed_over(tmp_path):
    directory = RunDirectory(tmp_path)
    save_checkpoint(directory, checkpoint(1))
    folder = tmp_path / "checkpoints"
    os.mkfifo(folder / "step-0000000004")
    (folder / "step-0000000003").mkdir()
    (folder / "step-0000000002").touch()
    os.truncate(folder / "step-0000000002", 2**40)
    restored, complaints = newest_checkpoint(directory, SETTINGS)
    check_same(restored, checkpoint(1))
    for line, why in zip(
        complaints, ("it is not a regular file", "Is a directory", "it is not a checkpoint"), strict=True
    ):
        assert why in line and "\n" not in line


def test_a_run_that_begins_anew_keeps_its_own_and_not_those_of_a_later_step(tmp_path):
    directory = RunDirectory(tmp_path)
    for step in (800, 900, 1000):
        save_checkpoint(directory, checkpoint(step))
    checkpoints.set_checkpoints_aside(directory)
    assert newest_checkpoint(directory, SETTINGS) == (None, [])
    save_checkpoint(directory, checkpoint(1))
    check_same(newest_checkpoint(directory, SETTINGS)[0], checkpoint(1))
    assert len(list((tmp_path / "checkpoints").glob("*.damaged"))) == 3, "nothing is lost"


def test_a_write_that_fails_leaves_the_older_ones(tmp_path, monkeypatch):
    directory = RunDirectory(tmp_path)
    for step in (1, 2, 3):
        save_checkpoint(directory, checkpoint(step))

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(RuntimeError, match="the disk is full"):
        save_checkpoint(directory, checkpoint(4))
    restored, _ = newest_checkpoint(directory, SETTINGS)
    assert restored.step == 3 and len(list((tmp_path / "checkpoints").iterdir())) == 3
