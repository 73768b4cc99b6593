"""Settings are in setup.cfg; this makes the page of a package index from the README.

A relative link or picture works in a repository and is dead on an index: the link's address is printed
instead, and the picture is left out.
"""

import re
from pathlib import Path

from setuptools import setup


def index_page(readme: str) -> str:
    """Returns Markdown without relative links and pictures; code blocks stay as they are."""
    relative = r"(?!https?://|#|mailto:)"
    blocks = re.split(r"(^```.*?^```$)", readme, flags=re.MULTILINE | re.DOTALL)
    for i, text in enumerate(blocks[::2]):
        text = re.sub(rf"!\[[^\]]*\]\({relative}[^)]*\)\n*", "", text)
        blocks[2 * i] = re.sub(rf"\[([^\]]*)\]\(({relative}[^)#]+)[^)]*\)", _printed, text)
    return "".join(blocks)


def _printed(link: re.Match) -> str:
    text, path = link.groups()
    return text if path in text else f"{text} (`{path}`)"


if __name__ == "__main__":
    readme = Path(__file__).with_name("README.md").read_text(encoding="utf-8")
    setup(long_description=index_page(readme), long_description_content_type="text/markdown")
