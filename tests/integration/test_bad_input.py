"""Every bad input gives a clear error: one table of what is done, and what the message must hold.

A message names the argument, its value and the remedy, in this order in the table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import StochasticWeightAveraging
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import DataLoader, IterableDataset, TensorDataset
from typing_extensions import override

from lightning_ff import (
    AllWrongLabels,
    AppendOneHot,
    CosineToEnd,
    CrossEntropy,
    FixedPool,
    Goodness,
    GoodnessMonitor,
    HardLabel,
    HybridImages,
    LabelChannel,
    LinearGoodness,
    LinearReadout,
    LocalBlock,
    LocalLearner,
    LocalNetwork,
    MeanSquare,
    MineNegatives,
    MixNegatives,
    Mixture,
    NegativePictures,
    NegativeSampler,
    Normalize,
    NormGoodness,
    PeerNormalization,
    PixelOverlay,
    RefreshNegatives,
    SumReadout,
    SwitchNegatives,
    SymBa,
    ThresholdLoss,
    Unlabelled,
    WrongLabel,
)
from lightning_ff.data import Digits

CLASSES = torch.arange(8)
IMAGE = torch.rand(1, 8, 8)
OPTIMIZER = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 0.1)


class Bad(NamedTuple):
    """What is done with the fixtures, what the message holds, and the error's type."""

    act: Callable[[Any], object]
    parts: tuple[str, ...]
    error: type[Exception] = ValueError


def does(act: Callable[[Any], object], *parts: str, error: type[Exception] = ValueError) -> Bad:
    return Bad(act, parts, error)


def made(*parts: str, error: type[Exception] = ValueError, **arguments: Any) -> Bad:
    """A learner with these arguments."""
    return Bad(lambda w: w.learner(**arguments), parts, error)


def fitted(*parts: str, trainer: dict[str, Any] | None = None, **arguments: Any) -> Bad:
    """A fit of a learner with these arguments."""
    return Bad(lambda w: w.fit(w.learner(**arguments), **(trainer or {})), parts)


def fed(*parts: str, error: type[Exception] = ValueError, data: Any, use: str = "fit", **arguments: Any) -> Bad:
    """A run of a learner on these data."""
    return Bad(lambda w: getattr(w.trainer(max_epochs=1), use)(w.learner(**arguments), data), parts, error)


def layer(inputs: int = 64, outputs: int = 8) -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, outputs), nn.ReLU())


def block(*goodness_and_loss: Any, inputs: int = 64, **arguments: Any) -> LocalBlock:
    return LocalBlock(layer(inputs), *goodness_and_loss, **arguments)


def pair_block(inputs: int = 64) -> LocalBlock:
    return block(MeanSquare(), ThresholdLoss(), inputs=inputs)


def class_block(inputs: int = 64) -> LocalBlock:
    return block(LinearGoodness(), CrossEntropy(), inputs=inputs)


def network(*blocks: LocalBlock, labels: Any = None) -> LocalNetwork:
    return LocalNetwork(blocks, (1, 8, 8), 10, SumReadout(), labels)


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


class Column(Goodness):
    """A goodness of one column instead of one number per sample."""

    @override
    def forward(self, h: Tensor) -> Tensor:
        return h.square().mean(1, keepdim=True)


class Stream(IterableDataset[Any]):
    """Samples without a known number."""

    @override
    def __iter__(self) -> Iterator[Any]:
        yield from zip(torch.rand(8, 1, 8, 8), CLASSES, strict=True)


class Foreign(LightningModule):
    """A module that is no learner."""

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

