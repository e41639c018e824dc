"""`ff_pipeline` on two gloo processes: bit for bit the run of one process on the same batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch.callbacks
import pytest
import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.strategies import StrategyRegistry
from torch.multiprocessing import ProcessRaisedException
from torch.utils.data import DataLoader

from lightning_ff import (
    GreedySchedule,
    HardLabel,
    IntervalReadout,
    LinearReadout,
    LocalPipelineStrategy,
    MeanReadout,
    RandomShift,
    SparsityMonitor,
    Stage,
    SwitchNegatives,
)
from lightning_ff.strategies.balance import balanced, ranges
from tests.strategies.runs import ADAMW, SGD, USUAL, Look, Pipeline, Shares, Validated, difference, learner, trained

pytestmark = pytest.mark.skipif(not dist.is_gloo_available(), reason="torch has no gloo here")


@pytest.mark.parametrize("mode", ["pair", "class"])
@pytest.mark.parametrize("optimizer", [SGD, ADAMW], ids=["SGD", "AdamW"])
def test_weights_are_bit_for_bit_those_of_one_process(mode: str, optimizer: Any) -> None:
    start = learner(mode, optimizer).state_dict()
    one, two = trained(learner(mode, optimizer), 1), trained(learner(mode, optimizer), 2, strategy=Pipeline())
    assert difference(one, two) == 0.0
    assert difference(start, two) > 1e-3


@pytest.mark.parametrize(
    ("mode", "arguments"),
    [
        ("pair", {"step": "block"}),
        ("pair", {"accumulate_grad_batches": 3}),
        ("pair", {"gradient_clip_val": 0.05}),
        ("pair", {"readout": LinearReadout()}),
        ("pair", {"readout": LinearReadout(view="positive")}),
        ("class", {"readout": LinearReadout()}),
        ("class", {"step": "block", "refresh_output": True}),
        ("class", {"augment": RandomShift(1)}),
        ("class", {"channels_last": True, "readout": LinearReadout()}),
    ],
    ids=str,
)
@pytest.mark.parametrize("blocks", [[1, 2], [2, 1]], ids=str)
def test_every_way_to_step_and_to_read(mode: str, arguments: dict[str, Any], blocks: list[int]) -> None:
    one = trained(learner(mode, ADAMW, **arguments), 1)
    two = trained(learner(mode, ADAMW, **arguments), 2, strategy=Pipeline(blocks=blocks))
    assert difference(one, two) == 0.0


class Shuffled(Shares):
    """A shuffled torch loader with a last batch that is smaller, and validation data."""

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.samples, batch_size=13, shuffle=True)

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.samples, batch_size=50)

    test_dataloader = predict_dataloader = val_dataloader


def run(model: LightningModule, folder: Path, processes: int, **flags: Any) -> dict[str, Any]:
    """Two epochs with validation: the checkpoint, and the metrics of every process."""
    torch.set_num_threads(1)
    seed_everything(3, verbose=False)
    file = folder / f"{processes}.ckpt"

    def see(trainer: Trainer, module: Any) -> None:
        trainer.save_checkpoint(file)
        measured = {key: float(value) for key, value in trainer.callback_metrics.items()}
        torch.save(measured, folder / f"{processes}-{trainer.global_rank}.pt")

    quiet = {**USUAL, "max_epochs": 2, "log_every_n_steps": 4, "enable_progress_bar": False, **flags}
    strategy = Pipeline() if processes > 1 else "auto"
    trainer = Trainer(**quiet, devices=processes, strategy=strategy, enable_model_summary=False, callbacks=[Look(see)])
    trainer.fit(model, Shuffled())
    saved = torch.load(file, weights_only=False)
    measured = [torch.load(folder / f"{processes}-{rank}.pt") for rank in range(processes)]
    return {**saved, "measured": measured}


def states(saved: dict[str, Any]) -> dict[str, torch.Tensor]:
    """All tensors of the optimizer's state, by parameter and name."""
    (optimizer,) = saved["optimizer_states"]
    return {f"{p}/{key}": value for p, state in optimizer["state"].items() for key, value in state.items()}


