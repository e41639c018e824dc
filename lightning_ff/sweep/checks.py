"""Checks of what a sweep is built from: every message names the argument, the value and what to do."""

from __future__ import annotations

import inspect

from lightning_ff.network import LocalNetwork
from lightning_ff.optim import BlockOptimizers
from lightning_ff.sweep.schedule import Schedule, Windows
from lightning_ff.sweep.store import KeptOutputs
from lightning_ff.validate import check_type


def check_owners(network: LocalNetwork, optimizers: BlockOptimizers) -> None:
    """Check that optimizers belong to the blocks, and the readout, of a network.

    Raises:
        TypeError: they are no :class:`~lightning_ff.BlockOptimizers`.
        ValueError: one of them has the name or the parameters of something else.
    """
    remedy = "make them by make_optimizers(network.owners, ...)"
    if not isinstance(optimizers, BlockOptimizers):
        raise TypeError(f"optimizers is a {type(optimizers).__name__}: {remedy}")
    owners = network.owners
    for name in optimizers.by_block:
        own = {id(p) for p in owners[name].parameters()} if name in owners else set()
        if not all(id(p) in own for p in optimizers.parameters(name)):
            raise ValueError(f"optimizers: {name!r} has parameters that are not of that block of the network; {remedy}")


def check_schedule(schedule: Schedule | None, store: KeptOutputs | None) -> None:
    """Check a schedule, and that outputs are kept by the same windows.

    Raises:
        TypeError: it is no schedule, or has the signature of earlier releases, `learns(segment)`.
        ValueError: outputs are kept by other windows.
    """
    if store is not None:
        check_type("store", store, KeptOutputs, "give KeptOutputs(windows, memory)")
    if schedule is None:
        return
    check_type("schedule", schedule, Schedule, "give an instance, such as Windows([[(0, 5)], [(5, 10)]])")
    if len(inspect.signature(schedule.learns).parameters) < 2:
        raise TypeError(
            f"{type(schedule).__name__}.learns takes the segment alone, and a schedule gets the epoch too: write def "
            "learns(self, segment, epoch)"
        )
    if store is not None and isinstance(schedule, Windows) and schedule.windows != store.windows.windows:
        raise ValueError(
            f"schedule={schedule.windows} and a store of outputs for {store.windows.windows}: give the same"
        )
