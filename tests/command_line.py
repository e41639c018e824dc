"""The parser of the command line, made once for many lines: making it takes longer than parsing one."""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from typing import Any

import pytest

from lightning_ff.cli import CLI, main


class _Made(Exception):
    pass


@cache
def parser() -> Any:
    """The parser that `main` makes and calls."""
    made: list[Any] = []

    def keep(self: CLI, parser: Any, args: Any) -> None:
        made.append(parser)
        raise _Made

    with pytest.MonkeyPatch.context() as patch, suppress(_Made):
        patch.setattr(CLI, "parse_arguments", keep)
        main([])
    return made[0]


def print_config(*line: object) -> None:
    """Parse a line and print its configuration; ends with SystemExit, as the command line does."""
    parser().parse_args([*map(str, line), "--print_config"])
