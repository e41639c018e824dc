"""Choices of backward and step of a sweep, and checks of their combinations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

from lightning_ff.validate import check_flag, check_int, check_ints

Objective = Literal["local", "overlapping", "sum_of_losses", "loss_of_sum", "last"]
Segments = Objective | int | Sequence[int]
Backward = Literal["per_block", "summed"]
Step = Literal["batch", "block"]


def check_choice(name: str, value: Any, choices: Any) -> None:
    """Check that an argument is one of the values of a `Literal`.

    Raises:
        ValueError: it is not.
    """
    if value not in get_args(choices):
        raise ValueError(f"{name}={value!r}: choose one of {', '.join(map(repr, get_args(choices)))}")


def check_segments(segments: Any, blocks: int) -> None:
    """Check the segments of a network of so many blocks.

    Raises:
        ValueError: there is no such objective, or the segments are not those of the blocks.
        TypeError: they are neither a name, an integer nor a list of integers.
    """
    if isinstance(segments, str):
        if segments not in get_args(Objective):
            names = ", ".join(map(repr, get_args(Objective)))
            raise ValueError(f"segments={segments!r}: choose {names}, a number of segments, or their lengths")
        return
    if isinstance(segments, Sequence):
        check_ints("segments", segments, "give the number of blocks of every segment, such as [5, 5, 4]")
        if min(segments, default=0) < 1 or sum(segments) != blocks:
            raise ValueError(f"segments={list(segments)}: give every segment at least 1 block, {blocks} blocks in all")
        return
    check_int("segments", segments, f"choose a name, such as 'local', or a number from 1 to {blocks}")
    if not 1 <= segments <= blocks:
        raise ValueError(f"segments={segments}: choose a number from 1 to {blocks}, that of the blocks")


def check_modes(segments: Any, backward: str, step: str, refresh_output: bool) -> None:
    """Check the arguments of a sweep.

    Raises:
        ValueError: an argument is not one of its choices, or two do not fit.
    """
    check_choice("backward", backward, Backward)
    check_choice("step", step, Step)
    if step == "block" and backward == "summed":
        raise ValueError("step='block' needs a backward per block: use backward='per_block', or step='batch'")
    check_flag("refresh_output", refresh_output)
    if refresh_output and (step != "block" or segments != "local"):
        raise ValueError(
            f"refresh_output=True with step={step!r} and segments={segments!r}: blocks must have "
            "stepped before the next one runs, so use step='block' and segments='local'"
        )
