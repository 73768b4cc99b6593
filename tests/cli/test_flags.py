import dataclasses

import pytest

from bnhead.cli.flags import Command
from bnhead.errors import UsageError
from bnhead.version import __version__

pytestmark = pytest.mark.quick


@dataclasses.dataclass(frozen=True)
class Settings:
    where: str = dataclasses.field(default="", metadata={"help": "The place."})
    size: int = dataclasses.field(default=3, metadata={"help": "How large."})
    loud: bool = dataclasses.field(default=False, metadata={"help": "Whether loud."})
    rate: float = dataclasses.field(default=0.5, metadata={"help": "How often."})


COMMAND = Command(
    "tool", Settings, "Does it.", "Exit status: 0.", positional="where", refused={"mood": "nobody asks"},
    examples=[("here --size=4", "Does four."), ("", "Does it all.")],
)  # fmt: skip


def parse(*arguments):
    return COMMAND.parse(arguments)


def parse_flags_only(*arguments):
    return dataclasses.replace(COMMAND, positional="").parse(arguments)


def test_fields_are_flags_and_one_is_written_without_a_name():
    assert parse("here", "--size=4", "--loud", "--rate=0.25") == Settings("here", 4, True, 0.25)
    assert parse("--noloud", "there") == Settings("there")
    assert parse_flags_only("--where=a") == Settings("a")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], r"WHERE is missing; usage: tool WHERE \[--flag=value ...\]"),
        (["a", "b"], "argument 'b' is not a flag; write every setting as --name=value"),
        (["a", "--siz=3"], r"flag --siz is not known; did you mean 'size'\? `tool --help` lists them$"),
        (["a", "--xyz=red"], r"flag --xyz is not known; `tool --help` lists them$"),
        (["a", "--size=x"], "size must be a whole number, got 'x'"),
        (["a", "--rate=often"], "rate must be a number, got 'often'"),
        (["a", "--loud=very"], "loud must be true or false, got 'very'"),
        (["a", "--size"], "flag --size needs a value, as in --size=3"),
        (["a", "--size=1", "--size=2"], "flag --size is given 2 times"),
        (["a", "--loud", "--noloud"], "flag --loud is given 2 times"),
        (["a", "--where=b"], "flag --where is not known"),
        (["a", "--mood=good"], "flag --mood cannot be given: nobody asks"),
    ],
)
def test_what_cannot_be_meant(arguments, message):
    with pytest.raises(UsageError, match=message):
        parse(*arguments)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# mine\n--size=4\n\n  --loud\n// and\n--rate=0.25\n", Settings("a", 7, True, 0.25)),
        ('{"size": 4, "loud": true, "rate": 0.25}', Settings("a", 7, True, 0.25)),
        ("--where=/my/flagfile/there\n", None),
    ],
)
def test_a_flag_file_gives_way_to_the_command_line(tmp_path, text, expected):
    file = tmp_path / "flags"
    file.write_text(text)
    if expected:
        assert parse("a", "--size", "7", f"--flagfile={file}") == expected
        assert parse("a", f"--flagfile={file}", "--noloud") == Settings("a", 4, False, 0.25)
    else:
        assert parse_flags_only(f"--flagfile={file}") == Settings("/my/flagfile/there")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("--", "holds a line that is not a flag: '--'"),
        ("size=3", "holds a line that is not a flag: 'size=3'"),
        ("--flagfile=other", "holds a line that is not a flag: '--flagfile=other'"),
        ("--size=3\n--size=4", "flag --size is given 2 times"),
        ("--siz=3", "flag --siz is not known; did you mean 'size'"),
        ('{"size": 3', "cannot be read: "),
        ('{"size": "x"}', "size must be a whole number"),
    ],
)
def test_a_flag_file_that_cannot_be_meant(tmp_path, text, message):
    file = tmp_path / "flags"
    file.write_text(text)
    with pytest.raises(UsageError, match=message):
        parse("a", f"--flagfile={file}")


def test_dashes_are_read_as_underscores():
    @dataclasses.dataclass
    class Long:
        fc_units: int = dataclasses.field(default=1, metadata={"help": "Units."})
        text: str = dataclasses.field(default="", metadata={"help": "Any."})

    command = Command("tool", Long, "", "")
    assert command.parse(["--fc-units=2", "--text=a-b"]) == Long(2, "a-b")
    assert command.parse(["--fc-units", "2"]) == Long(2)


def test_a_tuple_takes_every_positional_argument():
    @dataclasses.dataclass
    class Several:
        names: tuple = dataclasses.field(default=(), metadata={"help": "Names.", "metavar": "NAME ..."})
        loud: bool = dataclasses.field(default=False, metadata={"help": "Whether loud."})

    command = Command("tool", Several, "", "", positional="names")
    assert command.parse(["a", "--loud", "b"]) == Several(("a", "b"), True)
    assert command.parse([]) == Several()
    assert command.usage().startswith("usage: tool NAME ... [--flag=value ...]\n")


def test_an_alias_is_another_name_of_a_flag(tmp_path):
    command = dataclasses.replace(COMMAND, aliases={"many": "size"})
    (tmp_path / "flags").write_text("--many=5\n")
    assert command.parse(["a", "--many=4"]) == command.parse(["a", "--many", "4"]) == Settings("a", 4)
    assert command.parse(["a", f"--flagfile={tmp_path / 'flags'}"]) == Settings("a", 5)
    assert "  --size=3, --many\n" in command.usage()
    with pytest.raises(UsageError, match="flag --size is given 2 times"):
        command.parse(["a", "--many=4", "--size=4"])


def test_the_version_and_the_help_text_need_no_argument(capsys):
    assert COMMAND.run(["--version"], None) == COMMAND.run(["--help"], None) == 0
    assert capsys.readouterr().out == f"bnhead {__version__}\n{COMMAND.usage()}\n"


@pytest.mark.parametrize("columns", [50, 80, 120])
def test_help_fits_the_terminal(monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    command = Command("tool", Settings, "word " * 60, "word " * 60, positional="where")
    longest = max(map(len, command.usage().splitlines()))
    assert min(columns, 100) - 5 <= longest <= min(columns, 100)


def test_examples_are_typed_as_the_program_is():
    text = dataclasses.replace(COMMAND, program="tool.py").usage()
    assert "\nExamples\n  python tool.py here --size=4\n    Does four.\n  python tool.py\n" in text


def test_usage():
    text = dataclasses.replace(COMMAND, examples=()).usage()
    assert text.startswith("usage: tool WHERE [--flag=value ...]\n\nDoes it.\n\n  WHERE\n    The place.\n")
    assert "  --[no]loud\n    Whether loud.\n  --rate=0.5\n" in text and text.endswith("\nExit status: 0.")
