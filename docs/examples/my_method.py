"""A method of your own: a learner that only chooses its parts."""

# --8<-- [start:all]
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from torch import nn

from lightning_ff import ForwardForward, LabelChannel, SymBa


class ConvForwardForward(ForwardForward):
    """Convolutions with stride 2, the label as an extra channel, SymBa."""

    def __init__(
        self,
        num_classes: int,
        input_shape: Sequence[int],
        channels: Sequence[int],
        alpha: float = 4.0,
        **kwargs: Any,
    ) -> None:
        sizes = [input_shape[0] + 1, *channels]
        blocks = [
            nn.Sequential(nn.Conv2d(fan_in, fan_out, 3, stride=2, padding=1), nn.ReLU())
            for fan_in, fan_out in pairwise(sizes)
        ]
        super().__init__(
            num_classes,
            input_shape,
            blocks=blocks,
            labels=LabelChannel(),
            loss=SymBa(alpha=alpha),
            **kwargs,
        )


# --8<-- [end:all]
