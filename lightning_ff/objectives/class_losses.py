"""Local losses of class mode, on goodness `(N, C)` and labels `(N,)`: the classes compete with each other."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_ff.objectives.losses import LocalLoss
from lightning_ff.target import Labels, Target
from lightning_ff.validate import check_number


def log_sum_exp_loss(goodness: Tensor, label: Tensor, temperature: float = 1.0, true_class: bool = True) -> Tensor:
    """Mean of `logsumexp(g / T) - g_y / T` (arXiv 2501.03176), the cross-entropy of the goodness.

    Args:
        goodness: Goodness per class `(N, C)`.
        label: True classes `(N,)`.
        temperature: T; the smaller, the sharper the softmax.
        true_class: Whether the sum includes the true class. Without it the loss has no lower bound, since a goodness
            of squares has no upper one.

    Returns:
        Scalar loss.

    Example::

        >>> log_sum_exp_loss(torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([0]))
        tensor(0.4076)
        >>> log_sum_exp_loss(torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([0]), true_class=False)
        tensor(-0.6867)
    """
    scaled = goodness if temperature == 1 else goodness / temperature
    if true_class:
        return F.cross_entropy(scaled, label)
    own = scaled.gather(1, label[:, None]).squeeze(1)
    others = scaled.scatter(1, label[:, None], -torch.inf)
    return (others.logsumexp(1) - own).mean()


class ClassLoss(LocalLoss):
    """Base of losses of class mode."""

    def labels(self, target: Target) -> Tensor:
        """Labels `(N,)` of a target.

        Raises:
            TypeError: the target is one of pair mode.
        """
        if not isinstance(target, Labels):
            raise TypeError(f"{type(self).__name__} is a class-mode loss: its target is Labels(label), not {target!r}")
        return target.label


class _SoftmaxLoss(ClassLoss):
    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        check_number("temperature", temperature, "must be above 0", above=0)
        self.temperature = temperature

    def extra_repr(self) -> str:
        return f"temperature={self.temperature}"


class CrossEntropy(_SoftmaxLoss):
    """Cross-entropy of the class goodness `(N, C)` against labels `(N,)`, see :func:`log_sum_exp_loss`.

    Args:
        temperature: The goodness is divided by it; above 0.
        label_smoothing: Share of the target that is spread evenly over all classes, in [0, 1), as in
            `torch.nn.CrossEntropyLoss`.

    Raises:
        ValueError: temperature is not above 0, or label_smoothing is outside [0, 1).

    Example::

        >>> from lightning_ff.target import Labels
        >>> CrossEntropy(label_smoothing=0.1)(torch.tensor([[2.0, 1.0, 0.0]]), Labels(torch.tensor([0])))
        tensor(0.5076)
    """

    def __init__(self, temperature: float = 1.0, label_smoothing: float = 0.0) -> None:
        super().__init__(temperature)
        check_number("label_smoothing", label_smoothing, "must lie in [0, 1)", least=0)
        if label_smoothing >= 1:
            raise ValueError(f"label_smoothing={label_smoothing}: must lie in [0, 1)")
        self.label_smoothing = label_smoothing

    def forward(self, goodness: Tensor, target: Target) -> Tensor:
        label = self.labels(target)
        if not self.label_smoothing:
            return log_sum_exp_loss(goodness, label, self.temperature)
        return F.cross_entropy(goodness / self.temperature, label, label_smoothing=self.label_smoothing)

    def extra_repr(self) -> str:
        smoothing = f", label_smoothing={self.label_smoothing}" if self.label_smoothing else ""
        return super().extra_repr() + smoothing


class LogSumExpMargin(_SoftmaxLoss):
    """Margin of the true class to the log-sum-exp of the others, see :func:`log_sum_exp_loss`; no lower bound.

    Args:
        temperature: The goodness is divided by it; above 0.

    Raises:
        ValueError: temperature is not above 0.
    """

    def forward(self, goodness: Tensor, target: Target) -> Tensor:
        return log_sum_exp_loss(goodness, self.labels(target), self.temperature, true_class=False)
