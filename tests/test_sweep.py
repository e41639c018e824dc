"""The loop against a reference written independently in plain torch, and its variants against each other."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from typing_extensions import override

from lightning_ff import (
    AppendOneHot,
    CrossEntropy,
    ForwardForward,
    LastReadout,
    LinearGoodness,
    LinearReadout,
    LocalBlock,
    LocalLearner,
    LocalNetwork,
    MeanSquare,
    Normalize,
    PeerNormalization,
    Placement,
    Schedule,
    SumReadout,
    SumSquare,
    SymBa,
    ThresholdLoss,
)
from lightning_ff.negatives import wrong_labels
from lightning_ff.objectives import Goodness, LocalLoss
from lightning_ff.sweep import Segment

STEPS, BATCH, CLASSES = 20, 12, 4
WIDTHS = [16, 12, 8]


def data(steps: int = STEPS) -> list[tuple[Tensor, Tensor, Tensor]]:
    g = torch.Generator().manual_seed(1)
    x = torch.rand(steps * BATCH, 1, 5, 5, generator=g)
    y = torch.randint(0, CLASSES, (steps * BATCH,), generator=g)
    index = torch.arange(steps * BATCH)
    return list(zip(x.split(BATCH), y.split(BATCH), index.split(BATCH), strict=True))


def loader(batches: list[Any]) -> DataLoader:
    return DataLoader(batches, batch_size=None)


def learner(**kwargs: Any) -> ForwardForward:
    torch.manual_seed(0)
    kwargs = {"loss": SymBa(), "optimizer": partial(torch.optim.Adam, lr=1e-2)} | kwargs
    return ForwardForward(CLASSES, (1, 5, 5), widths=WIDTHS, labels=AppendOneHot(on_value=1.0), **kwargs)


def fit(model: LocalLearner, batches: list[Any] | None = None, **flags: Any) -> Trainer:
    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **flags,
    )
    trainer.fit(model, loader(batches or data()))
    return trainer


def weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().double().flatten() for p in model.parameters()])


class Reference:
    """Forward-Forward written out: no code of the package but the draw of the wrong labels."""

    def __init__(self, segments: str, goodness: str, loss: str, dtype: torch.dtype) -> None:
        torch.manual_seed(0)
        self.dtype = dtype
        sizes = [25 + CLASSES, *WIDTHS]
        self.layers = [nn.Linear(a, b).to(dtype) for a, b in pairwise(sizes)]
        self.kind, self.goodness, self.loss = segments, goodness, loss

    @staticmethod
    def rms(h: Tensor) -> Tensor:
        return h / (h.pow(2).mean(1, keepdim=True) + 1e-8).sqrt()

    def measure(self, h: Tensor) -> Tensor:
        return (h**2).mean(1) if self.goodness == "mean" else (h**2).sum(1)

    def objective(self, g: Tensor, threshold: float) -> Tensor:
        positive, negative = g.chunk(2)
        if self.loss == "symba":
            return torch.log1p(torch.exp(-4.0 * (positive - negative))).mean()
        sides = torch.log1p(torch.exp(threshold - positive)), torch.log1p(torch.exp(negative - threshold))
        return sides[0].mean() + sides[1].mean()

    def total(self, x: Tensor, detach: bool) -> tuple[Tensor, Tensor]:
        """Sum of the losses, and the loss of the kind that is differentiated."""
        goodness = []
        for layer in self.layers:
            h = torch.relu(layer(self.rms(x)))
            goodness.append(self.measure(h))
            x = h.detach() if detach else h
        scales = [1.0 if self.goodness == "mean" else float(layer.out_features) for layer in self.layers]
        losses = [self.objective(g, scale) for g, scale in zip(goodness, scales, strict=True)]
        if self.kind == "loss_of_sum":
            return sum(losses), self.objective(sum(goodness), sum(scales))
        return sum(losses), losses[-1] if self.kind == "last" else sum(losses)

    def train(self, optimizer: Any) -> Tensor:
        optimizers = [optimizer(layer.parameters()) for layer in self.layers]
        for x, y, index in data():
            wrong = wrong_labels(y, CLASSES, index, seed=0, epoch=0)
            stacked = torch.cat([torch.cat([x.flatten(1), F.one_hot(c, CLASSES).float()], 1) for c in (y, wrong)])
            loss = self.total(stacked.to(self.dtype), detach=self.kind == "local")[1]
            for made in optimizers:
                made.zero_grad()
            loss.backward()
            for made in optimizers:
                made.step()
        return torch.cat([p.detach().double().flatten() for layer in self.layers for p in layer.parameters()])


ADAM = partial(torch.optim.Adam, lr=1e-2)
SGD = partial(torch.optim.SGD, lr=1e-3, momentum=0.9)


@pytest.mark.parametrize(
    ("optimizer", "precision", "bound"), [(ADAM, "64-true", 1e-9), (SGD, "32-true", 1e-6)], ids=["adam64", "sgd32"]
)
@pytest.mark.parametrize("goodness", ["mean", "sum"])
@pytest.mark.parametrize("loss", ["symba", "threshold"])
@pytest.mark.parametrize("segments", ["local", "sum_of_losses", "loss_of_sum", "last"])
def test_equals_a_plain_torch_loop(
    segments: str, loss: str, goodness: str, optimizer: Any, precision: Any, bound: float
) -> None:
    parts: dict[str, Any] = {
        "goodness": MeanSquare() if goodness == "mean" else SumSquare(),
        "loss": SymBa() if loss == "symba" else ThresholdLoss(),
    }
    model = learner(segments=segments, optimizer=optimizer, **parts)
    start = weights(model)
    fit(model, precision=precision)
    dtype = torch.float64 if precision == "64-true" else torch.float32
    expected = Reference(segments, goodness, loss, dtype).train(optimizer)
    assert (weights(model) - expected).abs().max() < bound
    assert (weights(model) - start).abs().max() > 1e-3


@pytest.mark.parametrize(
    "variant",
    [{"backward": "summed"}, {"step": "block"}, {"optimizer": partial(torch.optim.Adam, lr=1e-2, fused=False)}],
    ids=["summed", "step_block", "not_fused"],
)
def test_variants_give_equal_weights(variant: dict[str, Any]) -> None:
    plain, other = learner(), learner(**variant)
    fit(plain)
    fit(other)
    assert (weights(plain) - weights(other)).abs().max() < 1e-6


@pytest.mark.parametrize("variant", [{}, {"backward": "summed"}, {"step": "block"}], ids=["plain", "summed", "block"])
@pytest.mark.parametrize("view", ["neutral", "positive"])
def test_linear_readout_learns_beside_the_blocks(view: Any, variant: dict[str, Any]) -> None:
    """The readout equals a softmax regression on recorded features; the blocks do not notice it."""
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
        block.loss(g, BATCH).backward()
        optimizer.step()
        x = block.hand_over(h.detach())


def test_no_gradient_crosses_a_border() -> None:
    model = learner()
    network = model.network
    x, y, _ = data(1)[0]
    inputs = network.normalize(torch.cat([model.labels(x, y), model.labels(x, (y + 1) % CLASSES)]))
    for block in model.blocks:
        h, g = block(inputs)
        block.loss(g, BATCH).backward()
        seen = [any(p.grad is not None for p in other.parameters()) for other in model.blocks]
        assert seen == [other is block for other in model.blocks]
        block.zero_grad()
        inputs = block.hand_over(h.detach())
    assert h.grad_fn is not None


def test_terms_are_added_in_every_segment_kind() -> None:
    term = [PeerNormalization(weight=0.5)]
    plain, summed, block = (
        learner(terms=term),
        learner(terms=term, backward="summed"),
        learner(terms=term, step="block"),
    )
    for model in (plain, summed, block):
        fit(model)
    assert (weights(plain) - weights(summed)).abs().max() < 1e-6
    assert (weights(plain) - weights(block)).abs().max() < 1e-6
    without = learner()
    fit(without)
    assert (weights(plain) - weights(without)).abs().max() > 1e-4


@pytest.mark.parametrize("step", ["batch", "block"])
def test_accumulation_equals_the_large_batch(step: Any) -> None:
    """Two batches of 12 averaged are one of 24, since every side of the loss is a mean."""
    small = learner(accumulate_grad_batches=2, step=step)
    trainer = fit(small)
    joined = [
        tuple(torch.cat(pair) for pair in zip(a, b, strict=True))
        for a, b in zip(data()[::2], data()[1::2], strict=True)
    ]
    large = learner(step=step)
    fit(large, joined)
    assert trainer.global_step == STEPS // 2
    assert (weights(small) - weights(large)).abs().max() < 1e-6


def test_accumulation_steps_on_the_last_batch_too() -> None:
    trainer = fit(learner(accumulate_grad_batches=3), data(7))
    assert trainer.global_step == 3


class Part(Schedule):
    """Starts at a block, with its input computed before, and lets some blocks learn."""

    def __init__(self, first: int, learning: set[int], learner: LocalLearner) -> None:
        self.first, self.learning, self.learner = first, learning, learner

    @override
    def start(self) -> int:
        return self.first

    @override
    def learns(self, segment: Segment) -> bool:
        return segment.index in self.learning

    @override
    def input(self, image: Tensor, label: Tensor, index: Tensor | None) -> tuple[Tensor, int] | None:
        if self.first == 0:
            return None
        with torch.no_grad():
            x, positives = self.learner.inputs(image, label, index)
            for block in self.learner.blocks[: self.first]:
                x = block.hand_over(block(x)[0])
        return x, positives


@pytest.mark.parametrize("step", ["batch", "block"])
def test_a_partial_sweep_with_a_given_input_equals_the_whole(step: Any) -> None:
    """Only block 1 learns: from the batch through a frozen block 0, or from block 0's outputs computed before."""
    trained = []
    for first in (0, 1):
        model = learner(step=step)
        model.schedule = Part(first, {1}, model)
        start = [weights(block) for block in model.blocks]
        ran: list[int] = []
        for k, block in enumerate(model.blocks):
            block.layers.register_forward_hook(
                lambda *_, k=k, ran=ran: ran.append(k) if torch.is_grad_enabled() else None
            )
        fit(model)
        moved = [(weights(block) - before).abs().max() > 0 for block, before in zip(model.blocks, start, strict=True)]
        assert moved == [False, True, False]
        assert set(ran) == {1}
        trained.append(weights(model))
    assert torch.equal(*trained)