@pytest.mark.parametrize("readout", [MeanReadout(), IntervalReadout()], ids=["mean", "interval"])
def test_checkpoints_and_measures_are_those_of_one_process(tmp_path: Path, readout: Any) -> None:
    mode = "class"
    one = run(learner(mode, ADAMW, readout=readout), tmp_path, 1)
    two = run(learner(mode, ADAMW, readout=readout), tmp_path, 2)
    assert difference(one["state_dict"], two["state_dict"]) == 0.0
    assert len(states(one)) >= 3 * 3
    assert difference(states(one), states(two)) == 0.0
    assert {key: one[key] for key in ("epoch", "global_step")} == {key: two[key] for key in ("epoch", "global_step")}
    (alone,) = one["measured"]
    for rank in two["measured"]:
        for key in ("val/acc", "val/acc/block00", "val/loss", "train/loss", "train/loss/block01", "train/acc"):
            assert rank[key] == pytest.approx(alone[key], abs=1e-6), key


def test_a_run_goes_on_from_a_checkpoint_of_one_process_and_the_other_way_round(tmp_path: Path) -> None:
    alone = trained(learner("pair", ADAMW), 1, max_epochs=2)
    for processes in (1, 2):
        flags: dict[str, Any] = {**USUAL, "max_epochs": 2, "enable_progress_bar": False}
        save = Look(lambda trainer, module: trainer.save_checkpoint(tmp_path / "again.ckpt"))
        strategy = Pipeline() if processes == 1 else "auto"
        trainer = Trainer(**flags, devices=3 - processes, strategy=strategy, callbacks=[save])
        half = run_one_epoch(learner("pair", ADAMW), tmp_path, processes)
        trainer.fit(learner("pair", ADAMW), Shares(), ckpt_path=half)
        again = torch.load(tmp_path / "again.ckpt", weights_only=False)
        assert difference(again["state_dict"], alone) == 0.0


def run_one_epoch(model: LightningModule, folder: Path, processes: int) -> Path:
    file = folder / f"half{processes}.ckpt"
    save = Look(lambda trainer, module: trainer.save_checkpoint(file))
    trained(model, processes, strategy=Pipeline(), callbacks=[save], enable_checkpointing=False)
    return file


class Keep(Callback):
    """Saves the predictions of each process."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.predictions = folder, []  # type: ignore[var-annotated]

    def on_predict_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any) -> None:
        self.predictions.append(outputs)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        torch.save(self.predictions, self.folder / f"{trainer.world_size}-{trainer.global_rank}.pt")


def test_predictions_are_in_every_process(tmp_path: Path) -> None:
    for processes in (1, 2):
        strategy = Pipeline() if processes > 1 else "auto"
        flags: dict[str, Any] = {**USUAL, "enable_progress_bar": False, "callbacks": [Keep(tmp_path)]}
        trainer = Trainer(**flags, devices=processes, strategy=strategy)
        trainer.predict(learner("pair"), Shuffled(), return_predictions=False)
    one, *two = (torch.load(tmp_path / f"{name}.pt") for name in ("1-0", "2-0", "2-1"))
    assert len(one) > 1
    for rank in two:
        for want, got in zip(one, rank, strict=True):
            assert want.keys() == got.keys()
            assert all(torch.equal(want[key], got[key]) for key in want)


class OtherOrder(Shares):
    """Each process draws its own order."""

    def train_dataloader(self) -> DataLoader[Any]:
        order = torch.randperm(len(self.samples), generator=torch.Generator().manual_seed(dist.get_rank())).tolist()
        return DataLoader(self.samples, batch_size=12, sampler=order)


def test_processes_that_read_other_samples_are_found_out() -> None:
    with pytest.raises(ProcessRaisedException, match="the processes of a pipeline read different samples, or in a dif"):
        trained(learner("class"), 2, strategy=Pipeline(), data=OtherOrder, log_every_n_steps=5)


def test_a_checkpoint_after_the_run_is_whole_too(tmp_path: Path) -> None:
    def fit(processes: int) -> dict[str, Any]:
        strategy = Pipeline() if processes > 1 else "auto"
        flags: dict[str, Any] = {**USUAL, "enable_progress_bar": False}
        trainer = Trainer(
            **flags, devices=processes, strategy=strategy, callbacks=[SaveLate(tmp_path / f"{processes}.ckpt")]
        )
        trainer.fit(learner("class", ADAMW), Shares())
        return dict(torch.load(tmp_path / f"{processes}.ckpt", weights_only=False))

    one, two = fit(1), fit(2)
    assert difference(one["state_dict"], two["state_dict"]) == 0.0
    assert len(states(one)) >= 3 * 3
    assert difference(states(one), states(two)) == 0.0


class SaveLate(Callback):
    """Saves after the strategy has reset the stage, as after `fit`."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        stage, pl_module.network.stage = pl_module.network.stage, Stage()  # type: ignore[union-attr]
        trainer.save_checkpoint(self.file)
        pl_module.network.stage = stage  # type: ignore[union-attr, assignment]


