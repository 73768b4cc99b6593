import json
import os
import platform
import subprocess
import sys
import time

import pytest

from bnhead.errors import RunDirectoryError
from bnhead.runs import lock

HOLDER = (
    "import sys, pathlib; from bnhead.runs import lock\n"
    "with lock.writer_lock(pathlib.Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
)


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock until it is told to end."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def leave(path, age=0.0, **owner):
    path.write_text(json.dumps(owner))
    os.utime(path, (time.time() - age, time.time() - age))


def test_one_writer_at_a_time_and_none_is_left(tmp_path, holder):
    message = f"is being written by process {holder.pid} on "
    with pytest.raises(RunDirectoryError, match=message), lock.writer_lock(tmp_path):
        pass
    assert json.loads((tmp_path / "lock").read_text())["pid"] == holder.pid
    holder.communicate("")
    with lock.writer_lock(tmp_path) as dead_owner:
        assert dead_owner is None
        with (
            pytest.raises(RunDirectoryError, match=f"by process {os.getpid()} on "),
            lock.writer_lock(tmp_path),
        ):
            pass
    assert not (tmp_path / "lock").exists()


def test_a_killed_writers_lock_is_stale(tmp_path, holder):
    holder.kill()
    holder.wait()
    assert (tmp_path / "lock").exists()
    with lock.writer_lock(tmp_path) as dead_owner:
        assert dead_owner["pid"] == holder.pid
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()


def test_another_machines_lock_is_stale_when_it_is_no_longer_renewed(tmp_path):
    leave(tmp_path / "lock", age=lock.STALE - 5, pid=1, host="elsewhere")
    with pytest.raises(RunDirectoryError, match="by process 1 on elsewhere"), lock.writer_lock(tmp_path):
        pass
    leave(tmp_path / "lock", age=lock.STALE + 5, pid=1, host="elsewhere")
    with lock.writer_lock(tmp_path) as dead_owner:
        assert dead_owner == {"pid": 1, "host": "elsewhere"}


def test_where_the_kernel_has_no_locks_the_pid_decides(tmp_path, monkeypatch, holder):
    monkeypatch.setattr(lock, "_flock", lambda file: None)
    with pytest.raises(RunDirectoryError, match=f"by process {holder.pid} on "), lock.writer_lock(tmp_path):
        pass
    holder.kill()
    holder.wait()
    with lock.writer_lock(tmp_path) as dead_owner:
        assert dead_owner["pid"] == holder.pid


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"pid": 1}'])
def test_a_lock_written_by_halves_is_nobodys(tmp_path, content):
    (tmp_path / "lock").write_text(content)
    with lock.writer_lock(tmp_path) as dead_owner:
        assert dead_owner is None


def test_the_holder_renews_it(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "RENEWED", 0.01)
    with lock.writer_lock(tmp_path):
        os.utime(tmp_path / "lock", (1, 1))
        deadline = time.monotonic() + 10
        while (tmp_path / "lock").stat().st_mtime == 1:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_a_folder_that_is_not_there(tmp_path):
    message = "cannot be written: No such file"
    with pytest.raises(RunDirectoryError, match=message), lock.writer_lock(tmp_path / "nowhere"):
        pass


@pytest.mark.parametrize("owner", [{"pid": "x"}, {"pid": -1}, {"pid": 10**30}, {"pid": True}, {"pid": None}])
def test_a_lock_that_names_no_process_is_nobodys(tmp_path, owner):
    leave(tmp_path / "lock", host=platform.node(), **owner)
    with lock.writer_lock(tmp_path) as dead_owner:
        assert dead_owner is None
    assert not (tmp_path / "lock").exists()


def test_a_lock_that_is_no_file_is_one_line(tmp_path):
    for make in (os.mkfifo, os.mkdir):
        make(tmp_path / "lock")
        with pytest.raises(RunDirectoryError, match="cannot be written"), lock.writer_lock(tmp_path):
            pass
        os.rmdir(tmp_path / "lock") if (tmp_path / "lock").is_dir() else os.unlink(tmp_path / "lock")


def test_whether_it_is_held_is_read_without_taking_it(tmp_path, holder):
    assert lock.is_held(tmp_path)
    holder.kill()
    holder.wait()
    assert not lock.is_held(tmp_path) and (tmp_path / "lock").exists()
    leave(tmp_path / "lock", age=lock.STALE - 5, pid=1, host="elsewhere")
    assert lock.is_held(tmp_path)
    leave(tmp_path / "lock", age=lock.STALE + 5, pid=1, host="elsewhere")
    assert not lock.is_held(tmp_path)
    (tmp_path / "lock").unlink()
    assert not lock.is_held(tmp_path)
