import os

import pytest

from bnhead.errors import ResourcesError, RunDirectoryError
from bnhead.runs import atomic
from bnhead.runs.atomic import replace, replace_files, unwritable

pytestmark = pytest.mark.quick


def test_a_file_is_replaced_whole(tmp_path):
    replace(tmp_path / "a", lambda path: path.write_text("one"))
    with pytest.raises(ZeroDivisionError):
        replace(tmp_path / "a", lambda path: path.write_text(str(1 / 0)))
    assert (tmp_path / "a").read_text() == "one"
    replace(tmp_path / "a", lambda path: path.write_text("two"))
    assert (tmp_path / "a").read_text() == "two" and len(list(tmp_path.iterdir())) == 1


def test_a_folder_is_replaced_whole(tmp_path):
    def fill(name):
        def write(path):
            (path / "sub").mkdir(parents=True)
            (path / "sub" / name).write_text(name)

        return write

    replace(tmp_path / "events", fill("old"))
    replace(tmp_path / "events", fill("new"))
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["new"]


def test_files_of_others_in_a_folder_stay(tmp_path):
    folder, outside = tmp_path / "events", tmp_path / "outside"

    def fill(*names):
        def write(path):
            for name in names:
                (path / name).parent.mkdir(parents=True, exist_ok=True)
                (path / name).write_text(f"{len(names)} files")

        return write

    def content():
        return {
            str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()
        }

    def is_ours(path):
        return path.name.startswith("our")

    replace_files(folder, fill("our", "old/our", "old/our2"), is_ours)
    (folder / "old" / "notes").write_text("mine")
    (folder / "notes").write_text("mine")
    replace_files(folder, fill("our", "new/our"), is_ours)
    assert content() == {
        "our": "2 files", "new/our": "2 files", "notes": "mine", "old/notes": "mine"
    }  # fmt: skip
    replace_files(folder, fill("our"), is_ours)
    assert not (folder / "new").exists() and (folder / "old").is_dir()
    replace_files(tmp_path / "ours", fill("a/b/our"), is_ours)
    replace_files(tmp_path / "ours", lambda path: path.mkdir(), is_ours)
    assert list((tmp_path / "ours").iterdir()) == [], "emptied, and still there"
    (tmp_path / "ours").rmdir()
    with pytest.raises(ZeroDivisionError):
        replace_files(folder, lambda path: 1 / 0, is_ours)
    assert content() == {"our": "1 files", "notes": "mine", "old/notes": "mine"}
    outside.mkdir()
    (outside / "our").write_text("mine")
    (folder / "new").symlink_to(outside)
    replace_files(folder, fill("new/our"), is_ours)
    assert (outside / "our").read_text() == "mine" and not (folder / "new").is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["events", "outside"]


def test_a_link_to_a_folder_is_replaced_and_its_files_stay(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "our").write_text("mine")
    (tmp_path / "events").symlink_to(tmp_path / "outside")
    replace_files(tmp_path / "events", lambda path: path.mkdir(), lambda path: True)
    assert (tmp_path / "outside" / "our").read_text() == "mine"
    assert not (tmp_path / "events").is_symlink() and (tmp_path / "events").is_dir()


def test_what_cannot_be_written_leaves_what_was_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        replace(tmp_path / "there" / "a", lambda path: path.write_text(""))
    (tmp_path / "a").write_text("before")

    def full(path):
        path.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        replace(tmp_path / "a", full)
    assert [path.name for path in tmp_path.iterdir()] == ["a"] and (tmp_path / "a").read_text() == "before"


@pytest.mark.parametrize(
    ("number", "error_type", "message"),
    [
        (28, ResourcesError, "a cannot be written: the disk is full"),
        (122, ResourcesError, "a cannot be written: the disk is full"),
        (30, RunDirectoryError, "a cannot be written: Read-only file system"),
    ],
)
def test_a_file_systems_error_is_one_line(number, error_type, message):
    error = unwritable(OSError(number, os.strerror(number)), "a")
    assert type(error) is error_type and str(error) == message


def test_json_that_is_none_or_too_deep_is_one_error(tmp_path):
    for text in ("[1]", "{", "[" * 100_000, '{"a": ' * 100_000):
        (tmp_path / "file.json").write_text(text)
        with pytest.raises(ValueError, match=r"."):
            atomic.read_json(tmp_path / "file.json")
    for text in (
        '{"a": NaN}',
        '{"a": 1e999}',
        '{"a": -1e40}',
        '{"a": ' + "9" * 5000 + "}",
        '{"a": "\\ud800"}',
    ):
        (tmp_path / "file.json").write_text(text)
        with pytest.raises(ValueError, match=r"^it holds (the number|half of a character)"):
            atomic.read_json(tmp_path / "file.json")
    (tmp_path / "file.json").write_text('{"a": 1}')
    with pytest.raises(ValueError, match=r"^a must be of type str, got 1$"):
        atomic.read_json(tmp_path / "file.json", {"a": str})
    assert atomic.read_json(tmp_path / "file.json") == {"a": 1}


def test_only_plain_files_of_a_sane_size_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    (tmp_path / "huge").touch()
    os.truncate(tmp_path / "huge", 2**40)
    for name, error_type, message in (
        ("pipe", OSError, "it is not a regular file"),
        ("folder", IsADirectoryError, "Is a directory"),
        ("gone", FileNotFoundError, "No such file"),
        ("huge", ValueError, "it has 1,099,511,627,776 bytes, more than any text of a run"),
    ):
        for read in (atomic.read_text, atomic.read_json):
            with pytest.raises(error_type, match=message):
                read(tmp_path / name)
    with pytest.raises(OSError, match="it is not a regular file"):
        atomic.sha256(tmp_path / "pipe")


def test_a_file_too_large_for_a_run_is_not_hashed(tmp_path):
    """A sparse file of 2 TiB takes no space, and would take an hour to read."""
    (tmp_path / "history.csv").touch()
    os.truncate(tmp_path / "history.csv", 2**41)
    with pytest.raises(OSError, match="2,048 GiB, more than any file of a run"):
        atomic.sha256(tmp_path / "history.csv")
