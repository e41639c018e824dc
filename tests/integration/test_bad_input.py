"""Every bad argument raises a clear error: a table of calls, with argument, value and remedy of the message."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from typing_extensions import override

from lightning_ff import (
    AppendOneHot,
    CosineToEnd,
    CrossEntropy,
    Goodness,
    GoodnessMonitor,
    HardLabel,
    HybridImages,
    LabelChannel,
    LinearGoodness,
    LinearReadout,
    LocalBlock,
    LocalLearner,
    MeanSquare,
    MineNegatives,
    MixNegatives,
    Mixture,
    NegativePictures,
    Normalize,
    NormGoodness,
    PeerNormalization,
    RefreshNegatives,
    SwitchNegatives,
    SymBa,
    ThresholdLoss,
    WrongLabel,
)
from tests.integration.bad_input import OPTIMIZER, Bad, block, class_block, does, layer, network, refused


def made(*parts: str, error: type[Exception] = ValueError, **arguments: Any) -> Bad:
    """A learner with these arguments."""
    return Bad(lambda w: w.learner(**arguments), parts, error)


def pair_block(inputs: int = 64) -> LocalBlock:
    return block(MeanSquare(), ThresholdLoss(), inputs=inputs)


class Column(Goodness):
    """A goodness of one column instead of one number per sample."""

    @override
    def forward(self, h: Tensor) -> Tensor:
        return h.square().mean(1)[:, None, None]


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
    "goodness as a class": made(
        "goodness=MeanSquare is a class", "give a Goodness, such as MeanSquare()", goodness=MeanSquare, error=TypeError
    ),
    "loss by name": made("loss='SymBa'", "such as ThresholdLoss()", loss="SymBa", error=TypeError),
    "labels by name": made("labels='PixelOverlay'", "such as PixelOverlay()", labels="PixelOverlay", error=TypeError),
    "readout by name": made("readout='SumReadout'", "such as SumReadout()", readout="SumReadout", error=TypeError),
    "one term": made("terms=PeerNormalization", "give a list", terms=PeerNormalization(), error=TypeError),
    "term no term": made("terms[0]=ReLU() is a ReLU", "PeerNormalization()", terms=[nn.ReLU()], error=TypeError),
    "blocks no modules": made("blocks[0]=3 is a int", "give a module", blocks=[3], error=TypeError),
    "blocks no list": made("blocks=3 is a int", "give a list of modules", blocks=3, error=TypeError),
    "negatives by name": made("negatives='WrongLabel'", "as WrongLabel()", negatives="WrongLabel", error=TypeError),
    "augment no module": made("augment=", "give a module, such as RandomShift(1)", augment=torch.flip, error=TypeError),
    "goodness (N, 1, 1)": made("goodness=Column()", "to (2, 1, 1): pair mode needs (2,)", goodness=Column()),
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

CASES = {
    f"{table}: {name}": bad for table, rows in {"learner": LEARNER, "part": PARTS}.items() for name, bad in rows.items()
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_named_with_its_remedy(world: SimpleNamespace, case: str) -> None:
    refused(CASES[case], world)
