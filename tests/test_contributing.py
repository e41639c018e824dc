"""CONTRIBUTING.md names files that exist, and classes and functions that are defined in them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
PATHS = sorted(set(re.findall(r"`([\w./-]+/[\w./-]*|[\w-]+\.(?:md|txt|toml))`", TEXT)))
NAMED = re.findall(r"`([\w/]+\.py)` \(((?:`[\w.]+`(?:, )?)+)\)", TEXT)


def definitions(body: list[ast.stmt], prefix: str = "") -> Iterator[str]:
    """Names of the classes and functions that are defined in a file, those in classes as `Class.function`."""
    for node in body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            yield prefix + node.name
        if isinstance(node, ast.ClassDef):
            yield from definitions(node.body, f"{prefix}{node.name}.")


@pytest.mark.parametrize("path", PATHS)
def test_paths_exist(path: str) -> None:
    assert (ROOT / path).exists()


@pytest.mark.parametrize(("path", "names"), NAMED)
def test_names_are_defined_in_their_files(path: str, names: str) -> None:
    defined = set(definitions(ast.parse((ROOT / path).read_text()).body))
    assert set(re.findall(r"[\w.]+", names)) <= defined


def test_every_question_is_answered_by_a_file_with_a_name() -> None:
    answers = [line for line in TEXT.splitlines() if line.startswith("| ") and "`" in line]
    assert len(answers) == 5
    assert all(re.search(r"`lightning_ff/[\w/]+\.py` \(`", line) for line in answers)
    assert len(NAMED) == sum(line.count(".py`") for line in answers)


def test_a_name_that_is_not_defined_is_found() -> None:
    source = "class A:\n    def f(self): ...\n\ndef g(): ...\n"
    assert list(definitions(ast.parse(source).body)) == ["A", "A.f", "g"]
