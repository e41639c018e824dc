"""Label encodings: how a class is written into the input (pair mode).

Shapes: N samples, C classes; images `(N, channels, height, width)` or flat `(N, D)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_ff.validate import check_int, check_ints, check_number


class LabelEncoding(nn.Module):
    """Base of all encodings: override `write(x, code)`, and `shape` if the encoded input has another one.

    `code` is `(N, C)`: the entry of the class is the on-value, or all entries are the on-value / C (neutral).

    Args:
        on_value: Value that a class is written with. None is the data module's `input_max`, or 1 if the data has none,
            set once at `setup()`; it is saved with the weights (the maximum of a batch would change from batch to
            batch).
    """

    on: Tensor
    known: Tensor

    def __init__(self, on_value: float | None = None) -> None:
        super().__init__()
        if on_value is not None:
            check_number("on_value", on_value, "give a number above 0, which stands out from the pixels", above=0)
        self.on_value = on_value
        self.num_classes = 0
        self.register_buffer("on", torch.tensor(1.0 if on_value is None else float(on_value)))
        self.register_buffer("known", torch.tensor(on_value is not None))

    def build(self, num_classes: int, input_shape: Sequence[int]) -> tuple[int, ...]:
        """Set the number of classes and check the input; returns the encoded shape."""
        check_ints("input_shape", input_shape, "give the shape of one input, such as (1, 28, 28)")
        if not input_shape or min(input_shape) < 1:
            raise ValueError(f"input_shape={input_shape}: give the shape of one input, every size at least 1")
        self.num_classes = num_classes
        return self.shape(tuple(input_shape))

    def shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the encoded input for an input of `input_shape`, both without the batch axis."""
        return input_shape

    def fix(self, maximum: float) -> None:
        """Set an unknown on-value to the largest input of the training data; later calls have no effect."""
        if not bool(self.known):
            if maximum <= 0:
                raise ValueError(
                    f"on_value=None takes the data's largest input, which is {maximum}: give an on_value above 0"
                )
            self.on.fill_(maximum)
            self.known.fill_(True)

    def write(self, x: Tensor, code: Tensor) -> Tensor:
        """Write `code` `(N, C)` into `x` `(N, ...)`; must not change `x` itself."""
        raise TypeError(f"{type(self).__name__} must override write(x, code)")

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Encode classes `y` `(N,)` into inputs `x` `(N, ...)`."""
        return self.write(x, F.one_hot(y, self.num_classes).to(x.dtype) * self.on.to(x.dtype))

    def candidates(self, x: Tensor) -> Tensor:
        """All classes written into every sample: `(C * N, ...)`, class after class."""
        n, classes = x.shape[0], self.num_classes
        code = torch.eye(classes, dtype=x.dtype, device=x.device) * self.on.to(x.dtype)
        return self.write(x.repeat(classes, *[1] * (x.dim() - 1)), code.repeat_interleave(n, 0))

    def neutral(self, x: Tensor) -> Tensor:
        """Neutral label written into every sample: every entry is the on-value divided by C."""
        return self.write(x, (self.on.to(x.dtype) / self.num_classes).expand(x.shape[0], self.num_classes))

    def extra_repr(self) -> str:
        return f"on_value={self.on_value}"


class PixelOverlay(LabelEncoding):
    """Overwrites the first C pixels of every channel (arXiv 2212.13345, section 3.3; 2305.18353 for RGB).

    Args:
        on_value: See :class:`LabelEncoding`.

    Example::

        >>> overlay = PixelOverlay(on_value=1.0)
        >>> overlay.build(3, (5,))
        (5,)
        >>> overlay(torch.full((1, 5), 7.0), torch.tensor([1]))
        tensor([[0., 1., 0., 7., 7.]])
        >>> overlay.neutral(torch.zeros(1, 5))
        tensor([[0.3333, 0.3333, 0.3333, 0.0000, 0.0000]])
    """

    def shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(input_shape) == 2:
            raise ValueError(
                f"labels=PixelOverlay takes flat inputs or images (C, H, W), got input_shape={input_shape}: add a "
                f"channel axis, (1, {input_shape[0]}, {input_shape[1]}) and image.unsqueeze(1), or use AppendOneHot"
            )
        pixels = prod(input_shape[1:]) if len(input_shape) > 1 else input_shape[0]
        if pixels < self.num_classes:
            raise ValueError(
                f"labels=PixelOverlay needs one pixel per class: input_shape={input_shape} has {pixels} pixels per "
                f"channel for num_classes={self.num_classes}; use AppendOneHot or LabelChannel"
            )
        return input_shape

    def write(self, x: Tensor, code: Tensor) -> Tensor:
        if x.dim() == 2:
            return torch.cat((code, x[:, self.num_classes :]), 1)
        if x.dim() == 3:
            raise ValueError(
                f"labels=PixelOverlay takes flat inputs (N, D) or images (N, C, H, W), got {tuple(x.shape)}: add a "
                "channel axis, image.unsqueeze(1)"
            )
        flat = x.flatten(2)
        code = code.unsqueeze(1).expand(-1, flat.shape[1], -1)
        return torch.cat((code, flat[..., self.num_classes :]), 2).view_as(x)


class AppendOneHot(LabelEncoding):
    """Flattens the input and appends the code: `(N, ...)` to `(N, D + C)`.

    Args:
        on_value: See :class:`LabelEncoding`.

    Example::

        >>> encoding = AppendOneHot(on_value=1.0)
        >>> encoding.build(3, (2,))
        (5,)
        >>> encoding(torch.full((1, 2), 7.0), torch.tensor([1]))
        tensor([[7., 7., 0., 1., 0.]])
    """

    def shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return (prod(input_shape) + self.num_classes,)

    def write(self, x: Tensor, code: Tensor) -> Tensor:
        return torch.cat((x.flatten(1), code), 1)


class LabelChannel(LabelEncoding):
    """Adds an image channel with a fixed random pattern of the class, of zeros and the on-value.

    A pattern over the whole image is preserved by convolution and pooling, unlike a few overwritten pixels (compare
    arXiv 2311.18130 and 2312.14924, whose patterns are learned or made of waves).

    Args:
        on_value: See :class:`LabelEncoding`.
        seed: Seed of the patterns; they are saved with the weights.
    """

    patterns: Tensor

    def __init__(self, on_value: float | None = None, seed: int = 0) -> None:
        super().__init__(on_value)
        check_int("seed", seed)
        self.seed = int(seed)

    def shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(input_shape) != 3:
            raise ValueError(f"labels=LabelChannel needs images (C, H, W), got input_shape={input_shape}")
        channels, height, width = input_shape
        self.register_buffer("patterns", self._draw(height * width).float())
        return channels + 1, height, width

    def _draw(self, pixels: int) -> Tensor:
        """Patterns (C, pixels), no two of them equal."""
        generator = torch.Generator().manual_seed(self.seed)
        for _ in range(100):
            patterns = torch.randint(0, 2, (self.num_classes, pixels), generator=generator)
            if len(patterns.unique(dim=0)) == self.num_classes:
                return patterns
        raise ValueError(
            f"labels=LabelChannel finds no {self.num_classes} different patterns of {pixels} pixels: use AppendOneHot"
        )

    def write(self, x: Tensor, code: Tensor) -> Tensor:
        channel = (code @ self.patterns.to(code.dtype)).view(x.shape[0], 1, *x.shape[2:])
        return torch.cat((x, channel), 1)


class Unlabelled(LabelEncoding):
    """No label in the input, for unsupervised training: a class scan is not possible, so the readout must learn."""

    def __init__(self) -> None:
        super().__init__(on_value=1.0)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x

    def candidates(self, x: Tensor) -> Tensor:
        raise RuntimeError("labels=Unlabelled writes no class: give a readout that learns, such as LinearReadout")

    def neutral(self, x: Tensor) -> Tensor:
        return x

    def extra_repr(self) -> str:
        return ""
