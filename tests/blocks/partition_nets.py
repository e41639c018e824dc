"""Small networks in common coding styles, for the tests of partition."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Residual(nn.Module):
    """Post-activation residual block; one in-place ReLU is called twice."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.down = nn.Conv2d(inputs, outputs, 1, stride) if stride > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.down is None else self.down(x)
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += identity
        return self.relu(out)


class ResNet(nn.Module):
    """Stem, two stages of two residual blocks, head; inputs (1, 8, 8)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, 1, 1)
        self.bn = nn.BatchNorm2d(4)
        self.layer1 = nn.Sequential(Residual(4, 4), Residual(4, 4))
        self.layer2 = nn.Sequential(Residual(4, 6, 2), Residual(6, 6))
        self.fc = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.bn(self.conv(x)), inplace=True), 2)
        x = self.layer2(self.layer1(x))
        return self.fc(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


class Squeeze(nn.Module):
    """Squeeze-excitation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, 2, 1)
        self.fc2 = nn.Conv2d(2, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.fc2(F.relu(self.fc1(x.mean((2, 3), keepdim=True))))) * x


class Inverted(nn.Module):
    """Inverted residual; without skip where the number of channels changes."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.expand = nn.Sequential(nn.Conv2d(inputs, 8, 1), nn.BatchNorm2d(8), nn.Hardswish(inplace=True))
        self.depthwise = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1, groups=8), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.squeeze = Squeeze(8)
        self.project = nn.Sequential(nn.Conv2d(8, outputs, 1), nn.BatchNorm2d(outputs))
        self.skip = inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        out = self.project(self.squeeze(self.depthwise(self.expand(x))))
        return x + out if self.skip else out


class Mobile(nn.Module):
    """Stem, three inverted residuals of which one has a skip, last convolution, classifier; inputs (1, 8, 8)."""

    def __init__(self) -> None:
        super().__init__()
        stem = nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.Hardswish(inplace=True))
        last = nn.Sequential(nn.Conv2d(6, 8, 1), nn.BatchNorm2d(8), nn.Hardswish(inplace=True))
        self.features = nn.Sequential(stem, Inverted(4, 4), Inverted(4, 6), Inverted(6, 6), last)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Linear(8, 8), nn.ReLU(inplace=True), nn.Dropout(0.2), nn.Linear(8, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))


class Overwriting(nn.Module):
    """Residual block that first overwrites its input: the skip is the overwritten input."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(4, 4, 3, 1, 1)
        self.conv2 = nn.Conv2d(4, 4, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.relu_(x))
        y = self.conv2(F.relu(y, True))
        y += x
        return y


def overwriting() -> nn.Sequential:
    """Blocks that start with in-place operations; inputs (1, 4, 4)."""
    return nn.Sequential(nn.Conv2d(1, 4, 3, 1, 1), Overwriting(), Overwriting(), nn.Flatten(), nn.Linear(64, 3))


class Classic(nn.Module):
    """The MNIST example of many a tutorial: functional, one dropout module for all, the batch size read at the top.

    Inputs (1, 8, 8).
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, 3, padding=1)
        self.conv2 = nn.Conv2d(4, 6, 3, padding=1)
        self.drop = nn.Dropout(0.5)
        self.fc1 = nn.Linear(24, 10)
        self.fc2 = nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[0]
        assert x.shape[1] == 1, "grey"
        x = self.drop(F.max_pool2d(F.relu(self.conv1(x), inplace=True), 2))
        x = self.drop(F.max_pool2d(self.conv2(x).relu_(), 2))
        x = F.relu_(self.fc1(x.view(n, -1)))
        x = F.dropout(x, 0.3, self.training)
        return F.log_softmax(self.fc2(F.dropout(x, training=self.training)), 1)


class Attention(nn.Module):
    """Pre-norm transformer block with attention by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(8)
        self.qkv = nn.Linear(8, 24)
        self.proj = nn.Linear(8, 8)
        self.norm2 = nn.LayerNorm(8)
        self.mlp = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Dropout(0.2), nn.Linear(16, 8))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        n, length, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(n, length, 3, 2, width // 2).permute(2, 0, 3, 1, 4).unbind(0)
        weights = (q @ k.transpose(-2, -1) + mask).softmax(-1)
        x = x + self.proj((weights @ v).transpose(1, 2).reshape(n, length, width))
        return x + self.mlp(self.norm2(x))


class Transformer(nn.Module):
    """Class token, positions, a mask in a buffer, an optional second input; inputs (5, 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(4, 8)
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.positions = nn.Parameter(torch.randn(1, 6, 8))
        self.register_buffer("mask", torch.randn(6, 6))
        self.blocks = nn.ModuleList(Attention() for _ in range(2))
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor, extra: Tensor | None = None) -> Tensor:
        n = x.shape[0]
        x = torch.cat([self.token.expand(n, -1, -1), self.embed(x)], 1) + self.positions
        for block in self.blocks:
            x = block(x, self.mask * 0.5)
        if extra is not None:
            x = x + extra
        return self.head(self.norm(x)[:, 0]).view(n, -1)


class Branching(nn.Module):
    """A layer whose code depends on the data: it cannot be traced."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.relu(x)) if x.sum() > 0 else self.linear(x)


class BranchingRoot(nn.Module):
    """A model whose own forward cannot be traced."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(6, 8)
        self.body = Branching(8, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        if not torch.isfinite(x).all():
            raise ValueError("not a number")
        return self.head(self.body(self.stem(x)))


class Noisy(nn.Module):
    """Other operations in training than in evaluation."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        self.norm = nn.BatchNorm1d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            x = x + torch.randn_like(x)
        return self.norm(self.linear(x))


class Pair(nn.Module):
    """Takes and returns a tuple in a way that cannot be traced."""

    def __init__(self, last: bool = False) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 6)
        self.last = last

    def forward(self, x: Tensor | tuple[Tensor, Tensor]) -> Tensor | tuple[Tensor, Tensor]:
        x, skip = x if isinstance(x, tuple) else (x, x)
        if skip.sum() > 1e9:
            skip = skip * 0
        x = self.linear(x)
        return x + skip if self.last else (x.relu_(), skip)


class Odd(nn.Module):
    """Constants, a plain tensor as attribute, counters, a module created in forward, an unused layer; inputs (6,)."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.second = nn.Linear(6, 3)
        self.unused = nn.Linear(2, 2)
        self.mean = torch.arange(6.0)
        self.register_buffer("scale", torch.tensor(0.5), persistent=False)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        x = (x - self.mean) * torch.tensor([2.0])
        return self.second(nn.ReLU()(self.first(x))) * self.scale.exp()
