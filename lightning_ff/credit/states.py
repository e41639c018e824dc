"""Relaxation of states: predictive coding with moving predictions, and block-ADMM.

Shapes: N samples, K blocks. z_k is the state of the output of block k, of its shape, z_0 the network's input; the
residual of block k is `r_k = f_k(z_(k-1)) - z_k`, for k < K. The loss l is summed over the samples.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor
from typing_extensions import override

from lightning_ff.blocks.local_block import Activation, first
from lightning_ff.credit.base import SignalCredit, check_last_loss
from lightning_ff.credit.relaxation import unchanged
from lightning_ff.network import LocalNetwork
from lightning_ff.target import Pairs, Target
from lightning_ff.validate import check_int, check_number


class StateRelaxation(SignalCredit):
    """Base of credits with one state per sample and block, which start at the outputs of a forward pass.

    Block k learns from `<f_k(z_(k-1)), s_k>` with a signal s_k, at the relaxed input z_(k-1). The last block learns
    from its own loss there. States are new for every batch. Each step of the states costs a forward and a backward
    pass through all blocks. Blocks with dropout draw anew in each step, and train-mode batch norm changes with the
    states: use networks without them. Terms are not part of the relaxation.

    Args:
        rate: Step size of the states, above 0.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        check_number("rate", rate, "must be above 0", above=0)
        self.rate = rate
        self._inputs: dict[int, Activation] = {}
        self._values: dict[str, Tensor] = {}

    def relax(self, residuals: _Residuals, states: list[Tensor]) -> list[Tensor]:
        """Change the states in place; returns the signals of all blocks but the last, summed over samples."""
        raise TypeError(f"{type(self).__name__} must override relax(residuals, states)")

    @override
    def check(self, network: LocalNetwork) -> None:
        check_last_loss(self, network)

    @override
    def values(self) -> dict[str, Tensor]:
        return self._values

    @override
    def prepare(self, network: LocalNetwork, x: Activation, target: Target) -> None:
        stack, n = network.stack, len(first(x))
        with unchanged(network, first(x).device):
            states, h = list[Tensor](), x
            for block in stack[:-1]:
                states.append(first(block(h, _positives(target), measure=False)[0]).clone())
                h = block.hand_over(states[-1])
            residuals = _Residuals(network, x, target)
            signals = self.relax(residuals, states)
            found, loss = residuals(states)
        relative = [r.norm() / (z.norm() + 1e-12) for r, z in zip(found, states, strict=True)]
        self._values = {f"residual/{name}": value for name, value in zip(network.names, relative, strict=False)}
        self._values["energy"] = (torch.stack([r.square().sum() / 2 for r in found]).sum() if found else 0) + loss
        self._values["energy"] = self._values["energy"] / n
        self._signals = {k: signal / n for k, signal in enumerate(signals)}
        self._inputs = {k + 1: stack[k].hand_over(state) for k, state in enumerate(states)}

    @override
    def input(self, block: int, x: Activation) -> Activation:
        return self._inputs.pop(block, x)


class _Residuals:
    """Residuals of all blocks but the last, and the summed loss of the last, as a function of the states."""

    def __init__(self, network: LocalNetwork, x: Activation, target: Target) -> None:
        self.network, self.x, self.target = network, x, target

    def __call__(self, states: list[Tensor]) -> tuple[list[Tensor], Tensor]:
        stack, target, h = self.network.stack, self.target, self.x
        residuals = []
        for block, state in zip(stack, states, strict=False):
            residuals.append(first(block(h, _positives(target), measure=False)[0]) - state)
            h = block.hand_over(state)
        _, goodness = stack[-1](h, _positives(target))
        loss = cast(Tensor, stack[-1].own_loss(goodness, target))
        return residuals, loss * len(first(self.x))


def _positives(target: Target) -> int | None:
    return target.positives if isinstance(target, Pairs) else None


def _descend(value: Tensor, states: list[Tensor], leaves: list[Tensor], rate: float) -> None:
    """A gradient step of all states."""
    for state, gradient in zip(states, torch.autograd.grad(value, leaves), strict=True):
        state -= rate * gradient


