"""Evaluation: scores, features and predictions of a learner, with torchmetrics."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy
from typing_extensions import override

from lightning_ff import checks
from lightning_ff.batch import unpack, unpack_image
from lightning_ff.network import LocalNetwork, evaluating


class MeanLoss(Metric):
    """Mean over all samples of all processes, which may have other numbers of them.

    Lightning's own mean of a logged value is off there: it halves an odd number of samples to a whole one.
    """

    total: Tensor
    samples: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("samples", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    @override
    def update(self, loss: Tensor, samples: int) -> None:
        self.total = self.total.float() + loss.detach().float() * samples  # of one type in every process
        self.samples = self.samples + samples

    @override
    def compute(self) -> Tensor:
        return self.total / self.samples


class Evaluation(LightningModule):
    """What a learner does outside of training; shapes: N samples, C classes, K blocks."""

    network: LocalNetwork

    def _build_metrics(self) -> None:
        scored = len(self.network.scored)
        self.accuracy = nn.ModuleDict(
            {
                stage: nn.ModuleList(
                    MulticlassAccuracy(self.network.num_classes, average="micro", validate_args=False)
                    for _ in range(1 + scored)
                )
                for stage in ("val", "test")
            }
        )
        self.losses = nn.ModuleDict({"val": MeanLoss(), "test": MeanLoss()})

    def forward(self, x: Tensor) -> Tensor:
        """Class scores `(N, C)` of inputs `(N, *input_shape)`, in eval mode."""
        with self.evaluating():
            return self.network(x)

    @torch.no_grad()
    def features(self, x: Tensor) -> list[Tensor]:
        """Activation of every block `(N, ...)`, for inputs `(N, *input_shape)` with the neutral label."""
        with self.evaluating():
            return self.network.features(x)

    @torch.no_grad()
    def block_scores(self, x: Tensor) -> list[Tensor]:
        """Class scores `(N, C)` of each block on its own."""
        with self.evaluating():
            return self.network.block_scores(x)

    def evaluating(self) -> AbstractContextManager[None]:
        """Eval mode for the network, put back afterwards module by module."""
        return evaluating(self.network)

    @override
    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        return self._evaluate("val", batch, batch_idx, dataloader_idx)

    @override
    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        return self._evaluate("test", batch, batch_idx, dataloader_idx)

    def _evaluate(self, stage: str, batch: Any, batch_idx: int, dataloader_idx: int) -> Tensor:
        checks.one_loader(stage, dataloader_idx)
        image, label, _ = unpack(batch)
        checks.labels(label, self.network.num_classes, batch_idx)
        self.network.placement.same(label)
        with checks.fitting(image, self):
            outputs = self.network.placement.collect(self.network.outputs(image))
            if outputs is None:  # another process has the answers, and this one none, which counts in their means
                label = label[:0]
                scores = image.new_zeros(0, self.network.num_classes)
                per_block = [scores] * len(self.network.scored)
            else:
                scores, per_block = self.network.join(outputs), self.network.readout.block_scores(outputs)
        if self._fits and outputs is not None:
            self.network.readout.observe(outputs, label)
        loss = F.cross_entropy(scores.float(), label) if len(label) else image.new_zeros(())
        self.losses[stage].update(loss, len(label))  # type: ignore[operator]
        self.log(f"{stage}/loss", self.losses[stage], on_step=False, on_epoch=True)  # type: ignore[arg-type]
        names = [f"{stage}/acc", *(f"{stage}/acc/{name}" for name in self.network.scored)]
        for name, metric, answer in zip(names, self.accuracy[stage], [scores, *per_block], strict=True):  # type: ignore[call-overload]
            if outputs is not None:
                metric.update(answer, label)
            self.log(name, metric, on_step=False, on_epoch=True, prog_bar=name == f"{stage}/acc", batch_size=len(label))
        return loss

    @override
    def on_test_epoch_end(self) -> None:
        self.network.placement.agree()

    @property
    def _fits(self) -> bool:
        """Whether the readout learns from these validation batches."""
        return self.trainer.state.fn == "fit" and not self.trainer.sanity_checking

    def _sum_over_processes(self, counts: Tensor) -> Tensor:
        return self.trainer.strategy.reduce(counts, reduce_op="sum")

    @override
    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        """Labels `(N,)`, scores `(N, C)` and goodness of a batch.

        The goodness is `(N, K, C)` of every candidate label or class, or `(N, K)` of the neutral view where the
        readout reads features in pair mode.
        """
        image, index = unpack_image(batch)
        with checks.fitting(image, self):
            answer: dict[str, Tensor] = self.network.placement.share(self._predict(image))
        return answer if index is None else {"index": index, **answer}

    def _predict(self, image: Tensor) -> dict[str, Tensor] | None:
        network = self.network
        reads = network.readout.needs != "scores"
        handed, measured = network.observe(image) if reads else ([], network.scores(image))
        outputs, goodness = network.placement.collect(handed), network.placement.collect(measured)
        if outputs is None or goodness is None:
            return None
        scores = network.readout(outputs) if reads else network.join(goodness)
        return {"label": scores.argmax(1), "scores": scores, "goodness": torch.stack(goodness, 1)}
