"""Parameter-free normalisation of blocks' outputs, so that the next block cannot simply copy the goodness."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_ff.objectives.goodness import wide
from lightning_ff.validate import check_int, check_number

Normalization = Literal["l2", "rms", "layer", "channel", "none"]


class Normalize(nn.Module):
    """Normalise every sample, in float32, without parameters.

    Args:
        kind: Over all features of a sample: "l2" (length 1), "rms" (root mean square 1) or "layer" (mean 0, variance
            1). "channel" is "layer" over the channels of each position: dimension 1 of maps `(N, C, ...)`, the last
            one of tokens `(N, T, C)`. "none" is the identity.
        eps: Added to the square before the root ("l2" and "rms": to the mean square), against division by zero.

    Raises:
        ValueError: `kind` is unknown.

    Example::

        >>> Normalize("l2", eps=0.0)(torch.tensor([[3.0, 4.0]]))
        tensor([[0.6000, 0.8000]])
        >>> Normalize("rms", eps=0.0)(torch.tensor([[3.0, 4.0]])).square().mean()
        tensor(1.)
    """

    def __init__(self, kind: Normalization = "rms", eps: float = 1e-8) -> None:
        super().__init__()
        if kind not in get_args(Normalization):
            raise ValueError(f"normalization={kind!r}: choose one of {', '.join(get_args(Normalization))}")
        check_number("eps", eps, "must be 0 or more", least=0)
        self.kind = kind
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "none":
            return x
        wide = x if x.dtype == torch.float64 else x.float()
        if self.kind == "layer":
            if x.dim() == 4 and not x.is_contiguous():  # layer_norm would undo the channels-last format
                variance, mean = torch.var_mean(wide, (1, 2, 3), correction=0, keepdim=True)
                return ((wide - mean) * torch.rsqrt(variance + self.eps)).to(x.dtype)
            return F.layer_norm(wide, wide.shape[1:], eps=self.eps).to(x.dtype)
        if self.kind == "channel":
            last = wide.movedim(1, -1) if wide.dim() > 3 else wide
            normal = F.layer_norm(last, last.shape[-1:], eps=self.eps).to(x.dtype)
            return normal.movedim(-1, 1) if wide.dim() > 3 else normal
        flat = wide.flatten(1)
        scale = torch.rsqrt(flat.square().mean(1) + self.eps)
        if self.kind == "l2":
            scale = scale / flat.shape[1] ** 0.5
        return (wide * scale.view(-1, *[1] * (x.dim() - 1))).to(x.dtype)

    def extra_repr(self) -> str:
        return repr(self.kind)


class GroupNormalize(nn.Module):
    """Normalise every group of channels of a sample to mean 0 and variance 1, in float32, without parameters.

    With one group per class, the mean of each group is the same for all samples, so that the linear goodness of
    :class:`~lightning_ff.ChannelGoodness` is removed exactly (DeeperForward, ICLR 2025).

    Args:
        groups: Number of groups of consecutive channels, dimension 1 of features `(N, D)` and maps `(N, C, ...)`.
        eps: Added to the variance, above 0.

    Raises:
        ValueError: groups is below 1, or eps not above 0.
        TypeError: groups is not an integer, or eps not a number.

    Example::

        >>> GroupNormalize(groups=2)(torch.tensor([[1.0, 3.0, 5.0, 5.0]]))
        tensor([[-1.0000,  1.0000,  0.0000,  0.0000]])
    """

    def __init__(self, groups: int, eps: float = 1e-5) -> None:
        super().__init__()
        check_int("groups", groups)
        if groups < 1:
            raise ValueError(f"groups={groups}: must be at least 1")
        check_number("eps", eps, "must be above 0", above=0)
        self.groups = groups
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] % self.groups or x[0].numel() <= self.groups:
            raise ValueError(
                f"groups={self.groups} for an activation of shape {tuple(x.shape[1:])}: the channels must divide into "
                "groups of at least two values; change the width, or leave out a pooling before"
            )
        return F.group_norm(wide(x), self.groups, eps=self.eps).to(x.dtype)

    def extra_repr(self) -> str:
        return f"groups={self.groups}"
