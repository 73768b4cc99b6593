import hashlib

import pytest

from bnhead.seeds import stream

pytestmark = pytest.mark.quick


def test_a_stream_is_31_bits_of_sha256_of_seed_and_path():
    expected = int(hashlib.sha256(b"7/head/head_fc").hexdigest()[:8], 16) // 2
    assert stream(7, "head", "head_fc") == expected
    assert 0 <= expected < 2**31


def test_seed_and_every_part_of_the_path_matter():
    seeds = {
        stream(0, "a", "b"),
        stream(1, "a", "b"),
        stream(0, "a", "c"),
        stream(0, "b", "b"),
        stream(0, "a"),
    }
    assert len(seeds) == 5
