"""State in a checkpoint besides weights and optimizers, so that a resumed run continues exactly."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import nn
from typing_extensions import override

from lightning_ff.network import LocalNetwork


class CorruptCheckpoint(RuntimeError):
    """A checkpoint file cannot be read."""


class WholeFileIO(TorchCheckpointIO):
    """Lightning's checkpoint I/O, with a check that a file is complete before it is read."""

    @override
    def load_checkpoint(self, path: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        check_file(path)
        return super().load_checkpoint(path, *args, **kwargs)


class ResumeState:
    """State of the random number generators, and accumulated gradients."""

    def __init__(self) -> None:
        self._rng: dict[str, Any] = {}
        self._gradients: dict[str, torch.Tensor] = {}

    def clear(self) -> None:
        """Drop the state of an earlier checkpoint."""
        self._rng, self._gradients = {}, {}

    def save(self, checkpoint: dict[str, Any], module: nn.Module, device: torch.device, accumulates: bool) -> None:
        """Write random state into a checkpoint, and gradients between two steps.

        Args:
            checkpoint: Checkpoint to write to.
            module: Module with the gradients.
            device: Training device.
            accumulates: Whether to save gradients that are being accumulated.
        """
        checkpoint["rng"] = {"cpu": torch.get_rng_state()}
        if device.type == "cuda":
            checkpoint["rng"]["cuda"] = torch.cuda.get_rng_state(device)
        if accumulates:
            checkpoint["gradients"] = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}

    def load(self, checkpoint: dict[str, Any]) -> None:
        """Keep the state of a checkpoint until training starts."""
        self._rng, self._gradients = checkpoint.get("rng", {}), checkpoint.get("gradients", {})

    def restore(self, module: nn.Module, in_epoch: bool) -> None:
        """Set gradients and random state when training starts; gradients only in the middle of an epoch."""
        for name, gradient in self._gradients.items() if in_epoch else ():
            parameter = module.get_parameter(name)
            parameter.grad = gradient.to(parameter.device)
        if self._rng:
            torch.set_rng_state(self._rng["cpu"].cpu())
            if "cuda" in self._rng and torch.cuda.is_available():
                torch.cuda.set_rng_state(self._rng["cuda"].cpu())
        self.clear()


def sums(network: LocalNetwork) -> dict[str, torch.Tensor]:
    """Sums over an epoch of the fitted parts, by their name in the learner's `state_dict`."""
    goodness = {k: block.goodness for k, block in enumerate(network.stack) if block.goodness is not None}
    return {f"network.blocks.{k}.goodness.{n}": getattr(part, n) for k, part in goodness.items() for n in part.sums}


def check_file(path: Any, name: str = "ckpt_path") -> None:
    """Check that a local checkpoint file is complete before anything is loaded from it."""
    file = Path(str(path))
    if not file.is_file():
        return
    try:
        with zipfile.ZipFile(file) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, OSError) as error:
        raise CorruptCheckpoint(f"{name}={str(path)!r} is damaged ({error}): use an earlier one beside it") from None
    if damaged:
        raise CorruptCheckpoint(f"{name}={str(path)!r} is damaged (at {damaged}): use an earlier one beside it")
