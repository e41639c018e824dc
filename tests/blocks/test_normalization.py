"""Normalisation of blocks' outputs, against numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_ff.blocks import Normalize

SHAPES = [(5, 12), (5, 3, 4, 2), (5, 3, 7)]
KINDS = ["l2", "rms", "layer"]


def rows(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 3 + 1


def reference(x: np.ndarray, kind: str, eps: float) -> np.ndarray:
    flat = x.reshape(len(x), -1)
    mean_square = (flat**2).mean(1, keepdims=True)
    if kind == "rms":
        out = flat / np.sqrt(mean_square + eps)
    elif kind == "l2":
        out = flat / np.sqrt((mean_square + eps) * flat.shape[1])
    else:
        out = (flat - flat.mean(1, keepdims=True)) / np.sqrt(flat.var(1, keepdims=True) + eps)
    return out.reshape(x.shape)


@pytest.mark.parametrize("eps", [1e-8, 0.5])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values(shape: tuple[int, ...], kind: Any, eps: float) -> None:
    x = rows(shape)
    got = Normalize(kind, eps)(x)
    assert got.shape == x.shape
    np.testing.assert_allclose(got.numpy(), reference(x.double().numpy(), kind, eps), rtol=2e-5, atol=1e-6)


def test_what_each_kind_promises() -> None:
    flat = {kind: Normalize(kind)(rows((5, 3, 4, 2))).flatten(1) for kind in ("l2", "rms", "layer")}
    torch.testing.assert_close(flat["l2"].norm(dim=1), torch.ones(5))
    torch.testing.assert_close(flat["rms"].square().mean(1), torch.ones(5))
    torch.testing.assert_close(flat["layer"].mean(1), torch.zeros(5), atol=1e-6, rtol=0)
    torch.testing.assert_close(flat["layer"].var(1, unbiased=False), torch.ones(5))
    torch.testing.assert_close(flat["rms"], flat["l2"] * 24**0.5)
    torch.testing.assert_close(flat["l2"], F.normalize(rows((5, 24)).view(5, 24), dim=1))


@pytest.mark.parametrize("kind", KINDS)
def test_neither_scale_nor_other_samples_matter(kind: Any) -> None:
    """So the next block cannot read off how good the activation was."""
    x = rows((5, 3, 4, 2))
    normalize = Normalize(kind)
    torch.testing.assert_close(normalize(37.0 * x), normalize(x))
    torch.testing.assert_close(normalize(0.01 * x), normalize(x), rtol=1e-3, atol=1e-4)
    assert torch.equal(normalize(x[2:3]), normalize(x)[2:3])


@pytest.mark.parametrize("kind", KINDS)
def test_low_precision_is_computed_in_float32(kind: Any) -> None:
    """A sum of thousands of squares in bf16 would be off by percents."""
    for dtype in (torch.bfloat16, torch.float16):
        x = (100 * rows((4, 5000))).to(dtype)
        got = Normalize(kind)(x)
        assert got.dtype == dtype
        assert torch.equal(got, Normalize(kind)(x.float()).to(dtype))
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(Normalize(kind)(x), got)


@pytest.mark.parametrize("kind", KINDS)
def test_float64_stays(kind: Any) -> None:
    x = rows((5, 12)).double()
    got = Normalize(kind)(x)
    assert got.dtype == torch.float64
    np.testing.assert_allclose(got.numpy(), reference(x.numpy(), kind, 1e-8), rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_silent_samples_stay_silent_and_keep_finite_gradients(kind: Any) -> None:
    x = torch.zeros(2, 6, requires_grad=True)
    y = Normalize(kind)(x)
    assert torch.equal(y.detach(), torch.zeros(2, 6))
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_gradients(kind: Any) -> None:
    assert torch.autograd.gradcheck(Normalize(kind), (rows((3, 2, 3, 2)).double().requires_grad_(),))


def test_none_hands_on_the_tensor_itself() -> None:
    x = rows((5, 12))
    assert Normalize("none")(x) is x


@pytest.mark.parametrize("kind", [*KINDS, "none"])
def test_there_are_no_parameters_and_no_state(kind: Any) -> None:
    assert list(Normalize(kind).parameters()) == []
    assert Normalize(kind).state_dict() == {}


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="normalization='batch': choose one of l2, rms, layer, channel, none"):
        Normalize("batch")  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(5, 3, 4, 2), (5, 7, 3), (5, 12)], ids=str)
def test_channels_are_normalised_at_every_position(shape: tuple[int, ...]) -> None:
    x = rows(shape)
    axis = 1 if len(shape) == 4 else -1
    values = x.double().numpy()
    mean, variance = values.mean(axis, keepdims=True), values.var(axis, keepdims=True)
    got = Normalize("channel", eps=1e-5)(x)
    assert got.shape == x.shape
    np.testing.assert_allclose(got.numpy(), (values - mean) / np.sqrt(variance + 1e-5), rtol=2e-4, atol=1e-5)


def test_the_channels_last_format_is_kept() -> None:
    x = rows((5, 3, 4, 6))
    last = x.to(memory_format=torch.channels_last)
    for kind in ("layer", "channel", "rms", "l2"):
        found = Normalize(kind)(last)  # type: ignore[arg-type]
        assert found.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(found, Normalize(kind)(x), rtol=1e-4, atol=1e-5)  # type: ignore[arg-type]


def test_channels_of_volumes_are_normalised_along_the_first_axis() -> None:
    x = torch.randn(2, 4, 3, 5, 6)
    out = Normalize("channel")(x)
    assert out.mean(1).abs().max() < 1e-6
    torch.testing.assert_close(out.square().mean(1), torch.ones(2, 3, 5, 6), rtol=1e-4, atol=1e-4)
