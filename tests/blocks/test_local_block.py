"""LocalBlock: its computations, outputs and errors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_ff.blocks import LocalBlock, Normalize
from lightning_ff.blocks.local_block import detach, first
from lightning_ff.objectives import (
    CrossEntropy,
    LinearGoodness,
    MeanSquare,
    PeerNormalization,
    SumSquare,
    SymBa,
    ThresholdLoss,
)


def rows(n: int, *shape: int, seed: int = 0) -> Tensor:
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed))


def with_batch_norm() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU())


def statistics(layers: nn.Sequential) -> Iterable[Tensor]:
    return list(layers[1].buffers())


class Skip(nn.Module):
    """Takes one tensor or two, returns two."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x: Tensor, skip: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.norm(x) + (0.0 if skip is None else skip), 2 * x


def test_layers_and_goodness() -> None:
    layers = nn.Linear(4, 3)
    x = rows(6, 4)
    h, g = LocalBlock(layers, SumSquare())(x)
    assert torch.equal(h, layers(x))
    torch.testing.assert_close(g, layers(x).square().sum(1))
    for answer in (LocalBlock(layers, SumSquare())(x, measure=False), LocalBlock(layers)(x)):
        assert torch.equal(answer[0], h)
        assert answer[1] is None


def test_separate_batch_statistics_are_two_calls() -> None:
    plain, inside = with_batch_norm(), with_batch_norm()
    x = torch.cat((rows(5, 4), 3 + 10 * rows(9, 4, seed=1)))
    h, _ = LocalBlock(inside, SumSquare())(x, positives=5)
    assert torch.equal(h, torch.cat((plain(x[:5]), plain(x[5:]))))
    for got, expected in zip(statistics(inside), statistics(plain), strict=True):
        assert torch.equal(got, expected)
    assert [int(buffer) for name, buffer in inside.named_buffers() if name.endswith("tracked")] == [2]


def test_batch_statistics_together_are_one_call() -> None:
    plain, inside = with_batch_norm(), with_batch_norm()
    x = torch.cat((rows(5, 4), 3 + 10 * rows(9, 4, seed=1)))
    h, _ = LocalBlock(inside, SumSquare(), batch_stats="together")(x, positives=5)
    assert torch.equal(h, plain(x))
    for got, expected in zip(statistics(inside), statistics(plain), strict=True):
        assert torch.equal(got, expected)
    apart, _ = LocalBlock(with_batch_norm(), SumSquare())(x, positives=5)
    assert float((h - apart).detach().abs().max()) > 0.1


@pytest.mark.parametrize("mode", ["eval", "one kind of rows"])
def test_nothing_is_split_in_eval_mode_or_for_one_kind_of_rows(mode: str) -> None:
    plain, inside = with_batch_norm(), with_batch_norm()
    block, positives, calls = LocalBlock(inside, SumSquare()), 5, []
    inside.register_forward_hook(lambda module, inputs, output: calls.append(len(output)))
    if mode == "eval":
        block.eval(), plain.eval()
        h, _ = block(rows(9, 4), positives=positives)
    else:
        h, _ = block(rows(9, 4))
    assert calls == [9]
    assert torch.equal(h, plain(rows(9, 4)))
    for got, expected in zip(statistics(inside), statistics(plain), strict=True):
        assert torch.equal(got, expected)


@pytest.mark.parametrize(("stats", "calls"), [("separate", 1), ("together", 1)])
def test_layers_without_batch_norm_run_once(stats: Any, calls: int) -> None:
    seen = []
    layers = nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5))
    layers.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    LocalBlock(layers, SumSquare(), batch_stats=stats)(rows(9, 4), positives=4)
    assert seen == [9] * calls


def test_conv_batch_norm_counts_too() -> None:
    layers = nn.Sequential(nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)))
    x = rows(6, 1, 5, 5)
    h, _ = LocalBlock(layers)(x, positives=2)
    assert torch.equal(h, torch.cat((layers(x[:2]), layers(x[2:]))))


