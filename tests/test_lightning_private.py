"""Lightning's private names that the package uses exist, behave as expected, and are used in one file only."""

from __future__ import annotations

import ast
import signal
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter, ModelCheckpoint, ModelSummary, Timer
from lightning.pytorch.cli import LightningCLI, SaveConfigCallback
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.trainer.states import TrainerFn
from typing_extensions import override

import lightning_ff.cli
from lightning_ff import ForwardForward, MineNegatives, _lightning
from lightning_ff.data import Digits
from lightning_ff.learner.resume import WholeFileIO

PACKAGE = Path(lightning_ff.__file__).parent


class Counts(Callback):
    """Records the count of batches during each one, and the step that a value is logged at."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    @override
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.seen.append(_lightning.batches_seen(trainer))
        pl_module.log("count", float(self.seen[-1]))


def learn(folder: Path, epochs: int, *callbacks: Callback, resume: Path | None = None) -> Trainer:
    trainer = Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        max_epochs=epochs,
        logger=CSVLogger(folder),
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
        callbacks=list(callbacks),
    )
    model = ForwardForward(10, (1, 8, 8), [8], accumulate_grad_batches=4)
    trainer.fit(model, Digits(batch_size=16, train_size=8, val_size=20), ckpt_path=resume)
    return trainer


@pytest.mark.filterwarnings(
    "ignore:Be aware that when using `ckpt_path`",
    "ignore:Using ModelCheckpoint with manual optimization",
)
@pytest.mark.parametrize(
    ("cadence", "start"),
    [
        ({"every_n_train_steps": 1}, 4),  # the first step is after 4 batches, the second after the last of 5
        ({"save_on_train_epoch_end": True}, 5),
        ({"save_on_train_epoch_end": False}, 5),
    ],
)
def test_batches_are_counted_over_epochs_and_resumes_whatever_the_steps(
    tmp_path: Path, cadence: dict[str, Any], start: int
) -> None:
    counts = Counts()
    trainer = learn(tmp_path, 2, counts, ModelCheckpoint(tmp_path / "kept", "{step}", save_top_k=-1, **cadence))
    assert counts.seen == list(range(10))
    assert trainer.global_step == 4
    assert _lightning.batches_seen(trainer) == 10
    rows = (Path(trainer.logger.log_dir) / "metrics.csv").read_text().splitlines()  # type: ignore[union-attr, arg-type]
    names, table = rows[0].split(","), [row.split(",") for row in rows[1:]]
    step, count = names.index("step"), names.index("count")
    assert [(row[step], float(row[count])) for row in table if row[count]] == [(str(n), float(n)) for n in range(10)]

    resumed = Counts()
    learn(tmp_path, 2, resumed, resume=min((tmp_path / "kept").iterdir()))
    assert resumed.seen == list(range(start, 10))


def test_a_module_knows_whether_it_has_a_trainer() -> None:
    module, trainer = BoringModel(), Trainer(accelerator="cpu", logger=False)
    assert _lightning.trainer_of(module) is None
    with pytest.raises(RuntimeError, match="is not attached to a `Trainer`"):
        _ = module.trainer
    trainer.strategy.connect(module)
    module.trainer = trainer
    assert _lightning.trainer_of(module) is trainer


def test_a_state_key_tells_callbacks_with_other_arguments_apart() -> None:
    keys = [_lightning.state_key(MineNegatives(), **arguments) for arguments in ({"a": 1}, {"a": 2}, {"a": 1})]
    assert keys[0] != keys[1]
    assert keys[0] == keys[2]
    assert "MineNegatives" in keys[0]
    assert MineNegatives(seed=1).state_key != MineNegatives().state_key != MineNegatives(monitor="val/loss").state_key


def test_every_process_reads_all_samples_in_the_loaders_order() -> None:
    trainer = Trainer(accelerator="cpu", logger=False)
    assert trainer._accelerator_connector.use_distributed_sampler
    _lightning.disable_distributed_sampler(trainer)
    assert not trainer._accelerator_connector.use_distributed_sampler


def test_nothing_is_broadcast_around_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A later Lightning may rename these: all processes of a pipeline would then synchronize at every batch."""
    trainer = Trainer(accelerator="cpu", logger=False, max_time={"hours": 1})
    (timer,) = [callback for callback in trainer.callbacks if isinstance(callback, Timer)]  # type: ignore[attr-defined]
    asked: list[str] = []
    monkeypatch.setattr(torch.distributed, "broadcast", lambda *_, **__: asked.append("signal"))
    monkeypatch.setattr(trainer.strategy, "broadcast", lambda value: asked.append("time") or value)

    def batch() -> list[str]:
        asked.clear()
        trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor()
        timer.on_train_batch_end(trainer)
        return asked

    assert batch() == ["signal", "time"]
    stops = _lightning.StopRequests(trainer)
    assert batch() == []
    assert stops.poll() == [False, False]
    timer._offset = 3601.0
    assert batch() == []
    assert trainer.should_stop
    assert stops.poll() == [True, False]
    assert not trainer.should_stop
    assert stops.poll() == [True, False]
    stops.apply(stop=True, end=False)
    assert trainer.should_stop


