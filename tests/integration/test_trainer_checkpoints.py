"""Checkpoints of a real Trainer: when they are written, what can be done with them, and that they stay good."""

from __future__ import annotations

import inspect
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch import Tensor, nn
from typing_extensions import override

from lightning_ff import (
    AppendOneHot,
    CorruptCheckpoint,
    CrossEntropy,
    ForwardForward,
    Goodness,
    HardLabel,
    LinearGoodness,
    LinearReadout,
    LocalBlock,
    LocalLearner,
    LocalNetwork,
    Mixture,
    NonFiniteLoss,
    NormGoodness,
    PeerNormalization,
    SoftmaxReadout,
    SumReadout,
    SymBa,
    WrongLabel,
)

# The argument is younger than the oldest Lightning that is supported.
WEIGHTS_ONLY = (
    {"weights_only": True}
    if "weights_only" in inspect.signature(LightningModule.load_from_checkpoint).parameters
    else {}
)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*.ckpt")}


def every_step(folder: Path) -> ModelCheckpoint:
    return ModelCheckpoint(folder, "{step}", every_n_train_steps=1, save_top_k=-1)


@pytest.mark.parametrize("settings", [{}, {"accumulate_grad_batches": 2}, {"step": "block"}])
def test_cadence_and_names_count_optimizer_steps(
    learner: Any, digits: Any, trainer: Any, tmp_path: Path, settings: dict[str, Any]
) -> None:
    keep = ModelCheckpoint(tmp_path / "kept", "{step}", every_n_train_steps=10, save_top_k=-1)
    trainer(max_steps=35, callbacks=[keep], enable_checkpointing=True).fit(learner(**settings), digits())
    assert names(tmp_path / "kept") == {"step=10.ckpt", "step=20.ckpt", "step=30.ckpt"}
    saved = torch.load(tmp_path / "kept" / "step=20.ckpt", weights_only=True)
    assert saved["global_step"] == 20
    assert {entry["step"].item() for entry in saved["optimizer_states"][0]["state"].values()} == {20}


@pytest.mark.filterwarnings("ignore:.*called with Trainer configured with multiple")
def test_the_best_and_the_last_are_kept_and_can_be_tested(
    learner: Any, digits: Any, trainer: Any, tally: Any, tmp_path: Path, same: Any
) -> None:
    model, data = learner(), digits()
    keep = ModelCheckpoint(tmp_path, "best-{epoch}", monitor="val/acc", mode="max")
    # save_last=True of the callback above would leave last.ckpt at the epoch that was best last
    end = ModelCheckpoint(tmp_path, "last", enable_version_counter=False)
    runner = trainer(max_epochs=8, callbacks=[keep, end, tally], enable_checkpointing=True)
    runner.fit(model, data)
    best = max(range(8), key=lambda epoch: tally.validations[epoch])
    assert best < 7  # else the test could not tell the two apart: take other seeds
    assert names(tmp_path) == {f"best-epoch={best}.ckpt", "last.ckpt"}
    assert float(keep.best_model_score) == tally.validations[best]

    last = ForwardForward.load_from_checkpoint(tmp_path / "last.ckpt", **WEIGHTS_ONLY)
    assert same(last, model)
    results = {which: runner.test(ckpt_path=which, datamodule=data, verbose=False)[0] for which in ("best", "last")}
    chosen = ForwardForward.load_from_checkpoint(keep.best_model_path, **WEIGHTS_ONLY)
    assert not same(chosen, last)
    for which, loaded in (("best", chosen), ("last", last)):
        assert trainer().test(loaded, data, verbose=False)[0] == results[which]
    assert trainer().validate(chosen, data, verbose=False)[0]["val/acc"] == tally.validations[best]


PARTS: dict[str, dict[str, Any]] = {
    "partial": {"optimizer": partial(torch.optim.AdamW, lr=0.02, weight_decay=0.5, betas=(0.5, 0.75))},
    "parts": {
        "goodness": NormGoodness(1),
        "loss": SymBa(alpha=2.0),
        "labels": AppendOneHot(on_value=3.0),
        "readout": SoftmaxReadout(skip_first=True),
        "terms": [PeerNormalization(weight=0.25)],
        "negatives": Mixture([WrongLabel(seed=3), HardLabel(fraction=0.5)], [0.75, 0.25], seed=2),
        "block_optimizers": {"block01": partial(torch.optim.SGD, lr=0.5)},
        "scheduler": partial(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.5),
        "normalization": "layer",
    },
}


def reload(path: Path, **arguments: Any) -> ForwardForward:
    torch.manual_seed(99)
    return ForwardForward.load_from_checkpoint(path, **WEIGHTS_ONLY, **arguments)


