"""LocalNetwork: how it is built, scanned and exported, in plain torch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_ff.blocks import LocalBlock, Normalize, mlp
from lightning_ff.labels import AppendOneHot, LabelChannel, LabelEncoding, PixelOverlay, Unlabelled
from lightning_ff.network import LocalNetwork
from lightning_ff.objectives import (
    CrossEntropy,
    Goodness,
    LinearGoodness,
    MeanSquare,
    NormGoodness,
    PeerNormalization,
    SumSquare,
    SymBa,
    ThresholdLoss,
)
from lightning_ff.readouts import LastReadout, LinearReadout, MeanReadout, Readout, SoftmaxReadout, SumReadout

CLASSES, SHAPE = 4, (1, 6, 5)


def conv_layers(channels: int) -> list[nn.Module]:
    first = nn.Sequential(nn.Conv2d(channels, 3, 3), nn.BatchNorm2d(3), nn.ReLU())
    return [first, nn.Sequential(nn.Conv2d(3, 5, 2), nn.ReLU(), nn.Dropout(0.5))]


def network(
    labels: LabelEncoding | None = None, readout: Readout | None = None, layers: Any = None, **arguments: Any
) -> LocalNetwork:
    """Two conv blocks, or fully connected ones for a flat encoding, in pair mode."""
    torch.manual_seed(0)
    labels = labels or PixelOverlay(on_value=2.0)
    if layers is None:
        flat = isinstance(labels, AppendOneHot)
        layers = mlp(34, [9, 7]) if flat else conv_layers(2 if isinstance(labels, LabelChannel) else 1)
    blocks = [LocalBlock(m, MeanSquare(), ThresholdLoss(), Normalize("rms")) for m in layers]
    arguments = {"input_normalization": Normalize("rms"), **arguments}
    return LocalNetwork(blocks, SHAPE, CLASSES, readout or SumReadout(), labels, **arguments)


def class_network(readout: Readout | None = None) -> LocalNetwork:
    torch.manual_seed(0)
    blocks = [LocalBlock(m, LinearGoodness(), CrossEntropy(), Normalize("rms")) for m in conv_layers(1)]
    return LocalNetwork(blocks, SHAPE, CLASSES, readout or SumReadout())


def images(n: int = 7) -> Tensor:
    return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(3))


def by_hand(net: LocalNetwork, encoded: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Activations and what is handed on, written out."""
    x = Normalize("rms")(encoded)
    activations, onwards = [], []
    for block in net.blocks:
        h = block.layers(x)  # type: ignore[operator]
        x = h / h.flatten(1).square().mean(1).add(1e-8).sqrt().view(-1, *[1] * (h.dim() - 1))
        activations.append(h)
        onwards.append(x)
    return activations, onwards


ENCODINGS = [PixelOverlay(2.0), AppendOneHot(2.0), LabelChannel(2.0)]


@pytest.mark.parametrize("labels", ENCODINGS, ids=lambda e: type(e).__name__)
@torch.no_grad()
def test_a_class_scan_equals_one_pass_per_class(labels: LabelEncoding) -> None:
    net, x = network(labels).eval(), images()
    scores = net.scores(x)
    assert [s.shape for s in scores] == [(7, CLASSES)] * 2
    for label in range(CLASSES):
        activations, _ = by_hand(net, labels(x, torch.full((7,), label)))
        for of_block, h in zip(scores, activations, strict=True):
            torch.testing.assert_close(of_block[:, label], h.flatten(1).square().mean(1))
    torch.testing.assert_close(net(x), scores[0] + scores[1])
    assert float((scores[0] - scores[0].mean(1, keepdim=True)).abs().max()) > 1e-3  # classes do differ


@torch.no_grad()
def test_chunks_change_nothing_and_stay_under_the_bound() -> None:
    whole = network().eval()
    assert whole.scan_rows > 1000
    widest = 3 * 4 * 3  # of the first block; the image has 30 pixels, the second block 30 units
    bound = 3.5 * CLASSES * widest * 4 / 2**20
    chunked = network(scan_memory=bound).eval()
    assert chunked.scan_rows == 3
    sizes: list[int] = []
    for block in chunked.blocks:
        block.register_forward_hook(lambda module, inputs, output: sizes.append(output[0].numel() * 4))
    for got, expected in zip(chunked.scores(images()), whole.scores(images()), strict=True):
        torch.testing.assert_close(got, expected)
    assert len(sizes) == 2 * 3  # chunks of 3, 3 and 1
    assert max(sizes) == 3 * CLASSES * widest * 4 <= bound * 2**20
    tiny = network(scan_memory=1e-9).eval()
    assert tiny.scan_rows == 1
    torch.testing.assert_close(tiny(images()), whole(images()))


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


