"""Peer normalisation against a running mean in numpy; a penalty on activations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_ff.objectives import ActivationPenalty, PeerNormalization, Term, peer_normalization
from lightning_ff.target import Labels, Pairs


def made(weight: float = 0.03, momentum: float = 0.9, shape: tuple[int, ...] = (6,)) -> PeerNormalization:
    term = PeerNormalization(weight, momentum)
    term.build(torch.Size(shape), torch.Size(shape), 2)
    return term


def activation(seed: int, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def apply(term: Term, h: Tensor, target: Tensor | int) -> Tensor:
    typed = Pairs(target) if isinstance(target, int) else Labels(target)
    return term(torch.zeros(len(h), 1), h, typed)


def test_the_function_is_the_variance_of_the_means() -> None:
    mean = activation(0, 12)
    assert float(peer_normalization(mean)) == pytest.approx(float(np.var(mean.double().numpy())), rel=1e-5)
    assert float(peer_normalization(torch.full((5,), 3.0))) == 0.0


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("shape", [(6,), (2, 3, 4)], ids=str)
def test_value_and_running_mean_over_several_batches(momentum: float, shape: tuple[int, ...]) -> None:
    term = made(weight=0.7, momentum=momentum, shape=shape)
    running = np.full(int(np.prod(shape)), 0.5)
    for batch in range(4):
        h = activation(batch, 10, *shape)
        value = apply(term, h, 7)
        running = momentum * running + (1 - momentum) * h[:7].double().flatten(1).numpy().mean(0)
        assert float(value) == pytest.approx(0.7 * np.var(running), rel=1e-4)
        np.testing.assert_allclose(term.running_mean.numpy(), running, rtol=1e-5)


def test_the_gradient_flows_through_the_share_of_this_batch() -> None:
    weight, momentum, positives = 2.0, 0.9, 4
    term = made(weight, momentum)
    h = activation(1, 9, 6).requires_grad_()
    apply(term, h, positives).backward()
    mean = term.running_mean
    of_mean = 2 * (mean - mean.mean()) / 6
    expected = torch.zeros(9, 6)
    expected[:positives] = weight * of_mean * (1 - momentum) / positives
    torch.testing.assert_close(h.grad, expected)


def test_the_past_carries_no_graph() -> None:
    term = made()
    first = activation(1, 4, 6).requires_grad_()
    apply(term, first, 4)
    assert not term.running_mean.requires_grad
    second = activation(2, 4, 6).requires_grad_()
    apply(term, second, 4).backward()
    assert first.grad is None


def test_only_positives_count_and_in_class_mode_all_rows() -> None:
    h = activation(3, 8, 6)
    other = torch.cat((h[:5], 100 * h[5:]))
    a, b = made(), made()
    assert torch.equal(apply(a, h, 5), apply(b, other, 5))
    assert torch.equal(a.running_mean, b.running_mean)
    every, labels = made(), made()
    assert torch.equal(apply(every, h, 8), apply(labels, h, torch.zeros(8, dtype=torch.int64)))
    assert not torch.equal(every.running_mean, a.running_mean)


def test_eval_mode_leaves_the_running_mean() -> None:
    term, h = made().eval(), activation(4, 8, 6)
    value = apply(term, h, 8)
    assert torch.equal(term.running_mean, torch.full((6,), 0.5))
    assert torch.equal(value, apply(term.train(), h, 8))
    assert not torch.equal(term.running_mean, torch.full((6,), 0.5))


def test_bf16_activations_are_averaged_in_float32() -> None:
    h = (1 + activation(5, 1000, 6)).bfloat16()
    wide, narrow = made(), made()
    assert apply(narrow, h, 1000).dtype == torch.float32
    apply(wide, h.float(), 1000)
    assert torch.equal(narrow.running_mean, wide.running_mean)


def test_the_running_mean_is_saved() -> None:
    term, other = made(), made()
    apply(term, activation(6, 8, 6), 8)
    other.load_state_dict(term.state_dict())
    assert list(term.state_dict()) == ["running_mean"]
    assert torch.equal(other.running_mean, term.running_mean)
    h = activation(7, 8, 6)
    assert torch.equal(apply(other, h, 8), apply(term, h, 8))


@pytest.mark.parametrize("momentum", [1.0, -0.1, 2.0])
def test_a_mean_that_never_or_wrongly_moves_is_refused(momentum: float) -> None:
    with pytest.raises(ValueError, match=rf"momentum={momentum}: must lie in \[0, 1\)"):
        PeerNormalization(momentum=momentum)


def test_the_base_names_what_to_override() -> None:
    class Mine(Term):
        pass

    with pytest.raises(TypeError, match=r"Mine must override forward\(x, h, target\)"):
        apply(Mine(), activation(0, 1, 1), 1)


def test_a_penalty_on_activations_is_their_summed_or_mean_size() -> None:
    h = activation(1, 4, 3, 2) - 0.5
    size = np.abs(h.double().numpy())
    assert float(apply(ActivationPenalty(0.3), h, 2)) == pytest.approx(0.3 * size.sum(), rel=1e-5)
    assert float(apply(ActivationPenalty(0.3, "mean"), h, 2)) == pytest.approx(0.3 * size.mean(), rel=1e-5)


@pytest.mark.parametrize(("arguments", "message"), [((-1.0,), "weight=-1.0"), ((1.0, "max"), "reduction='max'")])
def test_bad_penalties(arguments: tuple[float, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ActivationPenalty(*arguments)  # type: ignore[arg-type]
