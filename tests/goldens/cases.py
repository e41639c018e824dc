"""The cases by name."""

from __future__ import annotations

from collections.abc import Callable

from tests.goldens import contents, learning, negatives, processes, trainer
from tests.goldens.found import Found

_ALL: tuple[Callable[[], Found], ...] = (
    trainer.digits_example,
    trainer.resume,
    learning.scalable_forward_forward,
    learning.skips,
    learning.controls,
    learning.segments,
    learning.summed_backward,
    learning.learned_readout,
    learning.interval_readout,
    learning.accumulation,
    learning.block_steps,
    learning.optimizers,
    learning.greedy,
    learning.random_order,
    negatives.samplers,
    negatives.hybrid_images,
    negatives.encodings,
    negatives.changed_negatives,
    contents.checkpoints,
    contents.outputs,
    processes.ddp,
    processes.pipeline,
)
CASES = {case.__name__: case for case in _ALL}
