"""Segments of several blocks, in one process and two, and segments that depend on the batch, against plain torch."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from lightning.pytorch.strategies import DDPStrategy
from torch import nn
from torch.multiprocessing import ProcessRaisedException
from torch.nn import functional as F

from lightning_ff import (
    CrossEntropy,
    ForwardForward,
    GreedySchedule,
    Labels,
    LinearGoodness,
    LocalBlock,
    LocalLearner,
    LocalNetwork,
    MeanReadout,
    ScalableForwardForward,
    SumReadout,
    Sweep,
    WindowSchedule,
)
from lightning_ff.optim import make_optimizers
from lightning_ff.sweep import Segmentation
from tests.strategies.runs import BATCH, CLASSES, SHAPE, Pipeline, Shares, difference, trained
from tests.sweep.parts import SGD, Reconstruction, Recorded, encoders, resumes_exactly

FIVE = [36, 12, 10, 9, 8, 7]
IMAGES, LABEL = (tensor for tensor in Shares().samples.tensors[:2])


def network(terms: bool = False, count: int = 5) -> LocalNetwork:
    """Blocks, each with a linear head and a cross-entropy."""
    layers = encoders(FIVE)[:count]
    blocks = [LocalBlock(m, Recorded(), CrossEntropy(), terms=[Reconstruction()] if terms else ()) for m in layers]
    return LocalNetwork(blocks, SHAPE, CLASSES, SumReadout())


def learner(segments: Any, terms: bool = False, **arguments: Any) -> LocalLearner:
    return LocalLearner(network(terms), **{"segments": segments, "optimizer": SGD, **arguments})


def plain(groups: Any, terms: bool) -> list[nn.Module]:
    """Groups of blocks by batch, each trained by the loss of its last block, with no gradient to the one before."""
    blocks = network(terms).stack
    parts = [[m for m in (b.layers, b.goodness.head, b.terms)] for b in blocks]  # type: ignore[union-attr]
    own = [SGD([p for module in each for p in module.parameters()]) for each in parts]
    for t, (x, y) in enumerate(zip(IMAGES.split(BATCH), LABEL.split(BATCH), strict=True)):
        h = x
        for group in groups(t):
            inputs = []
            for k in group:
                inputs.append(h)
                h = parts[k][0](h)
            loss = F.cross_entropy(parts[group[-1]][1](h), y)
            outputs = [*inputs[1:], h]
            if terms:
                for k, before, after in zip(group, inputs, outputs, strict=True):
                    decoder: Any = parts[k][2][0].decoder  # type: ignore[index]
                    loss = loss + F.mse_loss(decoder(after), before.flatten(1))
            for k in group:
                own[k].zero_grad()
            loss.backward()
            for k in group:
                own[k].step()
            h = h.detach()
    return [nn.ModuleList(each) for each in parts]


@pytest.mark.parametrize("terms", [False, True])
@pytest.mark.parametrize(
    ("segments", "groups", "names"),
    [
        ([2, 3], [[0, 1], [2, 3, 4]], ["block00-01", "block02-04"]),
        (3, [[0, 1], [2, 3], [4]], ["block00-01", "block02-03", "block04"]),
        ([5], [[0, 1, 2, 3, 4]], ["block00-04"]),
        ([1] * 5, [[0], [1], [2], [3], [4]], ["block00", "block01", "block02", "block03", "block04"]),
    ],
)
def test_equals_plain_torch(segments: Any, groups: list[list[int]], names: list[str], terms: bool) -> None:
    model = learner(segments, terms)
    trained(model, 1, log_every_n_steps=5)
    for block, expected in zip(model.blocks, plain(lambda t: groups, terms), strict=True):
        mine: Any = [block.layers, block.goodness.head, block.terms]  # type: ignore[union-attr]
        for ours, theirs in zip(nn.ModuleList(mine).parameters(), expected.parameters(), strict=True):
            assert (ours - theirs).abs().max() < 1e-5
    assert list(model.local_optimizers.by_block) == names
    assert [group["name"] for group in model.local_optimizers.param_groups] == names
    logged = {name for name in model.trainer.callback_metrics if name.startswith("train/loss/")}
    assert logged == {f"train/loss/{name}" for name in names}


def test_without_a_trainer() -> None:
    under, alone = learner([2, 3], True), network(True)
    owners = Segmentation(alone, [2, 3]).owners(alone)
    sweep = Sweep(alone, make_optimizers(owners, SGD), segments=[2, 3])
    for x, y in zip(IMAGES.split(BATCH), LABEL.split(BATCH), strict=True):
        result = sweep(alone.normalize(x), Labels(y))
    assert list(result.losses) == ["block00-01", "block02-04"]
    trained(under, 1)
    assert difference(under.network.state_dict(), alone.state_dict()) == 0.0


def test_optimizers_of_blocks_do_not_fit_listed_segments() -> None:
    net = network()
    message = r"make them by make_optimizers\(Segmentation\(network, segments\).owners\(network\), ...\)"
    with pytest.raises(ValueError, match=message):
        Sweep(net, make_optimizers(net.owners, SGD), segments=[2, 3])


@pytest.mark.skipif(not dist.is_gloo_available(), reason="torch has no gloo here")
def test_overlapping_segments_of_two_blocks_need_our_strategies() -> None:
    """Even batches have one segment, odd ones two."""
    plain = DDPStrategy(start_method="fork", process_group_backend="gloo")
    with pytest.raises(ProcessRaisedException, match="strategy='ff_ddp', which reduces each block's"):
        trained(LocalLearner(network(count=2), segments="overlapping", optimizer=SGD), 2, strategy=plain)


@pytest.mark.parametrize("variant", [{"backward": "summed"}, {"step": "block"}, {"accumulate_grad_batches": 1}])
def test_variants_have_equal_weights(variant: dict[str, Any]) -> None:
    assert difference(trained(learner(2), 1), trained(learner(2, **variant), 1)) == 0.0


def test_one_block_each_is_local_learning() -> None:
    assert difference(trained(learner([1] * 5), 1), trained(learner("local"), 1)) == 0.0


def test_all_blocks_in_one_list_are_the_last_control() -> None:
    assert difference(trained(learner([5]), 1), trained(learner("last"), 1)) == 0.0


def overlapping(t: int) -> list[list[int]]:
    return [[0, 1], [2, 3], [4]] if t % 2 == 0 else [[0], [1, 2], [3, 4]]


@pytest.mark.parametrize("terms", [False, True])
def test_overlapping_pairs_alternate(terms: bool) -> None:
    model = learner("overlapping", terms)
    trained(model, 1, log_every_n_steps=1)
    for block, expected in zip(model.blocks, plain(overlapping, terms), strict=True):
        mine: Any = [block.layers, block.goodness.head, block.terms]  # type: ignore[union-attr]
        for ours, theirs in zip(nn.ModuleList(mine).parameters(), expected.parameters(), strict=True):
            assert (ours - theirs).abs().max() < 1e-5
    assert list(model.local_optimizers.by_block) == model.network.names


@pytest.mark.parametrize(("segments", "rates"), [("overlapping", 5), ([2, 3], 2)])
def test_schedulers_step_once_for_each_optimizer(segments: Any, rates: int) -> None:
    decay = partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.5)
    model = learner(segments, scheduler=decay, scheduler_interval="step")
    trained(model, 1, limit_train_batches=3)
    found = [group["lr"] for group in model.local_optimizers.param_groups]
    assert found == pytest.approx([0.1 * 0.5**3] * rates)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_overlapping_pairs_hold_every_block_in_every_batch(count: int) -> None:
    found = Segmentation(network(count=count), "overlapping")
    for batch in range(4):
        assert [k for segment in found.of(batch) for k in segment.blocks] == list(range(count))
        pairs = [segment.blocks for segment in found.of(batch) if len(segment.blocks) == 2]
        assert all(first % 2 == batch % 2 for first, _ in pairs)
    assert len({segment.index for segment in found.every}) == len(found.every)


@pytest.mark.parametrize("segments", [[2, 3], "overlapping"])
@pytest.mark.parametrize("step", [13, 20])
def test_resumes_exactly(segments: Any, step: int, tmp_path: Path) -> None:
    resumes_exactly(partial(learner, segments, True), tmp_path / "saved.ckpt", step)


@pytest.mark.skipif(not dist.is_gloo_available(), reason="torch has no gloo here")
@pytest.mark.parametrize(
    ("segments", "strategy"),
    [([2, 3], None), ("overlapping", None), ([2, 3], {}), ([2, 2, 1], {"blocks": [4, 1]}), ([2, 2, 1], {})],
)
def test_two_processes_equal_one(segments: Any, strategy: Any) -> None:
    one = trained(learner(segments), 1, torch.float64)
    two = trained(learner(segments), 2, torch.float64, None if strategy is None else Pipeline(**strategy))
    assert difference(one, two) < 1e-9


def statistics(segments: Any) -> LocalLearner:
    """Blocks with batch norm, whose statistics are averaged over processes."""
    torch.manual_seed(0)
    layers = [nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.BatchNorm1d(8)), nn.Sequential(nn.Linear(8, 8))]
    blocks = [LocalBlock(layer, LinearGoodness(), CrossEntropy()) for layer in layers]
    return LocalLearner(LocalNetwork(blocks, SHAPE, CLASSES, SumReadout()), segments=segments, optimizer=SGD)


@pytest.mark.skipif(not dist.is_gloo_available(), reason="torch has no gloo here")
def test_running_statistics_within_a_segment_are_averaged() -> None:
    listed, whole = (trained(statistics(segments), 2) for segments in ([2], "last"))
    assert difference(listed, whole) < 1e-6
    assert float(listed["network.blocks.0.layers.2.running_mean"].abs().max()) > 0


@pytest.mark.skipif(not dist.is_gloo_available(), reason="torch has no gloo here")
@pytest.mark.parametrize(
    ("arguments", "strategy", "message"),
    [
        ({"segments": [2, 3]}, {"blocks": [3, 2]}, "cuts one of segments="),
        ({"segments": [5]}, {}, "1 segments are too few for 2 stages"),
        ({"segments": "overlapping"}, {}, "makes segments that overlap, which ff_pipeline cannot cut"),
    ],
)
def test_pipelines_are_cut_between_segments(arguments: Any, strategy: Any, message: str) -> None:
    with pytest.raises(Exception, match=message):
        trained(learner(**arguments), 2, strategy=Pipeline(**strategy))


def test_windows_count_segments() -> None:
    """Segment after segment, with kept outputs, against the same without."""
    kept, plainly = learner([2, 3]), learner([2, 3])
    one = trained(kept, 1, callbacks=[WindowSchedule([[(0, 2)], [(2, 4)]])], max_epochs=4)
    two = trained(plainly, 1, callbacks=[GreedySchedule(2, cache=False)], max_epochs=4)
    assert difference(one, two) == 0.0
    first = trained(learner([2, 3]), 1, callbacks=[GreedySchedule([2, 0])], max_epochs=2)
    names = [name for name in one if name.startswith(("network.blocks.0.", "network.blocks.1."))]
    assert all(torch.equal(first[name], one[name]) for name in names)


@pytest.mark.parametrize(
    ("segments", "callback", "message"),
    [
        ([2, 3], WindowSchedule([[(0, 1)]] * 5), "windows has 5 entries for 2 segments: give each segment its list"),
        ([2, 3], GreedySchedule([1] * 5), "epochs=.* for 2 segments"),
        ("overlapping", GreedySchedule(1), "segments='overlapping', no segment on its own"),
    ],
)
def test_schedules_that_do_not_fit(segments: Any, callback: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        trained(learner(segments), 1, callbacks=[callback])


@pytest.mark.parametrize(
    ("segments", "error", "message"),
    [
        ([2, 2], ValueError, r"segments=\[2, 2\]: give every segment at least 1 block, 5 blocks in all"),
        ([5, 0], ValueError, "at least 1 block"),
        ([], ValueError, "at least 1 block"),
        (0, ValueError, "segments=0: choose a number from 1 to 5"),
        (6, ValueError, "segments=6: choose a number from 1 to 5"),
        (True, TypeError, "segments=True is a bool"),
        (2.0, TypeError, "segments=2.0 is a float"),
        ([2.5, 2.5], TypeError, r"segments\[0\]=2.5"),
        ("pairs", ValueError, "segments='pairs': choose 'local', 'overlapping'"),
    ],
)
def test_refused_segments(segments: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        learner(segments)


def test_methods_measure_the_last_block_of_a_segment_alone() -> None:
    ff = ForwardForward(CLASSES, SHAPE, widths=[9, 8, 7, 6], segments=2)
    assert [block.goodness is not None for block in ff.blocks] == [False, True, False, True]
    assert ff.network.scored == ["block01", "block03"]
    layers = nn.Sequential(*(nn.Sequential(nn.Linear(a, 12), nn.ReLU()) for a in (36, 12, 12)), nn.Linear(12, CLASSES))
    net = nn.Sequential(nn.Flatten(), *layers)
    sff = ScalableForwardForward(net, CLASSES, SHAPE, cuts=4, segments=[1, 2, 1])
    assert [block.goodness is not None for block in sff.blocks] == [True, False, True, True]
    assert isinstance(sff.network.readout, MeanReadout)
    x = torch.rand(3, *SHAPE)
    first, second, _ = sff.network.scores(x)
    assert torch.allclose(sff(x), (first + second) / 2)
    start = {name: value.clone() for name, value in sff.named_parameters()}
    trained(sff, 1)
    assert not [name for name, value in sff.named_parameters() if torch.equal(value, start[name])]
