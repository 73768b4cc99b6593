import os

import pytest

from bnhead.quiet import quiet


def test_what_is_held_back_is_shown_when_the_import_fails(capfd):
    with pytest.raises(ImportError), quiet():
        os.write(2, b"the reason\n")
        raise ImportError
    with quiet():
        os.write(2, b"chatter\n")
    assert capfd.readouterr().err == "the reason\n"
