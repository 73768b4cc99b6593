import subprocess
import sys

import pytest

from bnhead.data.catalog import check_name, domain_names, folder_path
from bnhead.errors import UsageError

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(
    "name", ["digits", "digits:1.0.0", "cifar10", "cifar10:3.0.2", "imagenette/160px-v2", "mnist"]
)
def test_known_names(name):
    check_name(name)


@pytest.mark.parametrize(
    ("name", "hint"), [("cifr10", "'cifar10'"), ("digit", "'digits'"), ("MNIST", "'mnist'")]
)
def test_unknown_names_get_the_nearest(name, hint):
    with pytest.raises(UsageError, match=f"data set '{name}' is not known; did you mean {hint}") as caught:
        check_name(name)
    assert "cifar100" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["", ":", "/"])
def test_an_empty_name_is_unknown(name, tmp_path):
    with pytest.raises(UsageError):
        check_name(name, str(tmp_path))


def test_a_users_set_is_known_by_its_directory(tmp_path):
    (tmp_path / "my_own").mkdir()
    check_name("my_own", str(tmp_path))
    with pytest.raises(UsageError):
        check_name("my_own")


def test_checking_brings_no_tensorflow():
    code = (
        "import sys; from bnhead.data import check_name; check_name('mnist'); "
        "print('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_a_folder_is_known_where_it_is_one(tmp_path):
    check_name(f"folder:{tmp_path}")
    assert folder_path(f"folder:{tmp_path}") == tmp_path and folder_path("cifar10") is None
    for name in (
        "folder:",
        f"folder:{tmp_path}/nowhere",
        "folder:~nobody-of-this-name",
        f"folder:{'x' * 300}",
    ):
        with pytest.raises(UsageError, match="needs a folder, as in folder:PATH"):
            check_name(name)


def test_domains_are_two_or_more_known_sets(tmp_path):
    check_name(f"domains:digits,mnist:3.0.1,folder:{tmp_path}")
    assert domain_names("domains:digits,mnist") == ("digits", "mnist") and domain_names("digits") == ()
    for name in ("domains:", "domains:digits", "domains:digits,digits", "domains:digits,domains:mnist"):
        with pytest.raises(UsageError, match="needs at least two different sets"):
            check_name(name)
    with pytest.raises(UsageError, match="data set 'mnits' is not known; did you mean 'mnist'"):
        check_name("domains:digits,mnits")
    with pytest.raises(UsageError, match="domains are of the same classes, and task regression has numbers"):
        check_name("domains:digits,mnist", task="regression")


@pytest.mark.parametrize("long", ["set", "data_dir"])
def test_names_longer_than_disks_take_are_not_known(tmp_path, long):
    name, data_dir = ("x" * 300, str(tmp_path)) if long == "set" else ("my_own", f"{tmp_path}/{'x' * 300}")
    with pytest.raises(UsageError, match="is not known"):
        check_name(name, data_dir)
