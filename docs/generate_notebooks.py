"""The notebooks of examples/ as pages of the site, with the outputs that they hold."""

import base64
import json
import pathlib
import re

EXAMPLES = pathlib.Path(__file__).resolve().parent.parent / "examples"
COLOURS = re.compile(r"\x1b\[[\d;?]*[A-Za-z]")


def notebooks() -> dict[str, list[dict]]:
    """Name of each notebook -> its cells."""
    return {path.stem: json.loads(path.read_text())["cells"] for path in sorted(EXAMPLES.glob("*.ipynb"))}


def titles() -> dict[str, str]:
    """Path in the site -> title, the heading of the notebook."""
    return {
        f"examples/{name}.md": "".join(cells[0]["source"]).splitlines()[0].removeprefix("# ")
        for name, cells in notebooks().items()
    }


def files() -> dict[str, str | bytes]:
    """Path in the site -> content: a page for each notebook, and its pictures."""
    content: dict[str, str | bytes] = {}
    for name, cells in notebooks().items():
        parts = []
        for number, cell in enumerate(cells):
            source = "".join(cell["source"])
            if cell["cell_type"] == "markdown":
                parts.append(_linked_in_site(source))
                continue
            parts.append(f"```python\n{source}\n```")
            for output in cell["outputs"]:
                data = output.get("data", {})
                if "text" in output:
                    parts.append(f"```text\n{COLOURS.sub('', ''.join(output['text'])).strip()}\n```")
                elif "image/png" in data:
                    picture = f"{name}_{number}.png"
                    content[f"examples/{picture}"] = base64.b64decode(data["image/png"])
                    parts.append(f"![Output of the cell above]({picture})")
                else:
                    parts.append("".join(data.get("text/html", data["text/plain"])))
        content[f"examples/{name}.md"] = "\n\n".join(parts) + "\n"
    return content


def _linked_in_site(text: str) -> str:
    """Links to docs/ and to the other notebook become links to the site's pages."""
    return text.replace("](../docs/", "](../").replace(".ipynb)", ".md)")
