"""Every bad run gives a clear error, be it for its data, its callbacks or the Trainer: a table as for arguments."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import StochasticWeightAveraging
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import DataLoader, IterableDataset, TensorDataset
from typing_extensions import override

from lightning_ff import (
    AllWrongLabels,
    CosineToEnd,
    FixedPool,
    HybridImages,
    LinearReadout,
    LocalBlock,
    LocalLearner,
    MeanSquare,
    MineNegatives,
    MixNegatives,
    NegativePictures,
    NegativeSampler,
    PixelOverlay,
    RefreshNegatives,
    SwitchNegatives,
    SymBa,
    ThresholdLoss,
    Unlabelled,
    WrongLabel,
)
from lightning_ff.data import Digits
from tests.integration.bad_input import OPTIMIZER, Bad, class_block, does, layer, network, refused

CLASSES = torch.arange(8)
IMAGE = torch.rand(1, 8, 8)


def fitted(*parts: str, trainer: dict[str, Any] | None = None, **arguments: Any) -> Bad:
    """A fit of a learner with these arguments."""
    return Bad(lambda w: w.fit(w.learner(**arguments), **(trainer or {})), parts)


def fed(*parts: str, error: type[Exception] = ValueError, data: Any, use: str = "fit", **arguments: Any) -> Bad:
    """A run of a learner on these data."""
    return Bad(lambda w: getattr(w.trainer(max_epochs=1), use)(w.learner(**arguments), data), parts, error)


def class_learner(negatives: NegativeSampler | None = None) -> LocalLearner:
    return LocalLearner(network(class_block()), negatives=negatives)


def shared_learner() -> LocalLearner:
    twin = layer(8)
    layers = [layer(), twin, twin]
    return LocalLearner(network(*(LocalBlock(x, MeanSquare(), ThresholdLoss()) for x in layers), labels=PixelOverlay()))


def samples(channels: int = 1, labels: Any = CLASSES) -> DataLoader[Any]:
    return DataLoader(TensorDataset(torch.rand(8, channels, 8, 8), labels), batch_size=4)


def typed(kind: torch.dtype) -> DataLoader[Any]:
    return DataLoader(TensorDataset(torch.ones(8, 1, 8, 8, dtype=kind), CLASSES), batch_size=4)


class Few(NegativeSampler):
    """A sampler with fewer negatives than positives."""

    @override
    def forward(self, x: Tensor, y: Tensor, index: Tensor, learner: Any) -> Tensor:
        return learner.labels(x, (y + 1) % 10)[:3]


class Stream(IterableDataset[Any]):
    """Samples without a known number."""

    @override
    def __iter__(self) -> Iterator[Any]:
        yield from zip(torch.rand(8, 1, 8, 8), CLASSES, strict=True)


class Foreign(LightningModule):
    """A module that is not a learner."""

    @override
    def training_step(self, batch: Any, batch_idx: int) -> None: ...

    @override
    def configure_optimizers(self) -> Any:
        return OPTIMIZER


SMALL = Digits(batch_size=16, val_size=40, train_size=8)
FOUR = DataLoader(TensorDataset(*[torch.rand(8, 1, 8, 8)] * 4), batch_size=4)
STREAM = {"train_dataloaders": DataLoader(Stream(), batch_size=4)}
FEW_EPOCHS = {**STREAM, "max_epochs": 2}
SCALER = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))
UNLABELLED: dict[str, Any] = {"labels": Unlabelled(), "readout": LinearReadout()}
PLATEAU = ReduceLROnPlateau
DATA: dict[str, Bad] = {
    "label above": fed("labels lie in [", "9] but num_classes=7", "raise num_classes", data=SMALL, num_classes=7),
    "label above, validation": fed("9] but num_classes=7", "number", data=SMALL, use="validate", num_classes=7),
    "label below 0": fed("labels lie in [-1, 2]", "number the classes from 0", data=samples(labels=CLASSES - 1)),
    "bytes": fed("torch.uint8", "image.float() / 255", data=typed(torch.uint8), error=TypeError),
    "float64": fed("torch.float64", "'64-true'", data=typed(torch.float64), use="test", error=TypeError),
    "several validation loaders": fed(
        "val has several loaders", "ConcatDataset", data=[samples(), samples()], use="validate"
    ),
    "labels no integers": fed("torch.float32", "give class numbers (N,)", data=samples(labels=CLASSES.float())),
    "one-hot labels": fed("shape (4, 8)", "give class numbers (N,)", data=samples(labels=torch.eye(8).long())),
    "an image alone": fed(
        "not a Tensor",
        "(image, label[, index])",
        data=DataLoader(torch.rand(8, 1, 8, 8), batch_size=4),
        error=TypeError,
    ),
    "four tensors": fed("a list of ['Tensor', 'Tensor', ", "(image, label[, index])", data=FOUR, error=TypeError),
    "no labels": fed(
        "'class'",
        "a dict with the keys image, label and",
        data=DataLoader([{"image": IMAGE, "class": 3}]),
        error=TypeError,
    ),
    "text": fed("a list of ['str']", "(image, label", data=DataLoader(["a", "b"]), error=TypeError),
    "no image to predict": fed(
        "'picture'", "dict with 'image'", data=DataLoader([{"picture": IMAGE}]), use="predict", error=TypeError
    ),
    "fixed pool": fed("=FixedPool", "index, which this", "yield (image, lab", data=samples(), negatives=FixedPool()),
    **{
        f"other images, {use}": fed("shape (3, 8, 8)", "input_shape=(1, 8, 8)", "change", data=samples(3), use=use)
        for use in ("fit", "validate", "test", "predict")
    },
}
RUNS: dict[str, Bad] = {
    "sampler in class mode": does(
        lambda w: w.fit(class_learner(WrongLabel())), "negatives=WrongLabel", "class mode", "leave the argument out"
    ),
    "no negatives possible": fitted(
        "negatives=None", "HybridImages() for images", "input_shape=(64,) is not", input_shape=(64,), **UNLABELLED
    ),
    "wrong labels not written": fitted(
        "negatives=WrongLabel", "=Unlabelled writes none", "or a label encoding", negatives=WrongLabel(), **UNLABELLED
    ),
    "scan without labels": fitted("readout=SumReadout", "=Unlabelled", "use LinearReadout", labels=Unlabelled()),
    "hybrids of flat inputs": fitted(
        "=HybridImages", "=(64,)", "needs im", negatives=HybridImages(), input_shape=(64,)
    ),
    "refreshing another sampler": fitted("=WrongLabel", "remove it or", trainer={"callbacks": [RefreshNegatives()]}),
    "too few for SymBa": fitted("3 negatives for 16 positives", "or ThresholdLoss", loss=SymBa(), negatives=Few()),
    "shared weights": does(
        lambda w: w.fit(shared_learner()), "shape (8, 8)", "block01 and to block02", "give every block its own"
    ),
    "nothing to train": does(
        lambda w: w.fit(w.learner().requires_grad_(False)),
        "no block has a trainable parameter",
        "unfreeze at least one",
    ),
    "unknown block": fitted("block_optimizers", "'layer*'", "block00", block_optimizers={"layer*": torch.optim.Adam}),
    "cosine without end": fitted(
        "=CosineToEnd", "max_epochs=-1", "set max_epochs or", scheduler=CosineToEnd, trainer={"max_epochs": -1}
    ),
    "cosine over unknown epochs": fitted(
        "='epoch'",
        "a loader of inf batches",
        "or give total",
        scheduler=CosineToEnd,
        trainer={**STREAM, "max_steps": 3},
    ),
    "cosine over unknown steps": fitted(
        "='step'", "max_steps=-1", "give total", scheduler=CosineToEnd, scheduler_interval="step", trainer=FEW_EPOCHS
    ),
    "plateau without validation": fitted(
        "=ReduceLROnPlateau", "this run has none", "give val", scheduler=PLATEAU, trainer={"limit_val_batches": 0}
    ),
    "plateau by steps": fitted(
        "scheduler_interval='step'", "leave the interval out", scheduler=PLATEAU, scheduler_interval="step"
    ),
    "a metric for no plateau": fitted("='val/acc'", "leave it out", scheduler=CosineToEnd, scheduler_monitor="val/acc"),
    "optimizer of closures": fitted("is LBFGS", "such as torch.optim.Adam", optimizer=torch.optim.LBFGS),
    "optimizer of nothing to learn": fitted(
        "has 'readout'", "fits none of", "block00", block_optimizers={"readout": torch.optim.Adam}
    ),
    "ddp with many backwards": fitted(
        "strategy='ddp'",
        "backward='summed'",
        trainer={"strategy": DDPStrategy(process_group_backend="gloo"), "devices": 1},
    ),
    "plateau's metric": fitted("monitor='loss'", "val/loss", scheduler=PLATEAU, scheduler_monitor="loss"),
    "mining's metric": fitted("monitor='acc'", "val/acc", trainer={"callbacks": [MineNegatives(monitor="acc")]}),
    "clipping by the Trainer": fitted(
        "gradient_clip_val=0.5", "remove it", "give the learner", trainer={"gradient_clip_val": 0.5}
    ),
    "accumulation by the Trainer": fitted(
        "accumulate_grad_batches=4", "remove it", "the learner", trainer={"accumulate_grad_batches": 4}
    ),
    "stochastic weight averaging": fitted(
        "StochasticWeightAveraging", "remove it", trainer={"callbacks": [StochasticWeightAveraging(0.1)]}
    ),
    "block steps with a loss scale": fitted(
        "step='block'", "precision='16-mixed'", "use step='batch'", step="block", trainer={"plugins": [SCALER]}
    ),
}
for name, callback in {
    "mining": MineNegatives,
    "switching": partial(SwitchNegatives, {0: WrongLabel()}),
    "mixing": partial(MixNegatives, [WrongLabel(), AllWrongLabels()], [0.5, 0.5]),
    "refreshing": RefreshNegatives,
    "pictures": NegativePictures,
}.items():
    for place, make in {"not on class mode": class_learner, "not on Foreign": Foreign}.items():
        RUNS[f"{name} {place}"] = does(
            lambda w, make=make, callback=callback: w.fit(make(), samples(), callbacks=[callback()]),
            *(place, "LocalLearner in pair mode", "remove it"),
            error=TypeError,
        )

CASES = {f"{table}: {name}": bad for table, rows in {"data": DATA, "run": RUNS}.items() for name, bad in rows.items()}


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_named_with_its_remedy(world: SimpleNamespace, case: str) -> None:
    refused(CASES[case], world)
