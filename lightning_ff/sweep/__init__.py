"""The training loop, in plain torch: which segments learn from a batch, in which order and from which input."""

from lightning_ff.segment import Segment
from lightning_ff.sweep.finite import NonFiniteLoss
from lightning_ff.sweep.modes import Objective, Segments
from lightning_ff.sweep.schedule import Schedule, Windows
from lightning_ff.sweep.segments import Segmentation, make_segments
from lightning_ff.sweep.state import Start, SweepResult
from lightning_ff.sweep.store import KeptOutputs
from lightning_ff.sweep.sweep import Sweep

__all__ = [
    "KeptOutputs",
    "NonFiniteLoss",
    "Objective",
    "Schedule",
    "Segment",
    "Segmentation",
    "Segments",
    "Start",
    "Sweep",
    "SweepResult",
    "Windows",
    "make_segments",
]