@torch.no_grad()
def test_features_are_those_of_the_neutral_label() -> None:
    net, x = network().eval(), images()
    assert net.labels is not None
    activations, onwards = by_hand(net, net.labels.neutral(x))
    for got, expected in zip(net.features(x), activations, strict=True):
        torch.testing.assert_close(got, expected)
    for got, expected in zip(net.handed_over(x), onwards, strict=True):
        torch.testing.assert_close(got, expected)
    assert [tuple(h.shape) for h in net.features(x)] == [(7, 3, 4, 3), (7, 5, 3, 2)]
    assert net.shapes == [((3, 4, 3),), ((5, 3, 2),)]
    assert net.encoded_shape == SHAPE


@torch.no_grad()
def test_goodness_of_encoded_inputs() -> None:
    net, x = network().eval(), images()
    activations, _ = by_hand(net, x)
    for got, h in zip(net.goodness(x), activations, strict=True):
        torch.testing.assert_close(got, h.flatten(1).square().mean(1))


@torch.no_grad()
def test_class_mode_needs_one_pass() -> None:
    net, x = class_network().eval(), images()
    assert net.mode == "class"
    assert net.encoded_shape == SHAPE
    h = net.blocks[0].layers(x)  # type: ignore[operator]
    onwards = Normalize("rms")(h)
    second = net.blocks[1].layers(onwards)  # type: ignore[operator]
    expected = []
    for block, activation in zip(net.blocks, (h, second), strict=True):
        head = block.goodness.projection  # type: ignore[union-attr]
        expected.append(activation.flatten(1) @ head.weight.T + head.bias)  # type: ignore[union-attr]
    for got, wanted in zip(net.scores(x), expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(net(x), expected[0] + expected[1], rtol=1e-4, atol=1e-5)
    for got, wanted in zip(net.features(x), (h, second), strict=True):
        torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("readout", [SumReadout(), SoftmaxReadout(), LastReadout(), LinearReadout()], ids=str)
@pytest.mark.parametrize("make", [lambda readout: network(readout=readout), class_network], ids=["pair", "class"])
@torch.no_grad()
def test_the_answer_is_the_readouts_of_what_it_needs(make: Any, readout: Readout) -> None:
    net, x = make(readout).eval(), images()
    readout = net.readout
    outputs = net.handed_over(x) if readout.needs == "features" else net.scores(x)
    assert all(torch.equal(a, b) for a, b in zip(net.outputs(x), outputs, strict=True))
    assert torch.equal(net(x), readout(outputs))
    of_blocks = readout.block_scores(outputs)
    for got, expected in zip(of_blocks, net.block_scores(x), strict=True):
        assert torch.equal(got, expected)
        assert got.shape == (7, CLASSES)
    assert len(of_blocks) == len(net.scored)
    assert net.scored == (["block01"] if readout.needs == "features" else ["block00", "block01"])


def test_scored_blocks_are_those_with_an_answer_of_their_own() -> None:
    layers = mlp(34, [9, 8, 7])
    blocks = [LocalBlock(m, None if k == 1 else SumSquare()) for k, m in enumerate(layers)]
    net = LocalNetwork(blocks, SHAPE, CLASSES, SumReadout(), AppendOneHot(1.0))
    assert net.scored == ["block00", "block02"]
    assert len(net.block_scores(images())) == 2
    assert network(readout=LinearReadout(skip_first=False)).scored == ["block00", "block01"]


@pytest.mark.parametrize(("count", "last"), [(3, "block02"), (100, "block99"), (101, "block100")])
def test_names_are_padded(count: int, last: str) -> None:
    blocks = [LocalBlock(nn.Flatten(), SumSquare()) for _ in range(count)]
    names = LocalNetwork(blocks, SHAPE, CLASSES, SumReadout(), PixelOverlay()).names
    assert names[-1] == last
    assert sorted(names) == names
    assert {len(name) for name in names} == {len(last)}


@pytest.mark.parametrize("make", [network, class_network], ids=["pair", "class"])
@torch.no_grad()
def test_scores_do_not_depend_on_the_rest_of_the_batch(make: Any) -> None:
    net, x = make().eval(), images()
    whole = net(x)
    order = torch.tensor([4, 0, 6])
    torch.testing.assert_close(net(x[order]), whole[order])
    torch.testing.assert_close(net(x[2:3]), whole[2:3])


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


def test_one_block_is_a_network() -> None:
    for readout in (SumReadout(skip_first=True), LinearReadout(skip_first=True)):
        net = network(readout=readout, layers=conv_layers(1)[:1]).eval()
        assert net(images()).shape == (7, CLASSES)
        assert net.scored == ["block00"]


def test_unlabelled_images_are_their_own_neutral_view() -> None:
    net, x = network(Unlabelled(), LinearReadout()).eval(), images()
    for got, expected in zip(net.handed_over(x), by_hand(net, x)[1], strict=True):
        torch.testing.assert_close(got, expected)
    assert net(x).shape == (7, CLASSES)
    with pytest.raises(RuntimeError, match="give a readout that learns"):
        net.scores(x)


def test_weights_travel_in_the_state_dict() -> None:
    trained, fresh = (
        network(LabelChannel(seed=4), LinearReadout()).eval(),
        network(LabelChannel(), LinearReadout()).eval(),
    )
    assert trained.labels is not None
    trained.labels.fix(3.0)
    with torch.no_grad():
        for p in trained.parameters():
            p.add_(0.1)
    assert not torch.equal(fresh(images()), trained(images()))
    fresh.load_state_dict(trained.state_dict())
    assert torch.equal(fresh(images()), trained(images()))


EXPORTED = {
    "overlay": lambda: network(),
    "channel": lambda: network(LabelChannel(2.0), SoftmaxReadout()),
    "appended": lambda: network(AppendOneHot(2.0)),
    "chunked": lambda: network(scan_memory=1e-3),
    "full gradient": lambda: network(AppendOneHot(2.0), layers=mlp(34, [9, 7], full_gradient=True)),
    "linear readout": lambda: network(readout=LinearReadout()),
    "class mode": class_network,
}


@pytest.mark.parametrize("name", EXPORTED)
@torch.no_grad()
def test_an_exported_network_gives_the_same_answer(name: str) -> None:
    net = EXPORTED[name]().eval()
    program = torch.export.export(net, (images(),))
    assert torch.equal(program.module()(images()), net(images()))


@pytest.mark.parametrize("name", ["overlay", "appended", "linear readout", "class mode"])
@torch.no_grad()
def test_a_network_exported_for_any_batch_size_gives_the_same_answer(name: str) -> None:
    net = EXPORTED[name]().eval()
    batch = torch.export.Dim("batch", min=2, max=64)
    program = torch.export.export(net, (images(),), dynamic_shapes=({0: batch},))
    for n in (2, 7, 33):
        torch.testing.assert_close(program.module()(images(n)), net(images(n)))


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


@pytest.mark.parametrize("make", [network, class_network])
def test_one_pass_observes_features_and_goodness(make: Any) -> None:
    net, x = make().eval(), images()
    handed, goodness = net.observe(x)
    view = net.labels.neutral(x) if net.labels is not None else x
    assert all(torch.equal(a, b) for a, b in zip(handed, net.handed_over(x), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(goodness, net.goodness(view), strict=True))
    assert len(goodness) == len(handed) == 2


def test_an_input_changed_in_place_is_found_behind_a_view() -> None:
    class Late(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)[:, :4].relu_().sin()

    with pytest.raises(ValueError, match="block00 changes its input in place"):
        LocalNetwork(
            [LocalBlock(Late(), MeanSquare(), ThresholdLoss())], (1, 3, 3), 3, SumReadout(), labels=PixelOverlay()
        )


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
    """A goodness that takes maps alone."""

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


def test_a_readout_is_exchanged_after_training() -> None:
    net, x = network(layers=None).eval(), images()
    net.exchange_readout(MeanReadout(blocks=[-1]))
    assert torch.equal(net(x), net.scores(x)[1])
    with pytest.raises(ValueError, match=r"blocks=\[7\]: there is no block 7 among 2"):
        net.exchange_readout(MeanReadout(blocks=[7]))
    assert torch.equal(net(x), net.scores(x)[1])
    net.exchange_readout(LinearReadout())
    assert net.scored == ["block01"]
    assert net(x).shape == (7, CLASSES)
