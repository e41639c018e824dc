"""A model summary one can read: blocks, shapes, parameters and the optimizer of each."""

from __future__ import annotations



from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelSummary
from lightning.pytorch.utilities import rank_zero_info
from typing_extensions import override

from lightning_ff.learner import LocalLearner



def block_table(learner: LocalLearner) -> str:
    """The blocks of a learner as a text table; optimizers appear once they are configured."""
    network = learner.network
    rows = [("block", "layers", "output", "parameters", "optimizer")]
    inner = learner.facade.inner if hasattr(learner, "facade") else {}
    modules = [*zip(network.names, network.blocks, strict=True), ("readout", network.readout)]
    outputs = [*(str(tuple(shape[0])) for shape in network.shapes), str((network.num_classes,))]
    for (name, module), output in zip(modules, outputs, strict=True):
        layers = getattr(module, "layers", module)
        kinds = [type(m).__name__ for m in layers.children() if any(True for _ in m.parameters())]
        count = sum(p.numel() for p in module.parameters())
        optimizer = f"{type(inner[name]).__name__}(lr={inner[name].param_groups[0]['lr']:g})" if name in inner else "-"
        rows.append((name, ", ".join(kinds) or type(layers).__name__, output, f"{count:,}", optimizer))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


class BlockSummary(ModelSummary):
    """Lightning's model summary with one row per block; a learner puts it in the place of the default one."""

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if isinstance(pl_module, LocalLearner):
            total = sum(p.numel() for p in pl_module.parameters())
            rank_zero_info(f"\n{block_table(pl_module)}\n{total:,} parameters in all")
