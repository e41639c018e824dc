"""Checks of what a sweep is built from: every message names the argument, the value and what to do."""

from __future__ import annotations

import inspect
from typing import Any

from lightning_ff.credit import Credit
from lightning_ff.network import LocalNetwork
from lightning_ff.optim import BlockOptimizers
from lightning_ff.sweep.schedule import Schedule, Windows
from lightning_ff.sweep.segments import Segmentation
from lightning_ff.sweep.store import KeptOutputs
from lightning_ff.validate import check_type


def check_credit(
    credit: Credit, network: LocalNetwork, segments: Any, schedule: Schedule | None, refresh_output: bool
) -> None:
    """Check that a credit which needs all blocks in every batch gets them.

    Raises:
        TypeError: it is no :class:`~lightning_ff.Credit`.
        ValueError: it needs all blocks, and an argument or the network has other needs.
    """
    check_type("credit", credit, Credit, "give an instance, such as ActivationRelaxation(), or None")
    if credit.local:
        return
    if segments != "local":
        raise ValueError(f"credit={credit} with segments={segments!r}: it runs every block on its own, use 'local'")
    if refresh_output:
        raise ValueError(
            f"credit={credit} with refresh_output=True: signals are those of the old weights, leave it out"
        )
    credit.check(network)
    if isinstance(schedule, Windows):
        raise ValueError(f"credit={credit}: all blocks learn in every batch, so remove the schedule of windows")
    for name, shapes in zip(network.names[:-1], network.shapes, strict=False):
        if len(shapes) > 1:
            raise ValueError(
                f"credit={credit}: {name} hands on {len(shapes)} tensors, since a skip crosses the cut: cut the "
                "network where one tensor passes"
            )


def check_owners(network: LocalNetwork, segmentation: Segmentation, optimizers: BlockOptimizers) -> None:
    """Check that optimizers belong to the blocks or segments, and the readout, of a network.

    Raises:
        TypeError: they are no :class:`~lightning_ff.BlockOptimizers`.
        ValueError: one of them has the name or the parameters of something else.
    """
    owners = segmentation.owners(network)
    made = (
        "network.owners" if list(owners) == list(network.owners) else "Segmentation(network, segments).owners(network)"
    )
    remedy = f"make them by make_optimizers({made}, ...)"
    if not isinstance(optimizers, BlockOptimizers):
        raise TypeError(f"optimizers is a {type(optimizers).__name__}: {remedy}")
    for name in optimizers.by_block:
        own = {id(p) for p in owners[name].parameters()} if name in owners else set()
        if not all(id(p) in own for p in optimizers.parameters(name)):
            raise ValueError(f"optimizers: {name!r} has parameters that are not of a block of that name; {remedy}")


def check_schedule(schedule: Schedule | None, store: KeptOutputs | None, segmentation: Segmentation) -> None:
    """Check a schedule, and that outputs are kept by the same windows, one list for every segment.

    Raises:
        TypeError: it is no schedule, or has the signature of earlier releases, `learns(segment)`.
        ValueError: outputs are kept by other windows.
    """
    if store is not None:
        check_type("store", store, KeptOutputs, "give KeptOutputs(windows, memory)")
        _check_count(store.windows, segmentation)
    if schedule is None:
        return
    check_type("schedule", schedule, Schedule, "give an instance, such as Windows([[(0, 5)], [(5, 10)]])")
    if len(inspect.signature(schedule.learns).parameters) < 2:
        raise TypeError(
            f"{type(schedule).__name__}.learns takes the segment alone, and a schedule gets the epoch too: write def "
            "learns(self, segment, epoch)"
        )
    if isinstance(schedule, Windows):
        _check_count(schedule, segmentation)
    if store is not None and isinstance(schedule, Windows) and schedule.windows != store.windows.windows:
        raise ValueError(
            f"schedule={schedule.windows} and a store of outputs for {store.windows.windows}: give the same"
        )


def _check_count(windows: Windows, segmentation: Segmentation) -> None:
    segments = len(segmentation.every)
    if not segmentation.fixed or len(windows.windows) != segments:
        what = f"{segments} segments" if segmentation.fixed else "segments that depend on the batch"
        raise ValueError(f"windows has {len(windows.windows)} entries for {what}: give each segment its list")
