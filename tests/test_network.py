"""LocalNetwork: class scans, readouts and export, in plain torch."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lightning_ff.blocks import LocalBlock, Normalize, mlp
from lightning_ff.labels import AppendOneHot, LabelChannel, LabelEncoding, PixelOverlay, Unlabelled
from lightning_ff.network import LocalNetwork
from lightning_ff.objectives import SumSquare
from lightning_ff.readouts import LastReadout, LinearReadout, MeanReadout, Readout, SoftmaxReadout, SumReadout
from tests.networks import CLASSES, SHAPE, by_hand, class_network, conv_layers, images, network

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


@torch.no_grad()
def test_features_are_those_of_the_neutral_label() -> None:
    net, x = network().eval(), images()
    assert net.labels is not None
    activations, onwards = by_hand(net, net.labels.neutral(x))
    for got, expected in zip(net.features(x), activations, strict=True):
        torch.testing.assert_close(got, expected)
    for got, expected in zip(net.normalized_features(x), onwards, strict=True):
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
    outputs = net.normalized_features(x) if readout.needs == "features" else net.scores(x)
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


@pytest.mark.parametrize("make", [network, class_network], ids=["pair", "class"])
@torch.no_grad()
def test_scores_do_not_depend_on_the_rest_of_the_batch(make: Any) -> None:
    net, x = make().eval(), images()
    whole = net(x)
    order = torch.tensor([4, 0, 6])
    torch.testing.assert_close(net(x[order]), whole[order])
    torch.testing.assert_close(net(x[2:3]), whole[2:3])


def test_one_block_is_a_network() -> None:
    for readout in (SumReadout(skip_first=True), LinearReadout(skip_first=True)):
        net = network(readout=readout, layers=conv_layers(1)[:1]).eval()
        assert net(images()).shape == (7, CLASSES)
        assert net.scored == ["block00"]


def test_unlabelled_images_are_their_own_neutral_view() -> None:
    net, x = network(Unlabelled(), LinearReadout()).eval(), images()
    for got, expected in zip(net.normalized_features(x), by_hand(net, x)[1], strict=True):
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


@pytest.mark.parametrize("make", [network, class_network])
def test_one_pass_observes_features_and_goodness(make: Any) -> None:
    net, x = make().eval(), images()
    handed, goodness = net.observe(x)
    view = net.labels.neutral(x) if net.labels is not None else x
    assert all(torch.equal(a, b) for a, b in zip(handed, net.normalized_features(x), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(goodness, net.goodness(view), strict=True))
    assert len(goodness) == len(handed) == 2


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
