"""Errors of partition, and their messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_ff.blocks import partition
from tests.blocks.partition_nets import Branching, BranchingRoot, ResNet


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.middle = nn.Linear(4, 4)
        self.last = nn.Linear(4, 4)
        self.last.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.middle(self.first(x)))


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.layer(x).relu())


class Drawing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.last = nn.Sequential(nn.Linear(4, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x) + torch.randn(4))


class TwoModes(Drawing):
    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.last(x + torch.randn_like(x) if self.training else x)


class TwoInputs(Drawing):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.last(self.first(x) + y)


class TimeFirst(Drawing):
    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x.transpose(0, 1))).transpose(0, 1)


class Nested(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Any:
        return (x, {"h": self.linear(x)}) if x.sum() < 1e9 else x


class Last(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Any) -> Tensor:
        return self.linear(x[1]["h"]) if len(x) else x


class Listed(nn.Module):
    """Cannot be traced, holds its modules in lists, and pools between two of them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(4, 4)
        self.body = nn.ModuleList([nn.Linear(4, 4), nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])])
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for layer in (self.body[0], *self.body[1]):  # type: ignore[misc]
            x = layer(x) if x.sum() < 1e9 else x
        return self.head(x.flatten(1))


class Encoded(nn.Sequential):
    def __init__(self) -> None:
        layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
        super().__init__(nn.Linear(4, 4), nn.TransformerEncoder(layer, 2), nn.Linear(4, 2))


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.attention(x, x, x, need_weights=False)[0])


