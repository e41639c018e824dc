"""Partition: the blocks, their outputs, gradients, parameters and modes, and the table."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from itertools import combinations, pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_ff.blocks import LocalBlock, Normalize, Partition, partition
from lightning_ff.blocks.cuts import balanced
from lightning_ff.objectives import MeanSquare, ThresholdLoss
from tests.benchmarks.memory_meter import saved_for_backward
from tests.blocks.partition_nets import (
    Branching,
    Classic,
    Mobile,
    Noisy,
    Odd,
    Overwriting,
    Pair,
    ResNet,
    Transformer,
    overwriting,
)

NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mlp": (
        lambda: nn.Sequential(nn.Linear(6, 5), nn.ReLU(True), nn.Linear(5, 4), nn.ReLU(True), nn.Linear(4, 3)),
        (6,),
    ),
    "resnet": (ResNet, (1, 8, 8)),
    "mobile": (Mobile, (1, 8, 8)),
    "overwriting": (overwriting, (1, 4, 4)),
    "classic": (Classic, (1, 8, 8)),
    "transformer": (Transformer, (5, 4)),
    "branching": (lambda: nn.Sequential(nn.Linear(6, 6), Branching(6, 6), Branching(6, 3)), (6,)),
    "noisy": (lambda: nn.Sequential(Noisy(6, 6), nn.ReLU(True), Noisy(6, 3)), (6,)),
    "pair": (lambda: nn.Sequential(Pair(), Pair(), Pair(last=True)), (6,)),
    "odd": (Odd, (6,)),
}
CUTS: list[Any] = ["blocks", "finest", "layers", "stages", 1, 2]


def batch(shape: tuple[int, ...], n: int = 3, seed: int = 0) -> Tensor:
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed))


def run(blocks: Partition, x: Tensor) -> list[tuple[Tensor, ...]]:
    """Output of every block."""
    handed: list[tuple[Tensor, ...]] = [(x,)]
    for block in blocks:
        h = block(*handed[-1])
        handed.append((h,) if isinstance(h, Tensor) else h)
    return handed[1:]


@pytest.fixture(params=NETS)
def net(request: pytest.FixtureRequest) -> tuple[nn.Module, tuple[int, ...]]:
    make, shape = NETS[request.param]
    torch.manual_seed(1)
    return make(), shape


SQUEEZED = "depthwise..features.{}.squeeze"
BLOCKS = {
    ("mlp", "blocks"): ["0", "2", "4"],
    ("resnet", "blocks"): ["conv", "layer1.0", "layer1.1", "layer2.0", "layer2.1", "fc"],
    ("resnet", "finest"): ["conv", "layer1.0", "layer1.1", "layer2.0", "layer2.1", "fc"],
    ("resnet", "layers"): [
        *("conv", "layer1.0.conv1", "layer1.0.conv2", "layer1.1.conv1", "layer1.1.conv2"),
        *("layer2.0.down", "layer2.0.conv1", "layer2.0.conv2", "layer2.1.conv1", "layer2.1.conv2", "fc"),
    ],
    ("resnet", "stages"): ["conv", "layer1", "layer2", "fc"],
    ("resnet", 3): ["conv..layer1", "layer2.0", "layer2.1..fc"],
    ("mobile", "blocks"): ["features.0", "features.1", "features.2", "features.3", "features.4", "classifier"],
    ("mobile", "finest"): [
        *("features.0", "features.1", "features.2.expand", "features.2.depthwise", "features.2.squeeze"),
        *("features.2.project", "features.3", "features.4", "classifier.0", "classifier.3"),
    ],
    ("mobile", "layers"): [
        "features.0",
        *(f"features.{k}.{part}" for k in (1, 2, 3) for part in ("expand", SQUEEZED.format(k), "project")),
        *("features.4", "classifier.0", "classifier.3"),
    ],
    ("mobile", "stages"): ["features", "classifier"],
    ("classic", "blocks"): ["conv1", "conv2", "fc1", "fc2"],
    ("transformer", "blocks"): ["embed", "blocks.0", "blocks.1", "head"],
    ("transformer", "layers"): [
        *("embed", "blocks.0.qkv", "blocks.0.proj", "blocks.0.mlp.0", "blocks.0.mlp.3"),
        *("blocks.1.qkv", "blocks.1.proj", "blocks.1.mlp.0", "blocks.1.mlp.3", "head"),
    ],
    ("branching", "blocks"): ["0", "1", "2"],
    ("noisy", "blocks"): ["0", "2"],
    ("pair", "blocks"): ["0", "1", "2"],
    ("odd", "blocks"): ["first", "second"],
}


@pytest.mark.parametrize(("name", "cuts"), BLOCKS, ids=str)
def test_blocks(name: str, cuts: Any) -> None:
    make, shape = NETS[name]
    blocks = partition(make(), cuts, shape if cuts == "stages" else None)
    assert blocks.names == BLOCKS[name, cuts]
    assert len(blocks) == len(list(blocks)) == len(blocks.names)
    assert blocks[-1] is list(blocks)[-1]
    assert blocks[:2] == list(blocks)[:2]


def test_what_goes_with_which_layer() -> None:
    assert partition(ResNet()).modules_of == [
        ["conv", "bn", "relu()", "max_pool2d()"],
        *([name] for name in ("layer1.0", "layer1.1", "layer2.0", "layer2.1")),
        ["adaptive_avg_pool2d()", "flatten()", "fc"],
    ]
    assert partition(Mobile(), "layers").modules_of[2] == ["features.1.depthwise", "features.1.squeeze"]
    assert partition(Mobile()).modules_of[-1] == ["avgpool", "flatten()", "classifier"]
    assert partition(Transformer()).modules_of[-1] == ["norm", "getitem()", "head", "view()"]
    assert partition(Transformer(), "layers").modules_of[3] == [
        "blocks.0.norm2",
        "blocks.0.mlp.0",
        "blocks.0.mlp.1",
        "blocks.0.mlp.2",
    ]
    pre_norm = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Sequential(nn.BatchNorm2d(2), nn.Conv2d(2, 2, 1)))
    assert partition(pre_norm).modules_of == [["0", "1"], ["2"]]


@pytest.mark.parametrize("cuts", CUTS, ids=str)
def test_output_is_the_models_own(net: tuple[nn.Module, tuple[int, ...]], cuts: Any) -> None:
    model, shape = net
    blocks = partition(model, cuts, shape)
    model.eval()
    blocks.eval()
    for n in (1, 5):
        x = batch(shape, n)
        handed = run(blocks, x.clone())
        assert torch.equal(handed[-1][0], model(x.clone()))
        assert torch.equal(blocks(x), handed[-1][0])


@pytest.mark.parametrize("cuts", CUTS, ids=str)
def test_nothing_that_was_handed_over_is_overwritten(net: tuple[nn.Module, tuple[int, ...]], cuts: Any) -> None:
    model, shape = net
    blocks = partition(model.eval(), cuts, shape)
    x = batch(shape)
    entries: tuple[Tensor, ...] = (x,)
    kept = [(x, x.clone())]
    for block in blocks:
        h = block(*entries)
        entries = (h,) if isinstance(h, Tensor) else h
        kept += [(entry, entry.clone()) for entry in entries]
    assert all(torch.equal(now, then) for now, then in kept)


@pytest.mark.parametrize("cuts", CUTS, ids=str)
def test_training_is_the_models_own(net: tuple[nn.Module, tuple[int, ...]], cuts: Any) -> None:
    """Output, gradients and batch statistics of a training step, with the same random numbers."""
    model, shape = net
    model.train()
    other = copy.deepcopy(model)
    blocks = partition(model, cuts, shape)
    outputs = []
    for module in (other, blocks):
        torch.manual_seed(2)
        outputs.append(module(batch(shape)))
        outputs[-1].square().sum().backward()
    assert torch.equal(*outputs)
    for (name, p), q in zip(other.named_parameters(), model.parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None), name
        if p.grad is not None and q.grad is not None:
            torch.testing.assert_close(q.grad, p.grad)
    assert all(torch.equal(a, b) for a, b in zip(other.buffers(), model.buffers(), strict=True))


def test_skips_cross_cuts_as_further_entries() -> None:
    handed = run(partition(ResNet().eval(), "layers"), batch((1, 8, 8)))
    assert [len(entries) for entries in handed] == [1, 2, 1, 2, 1, 2, 2, 1, 2, 1, 1]
    assert [h[0].shape[1:] for h in handed[:3]] == [(4, 4, 4)] * 3
    assert handed[5][0].shape[1:] == (6, 2, 2)  # the shortcut's convolution, then what it was computed from
    assert handed[5][1] is handed[4][0]


def test_blocks_share_the_models_parameters(net: tuple[nn.Module, tuple[int, ...]]) -> None:
    model, _ = net
    blocks = partition(model, "layers")
    of_block = [set(block.parameters()) for block in blocks]
    assert sum(map(len, of_block)) == len(set().union(*of_block))
    named = dict(model.named_parameters())
    assert set().union(*of_block) == {p for name, p in named.items() if name not in blocks.unused}
    assert blocks.unused == [name for name in named if name.startswith("unused")]
    for block in blocks:
        assert all(named[name] is p for name, p in block.named_parameters())


def state(model: nn.Module) -> Any:
    attributes = [{k: copy.copy(v) for k, v in vars(part).items()} for part in model.modules()]
    return copy.deepcopy(model.state_dict()), attributes, torch.get_rng_state()


@pytest.mark.parametrize("cuts", ["layers", "stages"])
def test_the_model_is_left_as_it_was(net: tuple[nn.Module, tuple[int, ...]], cuts: Any) -> None:
    model, shape = net
    model.train()
    next(part for part in model.modules() if not list(part.children())).eval()
    tensors, attributes, random = state(model)
    partition(model, cuts, shape)
    after, attributes_after, random_after = state(model)
    assert list(tensors) == list(after)
    assert all(torch.equal(tensors[name], after[name]) for name in tensors)
    assert torch.equal(random, random_after)
    assert [a.keys() for a in attributes] == [a.keys() for a in attributes_after]
    for then, now in zip(attributes, attributes_after, strict=True):
        assert all(now[k] is v or not isinstance(v, bool | int | str | dict) or now[k] == v for k, v in then.items())


def test_no_gradient_between_blocks() -> None:
    model = ResNet()
    layers = [LocalBlock(block, MeanSquare(), ThresholdLoss(1.0)) for block in partition(model, "layers")]
    x: Any = batch((1, 8, 8))
    for number, block in enumerate(layers):
        h, g = block(x)
        assert g is not None
        g.sum().backward()
        for other, neighbour in enumerate(layers):
            learned = any(p.grad is not None and p.grad.abs().sum() > 0 for p in neighbour.parameters())
            assert learned == (other == number)
        model.zero_grad()
        x = tuple(entry.detach() for entry in ((h,) if isinstance(h, Tensor) else h))


def test_trained_blocks_are_the_trained_model() -> None:
    model = Mobile()
    optimizer = torch.optim.SGD([p for block in partition(model) for p in block.parameters()], lr=0.1)
    before = copy.deepcopy(model.state_dict())
    partition(model)(batch((1, 8, 8))).sum().backward()
    optimizer.step()
    fresh = Mobile()
    fresh.load_state_dict(model.state_dict())
    x = batch((1, 8, 8), seed=1)
    assert torch.equal(partition(fresh).eval()(x), model.eval()(x))
    assert not torch.equal(before["features.0.0.weight"], model.state_dict()["features.0.0.weight"])


@pytest.mark.parametrize("cuts", ["blocks", "layers"])
def test_copies_and_pickles(net: tuple[nn.Module, tuple[int, ...]], cuts: Any) -> None:
    model, shape = net
    blocks = partition(model, cuts, shape)
    x = batch(shape)
    for twin_of in (copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))):
        for training in (False, True):
            twin = twin_of(blocks.train(training))
            assert str(twin) == str(blocks)
            assert not set(twin.parameters()) & set(model.parameters())
            results = []
            for one in (twin, blocks):
                torch.manual_seed(3)
                results.append(one(x))
            assert torch.equal(*results)


def varies(block: nn.Module, x: Tensor) -> bool:
    return not torch.equal(block(x), block(x))


def test_every_block_has_a_mode_of_its_own() -> None:
    """The model has one dropout module for two blocks and functional dropout that reads the model's mode."""
    first, second, third, _ = blocks = partition(Classic())
    inputs = [batch((1, 8, 8)), batch((4, 4, 4)), batch((6, 2, 2)), batch((10,))]
    second.eval()
    assert [varies(block, x) for block, x in zip(blocks, inputs, strict=True)] == [True, False, True, False]
    second.train()
    first.eval()
    third.eval()
    assert [varies(block, x) for block, x in zip(blocks, inputs, strict=True)] == [False, True, False, False]
    assert not any(varies(block.eval(), x) for block, x in zip(blocks, inputs, strict=True))
    assert not any(varies(block, x) for block, x in zip(partition(Classic().eval()), inputs, strict=True))


