"""Fixtures of the data tests: a data set made up in memory, and the folder of the real ones."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from typing_extensions import override

from lightning_ff.data.base import ImageData, Images


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "realdata: needs the real data sets in the folder LIGHTNING_FF_DATA")


class Fake(ImageData):
    """100 training images that contain their own index, 23 test images, three classes."""

    classes = ("cat", "dog", "emu")
    input_shape = (1, 2, 3)
    mean = (0.5,)
    std = (0.25,)
    reads: list[bool]

    @override
    def read(self, train: bool) -> Images:
        self.reads = [*getattr(self, "reads", []), train]
        n = 100 if train else 23
        images = torch.arange(n, dtype=torch.uint8).view(n, 1, 1, 1).expand(n, *self.input_shape).contiguous()
        return images, torch.arange(n) % 3


@pytest.fixture
def fake() -> type[Fake]:
    return Fake


@pytest.fixture
def real_root() -> str:
    root = os.environ.get("LIGHTNING_FF_DATA")
    if not root or not Path(root).is_dir():
        pytest.skip("LIGHTNING_FF_DATA names no folder with the real data sets")
    return root