def test_half_precision_validates() -> None:
    flags: dict[str, Any] = {"data": Validated, "precision": "bf16-true"}
    one, two = trained(learner("class"), 1, **flags), trained(learner("class"), 2, strategy=Pipeline(), **flags)
    assert difference(one, two) == 0.0


def averaging() -> list[Callback]:
    """Lightning's callback that averages weights, where this version has it."""
    cls = getattr(lightning.pytorch.callbacks, "EMAWeightAveraging", None)
    return [EMAWeightAveraging() if cls is None else cls()]


class EMAWeightAveraging(Callback):
    """Replaces it in an older Lightning."""

    needs_all_blocks = True


@pytest.mark.parametrize(
    ("arguments", "strategy", "flags", "message"),
    [
        ({"segments": "loss_of_sum"}, {}, {}, "segments='loss_of_sum' makes all blocks one segment"),
        ({"negatives": HardLabel()}, {}, {}, "need the scores of all blocks before the first one learns"),
        ({}, {"blocks": [1, 1]}, {}, r"blocks=\[1, 1\] of ff_pipeline must be 2 numbers of at least 1"),
        ({}, {"blocks": [3, 0]}, {}, r"blocks=\[3, 0\] of ff_pipeline must be 2 numbers"),
        ({}, {"stages": 3}, {}, "2 processes are no whole number of pipelines of 3 stages: choose `stages` or"),
        ({}, {}, {"callbacks": [SwitchNegatives({0: HardLabel()})]}, "need the scores of all blocks before"),
        ({}, {}, {"callbacks": [SparsityMonitor()]}, "SparsityMonitor looks at all blocks in one process"),
        ({}, {}, {"callbacks": [GreedySchedule()], "max_epochs": -1}, "GreedySchedule looks at all blocks"),
        ({}, {}, {"callbacks": averaging()}, "EMAWeightAveraging looks at all blocks"),
    ],
)
def test_what_needs_all_blocks_is_refused(
    arguments: dict[str, Any], strategy: dict[str, Any], flags: dict[str, Any], message: str
) -> None:
    with pytest.raises(ProcessRaisedException, match=message):
        trained(learner("pair", **arguments), 2, strategy=Pipeline(**strategy), **flags)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"blocks": "3, 2"}, TypeError, "blocks='3, 2' is a str: give the number of blocks of each stage"),
        ({"stages": 2.0}, TypeError, "stages=2.0 is a float: give the number of processes of one pipeline"),
        ({"stages": 0}, ValueError, "stages=0 must be at least 1"),
        ({"stages": 3, "blocks": [1, 2]}, ValueError, r"blocks=\[1, 2\] must be stages=3 numbers"),
        ({"compression": "fp8"}, ValueError, "compression='fp8': choose 'bf16', or None"),
    ],
    ids=str,
)
def test_arguments(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        LocalPipelineStrategy(**arguments)


@pytest.mark.parametrize(
    ("costs", "parts", "want"),
    [
        ([1, 1, 1, 1], 2, [2, 2]),
        ([1, 1, 1, 3], 2, [3, 1]),
        ([5, 1, 1, 1], 2, [1, 3]),
        ([2, 2, 2, 2, 2], 3, [1, 2, 2]),
        ([1, 9, 1], 3, [1, 1, 1]),
    ],
)
def test_the_slowest_process_has_least_to_do(costs: list[float], parts: int, want: list[int]) -> None:
    got = balanced(costs, parts)
    assert sum(got) == len(costs)
    most = max(sum(costs[k] for k in own) for own in ranges(got))
    assert most == max(sum(costs[k] for k in own) for own in ranges(want))


@pytest.mark.parametrize(("name", "method"), [("ff_pipeline", "popen"), ("ff_pipeline_fork", "fork")])
def test_names(name: str, method: str) -> None:
    strategy = StrategyRegistry.get(name)
    assert isinstance(strategy, LocalPipelineStrategy)
    assert strategy._start_method == method
