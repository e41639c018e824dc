"""LocalNetwork: its construction by a dry run, and errors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_ff.blocks import LocalBlock, Normalize, mlp
from lightning_ff.labels import AppendOneHot, PixelOverlay
from lightning_ff.network import LocalNetwork
from lightning_ff.objectives import (
    Goodness,
    LinearGoodness,
    MeanSquare,
    NormGoodness,
    PeerNormalization,
    SumSquare,
    SymBa,
    ThresholdLoss,
)
from lightning_ff.readouts import LinearReadout, SumReadout
from tests.networks import CLASSES, SHAPE, class_network, conv_layers, images, network


def test_the_widest_activation_may_be_the_input_or_a_skip() -> None:
    narrow = network(AppendOneHot(1.0), scan_memory=1.0)
    assert narrow.scan_rows == int(2**20 / (4 * 34 * CLASSES))

    class Wide(nn.Module):
        def forward(self, x: Tensor, *skip: Tensor) -> tuple[Tensor, Tensor]:
            return x[:, :2], x.repeat(1, 3)

    skips = network(AppendOneHot(1.0), layers=[Wide(), nn.Bilinear(2, 102, 3)], scan_memory=1.0)
    assert skips.shapes == [((2,), (102,)), ((3,),)]
    assert skips.scan_rows == int(2**20 / (4 * 102 * CLASSES))
    assert skips.eval()(images()).shape == (7, CLASSES)


@pytest.mark.parametrize(("count", "last"), [(3, "block02"), (100, "block99"), (101, "block100")])
def test_names_are_padded(count: int, last: str) -> None:
    blocks = [LocalBlock(nn.Flatten(), SumSquare()) for _ in range(count)]
    names = LocalNetwork(blocks, SHAPE, CLASSES, SumReadout(), PixelOverlay()).names
    assert names[-1] == last
    assert sorted(names) == names
    assert {len(name) for name in names} == {len(last)}


def test_the_dry_run_leaves_statistics_random_state_and_flags_alone() -> None:
    layers: list[Any] = conv_layers(1)
    layers[0][2].eval()  # batch norm and dropout stay in train mode
    layers[1][1].eval()
    mixed = LocalBlock(layers[0], SumSquare()), LocalBlock(layers[1], SumSquare())
    flags = [part.training for block in mixed for part in block.modules()]
    state = torch.get_rng_state()
    net = LocalNetwork(mixed, SHAPE, CLASSES, SumReadout(), PixelOverlay())
    assert torch.equal(torch.get_rng_state(), state)
    assert [part.training for block in net.blocks for part in block.modules()] == flags
    assert flags.count(False) == 2
    norm = layers[0][1]
    assert torch.equal(norm.running_mean, torch.zeros(3))
    assert torch.equal(norm.running_var, torch.ones(3))
    assert int(norm.num_batches_tracked) == 0


def test_flags_are_put_back_when_a_block_does_not_fit() -> None:
    block = LocalBlock(nn.Linear(3, 2), SumSquare())
    with pytest.raises(ValueError, match="block00 cannot take"):
        LocalNetwork([block], SHAPE, CLASSES, SumReadout(), PixelOverlay())
    assert block.training
    assert block.layers.training


def test_the_dry_run_builds_what_depends_on_shapes() -> None:
    parts = [(SumSquare(), 36.0), (MeanSquare(), 1.0), (NormGoodness(), 36**0.5), (NormGoodness(1), 36.0)]
    for goodness, threshold in [*parts, (NormGoodness("inf"), 1.0)]:
        term = PeerNormalization()
        block = LocalBlock(conv_layers(1)[0], goodness, ThresholdLoss(), terms=[term])
        LocalNetwork([block], SHAPE, CLASSES, SumReadout(), PixelOverlay())
        assert block.loss is not None
        assert block.loss.bound == pytest.approx(threshold)
        assert term.running_mean.shape == (36,)
    heads = [block.goodness.projection for block in class_network().blocks]  # type: ignore[union-attr]
    assert [(h.in_features, h.out_features) for h in heads] == [(36, CLASSES), (30, CLASSES)]  # type: ignore[union-attr]
    readout = LinearReadout()
    network(readout=readout)
    assert [(h.in_features, h.out_features) for h in readout.linear] == [(30, CLASSES)]


def pair(*goodness: Any) -> list[LocalBlock]:
    return [LocalBlock(nn.Flatten(), g) for g in goodness]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"blocks": []}, r"blocks=\[\]: give at least one block"),
        ({"num_classes": 1}, "num_classes=1: must be at least 2"),
        ({"input_shape": ()}, r"input_shape=\(\): give the shape of one input"),
        ({"input_shape": (1, 0, 5)}, r"input_shape=\(1, 0, 5\).*every size at least 1"),
        ({"scan_memory": 0}, "scan_memory=0: give a positive number of MiB"),
        ({"scan_memory": -1.5}, "scan_memory=-1.5: give a positive number of MiB"),
        (
            {"blocks": pair(SumSquare(), LinearGoodness())},
            r"goodness of modes \['class', 'pair'\]: give every block one",
        ),
        ({"blocks": pair(None, None)}, "no goodness at all: give every block one of the same mode"),
        ({"labels": None}, r"labels=None: pair mode needs a label encoding, such as PixelOverlay\(\)"),
        ({"blocks": pair(LinearGoodness())}, "labels=PixelOverlay.*: class mode takes no label encoding"),
        ({"num_classes": 31}, "30 pixels per channel for num_classes=31"),
        (
            {"blocks": [LocalBlock(m, SumSquare()) for m in mlp(30, [4]) + mlp(5, [3])]},
            r"block01 cannot take its input of shape \(4,\) \(input_shape=\(1, 6, 5\)\): .*shapes cannot be multiplied",
        ),
        ({"blocks": [LocalBlock(nn.Bilinear(1, 1, 1), SumSquare())]}, "block00 cannot take its input .*missing"),
    ],
)
def test_what_does_not_fit_is_named(arguments: dict[str, Any], message: str) -> None:
    fitting = {
        "blocks": pair(SumSquare()),
        "input_shape": SHAPE,
        "num_classes": CLASSES,
        "readout": SumReadout(),
        "labels": PixelOverlay(),
    }
    LocalNetwork(**fitting)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=message):
        LocalNetwork(**{**fitting, **arguments})


def test_dry_run_takes_blocks_in_float64() -> None:
    block = LocalBlock(nn.Linear(4, 3).double(), MeanSquare(), ThresholdLoss())
    network = LocalNetwork([block], (2,), 2, SumReadout(), AppendOneHot(1.0))
    assert network(torch.rand(5, 2, dtype=torch.float64)).dtype == torch.float64


def test_an_input_changed_in_place_is_found_behind_a_view() -> None:
    class Late(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)[:, :4].relu_().sin()

    with pytest.raises(ValueError, match="block00 changes its input in place"):
        LocalNetwork(
            [LocalBlock(Late(), MeanSquare(), ThresholdLoss())], (1, 3, 3), 3, SumReadout(), labels=PixelOverlay()
        )


def test_blocks_of_tokens_are_refused_with_what_to_do() -> None:
    def built(goodness: Goodness, **arguments: Any) -> LocalNetwork:
        block = LocalBlock(nn.Sequential(nn.Embedding(20, 3), nn.Flatten()), goodness)
        return LocalNetwork([block], (6,), CLASSES, SumReadout(), **arguments)

    begins = "block00 cannot take its input of shape (6,) (input_shape=(6,)): it takes integers, and its input is"
    before = f"{begins} of type torch.float32; embed tokens before, outside the network"
    wrap = ", or wrap the embedding in a module that gets them as floats and calls x.long()"
    changed: list[Any] = [
        (MeanSquare(), {"labels": PixelOverlay()}),
        (LinearGoodness(), {"input_normalization": Normalize()}),
    ]
    for goodness, arguments, message in [(LinearGoodness(), {}, before + wrap), *((*each, before) for each in changed)]:
        with pytest.raises(ValueError) as caught:  # noqa: PT011  the message is compared below
            built(goodness, **arguments)
        assert str(caught.value) == message


def test_parts_given_twice_are_copied_and_fit_each_block_and_network() -> None:
    goodness, loss, term = SumSquare(), ThresholdLoss(), PeerNormalization()
    blocks = [LocalBlock(m, goodness, loss, Normalize("rms"), [term]) for m in mlp(34, [9, 7])]
    overlay, readout = AppendOneHot(1.0), LinearReadout()
    first = LocalNetwork(blocks, SHAPE, CLASSES, readout, overlay)
    assert [block.loss.bound for block in first.stack] == [9.0, 7.0]  # type: ignore[union-attr]
    assert [len(block.terms[0].running_mean) for block in first.stack] == [9, 7]  # type: ignore[arg-type]
    assert first.stack[0].goodness is goodness
    x = images()
    scores, weights = first(x), [p.clone() for p in first.readout.parameters()]
    second = LocalNetwork(
        [LocalBlock(m, goodness, loss, Normalize("rms")) for m in mlp(36, [5, 4])], SHAPE, 6, readout, overlay
    )
    assert second(x).shape == (7, 6)
    assert torch.equal(first(x), scores)
    assert all(torch.equal(a, b) for a, b in zip(first.readout.parameters(), weights, strict=True))


class OfMaps(Goodness):
    """A goodness that only takes maps."""

    def forward(self, h: Tensor) -> Tensor:
        return h.square().mean((1, 2, 3)) * 3


class TopFour(Goodness):
    def forward(self, h: Tensor) -> Tensor:
        return h.topk(4).values.sum(1)


def test_the_scale_of_a_goodness_is_that_of_its_real_shape() -> None:
    layers = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU())
    net = LocalNetwork([LocalBlock(layers, OfMaps(), ThresholdLoss())], SHAPE, CLASSES, SumReadout(), PixelOverlay())
    assert net.stack[0].loss.bound == 3.0  # type: ignore[union-attr]
    with pytest.raises(ValueError, match=r"goodness=TopFour\(\) of block00 cannot take an activation of shape \(3,\)"):
        LocalNetwork([LocalBlock(mlp(34, [3])[0], TopFour(), SymBa())], SHAPE, CLASSES, SumReadout(), AppendOneHot())


@pytest.mark.parametrize(("goodness", "kind"), [(SumSquare(), "l2"), (MeanSquare(), "rms"), (NormGoodness(2), "l2")])
def test_a_goodness_that_normalisation_makes_constant_is_refused(goodness: Goodness, kind: Any) -> None:
    layers = mlp(34, [9])[0]

    def built(goodness: Goodness) -> LocalNetwork:
        block = LocalBlock(layers, goodness, ThresholdLoss(), Normalize(kind), goodness_from="normalized")
        return LocalNetwork([block], SHAPE, CLASSES, SumReadout(), AppendOneHot())

    with pytest.raises(ValueError, match=r"goodness_from='normalized' of block00: .*use goodness_from='raw'"):
        built(goodness)
    ones = 9.0 if kind == "rms" else 9**0.5
    assert built(NormGoodness(1)).stack[0].loss.bound == pytest.approx(ones)  # type: ignore[union-attr]
