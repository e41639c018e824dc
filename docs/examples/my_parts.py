"""Parts of your own, used from Python by use_my_parts.py and from YAML by my_parts.yaml."""

# --8<-- [start:imports]
from torch import Tensor
from torch.nn import functional as F

from lightning_ff import Goodness, NegativeContext, NegativeSampler, PairLoss, Readout, Term
from lightning_ff.hashing import hash_bits
from lightning_ff.target import Target

# --8<-- [end:imports]


# --8<-- [start:goodness]
class TopK(Goodness):
    """Mean square of the k largest activities of each sample."""

    def __init__(self, k: int = 10) -> None:
        super().__init__()
        self.k = k

    def forward(self, h: Tensor) -> Tensor:
        squares = h.flatten(1).square()
        return squares.topk(min(self.k, squares.shape[1]), dim=1).values.mean(1)


# --8<-- [end:goodness]


# --8<-- [start:loss]
class Margin(PairLoss):
    """A positive's goodness exceeds its negatives' by a margin."""

    def __init__(self, margin: float = 1.0) -> None:
        super().__init__()
        self.margin = margin
        self.unit = 1.0

    def bind(self, unit: float) -> None:
        self.unit = unit

    def pair(self, positive: Tensor, negative: Tensor) -> Tensor:
        # the negatives are k groups in the order of the positives
        gap = positive - negative.view(-1, len(positive))
        return F.relu(self.margin * self.unit - gap).mean()


# --8<-- [end:loss]


# --8<-- [start:sampler]
class NeighbourLabel(NegativeSampler):
    """The wrong label is the class before or after the true one."""

    def forward(self, x: Tensor, y: Tensor, index: Tensor, context: NegativeContext) -> Tensor:
        side = 1 - 2 * (hash_bits(index, self.seed, context.epoch) % 2)
        return context.labels(x, (y + side) % context.num_classes)


# --8<-- [end:sampler]


# --8<-- [start:term]
class ActivityL1(Term):
    """Mean absolute activity: keeps activations sparse."""

    def __init__(self, weight: float = 0.001) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, x: Tensor, h: Tensor, target: Target) -> Tensor:
        return self.weight * h.abs().mean()


# --8<-- [end:term]


# --8<-- [start:readout]
class DepthWeighted(Readout):
    """Sum of the blocks' scores; the weight of each block is `base` times that of the one before it."""

    def __init__(self, base: float = 2.0) -> None:
        super().__init__()
        self.base = base

    def contributions(self, outputs: list[Tensor]) -> list[Tensor]:
        return [self.base**k * scores for k, scores in enumerate(outputs)]


# --8<-- [end:readout]
