"""Partition of torchvision's classification models, at 64 pixels."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import Tensor, nn

from lightning_ff.blocks import partition

RESNET18 = ["conv1", *(f"layer{stage}.{k}" for stage in (1, 2, 3, 4) for k in (0, 1)), "fc"]
RESNET50 = [
    "conv1",
    *(f"layer{s}.{k}" for s, n in zip((1, 2, 3, 4), (3, 4, 6, 3), strict=True) for k in range(n)),
    "fc",
]
EFFICIENT = [f"features.{stage}.{k}" for stage, n in [(2, 2), (3, 2), (4, 3), (5, 3), (6, 4)] for k in range(n)]
CONVNEXT = [
    name
    for stage, n in [(1, 3), (3, 3), (5, 9), (7, 3)]
    for name in (f"features.{stage - 1}", *(f"features.{stage}.{k}" for k in range(n)))
]
SWIN = [
    name
    for stage, n in [(1, 2), (3, 2), (5, 6), (7, 2)]
    for name in (f"features.{stage - 1}", *(f"features.{stage}.{k}" for k in range(n)))
]
REGNET = [f"trunk_output.block{s}.block{s}-{k}" for s, n in [(2, 3), (3, 6), (4, 6)] for k in range(n)]
DENSENET = [name for k in (1, 2, 3) for name in (f"features.denseblock{k}", f"features.transition{k}")]

# blocks by name; number of blocks of "finest" and of "layers"
FAMILIES: dict[str, tuple[list[str], int, int]] = {
    "resnet18": (RESNET18, 10, 21),
    "resnet50": (RESNET50, 18, 54),
    "wide_resnet50_2": (RESNET50, 18, 54),
    "vgg11_bn": ([*(f"features.{k}" for k in (0, 4, 8, 11, 15, 18, 22, 25)), "classifier"], 11, 11),
    "densenet121": (["features.conv0", *DENSENET, "features.denseblock4", "classifier"], 9, 121),
    "mobilenet_v3_small": ([*(f"features.{k}" for k in range(13)), "classifier"], 28, 36),
    "mobilenet_v3_large": ([*(f"features.{k}" for k in range(17)), "classifier"], 32, 48),
    "efficientnet_b0": (["features.0", "features.1", *EFFICIENT, "features.7", "features.8", "classifier"], 39, 50),
    "convnext_tiny": ([*CONVNEXT, "classifier"], 23, 59),
    "regnet_y_400mf": (["stem", "trunk_output.block1", *REGNET, "fc"], 18, 54),
    "vit_b_16": (["conv_proj", *(f"encoder.layers.encoder_layer_{k}" for k in range(12)), "heads"], 26, 38),
    "swin_t": ([*SWIN, "head"], 29, 41),
}


SLOW = (
    *("resnet50", "wide_resnet50_2", "vgg11_bn", "mobilenet_v3_large"),
    *("efficientnet_b0", "convnext_tiny", "regnet_y_400mf"),
)


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in FAMILIES]
)
def family(request: pytest.FixtureRequest) -> tuple[str, nn.Module, Tensor, Tensor]:
    name = request.param
    torch.manual_seed(0)
    model = torchvision.models.get_model(name, num_classes=10, **({"image_size": 64} if name == "vit_b_16" else {}))
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        return name, model, x, model.eval()(x)


@pytest.mark.parametrize("cuts", ["blocks", "finest", "layers", 4])
def test_family(family: tuple[str, nn.Module, Tensor, Tensor], cuts: str | int) -> None:
    name, model, x, want = family
    blocks = partition(model, cuts)  # type: ignore[arg-type]
    expected, finest, layers = FAMILIES[name]
    if cuts == "blocks":
        assert blocks.names == expected
    assert len(blocks) == {"blocks": len(expected), "finest": finest, "layers": layers}.get(str(cuts), cuts)
    parameters = [p for block in blocks for p in block.parameters()]
    assert len(parameters) == len(set(parameters))
    assert set(parameters) == set(model.parameters())
    with torch.no_grad():
        assert torch.equal(blocks(x), want)


def test_issue_counts() -> None:
    """Stem, 8 BasicBlocks, head; stem, 11 InvertedResiduals, last convolution, head."""
    assert len(partition(torchvision.models.resnet18())) == 1 + 8 + 1
    assert len(partition(torchvision.models.mobilenet_v3_small())) == 1 + 11 + 1 + 1


def test_modules_of_resnet18() -> None:
    blocks = partition(torchvision.models.resnet18())
    assert blocks.modules_of[0] == ["conv1", "bn1", "relu", "maxpool"]
    assert blocks.modules_of[-1] == ["avgpool", "flatten()", "fc"]
    assert [sum(p.numel() for p in block.parameters()) for block in blocks][:4] == [9536, 73984, 73984, 230144]


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("resnet18", ["conv1", "layer1", "layer2", "layer3", "layer4", "fc"]),
        (
            "mobilenet_v3_small",
            [
                *("features.0", "features.1", "features.2..features.3", "features.4..features.8"),
                *("features.9..features.12", "classifier"),
            ],
        ),
    ],
)
def test_stages(name: str, names: list[str]) -> None:
    assert partition(torchvision.models.get_model(name), "stages", (3, 64, 64)).names == names


def test_densenet_follows_the_mode_of_its_blocks() -> None:
    """Its dropout is a function that gets the mode as a constant."""
    torch.manual_seed(0)
    model = torchvision.models.densenet121(drop_rate=0.5, num_classes=10)
    block = partition(model)[1]
    x = torch.randn(2, 64, 8, 8)
    with torch.no_grad():
        assert not torch.equal(block(x), block(x))
        block.eval()
        assert torch.equal(block(x), block(x))


def test_googlenet_with_auxiliary_classifiers_is_refused() -> None:
    model = torchvision.models.googlenet(init_weights=False, aux_logits=True)
    with pytest.raises(ValueError, match=r"GoogLeNet.*training and in evaluation.*aux_logits=False"):
        partition(model)
