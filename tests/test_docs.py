"""docs/ is what its generators write."""

import importlib.util
import re
from pathlib import Path

from bnhead.cli import train

DOCS = Path(__file__).resolve().parent.parent / "docs"


def generator_of(name):
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    generator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
    return generator


def test_the_table_of_figures_is_up_to_date():
    text = (DOCS / "census.md").read_text()
    assert "| `per_input` | share of units" in text
    assert generator_of("generate_figures").with_table(text) == text, "run python docs/generate_figures.py"


def test_heads_page_and_pictures_are_up_to_date():
    generator = generator_of("generate_heads")
    wanted = {"heads.md": generator.page(), **generator.images()}
    assert {f"heads/{path.name}" for path in (DOCS / "heads").iterdir()} == set(wanted) - {"heads.md"}
    for path, content in wanted.items():
        assert (DOCS / path).read_text() == content, f"{path}: run python docs/generate_heads.py"
    for path in wanted:
        assert path == "heads.md" or f"({path})" in wanted["heads.md"]


def test_the_commands_of_the_scale_page_are_taken():
    page = (DOCS / "scale.md").read_text()
    lines = [line for block in re.findall(r"```sh\n(.*?)```", page, re.DOTALL) for line in block.splitlines()]
    commands = [line.partition("python train.py ")[2].split() for line in lines if "train.py" in line]
    distributions = [train.COMMAND.parse(arguments).distribution for arguments in commands]
    assert distributions == ["none", "none", "mirrored", "data_parallel", "data_parallel"]
    assert all(f"`{flag}`" in page for flag in ("--sync_bn", "--nosync_bn"))
