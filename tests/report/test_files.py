import pytest

from bnhead.errors import RunDirectoryError
from bnhead.report.files import replace


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


def test_what_cannot_be_written_is_one_line(tmp_path):
    with pytest.raises(RunDirectoryError, match="there/a cannot be written: No such file or directory"):
        replace(tmp_path / "there" / "a", lambda path: path.write_text(""))
    (tmp_path / "a").write_text("before")

    def full(path):
        raise OSError(28, "No space left on device")

    with pytest.raises(RunDirectoryError, match="a cannot be written: No space left on device"):
        replace(tmp_path / "a", full)
    assert [path.name for path in tmp_path.iterdir()] == ["a"] and (tmp_path / "a").read_text() == "before"
