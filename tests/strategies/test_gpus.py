"""Tests that need several GPUs."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch import LightningModule, seed_everything

from lightning_ff import LocalDDPStrategy, ScalableForwardForward
from tests.strategies.runs import CLASSES, SGD, SHAPE, difference, layers, trained

ACCELERATOR, MISSING = "gpu", torch.cuda.device_count() < 2


def normalised() -> LightningModule:
    """A learner whose first block has batch norm."""
    seed_everything(0, verbose=False)
    return ScalableForwardForward(layers(batch_norm=True), CLASSES, SHAPE, optimizer=SGD)


@pytest.mark.skipif(MISSING, reason="needs two GPUs")
def test_synchronised_batch_norm_is_that_of_one_process() -> None:
    found = []
    for processes, synchronised in ((1, False), (2, True), (2, False)):
        spawned = LocalDDPStrategy(start_method="spawn")
        flags = {"accelerator": ACCELERATOR, "sync_batchnorm": synchronised}
        found.append(trained(normalised(), processes, torch.float64, strategy=spawned, **flags))
    one, together, apart = found
    assert difference(one, together) <= 1e-9
    assert difference(one, apart) > 1e-4
