"""Values of log intervals that reach the processes of a pipeline while they go on learning."""

from __future__ import annotations

import csv
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint, Timer
from lightning.pytorch.loggers import CSVLogger
from torch.multiprocessing import ProcessRaisedException
from torch.utils.data import DataLoader

from lightning_ff import ForwardForward, LocalPipelineStrategy
from lightning_ff.strategies.post import Post
from tests.strategies.runs import CLASSES, SGD, SHAPE, STEPS, Look, Shares, difference, learner, trained
from tests.strategies.test_shared import together

pytestmark = pytest.mark.skipif(not dist.is_gloo_available(), reason="torch has no gloo here")
Pipeline = partial(LocalPipelineStrategy, start_method="fork", process_group_backend="gloo")


def test_nobody_waits_before_values_are_due(tmp_path: Path) -> None:
    gone = tmp_path / "gone"

    def work(rank: int) -> list[Any]:
        post = Post(["a", "b", "c"], 2, torch.device("cpu"))
        if rank:
            while not gone.exists():  # the first process sends, and goes on
                time.sleep(0.01)
        post.send({"a": 1.0 + rank} if rank < 2 else {"b": float("nan")}, 7, torch.tensor([0, rank]))
        post.send({"a": 5.0, "c": 0.25 * rank}, 8, torch.tensor([rank == 1, 0]))
        found = [post.due()]
        post.next_batch()
        found.append(post.due())
        gone.touch()
        post.next_batch()
        post.send({"b": 3.0}, 9, torch.tensor([0, 0]))
        return [*found, post.due(), post.due(), post.due(everything=True), post.due(everything=True)]

    for answer in together(lambda rank: [[(*news,) for news in each] for each in work(rank)], 3, tmp_path):
        early, still_early, due, none, rest, end = answer
        assert early == still_early == none == end == []
        (values, step, flags), second = due
        assert (values["a"], values.keys(), step, flags) == (1.5, {"a", "b"}, 7, [0, 2])
        assert values["b"] != values["b"]
        assert second == ({"a": 5.0, "c": 0.25}, 8, [1, 0])
        assert rest == [({"b": 3.0}, 9, [0, 0])]


class Seen(Shares):
    """Notes what is known when each batch begins; it is no callback, which might go by it."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(dtype)
        self.seen: list[float | None] = []

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        assert self.trainer is not None
        if self.trainer.training:
            known = self.trainer.callback_metrics.get("train/loss")
            self.seen.append(None if known is None else float(known))
        return batch

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.samples, batch_size=50)


def run(
    folder: Path, processes: int, model: LightningModule | None = None, strategy: Any = None, **flags: Any
) -> list[dict[str, Any]]:
    """Of every process: its log file, what it knew when each batch began, and in the end."""
    torch.set_num_threads(1)
    seed_everything(0, verbose=False)
    data, folder = Seen(), folder / str(processes)

    def see(trainer: Trainer, module: Any) -> None:
        folder.mkdir(exist_ok=True)
        known = {key: float(value) for key, value in trainer.callback_metrics.items()}
        best = {**trainer.checkpoint_callback.best_k_models} if trainer.checkpoint_callback else {}  # type: ignore[attr-defined]
        kept = {Path(path).name: float(value) for path, value in best.items()}
        torch.save({"known": known, "seen": data.seen, "kept": kept}, folder / f"{trainer.global_rank}.pt")

    callbacks = [*flags.pop("callbacks", []), Look(see)]
    trainer = Trainer(
        **{"max_epochs": 2, "logger": CSVLogger(folder, name="", version="log"), **flags},
        accelerator="cpu", devices=processes, strategy=(strategy or Pipeline()) if processes > 1 else "auto",
        num_sanity_val_steps=0, enable_progress_bar=False, enable_model_summary=False, callbacks=callbacks,
    )  # fmt: skip
    trainer.fit(learner("pair") if model is None else model, data)
    found = [torch.load(folder / f"{rank}.pt") for rank in range(processes)]
    if (log := folder / "log" / "metrics.csv").exists():
        rows = [row for row in csv.DictReader(log.read_text().splitlines()) if row["train/loss"]]
        found[0]["rows"] = [{key: value for key, value in row.items() if "train" in key} for row in rows]
        found[0]["steps"] = [(row["epoch"], row["step"]) for row in rows]
    return found


PLAIN: dict[str, Any] = {"enable_checkpointing": False}


@pytest.mark.parametrize("every", [1, 4, 7])
@pytest.mark.parametrize("processes", [2, 3])
def test_loggers_get_what_one_process_logs_and_no_batch_waits_for_it(
    processes: int, every: int, tmp_path: Path
) -> None:
    (one,), (first, *others) = (run(tmp_path, n, log_every_n_steps=every, **PLAIN) for n in (1, processes))
    assert len(one["steps"]) == 2 * STEPS // every
    assert first["steps"] == one["steps"]
    assert first["rows"] == one["rows"]
    # batch 0 of an epoch knows what was logged last in the epoch before; a value is there `processes` batches later
    late = [None] * processes + one["seen"][: STEPS - processes]
    for rank in (first, *others):
        assert rank["known"] == pytest.approx(one["known"], abs=1e-6)
        assert rank["seen"][:STEPS] == late
        assert (rank["seen"][STEPS] is None) == (one["seen"][STEPS] is None)


def test_of_several_pipelines_the_means_are_logged(tmp_path: Path) -> None:
    (one,), grid = run(tmp_path, 1, log_every_n_steps=4, **PLAIN), run(
        tmp_path, 4, strategy=Pipeline(stages=2), log_every_n_steps=4, **PLAIN
    )  # fmt: skip
    assert grid[0]["steps"] == one["steps"]
    for want, got in zip(one["rows"], grid[0]["rows"], strict=True):
        assert {key: float(got[key]) for key in want} == pytest.approx({k: float(v) for k, v in want.items()}, abs=1e-5)
    assert [rank["seen"] for rank in grid[1:]] == [grid[0]["seen"]] * 3
    assert grid[0]["seen"][5] is None  # logged with the fourth batch, known with the sixth
    assert grid[0]["seen"][6] is not None


class Own(Callback):
    """Something of a user's own that acts with a batch, in one process alone."""

    def __init__(self, rank: int) -> None:
        self.rank = rank

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if trainer.global_rank == self.rank:
            self.on_train_batch_end = lambda *_: None  # type: ignore[method-assign, assignment, misc]


