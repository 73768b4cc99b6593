"""The API reference: a page for each public module, with every name that `dir` of it shows."""

import functools
import importlib
import inspect
import pkgutil
import types

import keras  # noqa: F401, before bnhead.graph, which bnhead.layers imports after Keras

import bnhead

_SECTION = "::: {path}\n    options:\n      heading: {name}\n      toc_label: {name}\n"


def public_modules() -> tuple[str, ...]:
    """The package, its errors, and its packages that list public names."""
    # the first folder of the path is bnhead's; that of a bare checkout holds models/ beside other things
    found = {module.name for module in pkgutil.iter_modules(bnhead.__path__[:1]) if module.ispkg}
    packages = [f"bnhead.{name}" for name in found | {"models"}]
    listed = [name for name in packages if hasattr(importlib.import_module(name), "__all__")]
    return ("bnhead", *sorted(listed), "bnhead.errors")


def public_names(module: str) -> dict[str, object]:
    """Name -> value of everything public in a module: what `dir` shows, without what it only imports."""
    home = importlib.import_module(module)
    listed = getattr(home, "__all__", ())
    values = {name: getattr(home, name) for name in dir(home) if not name.startswith("_")}
    values = {name: value for name, value in values.items() if name in listed or _is_of(module, value)}
    return dict(sorted(values.items(), key=lambda item: item[0].lower()))


def _is_of(module: str, value: object) -> bool:
    """Whether a module defines a value; a constant does not know its module."""
    if isinstance(value, types.ModuleType):
        return False
    return getattr(value, "__module__", module) == module


def titles() -> dict[str, str]:
    """Path in the site -> title in the navigation."""
    return {_path(module): module for module in public_modules()}


def pages() -> dict[str, str]:
    """Path in the site -> Markdown."""
    modules = public_modules()
    homes = {}  # definition -> the last module that shows it, on whose page it stands
    for module in modules:
        homes |= {_definition(module, name, value): module for name, value in public_names(module).items()}
    return {_path(module): _page(module, homes) for module in modules}


def _page(module: str, homes: dict[str, str]) -> str:
    lines = [f"# {module}", "", f"::: {module}", "    options:"]
    lines += [
        "      members: false",
        "      show_root_heading: false",
        "      show_root_toc_entry: false",
        "",
    ]
    builders = {}
    for name, value in public_names(module).items():
        anchor = f'<span id="{module}.{name}"></span>'
        path = _definition(module, name, value)
        if isinstance(value, types.ModuleType):
            lines += [f"## {name} {{ #{module}.{name} }}", "", f"[`{path}`]({path}.md)", ""]
        elif isinstance(value, functools.partial):
            builders[name] = value
        elif homes[path] != module:
            link = f"{homes[path]}.md#{homes[path]}.{name}"
            lines += [f"## {name} {{ #{module}.{name} }}", "", f"[`{homes[path]}.{name}`]({link})", ""]
        else:
            lines += [anchor, "", _SECTION.format(path=path, name=name)]
    return "\n".join([*lines, *_families(module, builders), ""])


def _families(module: str, builders: dict[str, functools.partial]) -> list[str]:
    """Builders that are another function with its first arguments set: a table, then the functions."""
    if not builders:
        return []
    lines = ["## Builders", "", "| name | builds |", "|---|---|"]
    families = {}
    for name, builder in builders.items():
        function = builder.func
        families[f"{function.__module__}.{function.__qualname__}"] = function.__name__
        values = [*map(repr, builder.args), *(f"{key}={value!r}" for key, value in builder.keywords.items())]
        lines.append(
            f'| <span id="{module}.{name}"></span>`{name}` | '
            f"[`{function.__name__}`](#{function.__module__}.{function.__qualname__})"
            f"`({', '.join([*values, '...'])})` |"
        )
    return [*lines, "", *(_SECTION.format(path=path, name=name) for path, name in families.items())]


def _definition(module: str, name: str, value: object) -> str:
    """The dotted path where a public value is defined; a constant is found where it is listed."""
    if isinstance(value, types.ModuleType):
        return value.__name__
    if inspect.isclass(value) or inspect.isfunction(value):
        return f"{value.__module__}.{value.__qualname__}"
    return f"{module}.{name}"


def _path(module: str) -> str:
    return f"reference/{module}.md"
