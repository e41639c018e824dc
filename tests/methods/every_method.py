"""One small learner of every method, for the data of `tests.strategies.runs`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

import lightning_ff
from lightning_ff import LocalLearner, MeanReadout
from tests.strategies.runs import CLASSES, SGD, SHAPE

Make = Callable[[], LocalLearner]


def made(name: str, *arguments: Any, **options: Any) -> Make:
    """A function that makes a learner from one seed; a network to cut is given as a function."""

    def make() -> LocalLearner:
        torch.manual_seed(0)
        given = [each() if callable(each) else each for each in arguments]
        return getattr(lightning_ff, name)(*given, **{"optimizer": SGD, **options})

    return make


def mlp() -> nn.Module:
    return lightning_ff.MLP(CLASSES, inputs=36, widths=[12, 8])


def residual() -> nn.Module:
    return lightning_ff.ResidualMLP(CLASSES, inputs=36, width=12, blocks=3)


CUT = (mlp, CLASSES, SHAPE)
METHODS: dict[str, Make] = {
    "ActivationRelaxationNet": made("ActivationRelaxationNet", *CUT, cuts="layers"),
    "BlockADMMNet": made("BlockADMMNet", *CUT, cuts="layers"),
    "BWBPF": made("BWBPF", *CUT, cuts="layers"),
    "Backprop": made("Backprop", *CUT),
    "CaFo": made("CaFo", *CUT, cuts="layers"),
    "CwC": made("CwC", CLASSES, SHAPE, channels=[8, 8]),
    "DeepSupervision": made("DeepSupervision", *CUT),
    "DeeperForward": made("DeeperForward", CLASSES, SHAPE, channels=[8, 8, 8, 12, 12], readout=MeanReadout()),
    "ForwardForward": made("ForwardForward", CLASSES, SHAPE, widths=[9, 8]),
    "HypersphericalFF": made("HypersphericalFF", *CUT),
    "MonoForward": made("MonoForward", *CUT),
    "PredictiveCodingNet": made("PredictiveCodingNet", *CUT, cuts="layers"),
    "PredSim": made("PredSim", *CUT),
    "ScalableForwardForward": made("ScalableForwardForward", *CUT),
    "TRGL": made("TRGL", residual, CLASSES, SHAPE, tau=0.5, modules=2),
    "UFF": made("UFF", CLASSES, SHAPE, widths=[9, 8]),
}
# Their blocks learn together, which a pipeline refuses.
TOGETHER = {"ActivationRelaxationNet", "Backprop", "BlockADMMNet", "DeepSupervision", "PredictiveCodingNet"}
# Statistics of a process's own batch are not those of the global one: batch norm, similarities.
OWN_STATISTICS = {"CwC", "PredSim"}
