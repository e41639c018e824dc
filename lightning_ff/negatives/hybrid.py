"""Hybrid images: negatives without labels, for unsupervised training (arXiv 2212.13345, section 3.2).

Shapes: N images of H x W pixels, any number of channels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lightning_ff.hashing import hash_bits, host_hash
from lightning_ff.negatives.base import NegativeContext, NegativeSampler
from lightning_ff.validate import check_int

_BITS = 62


def blurred_masks(index: Tensor, height: int, width: int, blurs: int, seed: int = 0, epoch: int = 0) -> Tensor:
    """Masks with large regions of ones and zeros: random bits, blurred again and again, thresholded at one half.

    Each blur is the filter [1/4, 1/2, 1/4] in both directions; all of them together are one binomial filter, which is
    cut off at the border and renormalised. Computed in float32 whatever the precision of the training.

    Args:
        index: Index of each image `(N,)`.
        height: H.
        width: W.
        blurs: Number of blurs; more of them, larger regions.
        seed: Seed of the bits.
        epoch: Another epoch is another draw.

    Returns:
        Boolean masks `(N, H, W)`.
    """
    words = math.ceil(height * width / _BITS)
    cells = index.unsqueeze(1) * words + torch.arange(words, device=index.device)
    shifts = torch.arange(_BITS, device=index.device)
    bits = (hash_bits(cells, seed, epoch).unsqueeze(2) >> shifts) & 1
    noise = bits.flatten(1)[:, : height * width].view(-1, height, width).float()
    with torch.autocast(index.device.type, enabled=False):
        return _blur(height, blurs, index.device) @ noise @ _blur(width, blurs, index.device).T > 0.5


def _blur(size: int, blurs: int, device: torch.device) -> Tensor:
    """All blurs along one axis as a matrix (size, size): a binomial filter with rows that sum to 1."""
    position = torch.arange(size, device=device)
    distance = (position - position.unsqueeze(1)).abs()
    weights = [math.comb(2 * blurs, blurs + d) / 4**blurs for d in range(blurs + 1)]
    binomial = torch.tensor([*weights, 0.0], dtype=torch.float32, device=device)
    matrix = binomial[distance.clamp(max=blurs + 1)]
    return matrix / matrix.sum(1, keepdim=True)


class HybridImages(NegativeSampler):
    """Two images of the batch combined by a blurred random mask: mask * x1 + (1 - mask) * x2.

    The label encoding is applied with the class of x1; unsupervised training uses `labels=Unlabelled`, where it does
    nothing. The second image is another one of the batch, at an offset drawn per batch; the image of a batch of one is
    combined with its own mirror image.

    Args:
        seed: Seed of the draws.
        blurs: Number of blurs of the mask.

    Raises:
        ValueError: blurs below 1; inputs that are not images (N, C, H, W).
    """

    writes_label = False

    def __init__(self, seed: int = 0, blurs: int = 6) -> None:
        super().__init__(seed)
        check_int("blurs", blurs)
        if blurs < 1:
            raise ValueError(f"blurs={blurs}: must be at least 1")
        self.blurs = blurs

    def forward(self, x: Tensor, y: Tensor, index: Tensor, context: NegativeContext) -> Tensor:
        if x.dim() != 4:
            raise ValueError(f"negatives=HybridImages needs images (N, C, H, W), got inputs of shape {tuple(x.shape)}")
        epoch = context.epoch
        mask = blurred_masks(index, x.shape[2], x.shape[3], self.blurs, self.seed, epoch).unsqueeze(1)
        return context.labels(torch.where(mask, x, self._partner(x, epoch, context.batch)), y)

    def _partner(self, x: Tensor, epoch: int, batch_number: int) -> Tensor:
        if len(x) == 1:
            return x.flip(-1)
        return x.roll(1 + host_hash(self.seed, epoch, batch_number) % (len(x) - 1), 0)

    def extra_repr(self) -> str:
        return f"seed={self.seed}, blurs={self.blurs}"