LEARNER: dict[str, Bad] = {
    "no widths": made("widths=[]", "give one number of units per layer", widths=[]),
    "width 0": made("widths=[16, 0]", "each at least 1", widths=[16, 0]),
    "negative width": made("widths=[-1]", "each at least 1", widths=[-1]),
    "neither widths nor blocks": made("widths=None, blocks=None", "give one of the two", widths=None),
    "widths and blocks": made("widths=[8], blocks=[Seq", "give one of the two", widths=[8], blocks=[layer()]),
    "no blocks": made("blocks=[]", "give at least one", blocks=[]),
    "one class": made("num_classes=1", "must be at least 2", num_classes=1),
    "no input shape": made("input_shape=()", "give the shape of one input", input_shape=()),
    "empty input": made("input_shape=(0, 8, 8)", "every size at least 1", input_shape=(0, 8, 8)),
    "too few pixels": made("=PixelOverlay", "(2, 3, 3) has 9", "use AppendOneHot", input_shape=(2, 3, 3)),
    "label channel": made("LabelChannel needs images", "=(64,)", input_shape=(64,), labels=LabelChannel()),
    "activation": made("activation='swish'", "choose one of relu", activation="swish"),
    "normalization": made("normalization='batch'", "choose one of l2", normalization="batch"),
    "segments": made("segments='all'", "choose 'local'", segments="all"),
    "backward": made("backward='joint'", "choose one of 'per_block'", backward="joint"),
    "step": made("step='epoch'", "choose one of 'batch', 'block'", step="epoch"),
    "interval": made("scheduler_interval='batch'", "choose one of 'epoch', 'step'", scheduler_interval="batch"),
    "clipping": made("gradient_clip_algorithm='max'", "one of 'norm', 'value'", gradient_clip_algorithm="max"),
    "full gradient": made("full_gradient=True", "='relu', not 'gelu'", full_gradient=True, activation="gelu"),
    "dropout above 1": made("dropout=1.5", "must lie in [0, 1)", dropout=1.5),
    "negative dropout": made("dropout=-0.5", "must lie in [0, 1)", dropout=-0.5),
    "scan memory": made("scan_memory=0", "give a positive number of MiB", scan_memory=0),
    "scan memory no number": made("scan_memory=nan", "MiB", scan_memory=float("nan")),
    "widths of a generator": made("widths=", "is a generator", widths=(w for w in [8]), error=TypeError),
    "widths of an array": made("widths=", "is a ndarray", widths=np.array([8, 8]), error=TypeError),
    "clip value 0": made("gradient_clip_val=0", "above 0, or None", gradient_clip_val=0),
    "clip value below 0": made("gradient_clip_val=-1.0", "above 0, or None", gradient_clip_val=-1.0),
    "clip value no number": made("gradient_clip_val=nan", "above 0, or None", gradient_clip_val=float("nan")),
    "accumulate 0": made("accumulate_grad_batches=0", "at least 1", accumulate_grad_batches=0),
    "accumulate a share": made("accumulate_grad_batches=1.5", "whole", accumulate_grad_batches=1.5, error=TypeError),
    "clip value as text": made("gradient_clip_val='1'", "give a number", gradient_clip_val="1", error=TypeError),
    "one width": made("widths=500 is a int", "such as [500, 500]", widths=500, error=TypeError),
    "widths no integers": made("widths[1]=8.0 is a float", "give the units", widths=[8, 8.0], error=TypeError),
    "classes as text": made("num_classes='10' is a str", "give a whole number", num_classes="10", error=TypeError),
    "one input size": made("input_shape=64 is a int", "such as (1, 28, 28)", input_shape=64, error=TypeError),
    "goodness by name": made("goodness='MeanSquare'", "such as MeanSquare()", goodness="MeanSquare", error=TypeError),
    "goodness as a class": made("goodness=MeanSquare is a class", "instance", goodness=MeanSquare, error=TypeError),
    "loss by name": made("loss='SymBa'", "such as ThresholdLoss()", loss="SymBa", error=TypeError),
    "labels by name": made("labels='PixelOverlay'", "such as PixelOverlay()", labels="PixelOverlay", error=TypeError),
    "readout by name": made("readout='SumReadout'", "such as SumReadout()", readout="SumReadout", error=TypeError),
    "one term": made("terms=PeerNormalization", "give a list", terms=PeerNormalization(), error=TypeError),
    "term no term": made("terms[0]=ReLU() is a ReLU", "PeerNormalization()", terms=[nn.ReLU()], error=TypeError),
    "blocks no modules": made("blocks[0]=3 is a int", "give a module", blocks=[3], error=TypeError),
    "blocks no list": made("blocks=3 is a int", "give a list of modules", blocks=3, error=TypeError),
    "negatives by name": made("negatives='WrongLabel'", "as WrongLabel()", negatives="WrongLabel", error=TypeError),
    "augment no module": made("augment=", "give a module, such as RandomShift(1)", augment=torch.flip, error=TypeError),
    "goodness (N, 1)": made("goodness=Column()", "to (2, 1): pair mode needs (2,)", goodness=Column()),
    "in place at the head": made(
        "block01 changes its input in place", "nn.ReLU(inplace=False)", blocks=[layer(), nn.ReLU(inplace=True)]
    ),
    "block steps, summed": made("step='block'", "use backward='per_block'", step="block", backward="summed"),
    "optimizer by name": made("optimizer='adam'", "partial(torch.optim.Adam", optimizer="adam", error=TypeError),
    "optimizer made already": made("optimizer=SGD", "give a factory", optimizer=OPTIMIZER, error=TypeError),
    "block optimizer": made("['block00']='sgd'", "factory", block_optimizers={"block00": "sgd"}, error=TypeError),
    "scheduler by name": made("scheduler='cosine'", "give a factory", scheduler="cosine", error=TypeError),
    "class goodness": made("goodness=LinearGoodness", "a goodness of pair mode", goodness=LinearGoodness()),
    "class loss": made("goodness=MeanSquare", "loss=CrossEntropy", "two of the same mode", loss=CrossEntropy()),
    "blocks that do not fit": made("block01 cannot take its input of shape (8,)", blocks=[layer(), layer(9, 4)]),
    "input that does not fit": made("block00", "input_shape=(1, 9, 9)", blocks=[layer()], input_shape=(1, 9, 9)),
}