def test_explicit_cuts() -> None:
    model = ResNet().eval()
    x = batch((1, 8, 8))
    for cuts, names in [
        (["layer1"], ["conv..layer1", "layer2..fc"]),
        (["bn"], ["conv", "layer1..fc"]),  # the next block starts with an in-place ReLU
        (("layer2.0", "layer1.0"), ["conv..layer1.0", "layer1.1..layer2.0", "layer2.1..fc"]),
        (["layer1", "layer2", "fc"], ["conv..layer1", "layer2", "fc"]),
        (["fc"], ["conv..fc"]),
    ]:
        blocks = partition(model, cuts)
        assert blocks.names == names
        assert torch.equal(blocks(x), model(x))
    handed = run(partition(model, ["bn"]), x)
    assert torch.equal(handed[0][0], model.bn(model.conv(x)))


def test_named_module_with_a_parameter_of_its_own_and_leaf_models() -> None:
    assert partition(nn.Linear(3, 2)).names == ["Linear"]
    assert partition(nn.Sequential(nn.Flatten(), nn.ReLU())).names == ["0..1"]
    assert partition(nn.Sequential(nn.Flatten(), Overwriting()), 1).names == ["1"]


TABLE = """\
block  modules                               parameters  output     MiB saved for backward per image
    0  conv, bn, relu(), max_pool2d()                48  (4, 4, 4)                            0.0027
    1  layer1                                       608  (4, 4, 4)                            0.0023
    2  layer2                                     1,266  (6, 2, 2)                            0.0011
    3  adaptive_avg_pool2d(), flatten(), fc          21  (3,)                                 0.0000
4 blocks, 1,943 parameters"""


