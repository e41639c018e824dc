"""TRGL against plain torch: transport cost, modules of several blocks, label smoothing, schedules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.nn import functional as F

from lightning_ff import MLP, TRGL, ConvHead, CrossEntropy, GreedySchedule, OutputGoodness, ResidualMLP, TransportCost
from tests.methods.class_runs import CLASSES, SGD, SHAPE, apart, data, fit, net, weights

BLOCKS = 4


def residual(encoder: Any = "fixed", seed: int = 0) -> ResidualMLP:
    torch.manual_seed(seed)
    return ResidualMLP(CLASSES, inputs=192, width=12, blocks=BLOCKS, encoder=encoder)


def made(**arguments: Any) -> TRGL:
    return TRGL(residual(), CLASSES, SHAPE, **{"frozen": 1, "optimizer": SGD, **arguments})


def taus(model: TRGL) -> list[float | None]:
    found = [[term.tau for term in block.terms if isinstance(term, TransportCost)] for block in model.blocks]
    return [each[0] if each else None for each in found]


def trained(model: TRGL, sizes: list[int], tau: float | None, smoothing: float) -> ResidualMLP:
    """The network after training by plain torch, module by module, with the heads of a learner."""
    network = residual()
    ends = [sum(sizes[: k + 1]) for k in range(len(sizes))]
    heads = {end: nn.Linear(12, CLASSES) for end in ends[:-1]}
    for end, head in heads.items():
        head.load_state_dict(model.blocks[end].goodness.projection.state_dict())  # type: ignore[union-attr, operator]
    heads[BLOCKS] = network[-1]  # type: ignore[assignment]
    learning = [p for p in network.parameters() if p.requires_grad]
    stepping = SGD([*learning, *(p for end in ends[:-1] for p in heads[end].parameters())])
    for x, y in data():
        h, first = network[0](x), 0
        for index, end in enumerate(ends):
            h, loss = h.detach(), torch.zeros(())
            for k in range(first, end):
                out = network[1 + k](h)
                step = None if tau is None else tau / 2 if index < len(sizes) // 2 else tau
                loss = loss if step is None else loss + F.mse_loss(out, h) / (2 * step)
                h = out
            loss = loss + F.cross_entropy(heads[end](h), y, label_smoothing=smoothing)
            loss.backward()
            first = end
        stepping.step()
        stepping.zero_grad()
    return network


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("tau", [None, 0.05])
@pytest.mark.parametrize(("modules", "sizes"), [(None, [1, 1, 1, 1]), (2, [2, 2]), ([3, 1], [3, 1])])
def test_training_is_that_of_plain_torch(modules: Any, sizes: list[int], tau: Any, smoothing: float) -> None:
    model = made(tau=tau, modules=modules, loss=CrossEntropy(label_smoothing=smoothing))
    expected = trained(model, sizes, tau, smoothing)
    fit(model)
    assert apart(weights(model.model), weights(expected)) < 2e-5
    assert apart(weights(expected), weights(residual())) > 1e-3


def test_the_step_is_halved_in_the_first_half_of_the_modules() -> None:
    assert taus(made(tau=0.1)) == [None, 0.05, 0.05, 0.1, 0.1, None]
    assert taus(made(tau=0.1, modules=[1, 2, 1])) == [None, 0.05, 0.1, 0.1, 0.1, None]
    assert taus(made(tau=0.1, halve=False)) == [None, 0.1, 0.1, 0.1, 0.1, None]
    assert taus(made(tau=None)) == [None] * 6


def test_a_stem_is_in_the_first_module_and_the_classifier_in_the_last() -> None:
    model = TRGL(net(), CLASSES, SHAPE, tau=0.1, optimizer=SGD)
    assert [segment.blocks for segment in model.segmentation.every] == [(0, 1), (2, 3)]
    assert [type(block.goodness) for block in model.blocks] == [type(None), ConvHead, type(None), OutputGoodness]
    assert taus(model) == [None, 0.05, 0.1, None]
    fit(model)
    learned = TRGL(residual("learned"), CLASSES, SHAPE, modules=[1, 2, 2])
    assert [segment.name for segment in learned.segmentation.every] == ["block00", "block01-02", "block03-05"]


def test_a_small_step_keeps_the_residual_branches_small() -> None:
    moved = []
    for tau in (None, 0.02):
        model = made(tau=tau)
        fit(model, max_epochs=3)
        before, after = model.features(data(1)[0][0])[1:3]
        moved.append(float((after - before).norm() / before.norm()))
    assert moved[1] < 0.5 * moved[0]


@pytest.mark.parametrize("laps", [1, 2])
def test_modules_learn_one_after_another_in_laps(laps: int) -> None:
    model = made(tau=0.1, modules=2)
    before = weights(model.model)
    trainer = fit(model, steps=2, max_epochs=-1, callbacks=[GreedySchedule(epochs=1, laps=laps)])
    assert trainer.current_epoch == 2 * laps
    assert apart(weights(model.model[0]), weights(residual()[0])) == 0  # type: ignore[index]
    assert all(not torch.equal(v, before[k]) for k, v in weights(model.model).items() if not k.startswith("0."))


def test_the_model_alone_predicts_and_is_exported() -> None:
    model = made(tau=0.1, modules=2)
    fit(model)
    model.eval()
    x = data(1)[0][0]
    torch.testing.assert_close(model(x), model.model.eval()(x))
    exported = torch.export.export(model.deploy(), (x,)).module()
    torch.testing.assert_close(exported(x), model(x))


def test_a_checkpoint_describes_everything(tmp_path: Path) -> None:
    model = made(tau=0.1, modules=[3, 1])
    fit(model, steps=2, enable_checkpointing=True, callbacks=[ModelCheckpoint(tmp_path, save_last=True)])
    again = TRGL.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    assert apart(weights(again), weights(model)) == 0
    assert taus(again) == taus(model)
    assert isinstance(again.model, ResidualMLP)


def test_what_does_not_fit_is_refused() -> None:
    plain = MLP(CLASSES, inputs=192, widths=[12, 10])
    with pytest.raises(ValueError, match=r"tau=1.0: no block of MLP keeps its input's shape: give another model"):
        TRGL(plain, CLASSES, SHAPE)
    assert taus(TRGL(plain, CLASSES, SHAPE, tau=None)) == [None] * 3
    with pytest.raises(ValueError, match=r"tau=0.0: must be above 0"):
        made(tau=0.0)
    with pytest.raises(ValueError, match="modules=5: give a number of modules from 1 to 4"):
        made(modules=5)
    with pytest.raises(ValueError, match=r"modules=\[3, 2\]: .* 4 in all"):
        made(modules=[3, 2])
    with pytest.raises(ValueError, match="frozen=5 of 6 blocks: must be at least 0 and leave a block"):
        made(frozen=5)
    with pytest.raises(ValueError, match="segments='last': TRGL sets them by modules=2"):
        made(modules=2, segments="last")