class Forward(ForwardForward):
    """Answers in a way of its own."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return -super().forward(x)


STEPWISE = {"every_n_train_steps": 4, "monitor": "train/loss", "save_top_k": -1, "filename": "{step}"}


@pytest.mark.filterwarnings("ignore:Using ModelCheckpoint with manual optimization")
@pytest.mark.parametrize("kind", ["callback", "other callback", "checkpoints", "validation", "forward"])
def test_what_goes_by_values_gets_them_at_once(kind: str, tmp_path: Path) -> None:
    def fitted(processes: int) -> list[dict[str, Any]]:
        flags: dict[str, Any] = {"log_every_n_steps": 4, "max_epochs": 1}
        model = None
        if kind == "checkpoints":
            flags["callbacks"] = [ModelCheckpoint(tmp_path / f"kept{processes}", **STEPWISE)]
        else:
            flags |= PLAIN
        if "callback" in kind:
            flags["callbacks"] = [Own(int("other" in kind) if processes > 1 else 0)]
        if kind == "validation":
            flags["val_check_interval"] = 6
        if kind == "forward":
            seed_everything(0, verbose=False)
            model = Forward(CLASSES, SHAPE, widths=[9, 8, 7], optimizer=SGD)
        return run(tmp_path, processes, model, **flags)

    (one,), two = fitted(1), fitted(2)
    assert two[0]["rows"] == one["rows"]
    for rank in two:
        assert rank["seen"] == pytest.approx(one["seen"], abs=1e-6)
        assert rank["known"] == pytest.approx(one["known"], abs=1e-6)
        assert rank["kept"] == pytest.approx(one["kept"], abs=1e-6)
    assert (len(one["kept"]) == STEPS // 4) == (kind == "checkpoints")


@pytest.mark.parametrize("steps", [8, 9, 10, 11])
def test_a_limit_of_steps_ends_with_all_values(steps: int, tmp_path: Path) -> None:
    (one,), two = (run(tmp_path, n, log_every_n_steps=4, max_steps=steps, **PLAIN) for n in (1, 2))
    assert [step for _, step in one["steps"]] == ["3", "7"]
    assert (two[0]["rows"], two[0]["steps"]) == (one["rows"], one["steps"])
    for rank in two:
        assert rank["known"] == pytest.approx(one["known"], abs=1e-6)


class TakeLong(Callback):
    """The time of `max_time` is up in one process alone, before its first batch."""

    def __init__(self, rank: int) -> None:
        self.rank = rank

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.global_rank == self.rank:
            timer = next(c for c in trainer.callbacks if isinstance(c, Timer))  # type: ignore[attr-defined]
            timer._offset = 3600.0


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(("every", "end"), [(1, 3), (6, 8), (0, STEPS)])
def test_wishes_to_stop_travel_with_the_values(rank: int, every: int, end: int, tmp_path: Path) -> None:
    flags = {"max_time": "00:00:30:00", "max_epochs": 3, "log_every_n_steps": every}
    one = trained(learner("pair"), 1, max_steps=end)
    two = trained(learner("pair"), 2, strategy=Pipeline(), callbacks=[TakeLong(rank)], **flags)
    assert difference(one, two) == 0.0
    if every:
        found = run(tmp_path, 2, callbacks=[TakeLong(rank)], **flags, **PLAIN)
        assert [int(step) for _, step in found[0]["steps"]] == list(range(every - 1, end, every))


class Broken(Shares):
    """The third batch has an image that is no number."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(dtype)
        self.samples.tensors[0][25] = torch.nan


def test_a_loss_that_is_not_finite_ends_all(tmp_path: Path) -> None:
    with pytest.raises(ProcessRaisedException, match="the loss of block00 is nan"):
        trained(learner("pair"), 2, strategy=Pipeline(), data=Broken, log_every_n_steps=4)


class OtherOrder(Shares):
    """Each process draws an order of its own, and keeps count of its batches."""

    def train_dataloader(self) -> DataLoader[Any]:
        order = torch.randperm(len(self.samples), generator=torch.Generator().manual_seed(dist.get_rank())).tolist()
        return DataLoader(self.samples, batch_size=12, sampler=order)

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        assert self.trainer is not None
        with (Path(self.trainer.default_root_dir) / str(self.trainer.global_rank)).open("a") as file:
            file.write(".")
        return batch


def test_other_samples_are_found_out_before_the_epoch_ends(tmp_path: Path) -> None:
    flags = {"log_every_n_steps": 5, "default_root_dir": tmp_path}
    with pytest.raises(ProcessRaisedException, match="the processes of a pipeline read other samples, or in another"):
        trained(learner("class"), 2, strategy=Pipeline(), data=OtherOrder, **flags)
    first, second = (len((tmp_path / rank).read_text()) for rank in "01")
    assert second <= first == 7  # sent after the fifth