def test_table() -> None:
    model = ResNet()
    assert str(partition(model, "stages", (1, 8, 8))) == TABLE
    lines = str(partition(model, ["layer1"])).splitlines()
    assert lines[0].split() == ["block", "modules", "parameters"]
    assert str(partition(Odd())).splitlines()[-1] == "not used by the forward: unused.weight, unused.bias"
    skips = str(partition(model, "layers", (1, 8, 8))).splitlines()[2]
    assert "(4, 4, 4) + (4, 4, 4)" in skips
    deep = nn.Sequential(*(nn.Linear(2, 2) for _ in range(9)))
    assert "0, 1, 2, 3, ... 8 (9)" in str(partition(deep, 1))


@pytest.mark.parametrize("name", ["resnet", "mobile", "transformer", "classic"])
def test_memory_is_what_autograd_saves(name: str) -> None:
    make, shape = NETS[name]
    model = make().train()
    blocks = partition(model, "blocks", shape)
    assert blocks.measured is not None
    x: Any = batch(shape, 2)
    for block, measured in zip(blocks, blocks.measured, strict=True):
        with saved_for_backward(block) as meter:
            h = block(x)
        resident = sum(b.nbytes for b in block.buffers())
        assert meter.now - resident <= 2 * measured.saved <= meter.now
        assert measured.shapes == (h.shape[1:],)
        x = h.detach()


