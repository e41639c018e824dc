"""Arguments of a user's subclass come back as they were given, or as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer

from lightning_ff import ForwardForward, SumReadout
from lightning_ff.data import Digits


class Color(Enum):
    """A choice."""

    RED = "red"


@dataclass
class Settings:
    """Values of a subclass."""

    depth: int = 3
    names: tuple[str, ...] = ("a",)


class Mine(ForwardForward):
    """Takes values of its own."""

    def __init__(self, settings: Settings, where: Any, color: Any, extra: SumReadout, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.settings, self.where, self.color, self.extra = settings, where, color, extra


class Odd:
    """Cannot be described."""

    def __init__(self, x: int) -> None:
        self.y = x


def save(model: ForwardForward, file: Path) -> None:
    flags: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False}
    trainer = Trainer(accelerator="cpu", max_epochs=1, limit_train_batches=1, limit_val_batches=0, **flags)
    trainer.fit(model, Digits())
    trainer.save_checkpoint(file)


def test_they_come_back(tmp_path: Path) -> None:
    file = tmp_path / "a.ckpt"
    given: dict[str, Any] = {"num_classes": 10, "input_shape": (1, 8, 8), "widths": [6]}
    save(Mine(Settings(5, ("x", "y")), Path("some") / "folder", Color.RED, SumReadout(True), **given), file)
    again = Mine.load_from_checkpoint(file)
    assert again.settings.depth == 5
    assert list(again.settings.names) == ["x", "y"]
    assert isinstance(again.settings, Settings)
    assert (str(again.where), again.color) == (str(Path("some") / "folder"), "red")
    assert isinstance(again.extra, SumReadout)
    assert again.extra.skip_first
    other = Mine.load_from_checkpoint(file, settings=Settings(7))
    assert other.settings.depth == 7
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), other.parameters(), strict=True))


def test_what_cannot_be_described_is_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "a.ckpt"
    given: dict[str, Any] = {"num_classes": 10, "input_shape": (1, 8, 8), "widths": [6]}
    save(Mine(Settings(), Odd(3), Color.RED, SumReadout(), **given), file)
    with pytest.raises(ValueError, match=r"this part was not saved in the checkpoint \(where: Odd does not keep"):
        Mine.load_from_checkpoint(file)
    assert Mine.load_from_checkpoint(file, where=1).where == 1
