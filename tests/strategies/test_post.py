"""Values of log intervals that reach the processes of a pipeline while they go on learning."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint, Timer
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.profilers import PassThroughProfiler
from torch.multiprocessing import ProcessRaisedException
from torch.utils.data import DataLoader

from lightning_ff import ForwardForward, GoodnessMonitor, LocalPipelineStrategy
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


class Seen(PassThroughProfiler):
    """Notes what is known when each batch begins; it is no callback or data module, which might go by it."""

    trainer: Trainer

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[float | None] = []

    def start(self, action_name: str) -> None:
        if action_name == "run_training_batch":
            known = self.trainer.callback_metrics.get("train/loss")
            self.seen.append(None if known is None else float(known))


class Validated(Shares):
    """With validation data."""

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.samples, batch_size=50)


def run(
    folder: Path, processes: int, model: LightningModule | None = None, data: Any = Validated, **flags: Any
) -> list[dict[str, Any]]:
    """What every process knew when each batch began and in the end; the first with the rows of the log file."""
    torch.set_num_threads(1)
    seed_everything(0, verbose=False)
    seen, folder = Seen(), folder / str(processes)

    def see(trainer: Trainer, module: Any) -> None:
        folder.mkdir(exist_ok=True)
        known = {key: float(value) for key, value in trainer.callback_metrics.items()}
        logged = {key: value.clone() for key, value in trainer.logged_metrics.items() if "train" in key}
        best = {**trainer.checkpoint_callback.best_k_models} if trainer.checkpoint_callback else {}  # type: ignore[attr-defined]
        kept = {Path(path).name: float(value) for path, value in best.items()}
        found = {"known": known, "logged": logged, "seen": seen.seen, "kept": kept}
        torch.save(found, folder / f"{trainer.global_rank}.pt")

    strategy, callbacks = flags.pop("strategy", None) or Pipeline(), [*flags.pop("callbacks", []), Look(see)]
    trainer = Trainer(
        **{"max_epochs": 2, "logger": CSVLogger(folder, name="", version="log"), **flags},
        accelerator="cpu", devices=processes, strategy=strategy if processes > 1 else "auto", profiler=seen,
        num_sanity_val_steps=0, enable_progress_bar=False, enable_model_summary=False, callbacks=callbacks,
    )  # fmt: skip
    seen.trainer = trainer
    trainer.fit(learner("pair") if model is None else model, data())
    found = [torch.load(folder / f"{rank}.pt") for rank in range(processes)]
    return [{**each, "rows": rows(folder)} for each in found]


def rows(folder: Path) -> list[dict[str, str]]:
    """Rows of the log file without what is empty, if there is one."""
    log = folder / "log" / "metrics.csv"
    lines = log.read_text().splitlines() if log.exists() else []
    return [{key: value for key, value in row.items() if value} for row in csv.DictReader(lines)]


def steps(found: dict[str, Any]) -> list[int]:
    """Steps with a training loss in the log file."""
    return [int(row["step"]) for row in found["rows"] if "train/loss" in row]


PLAIN: dict[str, Any] = {"enable_checkpointing": False}


@pytest.mark.parametrize(("processes", "every"), [(2, 1), (2, 4), (3, 1), (3, 7)])
def test_loggers_get_what_one_process_logs_and_no_batch_waits(processes: int, every: int, tmp_path: Path) -> None:
    (one,), all_ = (run(tmp_path, n, log_every_n_steps=every, **PLAIN) for n in (1, processes))
    assert len(steps(one)) == 2 * STEPS // every
    assert all_[0]["rows"] == one["rows"]
    # a value is there `processes` batches later, and with the last batch of an epoch all of them
    late = [None] * processes + one["seen"][: STEPS - processes]
    for rank in all_:
        assert rank["known"] == pytest.approx(one["known"], abs=1e-6)
        assert rank["logged"] == one["logged"]
        assert rank["seen"][:STEPS] == late
        assert rank["seen"][STEPS] == one["seen"][STEPS]


def test_what_else_is_logged_stands_beside_it(tmp_path: Path) -> None:
    def fitted(processes: int) -> list[dict[str, str]]:
        flags = {"log_every_n_steps": 4, "callbacks": [LearningRateMonitor("step")]}
        return run(tmp_path, processes, **flags, **PLAIN)[0]["rows"]

    assert fitted(2) == fitted(1)


def test_without_a_logger_values_are_known(tmp_path: Path) -> None:
    (one,), two = (run(tmp_path, n, logger=False, log_every_n_steps=4, **PLAIN) for n in (1, 2))
    assert one["logged"].keys() >= {"train/loss", "train/loss/block02", "train/acc"}
    for rank in two:
        assert rank["logged"] == one["logged"]
        assert rank["known"] == pytest.approx(one["known"], abs=1e-6)


def test_of_several_pipelines_the_means_are_logged(tmp_path: Path) -> None:
    flags = {"log_every_n_steps": 4, "data": Shares, **PLAIN}
    (one,), grid = run(tmp_path, 1, **flags), run(tmp_path, 4, strategy=Pipeline(stages=2), **flags)
    assert [row.keys() for row in grid[0]["rows"]] == [row.keys() for row in one["rows"]]
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


class Logs(ForwardForward):
    """Logs something in its training step."""

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        answer = super().training_step(batch, batch_idx)
        self.log("mine", float(batch_idx))
        return answer


class Hooked(Validated):
    """A data module that may go by what is known."""

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        assert self.trainer is not None
        known = self.trainer.callback_metrics.get("train/loss", torch.tensor(1.0))
        return [batch[0] * float(known), *batch[1:]]


STEPWISE = {"every_n_train_steps": 4, "monitor": "train/loss", "save_top_k": -1, "filename": "{step}"}
AT_ONCE: dict[str, Any] = {
    "callback": {"callbacks": [Own(0)]},
    "callback of the other process": {"callbacks": [Own(1)]},
    "monitor": {"callbacks": [GoodnessMonitor(histogram_every_n_epochs=0)]},
    "validation": {"val_check_interval": 6},
    "validation at the end of each batch": {"val_check_interval": 1},
    "data": {"data": Hooked},
    "forward": {"model": Forward},
    "training step": {"model": Logs},
    "argument": {"strategy": Pipeline(late_values=False)},
}


@pytest.mark.parametrize("kind", AT_ONCE)
def test_what_may_go_by_values_gets_them_at_once(kind: str, tmp_path: Path) -> None:
    def fitted(processes: int) -> list[dict[str, Any]]:
        flags = {"log_every_n_steps": 4, "max_epochs": 1, **PLAIN, **AT_ONCE[kind]}
        seed_everything(0, verbose=False)
        kind_of = flags.pop("model", ForwardForward)
        return run(tmp_path, processes, kind_of(CLASSES, SHAPE, widths=[9, 8, 7], optimizer=SGD), **flags)

    (one,), two = fitted(1), fitted(2)
    assert two[0]["rows"] == one["rows"]
    for rank in two:
        assert rank["seen"] == pytest.approx(one["seen"], abs=1e-6)
        assert rank["known"] == pytest.approx(one["known"], abs=1e-6)
        assert rank["logged"] == one["logged"]


@pytest.mark.filterwarnings("ignore:Using ModelCheckpoint with manual optimization")
def test_checkpoints_go_by_what_is_known_at_once(tmp_path: Path) -> None:
    (one,), two = (
        run(tmp_path, n, log_every_n_steps=4, callbacks=[ModelCheckpoint(tmp_path / f"kept{n}", **STEPWISE)])
        for n in (1, 2)
    )
    assert len(one["kept"]) == 2 * STEPS // 4
    for rank in two:
        assert rank["kept"] == pytest.approx(one["kept"], abs=1e-6)


@pytest.mark.parametrize("limit", [8, 9])
def test_a_limit_of_steps_ends_with_all_values(limit: int, tmp_path: Path) -> None:
    (one,), two = (run(tmp_path, n, log_every_n_steps=4, max_steps=limit, **PLAIN) for n in (1, 2))
    assert steps(one) == [3, 7]
    assert two[0]["rows"] == one["rows"]
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
        assert steps(found[0]) == list(range(every - 1, end, every))


class Broken(Shares):
    """The third batch has an image that is no number."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(dtype)
        self.samples.tensors[0][25] = torch.nan


