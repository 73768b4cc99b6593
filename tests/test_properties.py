"""What holds of every text and every command line, tried on drawn ones; always on the same."""

import contextlib
import dataclasses
import io
import itertools
import string
import time

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from bnhead import heads
from bnhead.cli import check, data, diff, exits, heads as heads_command, inspect, study, train
from bnhead.heads.grammar import TOKENS, parse
from bnhead.studies.study import STUDIES
from bnhead.training import TrainConfig

SECONDS = 2.0  # of the processor, for one text: a machine that is busy is not slow


def drawn(examples):
    """Settings: the same examples every time, no clock, nothing left on the disk."""
    checks = [HealthCheck.too_slow, HealthCheck.filter_too_much]
    return settings(
        derandomize=True, deadline=None, max_examples=examples, database=None, suppress_health_check=checks
    )


@contextlib.contextmanager
def in_time():
    start = time.process_time()
    yield
    assert time.process_time() - start < SECONDS


# ---- heads --------------------------------------------------------------------------------------


@st.composite
def words(draw, names):
    """The text of one of the named tokens, with number and parts left out."""
    token = TOKENS[draw(st.sampled_from(sorted(names)))]
    number = ""
    if token.number and not (token.number.option and draw(st.booleans())):
        integer = st.integers(2, 10**9).map(str)
        rate = st.integers(1, 10**12 - 1).map(lambda digits: f"0.{digits:012}")
        number = draw(integer if token.number.integer else rate)
    left_out = draw(st.lists(st.sampled_from(sorted(token.parts)), unique=True)) if token.parts else []
    return "".join([token.name, number, *(f"-{part}" for part in left_out)])


@st.composite
def head_texts(draw):
    """A valid head: tokens before the pooling, on the vector, and after the output layer."""

    def tokens(rule):
        return draw(st.lists(words({token.name for token in TOKENS.values() if rule(token)}), max_size=4))

    def movable(token):
        return not token.pools and token.name != "out"

    on_the_map = tokens(lambda token: movable(token) and not token.linear)
    pooling = draw(words({token.name for token in TOKENS.values() if token.pools}))
    text = [*on_the_map, pooling] if draw(st.booleans()) else []
    text += tokens(movable)
    if draw(st.booleans()):
        text += [draw(words({"out"})), *tokens(lambda token: token.after_output)]
    return "_".join(text or ["out"])


@given(head_texts())
@drawn(250)
def test_every_valid_head_has_one_spelling_of_the_same_tokens(text):
    spelling = heads.canonical(text)
    assert parse(spelling).tokens == parse(text).tokens and heads.canonical(spelling) == spelling
    assert heads.describe(text) and "".join(heads.placement(text)).isascii()


def anything():
    """Texts of all kinds: any characters, the grammar's own, long ones, and heads with a piece replaced."""
    pieces = [*TOKENS, *string.ascii_lowercase, *string.digits, *"_-. "]
    own = st.lists(st.sampled_from(pieces), max_size=12).map("".join)
    long = st.builds(lambda part, times: part * times, st.text(min_size=1, max_size=3), st.integers(1, 9000))
    mended = st.builds(lambda text, at, piece: text[:at] + piece + text[at + 1 :], head_texts(),
                       st.integers(0, 30), st.text(st.characters(), max_size=3))  # fmt: skip
    return st.one_of(st.text(st.characters(), max_size=30), own, long, mended)


@given(anything())
@drawn(400)
def test_every_text_is_a_head_or_one_printable_line(text):
    with in_time():
        try:
            heads.canonical(text)
        except heads.HeadError as error:
            assert str(error).isprintable(), str(error)


# ---- flags --------------------------------------------------------------------------------------


def lines(kind):
    """Command lines of a command whose flags are the fields of `kind`."""
    names = [spec.name for spec in dataclasses.fields(kind)] + ["flagfile", "nowhere", ""]
    known = ["digits", "resnet8", "fc", "bn_fc", "none", "true", "folder:", "keras:ResNet50", *STUDIES]
    numbers = st.one_of(st.integers().map(str), st.floats().map(repr), st.just("9" * 5000))
    value = st.one_of(st.text(st.characters(), max_size=12), numbers, st.sampled_from(known))
    name = st.sampled_from(names)
    return st.lists(
        st.one_of(
            st.builds("--{}={}".format, name, value),
            st.builds("--{}".format, name),
            st.builds("--no{}".format, name),
            value,
        ),
        max_size=6,
    )


COMMANDS = {
    "train": (TrainConfig, train.COMMAND.parse),
    "inspect": (inspect.Request, inspect.COMMAND.parse),
    "check": (check.Request, check.COMMAND.parse),
    "study": (study.Request, study.plan_of),
    "data": (data.Description, data.COMMAND.parse),
    "heads": (heads_command.Listing, heads_command.COMMAND.parse),
    "diff": (diff.Pair, diff.COMMAND.parse),
}


def outcome(parsed, line):
    """The exit status of a command that does no more than to read its line, and what it says on stderr."""
    with in_time(), contextlib.redirect_stderr(io.StringIO()) as told:
        status = exits.run("bnhead", lambda: parsed(line) and 0)
    return status, told.getvalue()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_line_is_understood_or_one_printable_line(command, tmp_path, monkeypatch):
    kind, parsed = COMMANDS[command]
    monkeypatch.chdir(tmp_path)  # nothing of ours has a name that is drawn

    @given(lines(kind))
    @drawn(250)
    def holds(line):
        status, said = outcome(parsed, line)
        assert (status, said) == (0, "") or (
            status in (2, 4) and said.endswith("\n") and said[:-1].isprintable()
        ), (status, said)

    holds()


ODD = (
    "",
    " ",
    "x",
    "0",
    "-1",
    "1e999",
    "nan",
    "9" * 5000,
    "\x1b[31m",
    "a\nb",
    "\xfc",
    "\udcff",
    "\0",
    "1" * 400,
)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_flag_takes_every_kind_of_value_or_says_why_not(command, tmp_path, monkeypatch):
    kind, parsed = COMMANDS[command]
    monkeypatch.chdir(tmp_path)
    for spec, value in itertools.product(dataclasses.fields(kind), ODD):
        status, said = outcome(parsed, [f"--{spec.name}={value}"])
        assert status == 0 or (status in (2, 4) and said[:-1].isprintable()), (spec.name, value, said)
