"""Published methods: each chooses parts and cites its paper; none has a training loop."""

from lightning_ff.cut import backbone
from lightning_ff.methods.backprop import Backprop, DeepSupervision
from lightning_ff.methods.bwbpf import BWBPF
from lightning_ff.methods.cafo import CaFo
from lightning_ff.methods.cwc import CwC
from lightning_ff.methods.deeper_forward import DeeperForward
from lightning_ff.methods.forward_forward import ForwardForward
from lightning_ff.methods.hyperspherical import HypersphericalFF
from lightning_ff.methods.mono_forward import MonoForward
from lightning_ff.methods.predsim import PredSim
from lightning_ff.methods.relaxed import ActivationRelaxationNet, BlockADMMNet, PredictiveCodingNet
from lightning_ff.methods.scalable_forward_forward import ScalableForwardForward
from lightning_ff.methods.trgl import TRGL
from lightning_ff.methods.uff import UFF

__all__ = [
    "BWBPF",
    "TRGL",
    "UFF",
    "ActivationRelaxationNet",
    "Backprop",
    "BlockADMMNet",
    "CaFo",
    "CwC",
    "DeepSupervision",
    "DeeperForward",
    "ForwardForward",
    "HypersphericalFF",
    "MonoForward",
    "PredSim",
    "PredictiveCodingNet",
    "ScalableForwardForward",
    "backbone",
]
