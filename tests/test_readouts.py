"""Readouts: combination of the blocks' scores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_ff.readouts import (
    IntervalReadout,
    LastReadout,
    LinearReadout,
    MeanReadout,
    Readout,
    SoftmaxReadout,
    SumReadout,
)


def answers(blocks: int, n: int = 6, classes: int = 4) -> list[Tensor]:
    generator = torch.Generator().manual_seed(blocks)
    return [torch.randn(n, classes, generator=generator) * 10.0**k for k in range(blocks)]


@pytest.mark.parametrize("blocks", [1, 2, 4])
def test_sum(blocks: int) -> None:
    scores = answers(blocks)
    torch.testing.assert_close(SumReadout()(scores), sum(scores))
    assert SumReadout().block_scores(scores) == scores


@pytest.mark.parametrize("kind", [SumReadout, SoftmaxReadout])
def test_the_first_block_is_left_out_unless_it_is_the_only_one(kind: Any) -> None:
    scores = answers(3)
    skipping, all_of_them = kind(skip_first=True), kind()
    torch.testing.assert_close(skipping(scores), all_of_them(scores[1:]))
    assert not torch.allclose(skipping(scores), all_of_them(scores))
    assert torch.equal(skipping(scores[:1]), all_of_them(scores[:1]))
    assert len(skipping.contributions(scores)) == 2
    assert len(skipping.block_scores(scores)) == 3


def test_softmax_gives_every_block_one_vote() -> None:
    scores = answers(3)
    expected = sum(block.exp() / block.exp().sum(1, keepdim=True) for block in (s.double() for s in scores))
    torch.testing.assert_close(SoftmaxReadout()(scores).double(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(SoftmaxReadout()(scores).sum(1), torch.full((6,), 3.0))
    assert SoftmaxReadout().block_scores(scores) == scores


def test_votes_are_not_outweighed_by_the_scale_of_one_block() -> None:
    """Two blocks are sure of class 0, one with a huge goodness of class 1."""
    scores = [torch.tensor([[20.0, 0.0]]), torch.tensor([[20.0, 0.0]]), torch.tensor([[0.0, 1e4]])]
    assert int(SoftmaxReadout()(scores).argmax()) == 0
    assert int(SumReadout()(scores).argmax()) == 1


def test_last() -> None:
    scores = answers(3)
    assert torch.equal(LastReadout()(scores), scores[-1])
    assert LastReadout().block_scores(scores) == scores


SHAPES = [torch.Size((7,)), torch.Size((2, 3, 3)), torch.Size((5,))]


def features(n: int = 6, shapes: list[torch.Size] = SHAPES) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(n, *shape, generator=generator) for shape in shapes]


def linears(readout: LinearReadout) -> list[Any]:
    return list(readout.linear)


@pytest.mark.parametrize("skip_first", [True, False])
def test_the_linear_readout_is_one_layer_on_all_features(skip_first: bool) -> None:
    readout = LinearReadout(skip_first=skip_first)
    readout.build(SHAPES, 4)
    kept = features()[skip_first:]
    width = sum(h[0].numel() for h in kept)
    assert sum(p.numel() for p in readout.parameters()) == (width + 1) * 4
    whole = nn.Linear(width, 4)
    with torch.no_grad():
        whole.weight.copy_(torch.cat([part.weight for part in linears(readout)], 1))
        whole.bias.copy_(linears(readout)[0].bias)
    torch.testing.assert_close(readout(features()), whole(torch.cat([h.flatten(1) for h in kept], 1)))


def test_the_parts_of_the_linear_readout_learn_as_one_layer_would() -> None:
    readout = LinearReadout(skip_first=False)
    readout.build(SHAPES, 4)
    joined = torch.cat([h.flatten(1) for h in features()], 1)
    y = torch.tensor([0, 1, 2, 3, 0, 1])
    nn.functional.cross_entropy(readout(features()), y).backward()
    parts = linears(readout)
    weight = torch.cat([part.weight.detach() for part in parts], 1).requires_grad_()
    bias = parts[0].bias.detach().requires_grad_()
    nn.functional.cross_entropy(joined @ weight.T + bias, y).backward()
    torch.testing.assert_close(torch.cat([part.weight.grad for part in parts], 1), weight.grad)
    torch.testing.assert_close(parts[0].bias.grad, bias.grad)


def test_the_answers_of_single_blocks_add_up() -> None:
    readout = LinearReadout()
    readout.build(SHAPES, 4)
    shares = readout.block_scores(features())
    assert len(shares) == 2
    torch.testing.assert_close(sum(shares), readout(features()))


def test_the_only_block_is_read_even_if_the_first_is_to_be_left_out() -> None:
    readout = LinearReadout(skip_first=True)
    readout.build(SHAPES[:1], 4)
    (part,) = linears(readout)
    torch.testing.assert_close(readout(features()[:1]), part(features()[0]))


def test_features_that_do_not_fit_are_noticed() -> None:
    readout = LinearReadout()
    readout.build(SHAPES, 4)
    with pytest.raises(ValueError, match="zip"):
        readout(features()[:2])


def test_what_each_readout_needs() -> None:
    assert {kind().needs for kind in (SumReadout, SoftmaxReadout, LastReadout)} == {"scores"}
    assert LinearReadout().needs == "features"
    assert LinearReadout().view == "neutral"
    assert LinearReadout(view="positive").view == "positive"


PLACES = "give a list of indices, such as [0, -1], or None for all"
SWITCH = "choose True or False"
REFUSED: dict[str, tuple[type[Exception], Callable[[], Readout]]] = {
    "view='image': choose 'neutral' or 'positive'": (ValueError, lambda: LinearReadout(view="image")),  # type: ignore[arg-type]
    "view=None: choose 'neutral' or 'positive'": (ValueError, lambda: LinearReadout(view=None)),  # type: ignore[arg-type]
    f"blocks=2 is a int: {PLACES}": (TypeError, lambda: MeanReadout(2)),  # type: ignore[arg-type]
    f"blocks='01' is a str: {PLACES}": (TypeError, lambda: MeanReadout("01")),  # type: ignore[arg-type]
    f"blocks=True is a bool: {PLACES}": (TypeError, lambda: MeanReadout(True)),  # type: ignore[arg-type]
    f"blocks[1]=1.0 is a float: {PLACES}": (TypeError, lambda: MeanReadout([0, 1.0])),  # type: ignore[list-item]
    f"blocks[0]='block00' is a str: {PLACES}": (TypeError, lambda: MeanReadout(["block00"])),  # type: ignore[list-item]
    f"softmax='no' is a str: {SWITCH}": (TypeError, lambda: MeanReadout(softmax="no")),  # type: ignore[arg-type]
    f"softmax=0 is a int: {SWITCH}": (TypeError, lambda: IntervalReadout(0)),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("message", REFUSED)
def test_bad_arguments(message: str) -> None:
    error, make = REFUSED[message]
    with pytest.raises(error) as caught:
        make()
    assert str(caught.value) == message


@pytest.mark.parametrize("kind", [SumReadout, SoftmaxReadout, LinearReadout])
def test_a_word_for_leaving_out_the_first_block(kind: Any) -> None:
    with pytest.raises(TypeError, match="skip_first='no' is a str: choose True or False"):
        kind(skip_first="no")


def test_the_base() -> None:
    class Mine(Readout):
        pass

    with pytest.raises(TypeError, match=r"Mine must override contributions\(outputs\)"):
        Mine()(answers(1))


@pytest.mark.parametrize("softmax", [False, True])
def test_the_mean_of_all_blocks_or_of_some(softmax: bool) -> None:
    scores = answers(4)
    votes = [s.softmax(1) if softmax else s for s in scores]
    torch.testing.assert_close(MeanReadout(softmax=softmax)(scores), torch.stack(votes).mean(0))
    some = MeanReadout(blocks=[1, -1], softmax=softmax)
    torch.testing.assert_close(some(scores), (votes[1] + votes[3]) / 2)
    assert len(some.contributions(scores)) == 2
    assert some.block_scores(scores) == scores


@pytest.mark.parametrize(
    ("blocks", "message"), [([], r"blocks=\[\]"), ([3], "no block 3 among 3"), ([-4], "block -4"), ([0, 0], "twice")]
)
def test_a_mean_of_blocks_that_are_not_there(blocks: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MeanReadout(blocks=blocks).build(SHAPES, 4)


def best_interval(scores: list[Tensor], label: Tensor, softmax: bool) -> tuple[int, int]:
    """The interval with most correct predictions, the first of several, by trying all."""
    votes = [s.softmax(1) if softmax else s for s in scores]
    hits = {
        (i, j): int((torch.stack(votes[i : j + 1]).mean(0).argmax(1) == label).sum())
        for i in range(len(votes))
        for j in range(i, len(votes))
    }
    return max(hits, key=lambda interval: hits[interval])


@pytest.mark.parametrize("softmax", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_the_best_interval_of_the_validation_data(seed: int, softmax: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(0, 4, (200,), generator=generator)
    truth = torch.nn.functional.one_hot(label, 4).float()
    signal = torch.rand(5, generator=generator)
    scores = [truth * s + torch.randn(200, 4, generator=generator) * (1 + 3 * torch.rand(1)) for s in signal]
    readout = IntervalReadout(softmax)
    readout.build([torch.Size((3,))] * 5, 4)
    assert readout.interval == (0, 4)
    for part in range(4):
        rows = slice(50 * part, 50 * part + 50)
        readout.observe([s[rows] for s in scores], label[rows])
    readout.fit(lambda counts: counts)
    start, end = readout.interval
    assert (start, end) == best_interval(scores, label, softmax)
    torch.testing.assert_close(readout(scores), MeanReadout(range(start, end + 1), softmax)(scores))
    assert int(readout.hits.sum()) == 0
    copy = IntervalReadout(softmax)
    copy.build([torch.Size((3,))] * 5, 4)
    copy.load_state_dict(readout.state_dict())
    assert copy.interval == (start, end)


def test_an_infinite_goodness_outside_of_the_interval_does_no_harm() -> None:
    readout = IntervalReadout()
    readout.build([torch.Size((2,))] * 2, 2)
    readout.share.copy_(torch.tensor([0.0, 1.0]))
    scores = [torch.tensor([[torch.inf, 1.0]]), torch.tensor([[1.0, 2.0]])]
    assert torch.equal(readout(scores), scores[1])


MAPS = [torch.Size((2, 4, 4)), torch.Size((3, 5, 5)), torch.Size((6,))]


def test_some_blocks_with_pooled_maps() -> None:
    """`blocks` is used whatever `skip_first` says; maps are averaged, vectors stay."""
    readout = LinearReadout(skip_first=True, blocks=[-1, 0], pool=2)
    readout.build(MAPS, 4)
    h = features(shapes=MAPS)
    last, zero = linears(readout)
    pooled = nn.functional.adaptive_avg_pool2d(h[0], 2).flatten(1)
    expected = h[2] @ last.weight.T + last.bias + pooled @ zero.weight.T
    assert zero.bias is None
    torch.testing.assert_close(readout(h), expected)
    assert readout.indices == [2, 0]
    assert len(readout.block_scores(h)) == 2


def test_a_readout_of_some_blocks_learns_as_plain_torch() -> None:
    readout, label = LinearReadout(blocks=[1], pool=1), torch.tensor([0, 1, 2, 3, 0, 1])
    readout.build(MAPS, 4)
    plain = nn.Linear(3, 4)
    plain.load_state_dict(linears(readout)[0].state_dict())
    h = features(shapes=MAPS)
    optimizers = [torch.optim.SGD(module.parameters(), lr=0.5) for module in (readout, plain)]
    for _ in range(3):
        for optimizer, scores in zip(optimizers, (readout(h), plain(h[1].mean((2, 3)))), strict=True):
            optimizer.zero_grad()
            nn.functional.cross_entropy(scores, label).backward()
            optimizer.step()
    torch.testing.assert_close(linears(readout)[0].weight, plain.weight)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"pool": 0}, ValueError, "pool=0: must be at least 1"),
        ({"pool": True}, TypeError, "pool=True is a bool"),
        ({"pool": 1, "blocks": [2]}, ValueError, r"pool=1 averages maps .* and no block in use has one: leave it out"),
        ({"blocks": [3]}, ValueError, "there is no block 3 among 3"),
        ({"blocks": [0, -3]}, ValueError, r"blocks=\[0, -3\] names one of 3 blocks twice: name each once"),
        ({"blocks": []}, ValueError, r"blocks=\[\]: name at least one block"),
    ],
)
def test_bad_blocks_and_pools(arguments: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        LinearReadout(**arguments).build(MAPS, 4)