def test_blocks_after_the_last_that_learns_do_not_run() -> None:
    model = learner()
    model.schedule = Part(0, {0}, model)
    calls = []
    model.blocks[1].layers.register_forward_hook(lambda *_: calls.append(1) if model.network.training else None)
    fit(model)
    assert calls == []


def test_a_frozen_block_runs_in_eval_mode_and_stays() -> None:
    torch.manual_seed(0)
    layers = [nn.Sequential(nn.Flatten(), nn.Linear(29, 16), nn.BatchNorm1d(16), nn.ReLU()), nn.Linear(16, 8)]
    model = ForwardForward(CLASSES, (1, 5, 5), blocks=layers, loss=SymBa(), labels=AppendOneHot(on_value=1.0))
    layers[0].requires_grad_(False)
    before = {k: v.clone() for k, v in layers[0].state_dict().items()}
    second = weights(layers[1])
    fit(model)
    assert all(torch.equal(v, before[k]) for k, v in layers[0].state_dict().items())
    assert not torch.equal(second, weights(layers[1]))
    assert list(model.facade.inner) == ["block01"]


@pytest.mark.parametrize("view", ["neutral", "positive"])
def test_a_readout_learns_on_frozen_blocks(view: Any) -> None:
    model = learner(readout=LinearReadout(view=view))
    for block in model.blocks:
        block.requires_grad_(False)
    blocks, head = weights(model.network.blocks), weights(model.network.readout)
    fit(model)
    assert torch.equal(weights(model.network.blocks), blocks)
    assert not torch.equal(weights(model.network.readout), head)
    assert list(model.facade.inner) == ["readout"]


