"""Schedules of blocks: epochs in which each learns, kept outputs, resuming, the end of a run."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from torch import Tensor, nn

from lightning_ff import (
    AllWrongLabels,
    CosineToEnd,
    FixedPool,
    ForwardForward,
    GreedySchedule,
    LinearReadout,
    RandomShift,
    RefreshNegatives,
    ScalableForwardForward,
    Schedule,
    SoftmaxReadout,
    WindowSchedule,
)
from lightning_ff.blocks import ConvNet
from lightning_ff.sweep import Windows
from tests.sweep_runs import CLASSES, STEPS, data, learner, loader, weights

QUIET = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)


def fit(model: Any, schedule: Callback, *more: Callback, batches: Any = None, **flags: Any) -> Trainer:
    ckpt = flags.pop("ckpt_path", None)
    trainer = Trainer(**{"max_epochs": -1, "accelerator": "cpu", **QUIET, **flags}, callbacks=[schedule, *more])
    trainer.fit(model, loader(batches or data()), ckpt_path=ckpt)
    return trainer


class Moves(Callback):
    """Which blocks changed in each epoch."""

    def __init__(self) -> None:
        self.moved: list[list[bool]] = []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
        self.before = [weights(block) for block in pl_module.blocks]

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        now = [weights(block) for block in pl_module.blocks]
        self.moved.append([not torch.equal(a, b) for a, b in zip(self.before, now, strict=True)])


def test_blocks_learn_one_after_another_and_the_run_ends_with_the_last() -> None:
    moves, model = Moves(), learner()
    trainer = fit(model, GreedySchedule(epochs=[1, 2, 1]), moves)
    one, two, three = [True, False, False], [False, True, False], [False, False, True]
    assert moves.moved == [one, two, two, three]
    assert trainer.current_epoch == trainer.max_epochs == 4
    assert type(model.schedule) is Schedule


def test_laps_and_windows() -> None:
    moves = Moves()
    fit(learner(), GreedySchedule(epochs=1, laps=2), moves)
    assert [row.index(True) for row in moves.moved] == [0, 1, 2, 0, 1, 2]
    moves = Moves()
    fit(learner(), WindowSchedule([[(0, 2)], [(1, 3)], []]), moves)
    assert moves.moved == [[True, False, False], [True, True, False], [False, True, False]]


def test_a_greedy_run_equals_plain_torch() -> None:
    """Block after block in a separate loop, on the same positives and negatives, with one optimizer each."""
    model, plain = learner(negatives=FixedPool()), learner(negatives=FixedPool())
    fit(model, GreedySchedule(epochs=2))
    batches = [plain.inputs(x, y, index) for x, y, index in data()]
    for k, block in enumerate(plain.blocks):
        optimizer = torch.optim.Adam(block.parameters(), lr=1e-2)
        for _ in range(2):
            for x, positives in batches:
                h: Any = x
                with torch.no_grad():
                    for frozen in plain.blocks[:k]:
                        h = frozen.hand_over(frozen(h)[0])
                _, g = block(h)
                block.loss(g, positives).backward()  # type: ignore[misc, operator]
                optimizer.step()
                optimizer.zero_grad()
    assert (weights(model) - weights(plain)).abs().max() < 1e-6


SETTINGS: dict[str, Any] = {
    "fixed pool": {"negatives": FixedPool},
    "all wrong labels": {"negatives": AllWrongLabels},
    "step by block": {"negatives": FixedPool, "step": "block"},
    "summed": {"negatives": FixedPool, "backward": "summed"},
    "neutral readout": {"negatives": FixedPool, "readout": LinearReadout},
}


@pytest.mark.parametrize("memory", [1024.0, 0.0])
@pytest.mark.parametrize("name", SETTINGS)
def test_kept_outputs_give_the_same_weights(name: str, memory: float) -> None:
    trained = []
    for cache in (True, False):
        arguments = {key: value() if isinstance(value, type) else value for key, value in SETTINGS[name].items()}
        model = learner(**arguments)
        fit(model, GreedySchedule(epochs=2, laps=2, cache=cache, cache_memory=memory), batches=data(6))
        trained.append(weights(model))
    assert torch.equal(*trained)


def test_kept_outputs_of_a_class_mode_network_with_skips() -> None:
    trained = []
    for cache in (True, False):
        torch.manual_seed(0)
        model = ScalableForwardForward(Skipping(), CLASSES, (1, 5, 5), cuts="layers")
        assert any(len(shape) > 1 for shape in model.network.shapes)
        fit(model, GreedySchedule(epochs=2, cache=cache))
        trained.append(weights(model))
    assert torch.equal(*trained)


class Skipping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.fc = nn.Linear(36, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x).relu()
        h = (h + self.norm(self.c(self.b(h).relu().repeat(1, 1, 2, 2)[:, :, :7, :7]))).relu()
        return self.fc(h[:, :, :3, :3].flatten(1))


def runs_of_block_0(model: ForwardForward) -> list[int]:
    """Counts calls of the first block's layers in training, that is without those of validation or of scans."""
    calls = [0]
    model.blocks[0].layers.register_forward_hook(lambda _, x, h: calls.__setitem__(0, calls[0] + 1))
    return calls