def test_a_loss_that_is_not_finite_ends_all(tmp_path: Path) -> None:
    with pytest.raises(ProcessRaisedException, match="the loss of block00 is nan"):
        trained(learner("pair"), 2, strategy=Pipeline(), data=Broken, log_every_n_steps=4)


class Acts(Seen):
    """Something happens in one process with its fifth batch, and before it ends the others have had time."""

    def __init__(self, rank: int, what: str) -> None:
        super().__init__()
        self.rank, self.what, self.batches = rank, what, 0

    def start(self, action_name: str) -> None:
        self.batches += action_name == "run_training_batch"
        if action_name == "run_training_batch" and self.batches == 5 and self.trainer.global_rank == self.rank:
            if self.what == "SIGTERM":
                signal.raise_signal(signal.SIGTERM)
            else:
                time.sleep(1.0)
                raise ArithmeticError("of my own")


def script(folder: Path, rank: int, what: str) -> None:
    """What the processes of the test below do."""
    torch.set_num_threads(1)
    acts = Acts(rank, what)
    trainer = acts.trainer = Trainer(
        accelerator="cpu", devices=2, strategy="ff_pipeline", max_epochs=1, log_every_n_steps=1, profiler=acts,
        logger=CSVLogger(folder, name="", version="log"), enable_progress_bar=False, **PLAIN,
    )  # fmt: skip
    try:
        trainer.fit(learner("pair"), Shares())
    finally:
        (folder / str(trainer.global_rank)).write_text(f"{type(sys.exc_info()[1]).__name__} {trainer.global_step}")


