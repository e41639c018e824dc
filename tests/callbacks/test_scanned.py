"""Activations recorded in the class scan of an evaluation equal those of a pass with the samples' own labels."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from lightning_ff import EnsembleMonitor, ForwardForward, SparsityMonitor
from lightning_ff.callbacks import representations, watching
from lightning_ff.data import Digits


class Seen(SparsityMonitor):
    """Keeps the recorded activations."""

    def see(self, trainer: Trainer, module: LightningModule, found: dict[str, Tensor], *more: Any) -> None:
        self.shown = [*getattr(self, "shown", []), found]


def layers() -> list[nn.Module]:
    return [nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.ReLU()), nn.Sequential(nn.Linear(12, 8), nn.ReLU())]


@pytest.mark.parametrize("scan_memory", [256.0, 0.01], ids=["whole", "chunks"])
@pytest.mark.parametrize("paths", [None, ["network.blocks.1.layers.0"]], ids=str)
def test_a_scan_gives_what_a_pass_of_its_own_gives(
    scan_memory: float, paths: list[str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model = ForwardForward(10, (1, 8, 8), blocks=layers(), scan_memory=scan_memory)
    assert (model.network.scan_rows < 50) == (scan_memory < 1)
    monitor, passes = Seen(paths), []
    run = representations.represent
    monkeypatch.setattr(watching, "represent", lambda *given: passes.append(1) or run(*given))
    data = Digits(val_size=120, eval_batch_size=53)
    flags: dict[str, Any] = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False}
    trainer = Trainer(**flags, callbacks=[monitor])
    trainer.validate(model, data, verbose=False)
    assert len(monitor.shown) == 3
    assert passes == []
    recorder = representations.Recorder(representations.layers_of(model, paths), "all")
    for batch, found in zip(data.val_dataloader(), monitor.shown, strict=True):
        want = run(model, recorder, model.labels(batch.image, batch.label))
        assert want.keys() == found.keys()
        for name, h in want.items():
            torch.testing.assert_close(found[name], h, rtol=1e-5, atol=1e-6)


def test_scores_are_no_activations_of_a_scan() -> None:
    """The readout runs once per batch, and in no separate pass."""
    monitor = Seen(["network.readout"])
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, callbacks=[monitor])
    model = ForwardForward(10, (1, 8, 8), blocks=layers())
    trainer.validate(model, Digits(val_size=120, eval_batch_size=50), verbose=False)
    assert monitor.shown == [{}, {}, {}]


def test_classes_held_out_are_shown_by_the_policy() -> None:
    """Only the true label is among the candidate labels of a scan."""
    model = ForwardForward(10, (1, 8, 8), blocks=layers())
    assert representations.scans(model, "neutral")
    model.held_out = (3,)
    assert representations.scans(model, "true")
    assert not representations.scans(model, "neutral")
    assert not representations.scans(model, EnsembleMonitor(label_policy="predicted").label_policy)
