"""User-defined data: plain loaders of tuples and dicts, iterables, a DataModule with its own transfer hook."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset
from typing_extensions import override

from lightning_ff import AppendOneHot, FixedPool, HardLabel, PixelOverlay, WrongLabel
from lightning_ff.data import BatchLoader, Digits


@pytest.fixture
def stored() -> tuple[Tensor, Tensor]:
    """80 digits as they are stored, 0 to 16, and their labels."""
    images, labels = Digits().read(train=True)
    return images[:80], labels[:80]


class Rows(Dataset[Any]):
    """Samples in any form."""

    def __init__(self, rows: list[Any]) -> None:
        self.rows = rows

    @override
    def __getitem__(self, index: int) -> Any:
        return self.rows[index]

    def __len__(self) -> int:
        return len(self.rows)


class Flow(IterableDataset[Any]):
    """Samples one after another, without a length."""

    def __init__(self, rows: list[Any]) -> None:
        self.rows = rows

    @override
    def __iter__(self) -> Iterator[Any]:
        yield from self.rows


FORMS = {
    "tuples": lambda x, y: TensorDataset(x, y),
    "small integers": lambda x, y: TensorDataset(x, y.to(torch.uint8)),
    "pairs with int labels": lambda x, y: Rows([(image, int(label)) for image, label in zip(x, y, strict=True)]),
    "dicts": lambda x, y: Rows([{"image": image, "label": int(c)} for image, c in zip(x, y, strict=True)]),
    "dicts of x and y": lambda x, y: Rows([{"id": f"{c}", "y": c, "x": image} for image, c in zip(x, y, strict=True)]),
    "a flow": lambda x, y: Flow(list(zip(x, y, strict=True))),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_batches_teaches_the_same(
    learner: Any, trainer: Any, same: Any, stored: tuple[Tensor, Tensor], form: str
) -> None:
    images, labels = stored[0].float() / 16, stored[1]
    expected, found = learner(), learner()
    for model, data in ((expected, TensorDataset(images, labels)), (found, FORMS[form](images, labels))):
        runner = trainer(max_epochs=10)
        runner.fit(model, DataLoader(data, batch_size=16), DataLoader(data, batch_size=40))
        assert runner.global_step == 50
        assert float(runner.callback_metrics["val/acc"]) > 0.4
    assert same(found, expected)


@pytest.mark.parametrize("negatives", [WrongLabel(seed=3), HardLabel(start_epoch=0), FixedPool()])
def test_a_loader_that_gives_the_index_teaches_the_same_as_ours(
    learner: Any, trainer: Any, same: Any, stored: tuple[Tensor, Tensor], negatives: Any
) -> None:
    images, labels = stored[0].float() / 16, stored[1]
    ours, theirs, dicts = (learner(negatives=negatives) for _ in range(3))
    index = torch.arange(80)
    rows = [{"index": i, "image": image, "label": y} for i, (image, y) in enumerate(zip(images, labels, strict=True))]
    trainer(max_epochs=2).fit(ours, BatchLoader(images, labels, batch_size=16))
    trainer(max_epochs=2).fit(theirs, DataLoader(TensorDataset(images, labels, index), batch_size=16))
    trainer(max_epochs=2).fit(dicts, DataLoader(Rows(rows), batch_size=16))
    assert same(theirs, ours)
    assert same(dicts, ours)


def test_without_an_index_samples_of_all_batches_draw_on_their_own(learner: Any, trainer: Any) -> None:
    drawn: list[Tensor] = []

    class Recording(WrongLabel):
        @override
        def forward(self, x: Tensor, y: Tensor, index: Tensor, learner: Any) -> Tensor:
            drawn.append(index)
            return super().forward(x, y, index, learner)

    data = TensorDataset(torch.rand(48, 1, 8, 8), torch.arange(48) % 10)
    trainer(max_epochs=2).fit(learner(negatives=Recording()), DataLoader(data, batch_size=16, shuffle=True))
    first, second = torch.cat(drawn[:3]), torch.cat(drawn[3:])
    assert len(first.unique()) == 48
    assert torch.equal(first, second)  # the epoch makes the draws differ


class Raw(LightningDataModule):
    """Yields stored images as bytes and converts them to floats in its own hook, which replaces the learner's."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        super().__init__()
        self.rows = TensorDataset(images, labels)
        self.moved = 0

    @override
    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.rows, batch_size=16)

    @override
    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.rows, batch_size=40)

    @override
    def predict_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.rows, batch_size=40)

    @override
    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        self.moved += 1
        return {"image": batch[0].float() / 16, "label": batch[1]}