@pytest.mark.parametrize("case", PARTS)
def test_a_checkpoint_made_from_python_is_plain_data_and_learns_on_alike(
    learner: Any, digits: Any, trainer: Any, tmp_path: Path, same: Any, case: str
) -> None:
    model, data = learner(**PARTS[case]), digits()
    runner = trainer(max_epochs=2)
    runner.fit(model, data)
    runner.save_checkpoint(tmp_path / "a.ckpt")
    torch.load(tmp_path / "a.ckpt", weights_only=True)
    loaded = reload(tmp_path / "a.ckpt")
    assert loaded.hparams == model.hparams
    assert str(loaded.network) == str(model.network)
    assert str(loaded.negatives) == str(model.negatives)
    assert same(loaded, model)
    images = torch.rand(9, 1, 8, 8)
    assert torch.equal(loaded(images), model(images))
    for each in (model, loaded):
        trainer(max_epochs=3).fit(each, digits())
    assert str(loaded.local_optimizers) == str(model.local_optimizers)
    assert same(loaded, model)


def test_blocks_and_networks_are_given_again(
    learner: Any, digits: Any, trainer: Any, tmp_path: Path, same: Any
) -> None:
    def layers() -> list[nn.Module]:
        return [nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU()), nn.Sequential(nn.Linear(8, 4), nn.ReLU())]

    model, runner = learner(blocks=layers()), trainer(max_epochs=1)
    runner.fit(model, digits())
    runner.save_checkpoint(tmp_path / "blocks.ckpt")
    assert same(reload(tmp_path / "blocks.ckpt", blocks=layers()), model)
    with pytest.raises(ValueError, match=r"blocks=None: .* give them to load_from_checkpoint again"):
        reload(tmp_path / "blocks.ckpt")

    def network() -> LocalNetwork:
        blocks = [LocalBlock(layer, LinearGoodness(), CrossEntropy()) for layer in layers()]
        return LocalNetwork(blocks, (1, 8, 8), 10, SumReadout())

    plain, runner = LocalLearner(network(), optimizer=partial(torch.optim.SGD, lr=0.25)), trainer(max_epochs=1)
    runner.fit(plain, digits())
    runner.save_checkpoint(tmp_path / "network.ckpt")
    again = LocalLearner.load_from_checkpoint(tmp_path / "network.ckpt", network=network(), **WEIGHTS_ONLY)
    assert same(again, plain)
    assert again.optimizer.keywords == {"lr": 0.25}  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"load_from_checkpoint\(path, network=\.\.\.\)"):
        LocalLearner.load_from_checkpoint(tmp_path / "network.ckpt")


@pytest.mark.parametrize("argument", ["optimizer", "block_optimizers"])
def test_an_optimizer_without_a_name_has_to_be_given_again(
    learner: Any, digits: Any, trainer: Any, tmp_path: Path, same: Any, argument: str
) -> None:
    def unnamed(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=0.25)

    given = unnamed if argument == "optimizer" else {"block01": unnamed}
    model, runner = learner(**{argument: given}), trainer(max_epochs=1)
    runner.fit(model, digits())
    runner.save_checkpoint(tmp_path / "a.ckpt")
    loaded = reload(tmp_path / "a.ckpt")  # predicts
    assert same(loaded, model)
    where = "optimizer" if argument == "optimizer" else r"block_optimizers\['block01'\]"
    with pytest.raises(ValueError, match=rf"not saved in the checkpoint \({where}: .*give it again"):
        trainer(max_epochs=1).fit(loaded, digits())
    again = reload(tmp_path / "a.ckpt", **{argument: given})
    trainer(max_epochs=1).fit(again, digits())
    assert again.local_optimizers.by_block["block01"].param_groups[0]["lr"] == 0.25


