"""Similarity matching: samples of a class are to have similar activations.

Shapes: N samples, D features, K classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_ff.objectives.terms import Term
from lightning_ff.target import Labels, Target
from lightning_ff.validate import check_number


def similarity(x: Tensor) -> Tensor:
    """Cosine similarity of all rows `(N, N)`, each centred over its features (arXiv 1901.06656).

    Maps `(N, C, H, W)` with several positions are first reduced to the standard deviation of every channel over them.

    Example::

        >>> similarity(torch.eye(3)[[0, 0, 1]])
        tensor([[ 1.0000,  1.0000, -0.5000],
                [ 1.0000,  1.0000, -0.5000],
                [-0.5000, -0.5000,  1.0000]])
    """
    flat = x.flatten(2).std(2) if x.dim() > 2 and x[0, 0].numel() > 1 else x.flatten(1)
    rows = F.normalize(flat - flat.mean(1, keepdim=True))
    return rows @ rows.T


class SimilarityMatching(Term):
    """Mean squared difference of the similarity of activations to that of their labels (arXiv 1901.06656).

    `weight * mean_ij (S(Q h)_ij - S(onehot(y))_ij)^2` with a projection Q of its own: a linear layer of features
    `(N, D)`, a 3x3 convolution of maps `(N, C, H, W)`, both of the activation's width and without bias. The similarity
    of labels is 1 within a class and `-1 / (K - 1)` between two. See :func:`similarity`. Each of several processes
    compares the samples of its own batch.

    Args:
        weight: Factor of the term; published with .99, beside a cross-entropy with .01.

    Raises:
        ValueError: weight is negative.
        TypeError: weight is not a number, or the target is one of pair mode.
    """

    projection: nn.Module

    def __init__(self, weight: float = 0.99) -> None:
        super().__init__()
        check_number("weight", weight, "must be 0 or more", least=0)
        self.weight = weight
        self.num_classes = 0

    def build(self, shape: torch.Size, inputs: torch.Size, num_classes: int) -> None:
        if len(shape) not in (1, 3):
            raise ValueError(f"SimilarityMatching takes features or maps, and the block gives {tuple(shape)}")
        width = shape[0]
        maps = len(shape) == 3
        self.projection = nn.Conv2d(width, width, 3, padding=1, bias=False) if maps else nn.Linear(width, width, False)
        self.num_classes = num_classes

    def forward(self, x: Tensor, h: Tensor, target: Target) -> Tensor:
        if not isinstance(target, Labels):
            raise TypeError(f"SimilarityMatching compares labels: its target is Labels(label), not {target!r}")
        wanted = similarity(F.one_hot(target.label, self.num_classes).to(h.dtype))
        return self.weight * F.mse_loss(similarity(self.projection(h)), wanted)

    def extra_repr(self) -> str:
        return f"weight={self.weight}"
