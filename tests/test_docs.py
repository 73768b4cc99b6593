"""docs/ is what its generators write."""

import importlib.util
from pathlib import Path

DOCS = Path(__file__).resolve().parent.parent / "docs"


def test_heads_page_and_pictures_are_up_to_date():
    spec = importlib.util.spec_from_file_location("generate_heads", DOCS / "generate_heads.py")
    generator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
    wanted = {"heads.md": generator.page(), **generator.pictures()}
    assert {f"heads/{path.name}" for path in (DOCS / "heads").iterdir()} == set(wanted) - {"heads.md"}
    for path, content in wanted.items():
        assert (DOCS / path).read_text() == content, f"{path}: run python docs/generate_heads.py"
    for path in wanted:
        assert path == "heads.md" or f"({path})" in wanted["heads.md"]