def test_tuples_pass_through_as_several_arguments() -> None:
    block = LocalBlock(Skip().eval(), MeanSquare(), normalization=Normalize("l2"))
    block.eval()
    x, skip = rows(6, 4), rows(6, 4, seed=1)
    h, g = block((x, skip))
    main, kept = block.layers(x, skip)
    assert torch.equal(h[0], main)
    assert torch.equal(h[1], kept)
    torch.testing.assert_close(g, main.square().mean(1))
    onwards = block.hand_over(h)
    torch.testing.assert_close(onwards[0], nn.functional.normalize(main, dim=1))
    assert onwards[1] is h[1]
    assert len(onwards) == 2


def test_every_entry_of_a_tuple_is_split_and_joined() -> None:
    inside, plain = Skip(), Skip()
    x, skip = torch.cat((rows(3, 4), 5 + rows(6, 4, seed=1))), rows(9, 4, seed=2)
    h, _ = LocalBlock(inside, MeanSquare())((x, skip), positives=3)
    apart = [plain(x[:3], skip[:3]), plain(x[3:], skip[3:])]
    for k in range(2):
        assert torch.equal(h[k], torch.cat((apart[0][k], apart[1][k])))


def test_hand_over() -> None:
    h = rows(5, 4)
    assert LocalBlock(nn.Identity()).hand_over(h) is h
    block = LocalBlock(nn.Identity(), normalization=Normalize("rms", eps=0.0))
    torch.testing.assert_close(first(block.hand_over(h)).square().mean(1), torch.ones(5))


def test_first_and_detach_reach_every_entry() -> None:
    a, b = rows(2, 3).requires_grad_(), (rows(2, 3) + rows(2, 3).requires_grad_())
    assert first(a) is a
    assert first((a, b)) is a
    assert not detach(a).requires_grad  # type: ignore[union-attr]
    both = detach((a, b))
    assert [entry.requires_grad for entry in both] == [False, False]
    assert torch.equal(both[1], b)


def test_a_block_owns_the_parameters_of_its_objective() -> None:
    head = LinearGoodness()
    head.build(torch.Size((5,)), 3)
    term = PeerNormalization()
    term.build(torch.Size((5,)), torch.Size((5,)), 2)
    block = LocalBlock(nn.Linear(4, 5), head, CrossEntropy(), terms=[term])
    assert sum(p.numel() for p in block.parameters()) == 4 * 5 + 5 + 5 * 3 + 3
    assert list(dict(block.named_buffers())) == ["terms.0.running_mean"]


def test_trainable() -> None:
    block = LocalBlock(nn.Linear(4, 5), SumSquare())
    assert block.trainable
    block.layers.bias.requires_grad_(False)
    assert block.trainable
    block.requires_grad_(False)
    assert not block.trainable
    assert not LocalBlock(nn.Flatten(), SumSquare()).trainable


@pytest.mark.parametrize("mixed", [(LinearGoodness(), SymBa()), (SumSquare(), CrossEntropy())], ids=str)
def test_goodness_and_loss_of_different_modes_are_refused(mixed: tuple[Any, Any]) -> None:
    with pytest.raises(ValueError, match=r"mode and loss=.*choose two of the same mode"):
        LocalBlock(nn.Identity(), *mixed)
    LocalBlock(nn.Identity(), mixed[0])
    LocalBlock(nn.Identity(), None, mixed[1])


def test_a_normalisation_with_parameters_is_refused() -> None:
    with pytest.raises(ValueError, match=r"normalization=LayerNorm.*has parameters.*inside the layers"):
        LocalBlock(nn.Identity(), normalization=nn.LayerNorm(4))
    LocalBlock(nn.Identity(), SumSquare(), ThresholdLoss(), nn.LayerNorm(4, elementwise_affine=False))


def test_unknown_batch_statistics_are_refused() -> None:
    with pytest.raises(ValueError, match="batch_stats='apart': choose 'separate' or 'together'"):
        LocalBlock(nn.Identity(), batch_stats="apart")  # type: ignore[arg-type]
