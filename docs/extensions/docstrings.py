"""Griffe extension: the docstrings' Sphinx roles become cross-references, their doctests fenced code."""

from __future__ import annotations

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:class|func|meth|mod|attr):`(~?)([\w.]+)`")
_EXAMPLE = re.compile(r"^Example::\s*$", re.MULTILINE)


def _reference(match: re.Match[str]) -> str:
    short, path = match.groups()
    return f"[`{path.rpartition('.')[2] if short else path}`][{path}]"


def _fence(text: str) -> str:
    """Doctests, indented or not, as fenced blocks."""
    lines: list[str] = []
    indent = None
    for line in [*text.splitlines(), ""]:
        begins = line.lstrip().startswith(">>>")
        if indent is None and begins:
            indent = len(line) - len(line.lstrip())
            lines.append("```pycon")
        if indent is not None and not line.strip():
            indent = None
            lines.append("```")
        lines.append(line if indent is None else line[indent:])
    return "\n".join(lines).rstrip()


def markdown(text: str) -> str:
    """A docstring as Markdown."""
    return _fence(_EXAMPLE.sub("**Example**", _ROLE.sub(_reference, text)))


class Docstrings(griffe.Extension):
    """Rewrites every docstring as it is collected."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite one object's docstring."""
        if obj.docstring is not None:
            obj.docstring.value = markdown(obj.docstring.value)
