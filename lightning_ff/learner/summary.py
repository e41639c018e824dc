"""Model summary by block: layers, output shape, parameters and optimizer."""

from __future__ import annotations

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelSummary, RichModelSummary
from lightning.pytorch.utilities import rank_zero_info
from torch import nn
from typing_extensions import override

from lightning_ff.network import LocalNetwork
from lightning_ff.optim import BlockOptimizers


def block_table(network: LocalNetwork, optimizers: BlockOptimizers | None = None) -> str:
    """The blocks of a network as a text table, with the optimizer of each."""
    outputs = [str(tuple(shape[0])) for shape in network.shapes]
    rows = [("block", "layers", "output", "parameters", "optimizer")]
    for name, block, output in zip(network.names, network.stack, outputs, strict=True):
        rows.append((name, block.title or _layer_types(block.layers), output, *_learning(optimizers, block)))
    readout = network.readout
    rows.append(("readout", type(readout).__name__, f"({network.num_classes},)", *_learning(optimizers, readout)))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _layer_types(layers: nn.Module) -> str:
    names = [type(m).__name__ for m in layers.children() if any(True for _ in m.parameters())]
    return ", ".join(names) or type(layers).__name__


def _learning(optimizers: BlockOptimizers | None, module: nn.Module) -> tuple[str, str]:
    """Number of parameters, and the optimizer of those that learn."""
    optimizer = None if optimizers is None else optimizers.by_block.get(optimizers.owner(module) or "")
    rate = f"{type(optimizer).__name__}(lr={optimizer.param_groups[0]['lr']:g})" if optimizer is not None else "-"
    return f"{sum(p.numel() for p in module.parameters()):,}", rate


class BlockSummary(RichModelSummary):
    """Lightning's model summary with one row per block; a learner replaces the default summary by it.

    It is a subclass of the rich summary, the default if `rich` is installed, so that it replaces either.
    """

    def __init__(self, max_depth: int = 1) -> None:
        ModelSummary.__init__(self, max_depth)  # the rich one needs `rich`

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        network = getattr(pl_module, "network", None)
        if isinstance(network, LocalNetwork):
            total = sum(p.numel() for p in pl_module.parameters())
            table = block_table(network, getattr(pl_module, "local_optimizers", None))
            rank_zero_info(f"\n{table}\n{total:,} parameters in all")
