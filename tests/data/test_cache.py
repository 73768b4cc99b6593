import errno
import os
import subprocess
import sys
import time

import numpy as np
import pytest

from bnhead.data import cache, load, sources
from bnhead.data.stream import Streamed
from bnhead.runs import atomic

ARRAYS = {"images": np.arange(48, dtype=np.uint8).reshape(2, 4, 3, 2), "labels": np.array([5, -7])}


@pytest.fixture
def written(tmp_path):
    path = cache.cache_path(tmp_path, ["set", 1])
    assert cache.write_arrays(path, ARRAYS) == ""
    return path


def same(found):
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype
    return True


def test_what_is_written_is_read_and_nothing_else_stays(written):
    assert same(cache.read_arrays(written))
    assert sorted(p.name for p in written.iterdir()) == ["images.npy", "labels.npy", "meta.json"]
    assert list(written.parent.iterdir()) == [written]


def test_another_identity_has_another_folder(tmp_path):
    names = {cache.cache_path(tmp_path, x).name for x in (["a", [1, 2]], ["a", [1, 3]], ["b", [1, 2]])}
    assert len(names) == 3


def flip_bit(path):
    content = bytearray((path / "images.npy").read_bytes())
    content[-1] ^= 1
    (path / "images.npy").write_bytes(content)


def truncate(name, size):
    return lambda path: os.truncate(path / name, size)


@pytest.mark.parametrize(
    "damage",
    [
        flip_bit,
        truncate("images.npy", 140),
        truncate("images.npy", 0),
        truncate("labels.npy", 50),
        truncate("meta.json", 30),
        truncate("meta.json", 0),
        lambda path: (path / "labels.npy").unlink(),
        lambda path: (path / "meta.json").unlink(),
        lambda path: (path / "meta.json").write_text("[1]"),
        lambda path: (path / "meta.json").write_text('{"images": "0"}'),
        lambda path: np.save(path / "images.npy", ARRAYS["images"].reshape(2, 3, 4, 2)),
    ],
)
def test_what_is_damaged_is_not_there_and_is_replaced(written, damage):
    damage(written)
    assert cache.read_arrays(written) is None
    assert cache.write_arrays(written, ARRAYS) == "" and same(cache.read_arrays(written))
    assert list(written.parent.iterdir()) == [written]


def test_a_directory_that_cannot_be_written_is_reported_and_raises_nothing(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    assert cache.write_arrays(tmp_path / "file" / "cache", ARRAYS) == "File exists"

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)
    assert cache.write_arrays(tmp_path / "cache", ARRAYS) == "No space left on device"
    assert [p.name for p in tmp_path.iterdir()] == ["file"], "nothing half-written stays"


def test_a_process_that_is_killed_leaves_nothing_that_counts(tmp_path):
    path = cache.cache_path(tmp_path, "killed")
    code = (
        "import os, sys, pathlib, numpy as np; from bnhead.data import cache; "
        "os.fsync = lambda fd: os._exit(9); "
        f"cache.write_arrays(pathlib.Path({str(path)!r}), {{'images': np.zeros(5)}})"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 9
    (left,) = tmp_path.iterdir()
    assert cache.read_arrays(path) is None and left.name.startswith("bnhead-writing-")
    assert cache.write_arrays(path, ARRAYS) == "" and left.exists(), "it could still be at work"
    os.utime(left, (0, time.time() - 7200))
    assert cache.write_arrays(path, ARRAYS) == "" and list(tmp_path.iterdir()) == [path]


def prepared_copy(tmp_path):
    data = load("digits", str(tmp_path))
    caches = sorted((tmp_path / "digits" / "1.0.0").glob("bnhead-*"))
    assert len(caches) == 2
    return data, caches


def test_a_data_set_is_decoded_once(tmp_path, monkeypatch):
    first, _ = prepared_copy(tmp_path)

    def never(self):
        raise AssertionError("decoded again")

    monkeypatch.setattr(Streamed, "decoded", never)
    again = load("digits", str(tmp_path))
    assert again.train.fingerprint() == first.train.fingerprint()
    assert again.test.fingerprint() == first.test.fingerprint()
    with pytest.raises(AssertionError, match="decoded again"):
        load("digits", str(tmp_path), image_size=9)
    with pytest.raises(AssertionError, match="decoded again"):
        load("digits", str(tmp_path), cached=False)


def test_a_damaged_copy_is_made_again(tmp_path):
    first, caches = prepared_copy(tmp_path)
    for path in caches:
        flip_bit(path)
    assert load("digits", str(tmp_path)).train.fingerprint() == first.train.fingerprint()
    assert all(cache.read_arrays(path) for path in caches)


def test_a_read_only_place_loses_nothing(tmp_path, data_dir, monkeypatch):
    expected = load("digits", data_dir).train.fingerprint()
    load("digits", str(tmp_path), cached=False)

    def read_only(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(atomic.tempfile, "TemporaryDirectory", read_only)
    assert sources.load("digits", str(tmp_path)).train.fingerprint() == expected
    assert not list((tmp_path / "digits" / "1.0.0").glob("bnhead-*"))
