"""Class goodness: the auxiliary convolution against torch's own, and its Gram form against both."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_ff.objectives import AuxiliaryGoodness, OutputGoodness, gram_goodness, projected_goodness
from lightning_ff.objectives.class_goodness import gram_is_cheaper


def built(shape: tuple[int, ...], classes: int, **arguments: Any) -> AuxiliaryGoodness:
    torch.manual_seed(0)
    goodness = AuxiliaryGoodness(**arguments)
    goodness.build(torch.Size(shape), classes)
    return goodness


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kernel_size", [1, 3, 5])
@pytest.mark.parametrize("classes", [4, 40])  # 40: more than channels, where kernel 1 takes the Gram form
def test_a_map_gives_the_mean_square_of_a_convolution(classes: int, kernel_size: int, bias: bool) -> None:
    goodness, h = built((6, 9, 7), classes, kernel_size=kernel_size, bias=bias), drawn(5, 6, 9, 7)
    torch.manual_seed(0)
    conv = nn.Conv2d(6, classes, kernel_size, padding=kernel_size // 2, bias=bias)
    assert torch.equal(conv.weight, goodness.weight)
    torch.testing.assert_close(goodness(h), conv(h).pow(2).sum((2, 3)) / 63, rtol=1e-5, atol=1e-6)
    assert gram_is_cheaper(6, 63, classes) == (classes == 40)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("channels", "positions", "classes"), [(16, 100, 50), (64, 784, 200), (3, 1, 7)])
def test_the_gram_form_is_exact_in_value_and_gradient(channels: int, positions: int, classes: int, bias: bool) -> None:
    x = drawn(4, channels, positions).requires_grad_()
    weight = (drawn(classes, channels) / channels**0.5).requires_grad_()
    offset = drawn(classes).requires_grad_() if bias else None
    inputs = [x, weight, *([offset] if offset is not None else [])]
    seed = drawn(4, classes)
    found = []
    for form in (gram_goodness, projected_goodness):
        answer = form(x, weight, offset)
        found.append([answer, *torch.autograd.grad(answer, inputs, seed)])
    for got, expected in zip(*found, strict=True):
        assert (got - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_the_choice_of_form_changes_nothing() -> None:
    h = drawn(3, 8, 12, 12)
    many, few = built((8, 12, 12), 200), built((8, 12, 12), 3)
    with torch.no_grad():
        many.weight[:3], many.offset[:3] = few.weight, few.offset  # type: ignore[index]
    assert gram_is_cheaper(8, 144, 200)
    assert not gram_is_cheaper(8, 144, 3)
    torch.testing.assert_close(many(h)[:, :3], few(h), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("classes", [4, 90])
def test_tokens_are_averaged_after_the_square(classes: int) -> None:
    goodness, h = built((11, 6), classes), drawn(5, 11, 6)
    linear = h @ goodness.weight.flatten(1).T + goodness.offset
    torch.testing.assert_close(goodness(h), linear.pow(2).mean(1), rtol=1e-5, atol=1e-6)


def test_a_flat_output_gives_the_square_of_a_linear_layer() -> None:
    goodness, h = built((6,), 4), drawn(5, 6)
    torch.testing.assert_close(goodness(h), (h @ goodness.weight.flatten(1).T + goodness.offset).pow(2))


def test_volumes_take_a_kernel_of_one() -> None:
    goodness, h = built((6, 4, 3, 2), 4), drawn(5, 6, 4, 3, 2)
    want = torch.einsum("ncdhw,kc->nkdhw", h, goodness.weight.flatten(1)) + goodness.offset.view(-1, 1, 1, 1)
    torch.testing.assert_close(goodness(h), want.square().mean((2, 3, 4)), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="kernel_size=3 is for images: use kernel_size=1"):
        built((6, 4, 3, 2), 4, kernel_size=3)


def test_an_output_may_be_its_own_goodness() -> None:
    h = drawn(3, 4)
    assert OutputGoodness()(h) is h


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kernel_size": 2}, "kernel_size=2: must be odd"),
        ({"kernel_size": -1}, "must be odd"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AuxiliaryGoodness(**arguments)


@pytest.mark.parametrize("shape", [(6,), (11, 6)])
def test_a_wide_kernel_is_for_maps_alone(shape: tuple[int, ...]) -> None:
    h = drawn(5, *shape)
    assert torch.equal(built(shape, 4, kernel_size=3)(h), built(shape, 4)(h))


def test_weights_need_shapes() -> None:
    with pytest.raises(RuntimeError, match="LocalNetwork builds them"):
        AuxiliaryGoodness()(drawn(2, 3))