def test_being_told_to_end_is_kept_until_it_is_granted() -> None:
    trainer = Trainer(accelerator="cpu", logger=False)
    stops = _lightning.StopRequests(trainer)
    trainer.state.fn = TrainerFn.FITTING
    trainer._signal_connector.register_signal_handlers()
    try:
        signal.raise_signal(signal.SIGTERM)
    finally:
        trainer._signal_connector.teardown()
    assert not trainer.received_sigterm
    assert stops.poll() == [False, True]
    stops.apply(stop=False, end=True)
    assert trainer.received_sigterm
    assert stops.poll() == [False, False]


@pytest.mark.parametrize("subcommand", [True, False])
def test_a_setting_of_the_command_line(subcommand: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["program"])
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # of what Lightning calls
    found: list[Any] = []

    class Probe(LightningCLI):
        @override
        def instantiate_trainer(self, **kwargs: Any) -> Trainer:
            found.append(
                [_lightning.setting(self, self.config_init, f"trainer.{key}") for key in ("max_epochs", "logger")]
            )
            return super().instantiate_trainer(**kwargs)

        def fit(self, *_: Any, **__: Any) -> None: ...

    arguments = ["--trainer.max_epochs", "7", "--trainer.accelerator", "cpu"]
    monkeypatch.setattr(Trainer, "fit", lambda *_, **__: None)
    arguments = ["fit", *arguments] if subcommand else arguments
    Probe(BoringModel, run=subcommand, args=arguments, save_config_callback=None, seed_everything_default=0)
    assert found == [[7, None]]


LIGHTNING_CLASSES = (
    BasePredictionWriter,
    Callback,
    DDPStrategy,
    LightningCLI,
    LightningModule,
    ModelCheckpoint,
    ModelSummary,
    SaveConfigCallback,
    SingleDeviceStrategy,
    TorchCheckpointIO,
    Trainer,
    pl.LightningDataModule,
)


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def lightning_names() -> set[str]:
    """Private names of Lightning's classes that the package derives from, of classes and of instances."""
    names = {name for kind in LIGHTNING_CLASSES for name in dir(kind)}
    made = (LightningModule(), Trainer(accelerator="cpu", logger=False), pl.LightningDataModule(), TorchCheckpointIO())
    names |= {name for thing in made for name in vars(thing)}
    torch_module = set(dir(__import__("torch").nn.Module())) | set(vars(__import__("torch").nn.Module()))
    return {name for name in names if private(name)} - torch_module


def own_names(trees: list[ast.Module]) -> set[str]:
    """Private names that the package defines itself: functions, methods, attributes of `self`."""
    nodes = [node for tree in trees for node in ast.walk(tree)]
    functions = {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
    stored = {node.attr for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)}
    return {name for name in functions | stored if private(name)}


# torch's and Python's own, not Lightning's
ELSEWHERE = {"_version", "_milestones", "_replace", "_getframe", "_exit"}