def test_outputs_are_computed_once_and_each_block_begins_from_what_was_kept_before_it() -> None:
    model = learner(negatives=FixedPool())
    calls = runs_of_block_0(model)
    fit(model, GreedySchedule(epochs=3), log_every_n_steps=1000)
    # its own three epochs, and once for block 1; block 2 starts from the kept outputs; train/acc once an epoch
    assert calls == [STEPS * 3 + STEPS + 9]


def test_a_redrawn_pool_is_computed_again() -> None:
    trained = []
    for cache in (True, False):
        model = learner(negatives=FixedPool())
        fit(model, GreedySchedule(epochs=3, cache=cache), RefreshNegatives(every_n_epochs=2))
        trained.append(weights(model))
    assert torch.equal(*trained)


def test_without_indices_outputs_are_computed_for_each_batch() -> None:
    batches = [(x, y) for x, y, _ in data()]
    trained = []
    for cache in (None, False):
        torch.manual_seed(0)
        model = ScalableForwardForward(ConvNet(CLASSES, 1, [4, 4]), CLASSES, (1, 5, 5))
        fit(model, GreedySchedule(epochs=2, cache=cache), batches=batches)
        trained.append(weights(model))
    assert torch.equal(*trained)


@pytest.mark.parametrize("stop", [1, 3, 4])
def test_a_run_resumes_in_any_phase(tmp_path: Path, stop: int) -> None:
    whole = learner(negatives=FixedPool())
    fit(whole, GreedySchedule(epochs=2))
    first = learner(negatives=FixedPool())
    keep = ModelCheckpoint(tmp_path, filename="stop", save_top_k=-1)
    fit(first, GreedySchedule(epochs=2), keep, max_epochs=stop, enable_checkpointing=True)
    second = learner(negatives=FixedPool())
    on = ModelCheckpoint(tmp_path, filename="on", save_top_k=-1)
    last = max(tmp_path.glob("*.ckpt"), key=lambda path: path.stat().st_mtime_ns)
    trainer = fit(second, GreedySchedule(epochs=2), on, ckpt_path=last, enable_checkpointing=True)
    assert trainer.current_epoch == 6
    assert (weights(whole) - weights(second)).abs().max() < 1e-6


def test_rates_decay_over_a_blocks_own_epochs() -> None:
    rates: list[list[float]] = []

    class Rates(Callback):
        def on_train_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
            rates.append([o.param_groups[0]["lr"] for o in pl_module.local_optimizers.by_block.values()])

    model = learner(scheduler=CosineToEnd, optimizer=partial(torch.optim.Adam, lr=1.0))
    fit(model, GreedySchedule(epochs=[2, 4, 1]), Rates())
    assert [row[0] for row in rates[:3]] == pytest.approx([1.0, 0.5, 0.0], abs=1e-6)
    assert [row[1] for row in rates[2:7]] == pytest.approx([1.0, 0.853553, 0.5, 0.146447, 0.0], abs=1e-6)
    assert rates[6][2] == 1.0


def test_blocks_that_have_not_begun_have_no_say(tmp_path: Path) -> None:
    waiting: list[set[int]] = []

    class Look(Callback):
        def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
            waiting.append(set(pl_module.network.untrained))

    model = learner(readout=SoftmaxReadout())
    keep = ModelCheckpoint(tmp_path, filename="first", every_n_epochs=1, save_top_k=-1)
    fit(model, GreedySchedule(epochs=1), Look(), keep, enable_checkpointing=True, max_epochs=2)
    assert waiting == [{1, 2}, {2}]
    x = data(1)[0][0]
    scores = model.block_scores(x)
    torch.testing.assert_close(model(x), scores[0].softmax(1) + scores[1].softmax(1))
    copy = learner(readout=SoftmaxReadout())
    copy = type(copy).load_from_checkpoint(sorted(tmp_path.glob("*.ckpt"))[-1])
    assert torch.equal(copy(x), model(x))
    fit(model, GreedySchedule(epochs=1))
    assert model.network.untrained == set()
    torch.testing.assert_close(model(x), sum(s.softmax(1) for s in model.block_scores(x)))


def test_the_best_checkpoint_is_one_of_the_last_phase(tmp_path: Path) -> None:
    class Score(Callback):
        """Falls from epoch to epoch, so that the first would be the best."""

        def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
            pl_module.log("score", 10.0 - trainer.current_epoch)

    for mode, best in (("max", 4), ("min", 5)):
        keep = ModelCheckpoint(tmp_path / mode, monitor="score", mode=mode, filename="{epoch}")
        fit(learner(), GreedySchedule(epochs=2), Score(), keep, enable_checkpointing=True)
        assert [path.name for path in (tmp_path / mode).iterdir()] == [f"epoch={best}.ckpt"]
        assert keep.best_model_score == 10.0 - best