@pytest.mark.parametrize(
    ("rank", "what", "ends"),
    [
        (0, "SIGTERM", {"SIGTERMException 7", "SIGTERMException 6"}),  # the other may be a batch behind when it is told
        (0, "an error", {"ArithmeticError 4"}),
    ],
)
def test_a_run_that_is_told_to_end_or_fails_has_logged_what_has_come(
    rank: int, what: str, ends: set[str], tmp_path: Path
) -> None:
    file = tmp_path / "script.py"
    file.write_text(
        f"from pathlib import Path\nfrom tests.strategies.test_post import script\nscript(Path(), {rank}, {what!r})\n"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, str(file)], capture_output=True, timeout=120, env=environment, cwd=tmp_path)
    files = [tmp_path / str(each) for each in ((0, 1) if what == "SIGTERM" else (rank,))]
    until = time.monotonic() + 30
    while not all(each.exists() and each.read_text() for each in files) and time.monotonic() < until:
        time.sleep(0.1)
    assert len({each.read_text() for each in files}) == 1
    end = files[0].read_text()
    assert end in ends
    assert steps({"rows": rows(tmp_path)}) == list(range(int(end.split()[1])))


class Count(PassThroughProfiler):
    """Writes a mark into a file for each batch."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def start(self, action_name: str) -> None:
        if action_name == "run_training_batch":
            with (self.folder / str(dist.get_rank())).open("a") as file:
                file.write(".")


class OtherOrder(Shares):
    """Each process draws an order of its own."""

    def train_dataloader(self) -> DataLoader[Any]:
        order = torch.randperm(len(self.samples), generator=torch.Generator().manual_seed(dist.get_rank())).tolist()
        return DataLoader(self.samples, batch_size=12, sampler=order)


def test_other_samples_are_found_out_before_the_epoch_ends(tmp_path: Path) -> None:
    flags = {"log_every_n_steps": 5, "profiler": Count(tmp_path)}
    with pytest.raises(ProcessRaisedException, match="the processes of a pipeline read other samples, or in another"):
        trained(learner("class"), 2, strategy=Pipeline(), data=OtherOrder, **flags)
    first, second = (len((tmp_path / rank).read_text()) for rank in "01")
    assert second <= first == 7  # sent after the fifth
