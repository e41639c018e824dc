"""Choices of backward and step of a sweep, and checks of their combinations."""

from __future__ import annotations

from typing import Any, Literal, get_args

Objective = Literal["local", "sum_of_losses", "loss_of_sum", "last"]
Backward = Literal["per_block", "summed"]
Step = Literal["batch", "block"]


def check_choice(name: str, value: Any, choices: Any) -> None:
    """Check that an argument is one of the values of a `Literal`.

    Raises:
        ValueError: it is not.
    """
    if value not in get_args(choices):
        raise ValueError(f"{name}={value!r}: choose one of {', '.join(map(repr, get_args(choices)))}")


def check_segments(segments: str) -> None:
    """Check the kind of segments.

    Raises:
        ValueError: there is no such kind.
    """
    if segments not in get_args(Objective):
        raise ValueError(f"segments={segments!r}: choose 'local', 'sum_of_losses', 'loss_of_sum' or 'last'")


def check_modes(segments: str, backward: str, step: str, refresh_output: bool) -> None:
    """Check the arguments of a sweep.

    Raises:
        ValueError: an argument is not one of its choices, or two do not fit.
    """
    check_segments(segments)
    check_choice("backward", backward, Backward)
    check_choice("step", step, Step)
    if step == "block" and backward == "summed":
        raise ValueError("step='block' needs a backward per block: use backward='per_block', or step='batch'")
    if refresh_output and (step != "block" or segments != "local"):
        raise ValueError(
            f"refresh_output=True with step={step!r} and segments={segments!r}: blocks must have "
            "stepped before the next one runs, so use step='block' and segments='local'"
        )