def test_the_user_is_told(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> None:
    with caplog.at_level("INFO"):
        fit(learner(negatives=FixedPool()), GreedySchedule(epochs=2), enable_progress_bar=True)
    said = [record.getMessage() for record in caplog.records if "learns" in record.getMessage()]
    assert said == [
        "epoch 0: block00 learns, from the data",
        "epoch 2: block01 learns, from kept outputs of frozen blocks",
        "epoch 4: block02 learns, from kept outputs of frozen blocks",
    ]
    shown = capsys.readouterr()
    assert all(
        f"Epoch {e}/5, {b}" in shown.out + shown.err for e, b in ((0, "block00"), (3, "block01"), (5, "block02"))
    )


def test_frozen_blocks_take_no_epochs() -> None:
    model = learner()
    model.blocks[1].requires_grad_(False)
    moves = Moves()
    trainer = fit(model, GreedySchedule(epochs=2), moves)
    assert trainer.max_epochs == 4
    assert [row.index(True) for row in moves.moved] == [0, 0, 2, 2]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: GreedySchedule(0), ValueError, "epochs=0: every block needs at least 1 epoch"),
        (lambda: GreedySchedule([2, -1]), ValueError, r"epochs=\[2, -1\]"),
        (lambda: GreedySchedule(1.5), TypeError, "epochs=1.5"),
        (lambda: GreedySchedule(laps=0), ValueError, "laps=0"),
        (lambda: GreedySchedule(cache="yes"), TypeError, "cache='yes'"),
        (lambda: GreedySchedule(cache_memory=-1), ValueError, "cache_memory=-1"),
        (lambda: WindowSchedule([[(2, 2)]]), ValueError, r"windows\[0\]=\[\(2, 2\)\]: give \(first epoch, end\)"),
        (lambda: WindowSchedule([[(0, 3), (2, 4)]]), ValueError, "one after another"),
        (lambda: WindowSchedule([[], []]), ValueError, "let at least one block learn"),
        (lambda: WindowSchedule(3), TypeError, "windows=3"),
    ],
)
def test_bad_arguments(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("schedule", "arguments", "message"),
    [
        (GreedySchedule([1, 1]), {}, r"epochs=\[1, 1\] for 3 blocks: give one number for each"),
        (WindowSchedule([[(0, 1)]]), {}, "windows has 1 entries for 3 blocks"),
        (GreedySchedule(), {"segments": "loss_of_sum"}, "one segment of all blocks"),
        (GreedySchedule(cache=True), {}, r"cache=True is not exact here: negatives=WrongLabel"),
        (GreedySchedule(cache=True), {"negatives": FixedPool(), "augment": RandomShift(1)}, "augment=RandomShift"),
        (
            GreedySchedule(cache=True),
            {"negatives": FixedPool(), "readout": LinearReadout(view="positive")},
            "use view='neutral'",
        ),
    ],
)
def test_what_does_not_fit_the_learner(schedule: Callback, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit(learner(**arguments), schedule)


def test_early_stopping_and_foreign_modules_are_refused() -> None:
    with pytest.raises(ValueError, match="EarlyStopping"):
        fit(learner(), GreedySchedule(), EarlyStopping("val/acc"))
    with pytest.raises(TypeError, match="works on a LocalLearner"):
        GreedySchedule().setup(Trainer(logger=False), nn.Linear(1, 1), "fit")  # type: ignore[arg-type]


def test_outputs_are_not_kept_by_force_without_indices() -> None:
    torch.manual_seed(0)
    model = ScalableForwardForward(ConvNet(CLASSES, 1, [4, 4]), CLASSES, (1, 5, 5))
    with pytest.raises(ValueError, match="cache=True keeps outputs by the samples' index"):
        fit(model, GreedySchedule(epochs=1, cache=True), batches=[(x, y) for x, y, _ in data()])


def test_a_broken_run_leaves_no_schedule() -> None:
    class Broken(Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            raise RuntimeError("broken")

    model = learner()
    with pytest.raises(RuntimeError, match="broken"):
        fit(model, GreedySchedule(), Broken())
    assert not isinstance(model.schedule, Windows)


def test_windows_of_a_lap_follow_each_other() -> None:
    schedule = GreedySchedule(epochs=[1, 2, 3], laps=2)
    windows = schedule.plan(learner())
    spans = sorted(window for of_block in windows for window in of_block)
    assert all(a[1] == b[0] for a, b in pairwise(spans))
    assert spans[-1][1] == 12


def test_an_epoch_without_a_window_learns_nothing_and_logs_no_loss() -> None:
    model, losses = learner(), []

    class Losses(Callback):
        def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, *_: Any) -> None:
            losses.append((trainer.current_epoch, float(outputs["loss"]), weights(pl_module)))

    fit(model, WindowSchedule([[(0, 1)], [], [(2, 3)]]), Losses())
    in_gap = [(loss, state) for epoch, loss, state in losses if epoch == 1]
    before = [state for epoch, _, state in losses if epoch == 0][-1]
    assert len(in_gap) > 0
    assert all(loss == 0.0 and torch.equal(state, before) for loss, state in in_gap)
    assert all(loss > 0 for epoch, loss, _ in losses if epoch != 1)
