"""The only home of Lightning's private names; `tests/test_lightning_private.py` fails when one of them moves."""

from __future__ import annotations

from lightning.pytorch import Trainer


def batches_seen(trainer: Trainer) -> int:
    """Training batches before this one, over all epochs: the step axis of every logger (#17958).

    `trainer.global_step` counts optimizer steps, which accumulate over several batches.
    """
    return trainer.fit_loop.epoch_loop._batches_that_stepped
