"""The tables of parts in docs/concepts.md are complete, and every name in them exists."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import lightning_ff
from lightning_ff import (
    Credit,
    Goodness,
    LabelEncoding,
    LocalLoss,
    NegativeSampler,
    PairLoss,
    Readout,
    StateRelaxation,
    Term,
)

TEXT = (Path(__file__).parents[1] / "docs" / "concepts.md").read_text(encoding="utf-8")
ROWS = [line for line in TEXT.splitlines() if line.startswith("| [`")]
LISTED = {re.match(r"\| \[`(\w+)", row)[1] for row in ROWS}  # type: ignore[index]
BASES = (Credit, Goodness, LabelEncoding, LocalLoss, NegativeSampler, Readout, Term)


def parts(base: type) -> list[str]:
    """Names of the public parts of a type, without the bases of a user's own."""
    public: dict[str, Any] = {name: getattr(lightning_ff, name) for name in lightning_ff.__all__}
    of_type = {name: each for name, each in public.items() if isinstance(each, type) and issubclass(each, base)}
    return [name for name, each in of_type.items() if each not in (*BASES, PairLoss, StateRelaxation)]


@pytest.mark.parametrize("base", BASES, ids=lambda base: base.__name__)
def test_every_part_is_in_a_table(base: type) -> None:
    assert parts(base)
    assert set(parts(base)) <= LISTED


def test_every_name_in_a_table_exists() -> None:
    assert len(LISTED) > 25
    assert [name for name in sorted(LISTED) if name not in lightning_ff.__all__] == []


@pytest.mark.parametrize("choice", ["local", "overlapping", "sum_of_losses", "loss_of_sum", "last"])
def test_every_choice_of_segments_is_in_a_table(choice: str) -> None:
    assert f'| `"{choice}"` |' in TEXT