class Half(Placement):
    """Owns some segments, gets its input and passes its output on, as one rank of a pipeline does."""

    def __init__(self, mine: set[int], inbox: list[Tensor], outbox: list[Tensor]) -> None:
        self.mine, self.inbox, self.outbox = mine, inbox, outbox

    @override
    def owns(self, segment: Segment) -> bool:
        return segment.index in self.mine

    @override
    def receive(self, x: Any) -> Any:
        return x if 0 in self.mine else self.inbox.pop(0)

    @override
    def send(self, x: Any) -> None:
        assert not x.requires_grad
        self.outbox.append(x)

    @property
    @override
    def sends(self) -> bool:
        return 2 not in self.mine


class Placed(SingleDeviceStrategy):
    def __init__(self, placement: Placement) -> None:
        super().__init__("cpu")
        self.placement = placement


def test_a_strategy_places_blocks_and_carries_activations() -> None:
    """Blocks 0-1 in one run and block 2 in another, fed with what the first sent, equal the whole in one run."""
    whole = learner()
    fit(whole)
    channel: list[Tensor] = []
    parts = []
    for mine in ({0, 1}, {2}):
        model = learner()
        trainer = Trainer(
            strategy=Placed(Half(mine, channel, channel)),
            max_epochs=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(model, loader(data()))
        parts += [weights(model.blocks[k]) for k in sorted(mine)]
    assert torch.equal(torch.cat(parts), weights(whole))


class Raw(Goodness):
    """The activation itself is the class vector."""

    mode = "class"

    @override
    def forward(self, h: Tensor) -> Tensor:
        return h


def classifier(segments: Any, heads: bool) -> LocalLearner:
    torch.manual_seed(0)
    stack = [nn.Sequential(nn.Flatten(), nn.Linear(25, 16), nn.ReLU()), nn.Linear(16, CLASSES)]
    losses: list[LocalLoss] = [CrossEntropy(), CrossEntropy()]
    blocks = [
        LocalBlock(stack[0], LinearGoodness() if heads else None, losses[0]),
        LocalBlock(stack[1], Raw(), losses[1]),
    ]
    network = LocalNetwork(blocks, (1, 5, 5), CLASSES, readout=LastReadout() if not heads else SumReadout())
    return LocalLearner(network, segments=segments, optimizer=partial(torch.optim.SGD, lr=0.1))


def test_class_mode_last_is_plain_backprop() -> None:
    model = classifier("last", heads=False)
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Flatten(), nn.Linear(25, 16), nn.ReLU(), nn.Linear(16, CLASSES))
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1)
    for x, y, _ in data():
        optimizer.zero_grad()
        F.cross_entropy(plain(x), y).backward()
        optimizer.step()
    fit(model)
    assert (weights(model) - weights(plain)).abs().max() < 1e-6
    assert model(data(1)[0][0]).allclose(plain(data(1)[0][0]), atol=1e-5)


