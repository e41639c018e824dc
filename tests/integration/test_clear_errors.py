"""Errors that would come from torch or Lightning, in words of what was given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn

from lightning_ff import (
    CorruptCheckpoint,
    CrossEntropy,
    ForwardForward,
    LinearGoodness,
    LocalBlock,
    LocalLearner,
    LocalNetwork,
    SumReadout,
)
from lightning_ff.data import BatchLoader, Digits

QUIET: dict[str, Any] = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "max_epochs": 1}
QUIET |= {"enable_checkpointing": False}


def normed() -> LocalLearner:
    layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8))
    return LocalLearner(
        LocalNetwork([LocalBlock(layers, LinearGoodness(), CrossEntropy())], (1, 8, 8), 10, SumReadout())
    )


def test_batch_norm_and_one_sample() -> None:
    loader = BatchLoader(torch.rand(5, 1, 8, 8), torch.arange(5), batch_size=2)
    with pytest.raises(ValueError, match=r"a batch of one sample has no statistics .*: give .* drop_last=True"):
        Trainer(**QUIET).fit(normed(), loader)
    loader = BatchLoader(torch.rand(5, 1, 8, 8), torch.arange(5), batch_size=2, drop_last=True)
    Trainer(**QUIET).fit(normed(), loader)


class Bytes(nn.Module):
    def forward(self, x: Tensor) -> Any:
        return (x * 255).byte()


class Crop(nn.Module):
    def forward(self, x: Tensor) -> Any:
        return x[..., 1:]


class Twice(nn.Module):
    def forward(self, x: Tensor) -> Any:
        return x, x


@pytest.mark.parametrize(
    ("augment", "message"),
    [
        (
            Bytes(),
            r"augment maps \(2, 1, 8, 8\) of torch.float32 to \(2, 1, 8, 8\) of torch.uint8: keep the size",
        ),
        (Crop(), r"augment maps \(2, 1, 8, 8\) of torch.float32 to \(2, 1, 8, 7\)"),
        (Twice(), "augment gives a tuple: it maps images"),
    ],
)
def test_augmentations_of_another_size_or_type(augment: nn.Module, message: str) -> None:
    loader = BatchLoader(torch.rand(4, 1, 8, 8), torch.arange(4), batch_size=2)
    with pytest.raises((TypeError, ValueError), match=message):
        Trainer(**QUIET).fit(ForwardForward(10, (1, 8, 8), widths=[8], augment=augment), loader)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_images_of_half_precision(dtype: torch.dtype) -> None:
    loader = BatchLoader(torch.rand(4, 1, 8, 8), torch.arange(4), batch_size=2, scale=lambda x: x.to(dtype))
    model = ForwardForward(10, (1, 8, 8), widths=[8])
    with pytest.raises(TypeError, match=rf"inputs of type {dtype} do not fit weights of type torch.float32: convert"):
        Trainer(**QUIET).fit(model, loader)
    if dtype == torch.bfloat16:
        Trainer(**QUIET, precision="bf16-mixed").fit(ForwardForward(10, (1, 8, 8), widths=[8]), loader)


def save(file: Path, **flags: Any) -> ForwardForward:
    model = ForwardForward(10, (1, 8, 8), widths=[8])
    trainer = Trainer(**QUIET, limit_train_batches=1, limit_val_batches=0)
    trainer.fit(model, Digits())
    trainer.save_checkpoint(file, **flags)
    return model


def test_files_that_are_no_checkpoints(tmp_path: Path) -> None:
    file = tmp_path / "a.ckpt"
    model = save(file)
    whole = torch.load(file, weights_only=True)
    for content, message in (
        (model.state_dict(), r"a.ckpt' holds a state_dict, no checkpoint of Lightning: load weights by"),
        ([1, 2], r"a.ckpt' holds a list, no checkpoint of Lightning"),
    ):
        torch.save(content, file)
        with pytest.raises(CorruptCheckpoint, match=message):
            Trainer(**QUIET).test(model, Digits(), ckpt_path=file)
    torch.save(whole, file, _use_new_zipfile_serialization=False)
    with pytest.raises(CorruptCheckpoint, match=r"is of torch's old file format.*save it again"):
        ForwardForward.load_from_checkpoint(file)
    torch.save(torch.load(file), file)
    ForwardForward.load_from_checkpoint(file)


@pytest.mark.parametrize("key", ["optimizer_states", "lr_schedulers", "loops"])
def test_checkpoints_that_lack_a_state_are_not_resumed(tmp_path: Path, key: str) -> None:
    file = tmp_path / "a.ckpt"
    save(file)
    saved = torch.load(file, weights_only=True)
    del saved[key]
    torch.save(saved, file)
    with pytest.raises(ValueError, match=rf"the checkpoint has no {key}, as one of save_weights_only=True"):
        Trainer(**{**QUIET, "max_epochs": 2}).fit(ForwardForward(10, (1, 8, 8), widths=[8]), Digits(), ckpt_path=file)


def test_a_loss_of_torch_is_no_part() -> None:
    with pytest.raises(TypeError, match=r"loss=.* is a CrossEntropyLoss: give a LocalLoss, such as ThresholdLoss"):
        ForwardForward(10, (1, 8, 8), widths=[8], loss=nn.CrossEntropyLoss())  # type: ignore[arg-type]
