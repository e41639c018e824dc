"""Small networks that are cut into blocks."""

from __future__ import annotations

from torch import Tensor, nn

CLASSES, SHAPE = 4, (1, 6, 6)


class Residual(nn.Module):
    """Two convolutions around which the input is added."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += x
        return self.relu(out)


class Net(nn.Module):
    """Stem, two residual modules, classifier: four blocks."""

    def __init__(self, classes: int = CLASSES) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True))
        self.first, self.second = Residual(6), Residual(6)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(6, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.pool(self.second(self.first(self.stem(x)))).flatten(1))


class Skipping(nn.Module):
    """Nested skips: cut into layers, blocks pass tuples."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(i, 4, 3, padding=1) for i in (1, 4, 4))
        self.norm = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4 * 9, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x).relu()
        inner = self.b(h).relu()
        h = (h + self.norm(self.c(inner)) + inner).relu()
        return self.fc(h[:, :, :3, :3].flatten(1))


class Dropping(nn.Module):
    """Dropout and batch norm in every block."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(i, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.3)) for i in (1, 6)
        )
        self.fc = nn.Linear(6 * 36, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        for stage in self.stages:
            x = stage(x)
        return self.fc(x.flatten(1))