PARTS: dict[str, Bad] = {
    "view": does(lambda w: LinearReadout(view="negative"), "view='negative'", "choose 'neutral' or 'positive'"),
    "norm": does(lambda w: NormGoodness(3), "p=3", "choose 1, 2 or 'inf'"),
    "kind of normalization": does(lambda w: Normalize("L2"), "normalization='L2'", "choose one of l2"),
    "batch statistics": does(lambda w: block(batch_stats="joint"), "batch_stats='joint'", "choose 'separate' or"),
    "normalization with parameters": does(
        lambda w: block(normalization=nn.LayerNorm(8)), "normalization=LayerNorm", "use a parameter-free one"
    ),
    "mixed modes": does(
        lambda w: network(pair_block(), class_block(inputs=8)), "modes ['class', 'pair']", "one of the same mode"
    ),
    "no goodness at all": does(lambda w: network(block()), "no goodness at all", "give every block one"),
    "block without goodness": does(
        lambda w: LocalLearner(network(class_block(), block(inputs=8))),
        "block01 has goodness=None",
        "='local'",
        "give the",
    ),
    "block without loss": does(
        lambda w: LocalLearner(network(block(LinearGoodness()))), "block00 has loss=None", "give the block one"
    ),
    "last block without goodness": does(
        lambda w: LocalLearner(network(class_block(), block(inputs=8)), segments="last"),
        "block01 has goodness",
        "'last'",
    ),
    "pairs without labels": does(lambda w: network(pair_block()), "labels=None", "pair mode needs a label encoding"),
    "classes with labels": does(
        lambda w: network(class_block(), labels=AppendOneHot()),
        "labels=AppendOneHot",
        "class mode takes no label",
    ),
    "SymBa's scale": does(lambda w: SymBa(alpha=0), "alpha=0", "must be above 0"),
    "SymBa's scale no number": does(lambda w: SymBa(float("nan")), "alpha=nan", "must be above 0"),
    "threshold no number": does(lambda w: ThresholdLoss("1"), "threshold='1' is a str", "number", error=TypeError),
    "threshold not finite": does(lambda w: ThresholdLoss(float("nan")), "threshold=nan", "a finite goodness"),
    "temperature": does(lambda w: CrossEntropy(0.0), "temperature=0.0", "must be above 0"),
    "weight below 0": does(lambda w: PeerNormalization(weight=-1), "weight=-1", "must be 0 or more"),
    "eps below 0": does(lambda w: Normalize(eps=-1), "eps=-1", "must be 0 or more"),
    "momentum": does(lambda w: PeerNormalization(momentum=1), "momentum=1", "must lie in [0, 1)"),
    "no hard batches": does(lambda w: HardLabel(fraction=0), "fraction=0", "must lie in (0, 1]"),
    "hard too early": does(lambda w: HardLabel(start_epoch=-1), "start_epoch=-1", "must be 0 or more"),
    "blurs": does(lambda w: HybridImages(blurs=0), "blurs=0", "must be at least 1"),
    "weights": does(lambda w: Mixture([WrongLabel()], [0.5, 0.5]), "weights=[0.5, 0.5]", "one for each of the 1"),
    "negative weights": does(lambda w: Mixture([WrongLabel()], [-1.0]), "weights=[-1.0]", "must be 0 or more"),
    "cosine flat to the end": does(lambda w: CosineToEnd(OPTIMIZER, flat=1.0), "flat=1.0", "must lie in [0, 1)"),
    "layers no module": does(lambda w: LocalBlock([3]), "layers=[3] is a list", "give a module", error=TypeError),
    "normalization by name": does(
        lambda w: block(normalization="rms"), "normalization='rms'", "such as Normalize('rms')", error=TypeError
    ),
    "network of plain layers": does(
        lambda w: network(layer()), "blocks[0]=Sequential", "LocalBlock(layers, goodness, loss)", error=TypeError
    ),
    "learner of plain layers": does(
        lambda w: LocalLearner(layer()), "network=Sequential", "wrap the blocks, LocalNetwork(", error=TypeError
    ),
    "joint loss without goodness": does(
        lambda w: LocalLearner(network(class_block(), block(inputs=8)), segments="loss_of_sum"),
        "block01 has goodness=None",
        "'loss_of_sum'",
    ),
    "cosine below 0": does(lambda w: CosineToEnd(OPTIMIZER, end=-2.0), "end=-2.0", "must lie in [0, 1]"),
    "cosine of no length": does(lambda w: CosineToEnd(OPTIMIZER, total=0), "total=0", "must be at least 1"),
    "mining nothing": does(lambda w: MineNegatives(fraction=0), "fraction=0", "must lie in (0, 1]"),
    "mixing, start": does(lambda w: MixNegatives([WrongLabel()], start=[0.0]), "start=[0.0]", "not all 0"),
    "mixing, end": does(lambda w: MixNegatives([WrongLabel()], [1.0], [1.0, 0.0]), "end=[1.0, 0.0]", "each of the 1"),
    "mixing, epochs": does(lambda w: MixNegatives([WrongLabel()], [1.0], epochs=0), "epochs=0", "at least 1"),
    "refreshing never": does(lambda w: RefreshNegatives(every_n_epochs=0), "every_n_epochs=0", "must be at least 1"),
    "switching to nothing": does(lambda w: SwitchNegatives({}), "samplers={}", "give samplers by their first epoch"),
    "switching too early": does(lambda w: SwitchNegatives({-1: WrongLabel()}), "samplers={-1: ", "0 or later"),
    "monitoring never": does(lambda w: GoodnessMonitor(every_n_steps=0), "every_n_steps=0", "at least 1, or None"),
    "histograms": does(
        lambda w: GoodnessMonitor(histogram_every_n_epochs=-1), "histogram_every_n_epochs=-1", "must be 0 or more"
    ),
    "a picture of nothing": does(lambda w: NegativePictures(count=0), "count=0", "must be at least 1"),
}

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
        "'class'", "dict with such keys", data=DataLoader([{"image": IMAGE, "class": 3}]), error=TypeError
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

CASES = {
    f"{table}: {name}": bad
    for table, rows in {"learner": LEARNER, "part": PARTS, "data": DATA, "run": RUNS}.items()
    for name, bad in rows.items()
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_named_with_its_remedy(learner: Any, digits: Any, trainer: Any, case: str) -> None:
    def fit(model: Any, train_dataloaders: Any = None, **arguments: Any) -> None:
        data = digits() if train_dataloaders is None else train_dataloaders
        trainer(**{"max_epochs": -1 if "max_steps" in arguments else 1, **arguments}).fit(model, data)

    with pytest.raises(CASES[case].error) as caught:
        CASES[case].act(SimpleNamespace(learner=learner, trainer=trainer, fit=fit))
    assert type(caught.value) is CASES[case].error
    for part in CASES[case].parts:
        assert part in str(caught.value)
