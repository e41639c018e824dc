"""Auxiliary classifiers against modules of plain torch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lightning_ff.objectives import ConvHead, Goodness, PooledLinear


def built(head: Goodness, shape: tuple[int, ...], classes: int = 5) -> Goodness:
    torch.manual_seed(0)
    head.build(torch.Size(shape), classes)
    return head


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("shape", "axes"), [((6, 4, 3), (2, 3)), ((7, 6), (1,)), ((6,), ())], ids=str)
def test_pooled_linear_is_a_linear_layer_on_means(shape: tuple[int, ...], axes: tuple[int, ...], bias: bool) -> None:
    head, h = built(PooledLinear(bias), shape), drawn(8, *shape)
    torch.manual_seed(0)
    linear = nn.Linear(6, 5, bias=bias)
    torch.testing.assert_close(head(h), linear(h.mean(axes) if axes else h))


@pytest.mark.parametrize(("pool", "shape", "sides"), [(2, (6, 4, 4), 2), (1, (6, 4, 4), 1), (3, (6, 2, 2), 2)])
def test_conv_head_is_its_layers_in_training_and_evaluation(pool: int, shape: tuple[int, ...], sides: int) -> None:
    head, h = built(ConvHead(pool), shape), drawn(8, *shape)
    torch.manual_seed(0)
    layers = [nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.ReLU(), nn.AvgPool2d(shape[1] // sides), nn.BatchNorm2d(6)]
    plain = nn.Sequential(*layers, nn.Flatten(), nn.Linear(6 * sides**2, 5))
    seed, inputs = drawn(8, 5), [h.clone().requires_grad_(), h.clone().requires_grad_()]
    outputs = [head(inputs[0]), plain(inputs[1])]
    for output in outputs:
        (output * seed).sum().backward()
    torch.testing.assert_close(outputs[0], outputs[1])
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad)
    got = [p.grad for p in head.parameters()]
    for a, b in zip(got, [p.grad for p in plain.parameters()], strict=True):
        torch.testing.assert_close(a, b)
    torch.testing.assert_close(head.eval()(h), plain.eval()(h))  # with the running statistics


def test_conv_head_is_linear_for_flat_activations_and_averages_tokens() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(6, 5)
    h = drawn(8, 7, 6)
    torch.testing.assert_close(built(ConvHead(), (6,))(h[:, 0]), linear(h[:, 0]))
    torch.testing.assert_close(built(ConvHead(), (7, 6))(h), linear(h.mean(1)))


def test_conv_head_in_half_precision_measures_in_float32() -> None:
    head, h = built(ConvHead(), (6, 4, 4)).to(torch.bfloat16), drawn(8, 6, 4, 4)
    assert head(h).dtype == torch.float32
    torch.testing.assert_close(head(h), built(ConvHead(), (6, 4, 4))(h), rtol=0.05, atol=0.05)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="pool=0: must be at least 1"):
        ConvHead(0)
    with pytest.raises(ValueError, match=r"ConvHead takes maps .*, not \(6, 4, 4, 4\)"):
        ConvHead().build(torch.Size([6, 4, 4, 4]), 5)
    for head in (ConvHead(), PooledLinear()):
        with pytest.raises(RuntimeError, match=f"{type(head).__name__} has no weights yet"):
            head(drawn(2, 6))