def test_a_model_without_memory() -> None:
    with torch.device("meta"):
        model = ResNet()
    assert str(partition(model, "stages", (1, 8, 8))) == TABLE


def sums(sizes: list[int], ends: tuple[int, ...] | list[int]) -> list[int]:
    bounds = [0, *(end + 1 for end in ends), len(sizes)]
    return [sum(sizes[a:b]) for a, b in pairwise(bounds)]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_balanced_against_every_division(count: int) -> None:
    generator = torch.Generator().manual_seed(count)
    for _ in range(10):
        sizes = torch.randint(0, 20, (7,), generator=generator).tolist()
        got = sums(sizes, balanced(sizes, count))
        every = [sums(sizes, ends) for ends in combinations(range(6), count - 1)]
        best = min((max(groups), sum(s * s for s in groups)) for groups in every)
        assert len(got) == count
        assert (max(got), sum(s * s for s in got)) == best


def test_balance() -> None:
    """Parameters sit at the end of a conv net, activations at its beginning."""
    model = ResNet()
    even = partition(model, 2)
    assert [sum(p.numel() for p in block.parameters()) for block in even] == [1250, 693]
    front = partition(model, 2, (1, 8, 8), balance="activations")
    assert front.names == ["conv", "layer1..fc"]
    assert len(partition(model, 6)) == len(partition(model, "finest"))


def test_in_a_local_block() -> None:
    model = Transformer().eval()
    x: Any = batch((5, 4))
    want = model(x)
    for block in partition(model, "layers"):
        local = LocalBlock(block, normalization=Normalize("none")).eval()
        h, _ = local(x)
        x = local.hand_over(h)
    assert torch.equal(x, want)
