"""Activations of layers for labelled batches, of any learner and, by module path, of any LightningModule.

Shapes: N samples, C classes, U units.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from lightning_ff.blocks.local_block import LocalBlock, first
from lightning_ff.learner import LocalLearner
from lightning_ff.objectives import OutputGoodness

Units = Literal["all", "channels"]
LabelPolicy = Literal["true", "neutral", "predicted"]


def layers_of(module: LightningModule, paths: Sequence[str] | None) -> dict[str, nn.Module]:
    """The modules to record, by name: those of the paths, or every block of a learner but a classifier.

    Raises:
        ValueError: there is no such module, or no path is given for a module that is not a learner.
    """
    if paths is None and isinstance(module, LocalLearner):
        named = zip(module.network.names, module.blocks, strict=True)
        return {name: block for name, block in named if not isinstance(block.goodness, OutputGoodness)}
    known = dict(module.named_modules())
    if paths is None:
        raise ValueError(
            f"layers=None is for learners, and {type(module).__name__} is none: name modules of it, such as "
            f"{[name for name in known if name][:5]}"
        )
    for path in paths:
        if path not in known:
            raise ValueError(f"layers={list(paths)}: there is no module {path!r}, but {[*known][1:21]}")
    return {path: known[path] for path in paths}


class Recorder:
    """Records, while it is started, the first output of every layer for the rows of a batch.

    Args:
        layers: Modules, or blocks of a learner, by name.
        units: "all" values of a layer are its units, or its "channels", averaged over positions.
    """

    def __init__(self, layers: dict[str, nn.Module], units: Units) -> None:
        self.layers = layers
        self.units = units
        self.found: dict[str, list[Tensor]] = {}
        self._rows: int | None = None
        self._label: Tensor | None = None
        self._hooks = []
        for name, layer in layers.items():
            inner = layer.layers if isinstance(layer, LocalBlock) else layer
            self._hooks.append(inner.register_forward_hook(self._record(name)))

    def _record(self, name: str) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            if self._rows is None:
                return
            if self._label is not None:
                self.found.setdefault(name, []).append(self._rows_of_labels(name, first(output).detach()))
            elif name not in self.found:
                self.found[name] = [first(output)[: self._rows].detach().clone()]  # a later layer may work in place

        return hook

    def _rows_of_labels(self, name: str, h: Tensor) -> Tensor:
        """Rows with the samples' own labels, of the next rows of a scan (ordered by candidate label)."""
        assert self._label is not None
        before, n = sum(map(len, self.found[name])), len(h) // self._classes
        if n * self._classes != len(h):  # not part of a scan: the caller checks the number of rows
            return h[:0]
        label = self._label[before : before + n]
        return h.unflatten(0, (self._classes, n))[label, torch.arange(len(label), device=h.device)]

    def start(self, rows: int) -> None:
        """Start to record the first N rows."""
        self.found, self._rows, self._label = {}, rows, None

    def start_scan(self, label: Tensor, classes: int) -> None:
        """Start to record a scan over all candidate labels, for the samples' own labels `(N,)`."""
        self.start(len(label))
        self._label, self._classes = label, classes

    def stop(self) -> dict[str, Tensor]:
        """Stop, and return the recorded activations `(N, U)` by layer, without layers that did not run."""
        found, self.found, self._rows = self.found, {}, None
        return {name: self._flat(name, h[0] if len(h) == 1 else torch.cat(h)) for name, h in found.items()}

    def _flat(self, name: str, h: Tensor) -> Tensor:
        if self.units == "all" or h.dim() < 3:
            return h.flatten(1)
        layer = self.layers[name]
        standard = layer.standard(h) if isinstance(layer, LocalBlock) else h
        return standard.flatten(2).mean(2) if standard.dim() > 3 else standard.mean(1)

    def remove(self) -> None:
        """Remove the hooks."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []


def own_pass(module: LightningModule) -> bool:
    """Whether images need a separate pass with their own labels, since evaluation writes candidate labels."""
    return isinstance(module, LocalLearner) and module.network.mode == "pair"


def scans(module: LightningModule, policy: LabelPolicy) -> bool:
    """Whether the class scan of an evaluation in pair mode includes the images with these labels."""
    return (
        isinstance(module, LocalLearner)
        and own_pass(module)
        and module.network.readout.needs == "scores"
        and (policy == "true" or not module.held_out)
    )


def labelled(learner: LocalLearner, image: Tensor, label: Tensor, answer: Tensor, policy: LabelPolicy) -> Tensor:
    """Images of a learner in pair mode with their labels written in, encoded `(N, ...)`.

    Args:
        learner: The learner.
        image: Images `(N, ...)`.
        label: True classes `(N,)`.
        answer: Predicted classes `(N,)`.
        policy: Label written into images of classes that training has not seen.
    """
    x = learner.labels(image, label)
    if learner.held_out and policy != "true":
        other = learner.labels.neutral(image) if policy == "neutral" else learner.labels(image, answer)
        x = torch.where(unseen(learner, label).view(-1, *[1] * (x.dim() - 1)), other, x)
    return x


@torch.no_grad()
def represent(learner: LocalLearner, recorder: Recorder, x: Tensor) -> dict[str, Tensor]:
    """Activations of a learner on encoded images `(N, ...)`: `(N, U)` by layer of the recorder."""
    with learner.evaluating():
        recorder.start(len(x))
        try:
            for _ in learner.network.run(learner.network.normalize(x), measure=False):
                continue
        finally:
            found = recorder.stop()
    return found


def unseen(module: LightningModule, label: Tensor) -> Tensor:
    """Which samples are of classes held out of training `(N,)`."""
    held_out = module.held_out if isinstance(module, LocalLearner) else ()
    return torch.isin(label, torch.tensor(held_out, device=label.device, dtype=label.dtype))
