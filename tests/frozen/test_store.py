"""Arrays on disk: written once, resumed after an interruption, never mixed up."""

import errno
import json
import os

import numpy as np
import pytest

from bnhead.errors import ResourcesError
from bnhead.frozen import store

SHAPE = (10, 3)
ROWS = np.arange(30, dtype=np.float32).reshape(SHAPE)
FACTS = {"net": "a"}


class Source:
    """Computes rows in blocks of 4, and counts them; breaks after some."""

    def __init__(self, most=10, error=KeyboardInterrupt):
        self.computed, self.firsts, self.most, self.error = 0, [], most, error

    def __call__(self, first):
        self.firsts.append(first)
        for row in range(first, len(ROWS), 4):
            if self.computed >= self.most:
                raise self.error
            block = ROWS[row : row + 4]
            self.computed += len(block)
            yield block


@pytest.fixture(autouse=True)
def synced_at_once(monkeypatch):
    monkeypatch.setattr(store, "_SYNCED", -1.0)


def test_rows_are_computed_once(tmp_path):
    source = Source()
    for _ in range(2):
        array = store.load_or_compute(tmp_path / "new", FACTS, SHAPE, source)
        np.testing.assert_array_equal(array, ROWS)
        assert array.dtype == np.float32 and not array.flags.writeable
    assert source.firsts == [0]
    (folder,) = (tmp_path / "new").iterdir()
    assert sorted(file.name for file in folder.iterdir()) == ["features.npy", "meta.json"]
    assert json.loads((folder / "meta.json").read_text())["facts"] == FACTS


def test_other_facts_have_another_array(tmp_path):
    store.load_or_compute(tmp_path, FACTS, SHAPE, Source())
    other = Source()
    store.load_or_compute(tmp_path, {"net": "b"}, SHAPE, other)
    assert other.firsts == [0] and len(list(tmp_path.iterdir())) == 2


def test_an_interrupted_extraction_resumes_where_it_was(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        store.load_or_compute(tmp_path, FACTS, SHAPE, Source(most=8))
    second = Source()
    array = store.load_or_compute(tmp_path, FACTS, SHAPE, second)
    assert second.firsts == [8] and second.computed == 2
    np.testing.assert_array_equal(array, ROWS)


@pytest.mark.parametrize("damage", ["flip", "shorten", "meta", "progress"])
def test_a_damaged_array_is_computed_again(tmp_path, damage):
    store.load_or_compute(tmp_path, FACTS, SHAPE, Source())
    (folder,) = tmp_path.iterdir()
    content = bytearray((folder / "features.npy").read_bytes())
    if damage == "flip":
        content[-1] ^= 1
    (folder / "features.npy").write_bytes(content[: -5 if damage == "shorten" else None])
    if damage == "meta":
        (folder / "meta.json").write_text("{")
    if damage == "progress":
        (folder / "meta.json").rename(folder / "progress.json")  # of other content
    source = Source()
    np.testing.assert_array_equal(store.load_or_compute(tmp_path, FACTS, SHAPE, source), ROWS)
    assert source.firsts == [0]


def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_one_line_before_the_first_row(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "posix_fallocate", full)
    source = Source()
    with pytest.raises(ResourcesError, match=r"the feature store .* cannot be written: the disk is full$"):
        store.load_or_compute(tmp_path, FACTS, SHAPE, source)
    assert source.firsts == []
    monkeypatch.undo()
    np.testing.assert_array_equal(store.load_or_compute(tmp_path, FACTS, SHAPE, source), ROWS)


def test_a_disk_that_fills_up_keeps_the_rows_before(tmp_path):
    with pytest.raises(ResourcesError, match="the disk is full"):
        error = OSError(errno.ENOSPC, "No space left on device")
        store.load_or_compute(tmp_path, FACTS, SHAPE, Source(most=4, error=error))
    second = Source()
    np.testing.assert_array_equal(store.load_or_compute(tmp_path, FACTS, SHAPE, second), ROWS)
    assert second.firsts == [4]


def test_two_processes_do_not_write_one_array(tmp_path, monkeypatch):
    """The second waits, and reads what the first has written."""
    monkeypatch.setattr(store, "_POLL", 0.01)
    folder = store.cache_path(tmp_path, FACTS)
    folder.mkdir(parents=True)
    held = [True, False]
    monkeypatch.setattr(store, "is_held", lambda path: True)

    import contextlib

    from bnhead.errors import RunDirectoryError

    @contextlib.contextmanager
    def lock(path):
        if held.pop(0):
            raise RunDirectoryError("directory is being written by process 1")
        yield

    monkeypatch.setattr(store, "writer_lock", lock)
    np.testing.assert_array_equal(store.load_or_compute(tmp_path, FACTS, SHAPE, Source()), ROWS)
    assert held == []