@pytest.mark.parametrize("segments", ["local", "sum_of_losses"])
def test_class_mode_local_and_deep_supervision(segments: str) -> None:
    model = classifier(segments, heads=True)
    first, last = model.blocks
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Flatten(), nn.Linear(25, 16), nn.ReLU()), nn.Linear(16, CLASSES)
    head = nn.Linear(16, CLASSES)
    assert torch.equal(head.weight, first.goodness.projection.weight)
    modules = nn.ModuleList([layers[0], head, layers[1]])
    optimizer = torch.optim.SGD(modules.parameters(), lr=0.1)
    for x, y, _ in data():
        optimizer.zero_grad()
        h = layers[0](x)
        loss = F.cross_entropy(head(h), y) + F.cross_entropy(layers[1](h.detach() if segments == "local" else h), y)
        loss.backward()
        optimizer.step()
    fit(model)
    assert (weights(model) - weights(modules)).abs().max() < 1e-6
    assert (weights(last) - weights(layers[1])).abs().max() < 1e-6


def test_normalisation_of_an_input_may_carry_gradient_only_inside_a_segment() -> None:
    """With one segment the gradient passes the hand-over's normalisation: the first block's weights differ."""
    local, whole = learner(), learner(segments="sum_of_losses")
    fit(local)
    fit(whole)
    assert isinstance(local.blocks[0].normalization, Normalize)
    assert (weights(local.blocks[0]) - weights(whole.blocks[0])).abs().max() > 1e-4
    assert (weights(local.blocks[2]) - weights(whole.blocks[2])).abs().max() > 1e-4