@pytest.mark.parametrize(
    ("make", "kwargs", "message"),
    [
        (ResNet, {"cuts": "block"}, r"cuts='block': choose one of 'blocks', 'finest', 'layers', 'stages', a number"),
        (ResNet, {"cuts": "layer1"}, r"cuts='layer1'.*list of module paths such as \['layer1'\]"),
        (ResNet, {"cuts": 0}, "cuts=0: give at least 1 block"),
        (ResNet, {"cuts": -2}, "cuts=-2: give at least 1 block"),
        (ResNet, {"cuts": 7}, "cuts=7: the model has 5 places.*at most 6 blocks; cuts='layers'"),
        (ResNet, {"cuts": True}, "cuts=True: give a word, a number of blocks, or a list"),
        (ResNet, {"cuts": 2.0}, "cuts=2.0: give a word, a number of blocks, or a list"),
        (ResNet, {"cuts": None}, "cuts=None: give a word"),
        (ResNet, {"cuts": []}, r"cuts=\[\]: give the path of at least one module"),
        (ResNet, {"cuts": [1]}, r"cuts=\[1\]: give the path"),
        (ResNet, {"cuts": ["layer7"]}, r"no module 'layer7'; choose one of \['layer\d', 'layer\d'"),
        (ResNet, {"cuts": ["layer1.0.con1"]}, r"no module 'layer1.0.con1'; choose one of \['layer1.0', 'layer1'"),
        (
            ResNet,
            {"cuts": ["layer1.0.conv1"]},
            r"behind 'layer1.0.conv1' not one tensor is alive but 2 \(layer1.0.conv1, max_pool2d\(\)\); "
            r"choose one of \['layer1.0', 'layer1', .*or cuts='layers'",
        ),
        (ResNet, {"cuts": ["layer1.0.relu"]}, "'layer1.0.relu' runs 2 times; name a module that runs once"),
        (ResNet, {"cuts": ["layer1", "layer1.1"]}, "'layer1' and 'layer1.1' end at the same place"),
        (
            lambda: nn.Sequential(nn.Linear(4, 4), Branching(4, 4)),
            {"cuts": ["1.linear"]},
            r"'1.linear' lies inside '1', which is kept whole; choose one of \['1', '0'\]",
        ),
        (ResNet, {"cuts": "stages"}, r"input_shape=None: stages.*such as \(3, 224, 224\)"),
        (ResNet, {"cuts": 2, "balance": "activations"}, "input_shape=None: .*balance='activations'"),
        (ResNet, {"cuts": 2, "balance": "flops"}, "balance='flops': choose one of 'parameters', 'activations'"),
        (ResNet, {"input_shape": 64}, "input_shape=64: give the sizes of one input"),
        (ResNet, {"input_shape": ()}, r"input_shape=\(\): give the sizes"),
        (ResNet, {"input_shape": (1, 0, 8)}, r"input_shape=\(1, 0, 8\): .*at least 1"),
        (
            ResNet,
            {"input_shape": (3, 8, 8)},
            r"input_shape=\(3, 8, 8\) does not fit: block 0 \(conv\), which gets \(3, 8",
        ),
        (lambda: nn.Sequential(nn.LazyLinear(3)), {}, "lazy modules: run it once on a batch"),
        (Tied, {}, r"'first.weight' = 'last.weight' is used by block 0 \(first\) and block 2 \(last\).*own copy"),
        (Twice, {}, r"'layer.weight' is used by block 0 \(layer\) and block 1"),
        (Drawing, {}, "Drawing: .*it draws random numbers of a fixed shape"),
        (TwoModes, {}, "TwoModes: its own forward does different things in training and in evaluation"),
        (TwoInputs, {}, r"TwoInputs: its forward takes 2 inputs \(x, y\)"),
        (
            TimeFirst,
            {"input_shape": (5, 4)},
            r"block 0 \(first\) hands over.*\(5, 2, 4\) for 2 inputs, whose first axis",
        ),
        (
            lambda: nn.Sequential(Nested(), Last()),
            {"input_shape": (4,)},
            r"block 0 \(0\) hands over dict in tuple; a tensor or",
        ),
        (
            BranchingRoot,
            {},
            r"BranchingRoot: its forward cannot be traced \(partition_nets.py, line \d+: `if not torch.isfinite.*"
            r"partition\(model, cuts=\['stem', 'body', 'head'\], input_shape=.*separate module, which is then kept",
        ),
        (BranchingRoot, {"cuts": ["stem", "body", "head"]}, "cannot be traced.*the shape of an input"),
        (
            BranchingRoot,
            {"cuts": ["stem", "head"], "input_shape": (6,)},
            "these modules one after another do not give",
        ),
        (
            BranchingRoot,
            {"cuts": ["stem", "boddy"], "input_shape": (6,)},
            r"no module 'boddy'; its modules are \['stem'",
        ),
        (
            BranchingRoot,
            {"cuts": ["body", "stem", "head"], "input_shape": (6,)},
            r"cuts=\['body', 'stem', 'head'\]: name all modules in the order in which they run, and move what is "
            r"computed between them into a module of its own; now 'body', which gets \(6,\), fails: mat1 and mat2",
        ),
        (
            BranchingRoot,
            {"cuts": ["stem", "body", "head"], "input_shape": (5,)},
            r"input_shape=\(5,\) does not fit BranchingRoot: mat1 and mat2",
        ),
        (Listed, {}, r"partition\(model, cuts=\['stem', 'body.0', 'body.1.0', 'body.1.1', 'head'\], input_shape="),
        (
            Listed,
            {"cuts": ["stem", "body", "head"], "input_shape": (4, 4)},
            r"'body' is a ModuleList, which does not run: name \['body.0', 'body.1.0', 'body.1.1'\]",
        ),
        (
            Listed,
            {"cuts": ["stem", "body.0", "body.1.0", "body.1.1", "head"], "input_shape": (4, 4)},
            r"now 'head', which gets \(4, 4\), fails: mat1 and mat2",
        ),
        (
            Encoded,
            {"cuts": ["1.layers.0"]},
            r"'1.layers.0' lies inside '1', which is kept whole as torch's own modules are: put its layers into the "
            r"model in place of TransformerEncoder, such as nn.Sequential\(\*encoder.layers\); choose one of \['1'",
        ),
        (
            lambda: nn.DataParallel(ResNet()),
            {"cuts": ["module.layer1"]},
            r"'module.layer1' lies inside the model itself, which is kept whole as torch's own modules are: give the "
            "ResNet that DataParallel wraps, its attribute `module`$",
        ),
        (
            Attending,
            {"cuts": ["attention.out_proj"]},
            r"'attention.out_proj' lies inside 'attention', which is kept whole as torch's own modules are; choose one",
        ),
    ],
)
def test_refused(make: Callable[[], nn.Module], kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"(?s){message}"):
        partition(make(), **kwargs)


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning", "ignore:`torch.jit:DeprecationWarning")
def test_scripted() -> None:
    with pytest.raises(ValueError, match="give the module itself, not its scripted form"):
        partition(torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)))


@pytest.mark.parametrize(("model", "message"), [("resnet18", "not str"), (ResNet, "not type; call it first")])
def test_no_module(model: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        partition(model)


def test_tied_weights_fit_in_one_block() -> None:
    model = Tied().eval()
    x = torch.randn(2, 4)
    assert torch.equal(partition(model, 1)(x), model(x))


def test_the_layers_of_torchs_encoder_in_its_place() -> None:
    """As the message advises."""
    model = Encoded().eval()
    inside: Any = model[1].layers
    model[1] = nn.Sequential(*inside)
    blocks = partition(model, ["1.0"], (5, 4))
    assert blocks.names == ["0..1.0", "1.1..2"]
    x = torch.randn(3, 5, 4)
    assert torch.equal(blocks(x), model(x))


def test_modules_in_a_row_where_the_model_cannot_be_traced() -> None:
    model = BranchingRoot().eval()
    blocks = partition(model, ["stem", "body", "head"], (6,))
    assert blocks.names == ["stem", "body", "head"]
    x = torch.randn(5, 6)
    assert torch.equal(blocks(x), model(x))
    assert blocks[1].get_parameter("body.linear.weight") is model.body.linear.weight
