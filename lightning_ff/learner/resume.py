"""State in a checkpoint besides weights and optimizers, so that a resumed run continues exactly."""

from __future__ import annotations

import os
import time
import zipfile
from contextlib import suppress
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import nn
from typing_extensions import override

from lightning_ff.network import LocalNetwork
from lightning_ff.trust import UntrustedCheckpoint

_LEGACY = bytes.fromhex("80028a0a6cfc9c46f920")  # of files before torch 1.6
_FOLDER = 0x10  # attribute of an entry; torch reads no values of a folder, and leaves tensors uninitialised


class CorruptCheckpoint(RuntimeError):
    """A checkpoint file cannot be read."""


class WholeFileIO(TorchCheckpointIO):
    """Lightning's checkpoint I/O: checks that a local file is complete before it is read, and replaces files whole.

    Lightning writes into the folder of temporary files, and copies from there if that is on another file system.
    """

    @override
    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        if storage_options is not None or not is_local_path(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        file = Path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(file.parent)
        part = file.with_name(f".{file.name}.part")
        try:
            with part.open("wb") as stream:
                torch.save(checkpoint, stream)
                stream.flush()
                os.fsync(stream.fileno())
            part.replace(file)
        finally:
            part.unlink(missing_ok=True)

    @override
    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Read a checkpoint, as plain data unless `weights_only` is False, which may run code in the file."""
        if not is_local_path(path):
            return super().load_checkpoint(path, map_location or _on_cpu)
        check_file(path)
        if not Path(path).exists():
            raise FileNotFoundError(f"Checkpoint file not found: {path}")
        try:
            found = torch.load(path, map_location or _on_cpu, weights_only=weights_only is not False)
        except UnpicklingError as error:
            raise not_plain(path, error) from None
        if not isinstance(found, dict) or "state_dict" not in found:
            what = "a state_dict" if isinstance(found, dict) else f"a {type(found).__name__}"
            raise CorruptCheckpoint(
                f"ckpt_path={str(path)!r} holds {what}, no checkpoint of Lightning: load weights by "
                "model.load_state_dict(torch.load(path)), or by weights= of a method"
            )
        return found


def _on_cpu(storage: Any, location: str) -> Any:
    return storage


def not_plain(path: Any, error: Exception) -> UntrustedCheckpoint:
    """The error for a file with pickled objects."""
    lines = (line.strip() for line in str(error).splitlines())
    reason = next((line for line in lines if "Unsupported" in line or "GLOBAL" in line), error)
    return UntrustedCheckpoint(
        f"{path} holds more than plain data ({reason}): if you trust it, weights_only=False runs the code in it"
    )


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


def is_local_path(path: Any) -> bool:
    """Whether a path is no URL."""
    return "://" not in str(path)


def _remove_stale(folder: Path) -> None:
    """Remove partly written checkpoints of processes that were killed, after an hour."""
    for part in folder.glob(".*.ckpt.part"):
        with suppress(FileNotFoundError):
            if time.time() - part.stat().st_mtime > 3600:
                part.unlink()


def check_file(path: Any, name: str = "ckpt_path") -> None:
    """Check that a local checkpoint file is complete before anything is loaded from it."""
    file = Path(str(path))
    if not file.is_file():
        return
    with file.open("rb") as opened:
        if opened.read(16).startswith(_LEGACY):
            raise CorruptCheckpoint(
                f"{name}={str(path)!r} is of torch's old file format, which cannot be checked: save it again by "
                "torch.save(torch.load(path), path)"
            )
    try:
        with zipfile.ZipFile(file) as archive:
            damaged = archive.testzip()
            folders = [entry.filename for entry in archive.infolist() if entry.external_attr & _FOLDER]
    except Exception as error:  # a changed header raises many types
        raise CorruptCheckpoint(f"{name}={str(path)!r} is damaged ({error}): use an earlier one beside it") from None
    if found := [damaged] if damaged else folders:
        raise CorruptCheckpoint(f"{name}={str(path)!r} is damaged (at {found[0]}): use an earlier one beside it")