def _leaves(states: list[Tensor]) -> list[Tensor]:
    return [state.detach().clone().requires_grad_() for state in states]


class PredictiveCoding(StateRelaxation):
    """Predictive coding with moving predictions (Millidge et al., arXiv 2010.01047).

    The states descend on the energy `F = sum_k |r_k|^2 / 2 + precision l` for some steps. The signals are `r_k /
    precision`, the prediction errors, which for a small precision tend to backprop's. With fixed predictions predictive
    coding is :class:`ActivationRelaxation` with `order="parallel"`, whose signals are the prediction errors.

    Args:
        rate: Step size of the states, above 0.
        steps: Number of steps.
        precision: Weight of the loss against the residuals, above 0.

    Raises:
        ValueError: an argument is out of bounds.
        TypeError: rate or precision is not a number, or steps not an integer.
    """

    def __init__(self, rate: float = 0.1, steps: int = 20, precision: float = 1.0) -> None:
        super().__init__(rate)
        _check_steps(steps=steps)
        check_number("precision", precision, "must be above 0", above=0)
        self.steps = steps
        self.precision = precision

    @override
    def relax(self, residuals: _Residuals, states: list[Tensor]) -> list[Tensor]:
        for _ in range(self.steps if states else 0):
            with torch.enable_grad():
                leaves = _leaves(states)
                found, loss = residuals(leaves)
                energy = torch.stack([r.square().sum() / 2 for r in found]).sum() + self.precision * loss
            _descend(energy, states, leaves, self.rate)
        return [r / self.precision for r in residuals(states)[0]]

    def extra_repr(self) -> str:
        return f"rate={self.rate}, steps={self.steps}, precision={self.precision}"


class BlockADMM(StateRelaxation):
    """Stochastic block-ADMM (Khorram et al., arXiv 2105.00339), with states and multipliers new for every batch.

    The augmented Lagrangian is `l + sum_k <u_k, r_k> + rho |r_k|^2 / 2`. A round takes `steps` gradient steps of the
    states, and then `u_k <- u_k + rho r_k`. The signals are the multipliers, which tend to backprop's signals while the
    residuals tend to 0. rho, rate and numbers of steps are not known from the paper.

    Args:
        rho: Weight of the squared residuals, above 0.
        rate: Step size of the states, above 0; stable below about `2 / (rho (1 + |J|^2))`.
        steps: Steps of the states in a round.
        rounds: Number of rounds.

    Raises:
        ValueError: an argument is out of bounds.
        TypeError: rho or rate is not a number, or steps or rounds not an integer.
    """

    def __init__(self, rho: float = 1.0, rate: float = 0.1, steps: int = 5, rounds: int = 10) -> None:
        super().__init__(rate)
        check_number("rho", rho, "must be above 0", above=0)
        _check_steps(steps=steps, rounds=rounds)
        self.rho = rho
        self.steps = steps
        self.rounds = rounds

    @override
    def relax(self, residuals: _Residuals, states: list[Tensor]) -> list[Tensor]:
        multipliers = [torch.zeros_like(state) for state in states]
        for _ in range(self.rounds if states else 0):
            for _ in range(self.steps):
                with torch.enable_grad():
                    leaves = _leaves(states)
                    found, value = residuals(leaves)
                    for u, r in zip(multipliers, found, strict=True):
                        value = value + (u * r).sum() + self.rho / 2 * r.square().sum()
                _descend(value, states, leaves, self.rate)
            multipliers = [u + self.rho * r for u, r in zip(multipliers, residuals(states)[0], strict=True)]
        return multipliers

    def extra_repr(self) -> str:
        return f"rho={self.rho}, rate={self.rate}, steps={self.steps}, rounds={self.rounds}"


def _check_steps(**counts: int) -> None:
    for name, count in counts.items():
        check_int(name, count)
        if count < 1:
            raise ValueError(f"{name}={count}: must be at least 1")
