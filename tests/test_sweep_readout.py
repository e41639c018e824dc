"""A readout that learns together with the blocks, against plain torch."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from typing_extensions import override

from lightning_ff import AppendOneHot, ForwardForward, LinearReadout, LocalLearner, Pairs, Readout, SymBa
from lightning_ff.negatives import wrong_labels
from tests.sweep_runs import BATCH, CLASSES, STEPS, WIDTHS, data, fit, learner, weights


@pytest.mark.parametrize("variant", [{}, {"backward": "summed"}, {"step": "block"}], ids=["plain", "summed", "block"])
@pytest.mark.parametrize("view", ["neutral", "positive"])
def test_linear_readout_learns_beside_the_blocks(view: Any, variant: dict[str, Any]) -> None:
    """The readout equals a softmax regression on recorded features; the blocks do not depend on it."""
    alone = learner()
    fit(alone)
    model = learner(readout=LinearReadout(view=view), **variant)
    head = nn.Linear(sum(WIDTHS[1:]), CLASSES)
    with torch.no_grad():
        parts = list(model.network.readout.linear)
        head.weight.copy_(torch.cat([part.weight for part in parts], 1))
        head.bias.copy_(parts[0].bias)
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-2)
    replay = learner()
    for x, y, index in data():
        replayed = replay.labels.neutral(x) if view == "neutral" else replay.labels(x, y)
        # the neutral view is taken after the blocks' backward: with step="block" their weights have moved by then
        before = [f.detach() for f in _features(replay, replayed)]
        fit_one(replay, (x, y, index))
        after = [f.detach() for f in _features(replay, replayed)]
        features = after if view == "neutral" and variant.get("step") == "block" else before
        loss = F.cross_entropy(head(torch.cat(features[1:], 1)), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    fit(model)
    blocks = torch.cat([p.detach().double().flatten() for p in model.network.blocks.parameters()])
    assert (blocks - weights(alone)).abs().max() < 1e-6
    joined = torch.cat([part.weight for part in model.network.readout.linear], 1)
    assert (joined - head.weight).abs().max() < 1e-5


def _features(model: LocalLearner, encoded: Tensor) -> list[Tensor]:
    x, features = model.network.normalize(encoded), []
    for block in model.blocks:
        h, _ = block(x)
        x = block.hand_over(h)
        features.append(x)
    return features


def fit_one(model: LocalLearner, batch: tuple[Tensor, Tensor, Tensor]) -> None:
    """One step of the replayed learner in plain torch, with optimizers that live on the model."""
    if not hasattr(model, "replay"):
        model.replay = [torch.optim.Adam(block.parameters(), lr=1e-2) for block in model.blocks]
    x, y, index = batch
    wrong = wrong_labels(y, CLASSES, index)
    x = model.network.normalize(torch.cat([model.labels(x, y), model.labels(x, wrong)]))
    for block, optimizer in zip(model.blocks, model.replay, strict=True):
        h, g = block(x)
        optimizer.zero_grad()
        block.loss(g, Pairs(BATCH)).backward()
        optimizer.step()
        x = block.hand_over(h.detach())


@pytest.mark.parametrize("view", ["neutral", "positive"])
def test_a_readout_learns_on_frozen_blocks(view: Any) -> None:
    model = learner(readout=LinearReadout(view=view))
    for block in model.blocks:
        block.requires_grad_(False)
    blocks, head = weights(model.network.blocks), weights(model.network.readout)
    fit(model)
    assert torch.equal(weights(model.network.blocks), blocks)
    assert not torch.equal(weights(model.network.readout), head)
    assert list(model.local_optimizers.by_block) == ["readout"]


# The neutral view's own pass, with blocks that behave otherwise in train mode


def noisy(readout: Readout | None, step: Any = "batch") -> ForwardForward:
    """Three blocks with batch norm and dropout, the same weights and the same dropout each time."""
    torch.manual_seed(0)
    sizes = zip([25 + CLASSES, *WIDTHS], WIDTHS, strict=False)
    layers = [
        nn.Sequential(nn.Flatten(), nn.Linear(a, b), nn.BatchNorm1d(b), nn.ReLU(), nn.Dropout(0.5)) for a, b in sizes
    ]
    model = ForwardForward(
        CLASSES,
        (1, 5, 5),
        blocks=layers,
        loss=SymBa(),
        labels=AppendOneHot(on_value=1.0),
        readout=readout,
        step=step,
        optimizer=partial(torch.optim.Adam, lr=1e-2),
    )
    torch.manual_seed(1)
    return model


class Witness(Callback):
    """Keeps the network at the readout's step, the readout's loss and gradients, and the modes after each batch."""

    def __init__(self) -> None:
        self.states: list[dict[str, Tensor]] = []
        self.gradients: list[list[Tensor]] = []
        self.losses: list[Tensor] = []
        self.modes: list[dict[str, bool]] = []

    @override
    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        gradients = [p.grad for p in pl_module.network.readout.parameters()]
        if gradients[0] is not None:  # with step="block" the blocks step before the readout has learned
            self.gradients.append([gradient.clone() for gradient in gradients])
            self.states.append({name: value.clone() for name, value in pl_module.network.state_dict().items()})

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.losses.append(outputs["losses"]["readout"])
        self.modes.append({name: module.training for name, module in pl_module.network.named_modules()})


def eval_features(state: dict[str, Tensor], x: Tensor) -> list[Tensor]:
    """Normalised features of the blocks, by running statistics and without dropout."""
    h = F.normalize(torch.cat([x.flatten(1), torch.full((len(x), CLASSES), 1 / CLASSES)], 1)) * (25 + CLASSES) ** 0.5
    features = []
    for k, width in enumerate(WIDTHS):
        (weight, bias), (scale, shift) = (
            [state[f"blocks.{k}.layers.{i}.{name}"] for name in ("weight", "bias")] for i in (1, 2)
        )
        mean, var = (state[f"blocks.{k}.layers.2.running_{name}"] for name in ("mean", "var"))
        h = torch.relu((h @ weight.T + bias - mean) / (var + 1e-5).sqrt() * scale + shift)
        h = F.normalize(h) * width**0.5
        features.append(h)
    return features


@pytest.mark.parametrize("step", ["batch", "block"])
def test_the_neutral_view_is_taken_in_eval_mode(step: Any) -> None:
    """Loss and gradients are those of a softmax regression on eval-mode features, by hand."""
    witness, batches = Witness(), data(6)
    fit(noisy(LinearReadout(skip_first=True), step), batches, callbacks=[witness])
    assert len(witness.states) == len(witness.losses) == 6
    for state, loss, gradients, (x, y, _) in zip(
        witness.states, witness.losses, witness.gradients, batches, strict=True
    ):
        features = eval_features(state, x)[1:]
        heads = [state[f"readout.linear.{i}.weight"] for i in (0, 1)]
        scores = sum(h @ head.T for h, head in zip(features, heads, strict=True)) + state["readout.linear.0.bias"]
        error = (scores.softmax(1) - F.one_hot(y, CLASSES)) / BATCH
        expected = [error.T @ features[0], error.sum(0), error.T @ features[1]]
        torch.testing.assert_close(loss, -scores.log_softmax(1)[range(BATCH), y].mean(), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(gradients, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("step", ["batch", "block"])
def test_the_neutral_view_leaves_blocks_statistics_and_random_numbers_alone(step: Any) -> None:
    """Blocks with batch norm and dropout have bitwise equal weights with and without a readout."""
    model, alone = noisy(LinearReadout(), step), noisy(None, step)
    fit(model, data(6))
    torch.manual_seed(1)
    fit(alone, data(6))
    states = model.network.blocks.state_dict(), alone.network.blocks.state_dict()
    assert states[0].keys() == states[1].keys()
    assert [name for name, value in states[0].items() if not torch.equal(value, states[1][name])] == []
    counts = [int(value) for name, value in states[0].items() if name.endswith("num_batches_tracked")]
    assert counts == [2 * 6] * len(WIDTHS)  # positives and negatives of each batch, apart


@pytest.mark.filterwarnings("ignore:Found 1 module.* in eval mode at the start of training")
def test_modes_are_put_back_module_by_module() -> None:
    """All of them train again after the pass, but for one that was in eval mode before."""
    model, witness = noisy(LinearReadout()), Witness()
    quiet = "blocks.1.layers.4"
    model.network.get_submodule(quiet).eval()
    fit(model, data(3), callbacks=[witness])
    assert len(witness.modes) == 3
    for modes in witness.modes:
        assert [name for name, training in modes.items() if not training] == [quiet]


@pytest.mark.parametrize("view", ["neutral", "positive"])
def test_summed_has_one_backward_and_learns_the_same(view: Any) -> None:
    """Plain DDP needs it: a second backward, of the readout, would raise."""
    trained = {}
    for backward in ("per_block", "summed"):
        model = learner(readout=LinearReadout(view=view), backward=backward)
        calls = []

        class Counting(SingleDeviceStrategy):
            def backward(self, *args: Any, calls: list[int] = calls, **kwargs: Any) -> Tensor:
                calls.append(1)
                return super().backward(*args, **kwargs)

        fit(model, strategy=Counting("cpu"))
        assert len(calls) == STEPS * (1 if backward == "summed" else 4)
        trained[backward] = weights(model)
    assert (trained["summed"] - trained["per_block"]).abs().max() < 1e-6