def test_a_data_module_with_its_own_transfer_hook(
    learner: Any, trainer: Any, same: Any, stored: tuple[Tensor, Tensor]
) -> None:
    expected, found = (learner(augment=nn.Dropout(0.1)) for _ in range(2))
    data = Raw(*stored)
    scaled = TensorDataset(stored[0].float() / 16, stored[1])
    for model, loaders in ((expected, [DataLoader(scaled, batch_size=16)]), (found, [data])):
        torch.manual_seed(4)
        trainer(max_epochs=2, limit_val_batches=0).fit(model, *loaders)
    assert data.moved == 10
    assert same(found, expected)
    trainer().validate(found, data, verbose=False)
    parts = trainer().predict(found, data)
    assert data.moved == 10 + 2 + 2
    assert torch.equal(torch.cat([part["label"] for part in parts]), found(scaled.tensors[0]).argmax(1))
    assert all("index" not in part for part in parts)


@pytest.mark.parametrize("form", ["tensors", "tuples", "dicts"])
def test_images_without_labels_can_be_predicted(
    learner: Any, trainer: Any, stored: tuple[Tensor, Tensor], form: str
) -> None:
    images, model = stored[0].float() / 16, learner()
    forms: dict[str, Any] = {
        "tensors": Rows(list(images)),
        "tuples": TensorDataset(images),
        "dicts": Rows([{"image": image, "idx": number} for number, image in enumerate(images)]),
    }
    parts = trainer().predict(model, DataLoader(forms[form], batch_size=32))
    torch.testing.assert_close(torch.cat([part["scores"] for part in parts]), model(images).detach())
    if form == "dicts":
        assert torch.cat([part["index"] for part in parts]).tolist() == list(range(80))


def test_several_loaders_can_be_predicted(learner: Any, trainer: Any, stored: tuple[Tensor, Tensor]) -> None:
    images, model = stored[0].float() / 16, learner()
    first, second = trainer().predict(model, [DataLoader(images[:30], 30), DataLoader(images[30:], 50)])
    found = torch.cat([first[0]["scores"], second[0]["scores"]])
    torch.testing.assert_close(found, model(images).detach())


@pytest.mark.parametrize("shape", [(64,), (8, 8)])
def test_an_error_of_another_cause_is_not_laid_to_the_shape(
    learner: Any, trainer: Any, stored: tuple[Tensor, Tensor], shape: tuple[int, ...]
) -> None:
    """A fully connected net flattens its input, so images of another shape are right, and the sampler's fault stays."""

    class Faulty(WrongLabel):
        @override
        def forward(self, *_: Any) -> Tensor:
            raise RuntimeError("no negatives today")

    images = stored[0].float().view(-1, *shape) / 16
    loader = DataLoader(TensorDataset(images, stored[1]), batch_size=16)
    arguments: dict[str, Any] = {"labels": AppendOneHot()}
    trainer(max_epochs=1).fit(learner(**arguments), loader)
    with pytest.raises(RuntimeError, match=r"^no negatives today$"):
        trainer(max_epochs=1).fit(learner(negatives=Faulty(), **arguments), loader)


def test_an_open_on_value_without_a_known_maximum_is_told(
    learner: Any, digits: Any, trainer: Any, stored: tuple[Tensor, Tensor], caplog: Any
) -> None:
    foreign = DataLoader(TensorDataset(stored[0].float(), stored[1]), batch_size=16)
    with caplog.at_level("INFO"):
        trainer(max_steps=1).fit(learner(), digits())
        trainer(max_steps=1).fit(learner(labels=PixelOverlay(2.0)), foreign)
        assert "labels are written with" not in caplog.text
        trainer(max_steps=1).fit(learner(), foreign)
    assert "labels are written with 1.0" in caplog.text


def test_an_encoded_label_is_as_bright_as_said_or_else_as_our_data_module_says(
    learner: Any, digits: Any, trainer: Any, stored: tuple[Tensor, Tensor]
) -> None:
    foreign = DataLoader(TensorDataset(stored[0].float(), stored[1]), batch_size=16)
    brightness = {}
    for name, labels, data in (
        ("foreign", PixelOverlay(), foreign),
        ("foreign, said", PixelOverlay(on_value=16.0), foreign),
        ("ours", PixelOverlay(), digits(scaling="standard")),
    ):
        model = learner(labels=labels)
        trainer(max_steps=1).fit(model, data)
        brightness[name] = float(model.labels.on)
    assert brightness == {"foreign": 1.0, "foreign, said": 16.0, "ours": pytest.approx((1 - 0.3054) / 0.3761)}


def test_resuming_with_a_foreign_loader_warns(
    learner: Any, trainer: Any, tmp_path: Any, stored: tuple[Tensor, Tensor]
) -> None:
    loader = DataLoader(TensorDataset(stored[0].float() / 16, stored[1]), batch_size=16, shuffle=True)
    keep = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=1, save_top_k=-1)
    trainer(max_epochs=2, callbacks=[keep], enable_checkpointing=True).fit(learner(), loader)
    runner = trainer(max_epochs=2)
    with pytest.warns(UserWarning, match="your dataloader is not resumable"):
        runner.fit(learner(), loader, ckpt_path=tmp_path / "step=8.ckpt")
    assert runner.global_step == 10
    trainer(max_epochs=2).fit(
        learner(), loader, ckpt_path=tmp_path / "step=5.ckpt"
    )  # the end of an epoch is no problem
