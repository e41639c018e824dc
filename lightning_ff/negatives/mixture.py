"""One of several samplers per batch."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from lightning_ff.hashing import host_uniform
from lightning_ff.negatives.base import NegativeContext, NegativeSampler
from lightning_ff.validate import check_number, check_type


def check_weights(argument: str, weights: list[float], samplers: list[NegativeSampler]) -> None:
    """Check the samplers of a mixture and their weights, given as `argument`."""
    check_type("samplers", samplers, (list, tuple), "give a list, such as [WrongLabel(), HardLabel()]")
    for i, sampler in enumerate(samplers):
        check_type(f"samplers[{i}]", sampler, NegativeSampler, "give an instance, such as WrongLabel()")
    check_type(argument, weights, (list, tuple), "give a list of numbers, one for each sampler")
    if len(samplers) != len(weights) or not samplers:
        raise ValueError(f"{argument}={weights}: give one for each of the {len(samplers)} samplers")
    for i, weight in enumerate(weights):
        check_number(f"{argument}[{i}]", weight, "give a finite number, 0 or more")
    if min(weights) < 0 or sum(weights) == 0:
        raise ValueError(f"{argument}={weights}: must be 0 or more and not all 0")


class Mixture(NegativeSampler):
    """One of several samplers per batch, drawn by weight.

    Args:
        samplers: The samplers.
        weights: Their relative probabilities, 0 or more, not all 0.
        seed: Seed of the draw between them.

    Raises:
        ValueError: lengths differ, or weights are negative, not finite or all 0.
        TypeError: an argument is not of the annotated type.
    """

    def __init__(self, samplers: list[NegativeSampler], weights: list[float], seed: int = 0) -> None:
        super().__init__(seed)
        check_weights("weights", weights, samplers)
        self.samplers = nn.ModuleList(samplers)
        self.weights = list(weights)
        for name in ("needs_index", "writes_label", "needs_scores"):
            setattr(self, name, any(getattr(sampler, name) for sampler in samplers))

    def each(self) -> list[NegativeSampler]:
        """The samplers."""
        return cast(list[NegativeSampler], list(self.samplers))

    @property
    def level(self) -> int:
        """Key of the draw, so that nested mixtures, and samplers in them with the same seed, draw independently."""
        return 1 + max((sampler.level for sampler in self.each() if isinstance(sampler, Mixture)), default=0)

    def _draw(self, context: NegativeContext) -> NegativeSampler:
        remainder = host_uniform(self.seed, context.epoch, context.batch, self.level) * sum(self.weights)
        for sampler, weight in zip(self.each(), self.weights, strict=True):
            remainder -= weight
            if remainder < 0:
                return sampler
        return self.each()[-1]

    def positives(self, x: Tensor, y: Tensor, context: NegativeContext) -> Tensor:
        return self._draw(context).positives(x, y, context)

    def forward(self, x: Tensor, y: Tensor, index: Tensor, context: NegativeContext) -> Tensor:
        return self._draw(context)(x, y, index, context)

    def extra_repr(self) -> str:
        return f"weights={self.weights}"