def uses(tree: ast.Module, theirs: set[str], own: set[str]) -> Iterator[str]:
    """Lightning's private names: on `self`, on other objects, in imports and as text."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and private(node.attr) and node.attr not in ELSEWHERE:
            on_self = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            if node.attr not in own or (node.attr in theirs and not on_self):
                yield f"{ast.unparse(node)} (line {node.lineno})"
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lightning."):
            parts = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
            yield from (f"import of {part} (line {node.lineno})" for part in parts if private(part))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in theirs - own:
            yield f"{node.value!r} (line {node.lineno})"


def test_no_other_file_touches_private_names() -> None:
    trees = {str(file.relative_to(PACKAGE)): ast.parse(file.read_text()) for file in sorted(PACKAGE.rglob("*.py"))}
    del trees["_torch.py"]  # which has its own test
    theirs, own = lightning_names(), own_names([tree for file, tree in trees.items() if file != "_lightning.py"])
    assert {"_trainer", "_generate_state_key", "_get", "_fabric"} <= theirs - own
    found = {file: touched for file, tree in trees.items() if (touched := list(uses(tree, theirs, own)))}
    assert len(found.pop("_lightning.py")) == 18
    assert found == {}


def test_the_scan_finds_what_it_looks_for() -> None:
    code = """
from lightning.pytorch.utilities._pytree import x
from lightning.pytorch.trainer import _y
trainer._logger_connector.z
self._trainer
self._own, other._own
getattr(self, "_fabric")
"""
    found = list(uses(ast.parse(code), lightning_names(), {"_own"}))
    assert [each.split(" (")[0] for each in sorted(found)] == [
        "'_fabric'",
        "import of _pytree",
        "import of _y",
        "self._trainer",
        "trainer._logger_connector",
    ]


def test_our_private_names_hide_none_of_lightnings() -> None:
    learner, data = ForwardForward(10, (1, 8, 8), [8]), Digits()
    callbacks = [getattr(lightning_ff.callbacks, name) for name in lightning_ff.callbacks.__all__]
    for kind, base, made in (
        (ForwardForward, LightningModule, learner),
        (Digits, pl.LightningDataModule, data),
        (lightning_ff.cli.CLI, LightningCLI, None),
        (WholeFileIO, TorchCheckpointIO, None),
        *((callback, ModelSummary if issubclass(callback, ModelSummary) else Callback, None) for callback in callbacks),
    ):
        ours = {name for each in kind.__mro__ if each.__module__.startswith("lightning_ff") for name in vars(each)}
        ours |= set(vars(made)) - set(vars(base())) if made is not None else set()
        hidden = {name for name in ours if private(name)} & set(dir(base))
        assert hidden <= {"_abc_impl", _lightning.PARSE_CHECKPOINT}, kind  # every abstract class has its own


def test_a_signal_that_comes_while_processes_ask_each_other_is_kept() -> None:
    trainer = Trainer(accelerator="cpu", logger=False)
    trainer.state.fn = TrainerFn.FITTING
    stops = _lightning.StopRequests(trainer)
    asked = stops.poll()
    trainer._signal_connector._sigterm_notifier_fn(signal.SIGTERM, None)
    stops.apply(*asked)
    assert not trainer.received_sigterm
    assert stops.poll() == [False, True]
    stops.apply(False, True)
    assert trainer.received_sigterm
    assert stops.poll() == [False, False]


def test_what_the_newest_private_names_are_for(tmp_path: Path) -> None:
    assert callable(getattr(LightningCLI, _lightning.PARSE_CHECKPOINT, None)) or version_of_lightning() < (2, 6)
    timed = pl.callbacks.ModelCheckpoint(tmp_path, train_time_interval=timedelta(seconds=3))
    assert _lightning.saves_by_time(timed)
    assert not _lightning.saves_by_time(pl.callbacks.ModelCheckpoint(tmp_path))
    found: list[object] = []

    class Looks(Callback):
        def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
            found.append(_lightning.given_loader(trainer))

    data = Digits(batch_size=500)
    data.setup("fit")
    loader = data.train_dataloader()
    flags: Any = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "callbacks": [Looks()]}
    trainer = Trainer(accelerator="cpu", max_epochs=1, **flags)
    trainer.fit(ForwardForward(10, (1, 8, 8), [8]), loader, [loader])
    trainer.validate(ForwardForward(10, (1, 8, 8), [8]), [loader], verbose=False)
    assert found == [loader, loader]


def version_of_lightning() -> tuple[int, ...]:
    return tuple(map(int, pl.__version__.split(".")[:2]))