class Squares(Goodness):
    """A goodness that does not keep its argument, so that no checkpoint can describe it."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.factor = scale

    @override
    def forward(self, h: Tensor) -> Tensor:
        return self.factor * h.flatten(1).square().mean(1)


def test_a_part_that_cannot_be_described_has_to_be_given_again(
    learner: Any, digits: Any, trainer: Any, tmp_path: Path, same: Any
) -> None:
    model, runner = learner(goodness=Squares(2.0), terms=[PeerNormalization()]), trainer(max_epochs=1)
    runner.fit(model, digits())
    runner.save_checkpoint(tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match=r"goodness: Squares does not keep its argument 'scale'.*give it again"):
        reload(tmp_path / "a.ckpt")
    assert same(reload(tmp_path / "a.ckpt", goodness=Squares(2.0)), model)


class Poison(Callback):
    """Makes the weights of a module, or the images, not-a-number before batch `batch` (or after it)."""

    def __init__(self, target: str, batch: int, after: bool = False) -> None:
        self.target, self.batch, self.after = target, batch, after

    def _poison(self, pl_module: LightningModule) -> None:
        with torch.no_grad():
            next(pl_module.get_submodule(self.target).parameters()).view(-1)[0] = torch.nan

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.fit_loop.total_batch_idx == self.batch and not self.after:
            if self.target == "image":
                batch.image[0] = torch.nan
            else:
                self._poison(pl_module)

    @override
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if trainer.fit_loop.total_batch_idx == self.batch and self.after:
            self._poison(pl_module)


POISONS = {
    "image": ("image", False, "the loss of block00 is nan"),
    "block00": ("network.blocks.0", False, "the loss of block00 is nan"),
    "block01": ("network.blocks.1", False, "the loss of block01 is nan"),
    "readout": ("network.readout", False, "the loss of readout is nan"),
    "saving block01": ("network.blocks.1", True, "the weights of block01 are no longer finite"),
    "saving readout": ("network.readout", True, "the weights of readout are no longer finite"),
}


@pytest.mark.parametrize("case", POISONS)
@pytest.mark.parametrize("step", ["batch", "block"])
def test_not_a_number_stops_the_run_and_the_last_checkpoint_stays_good(
    learner: Any, digits: Any, trainer: Any, tmp_path: Path, case: str, step: str
) -> None:
    target, after, message = POISONS[case]
    model = learner(readout=LinearReadout(skip_first=False), step=step)
    keep = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=1, save_last=True)
    runner = trainer(max_epochs=3, callbacks=[Poison(target, 7, after), keep], enable_checkpointing=True)
    with pytest.raises(NonFiniteLoss, match=message):
        runner.fit(model, digits())
    assert names(tmp_path) == {"step=7.ckpt", "last.ckpt"}
    for name in names(tmp_path):
        saved = torch.load(tmp_path / name, weights_only=True)
        assert saved["global_step"] == 7
        state = [v for entry in saved["optimizer_states"][0]["state"].values() for v in entry.values()]
        assert all(value.isfinite().all() for value in [*saved["state_dict"].values(), *state])
    resumed = reload(tmp_path / "last.ckpt")
    finisher = trainer(max_epochs=3)
    finisher.fit(resumed, digits(), ckpt_path=tmp_path / "last.ckpt")
    assert finisher.global_step == 15


@pytest.mark.parametrize(("every", "batches"), [(1, 8), (5, 10), (50, 10)])
def test_not_a_number_is_found_without_checkpoints_too(
    learner: Any, digits: Any, trainer: Any, tally: Any, every: int, batches: int
) -> None:
    runner = trainer(max_epochs=3, callbacks=[Poison("network.blocks.1", 7), tally], log_every_n_steps=every)
    with pytest.raises(NonFiniteLoss, match=r"the loss of block01 is nan.*gradient_clip_val"):
        runner.fit(learner(), digits())
    assert len(tally.batches) == batches  # at the end of the interval, or at the next validation


@pytest.mark.parametrize("damage", ["truncated", "changed", "empty"])
def test_a_damaged_checkpoint_is_named(learner: Any, digits: Any, trainer: Any, tmp_path: Path, damage: str) -> None:
    model, data, runner = learner(), digits(), trainer(max_epochs=1)
    runner.fit(model, data)
    path = tmp_path / "a.ckpt"
    runner.save_checkpoint(path)
    content = path.read_bytes()
    weight = model.blocks[0].layers[1].weight.detach().numpy().tobytes()
    broken = {"truncated": content[: len(content) // 2], "changed": content.replace(weight[:8], bytes(8)), "empty": b""}
    path.write_bytes(broken[damage])
    uses = {
        "fit": lambda: trainer(max_epochs=2).fit(learner(), data, ckpt_path=path),
        "validate": lambda: trainer().validate(learner(), data, ckpt_path=path),
        "test": lambda: runner.test(model, data, ckpt_path=path),
        "predict": lambda: trainer().predict(learner(), data, ckpt_path=str(path)),
        "load": lambda: reload(path),
    }
    for use in uses.values():
        with pytest.raises(CorruptCheckpoint, match=r"ckpt_path='.*a\.ckpt' is damaged .*: use an earlier one"):
            use()
    with pytest.raises(FileNotFoundError, match=r"b\.ckpt"):
        trainer().test(learner(), data, ckpt_path=tmp_path / "b.ckpt")
