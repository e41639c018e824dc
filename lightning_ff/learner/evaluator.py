"""Evaluation: the accuracy of the network and of every block, and the loss, with torchmetrics.

Shapes: N samples, C classes, K blocks.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy
from typing_extensions import override

from lightning_ff.network import LocalNetwork


class MeanLoss(Metric):
    """Mean over the samples of all processes, whose numbers of samples may differ.

    Lightning's own mean of a logged value is inexact there: it rounds the mean number of samples to an integer.
    """

    total: Tensor
    samples: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("samples", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    @override
    def update(self, loss: Tensor, samples: int) -> None:
        self.total = self.total.float() + loss.detach().float() * samples  # the same dtype in every process
        self.samples = self.samples + samples

    @override
    def compute(self) -> Tensor:
        return self.total / self.samples


class Evaluator(nn.Module):
    """Metrics of validation and test: the loss, the accuracy, and the accuracy of every block with class scores.

    Args:
        num_classes: C.
        scored: Names of the blocks that have their own class scores.
    """

    def __init__(self, num_classes: int, scored: list[str]) -> None:
        super().__init__()
        self.scored = list(scored)
        self.accuracy = nn.ModuleDict(
            {
                stage: nn.ModuleList(
                    MulticlassAccuracy(num_classes, average="micro", validate_args=False)
                    for _ in range(1 + len(scored))
                )
                for stage in ("val", "test")
            }
        )
        self.losses = nn.ModuleDict({"val": MeanLoss(), "test": MeanLoss()})

    def metrics(self, stage: str) -> dict[str, Metric]:
        """The metrics of "val" or "test" by the name that they are logged under."""
        names = [f"{stage}/acc", *(f"{stage}/acc/{name}" for name in self.scored)]
        accuracy = cast(list[Metric], list(cast(nn.ModuleList, self.accuracy[stage])))
        return {f"{stage}/loss": cast(Metric, self.losses[stage]), **dict(zip(names, accuracy, strict=True))}

    def update(self, stage: str, network: LocalNetwork, outputs: list[Tensor] | None, label: Tensor) -> Tensor:
        """Update the metrics with a batch.

        Args:
            stage: "val" or "test".
            network: Combines the outputs.
            outputs: Inputs of the readout, one per block; None if another process has them and updates the metrics.
            label: Classes `(N,)`.

        Returns:
            The loss of the batch.
        """
        loss, *accuracy = self.metrics(stage).values()
        if outputs is None:
            zero = torch.zeros((), device=label.device)
            loss.update(zero, 0)
            return zero
        scores = network.combine(outputs)
        value = F.cross_entropy(scores.float(), label)
        loss.update(value, len(label))
        for metric, prediction in zip(accuracy, [scores, *network.readout.block_scores(outputs)], strict=True):
            metric.update(prediction, label)
        return value


@torch.no_grad()
def predict(network: LocalNetwork, image: Tensor) -> dict[str, Tensor] | None:
    """Labels `(N,)`, scores `(N, C)` and goodness of a batch; None if another process has them.

    The goodness is `(N, K, C)` of every candidate label or class, or `(N, K)` of the neutral view if the readout uses
    features in pair mode; K counts the blocks that have one, and without any it is left out.
    """
    from_features = network.readout.needs != "scores"
    features, goodness_of_blocks = network.observe(image) if from_features else ([], network.scores(image))
    outputs, goodness = network.stage.gather_outputs(features), network.stage.gather_outputs(goodness_of_blocks)
    if outputs is None or goodness is None:
        return None
    scores = network.readout(outputs) if from_features else network.combine(goodness)
    prediction = {"label": scores.argmax(1), "scores": scores}
    return {**prediction, "goodness": torch.stack(goodness, 1)} if goodness else prediction
