"""Checks of single arguments, for parts that are plain torch: every message names argument, value and remedy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy
from numbers import Integral, Real
from typing import Any, TypeVar

from torch import nn

Part = TypeVar("Part", bound=nn.Module)


def check_type(name: str, value: Any, wanted: type | tuple[type, ...], remedy: str) -> None:
    """Check that an argument is of the annotated type.

    Raises:
        TypeError: it is not.

    Example::

        >>> check_type("loss", "SymBa", int, "give an instance, such as SymBa()")
        Traceback (most recent call last):
            ...
        TypeError: loss='SymBa' is a str: give an instance, such as SymBa()
    """
    if not isinstance(value, wanted):
        is_class = isinstance(value, type)
        what = f"{value.__name__} is a class" if is_class else f"{value!r} is a {type(value).__name__}"
        raise TypeError(f"{name}={what}: {remedy}")


def check_flag(name: str, value: Any) -> None:
    """Check that an argument is True or False."""
    check_type(name, value, bool, "choose True or False")


def check_choice(name: str, value: Any, choices: Sequence[Any]) -> None:
    """Check that an argument is one of some names or numbers.

    Example::

        >>> check_choice("order", "down", ("top-down", "parallel"))
        Traceback (most recent call last):
            ...
        ValueError: order='down': choose one of 'top-down', 'parallel'
    """
    if not any(value == each and type(value) is type(each) for each in choices):
        raise ValueError(f"{name}={value!r}: choose one of {', '.join(map(repr, choices))}")


def check_text(name: str, value: Any, remedy: str) -> None:
    """Check that an argument is a string, or None."""
    if value is not None:
        check_type(name, value, str, remedy)


def check_int(name: str, value: Any, remedy: str = "give a whole number") -> None:
    """Check that an argument is an integer of 64 bits; NumPy integers are accepted, True and 10.0 are not."""
    if isinstance(value, bool):
        raise TypeError(f"{name}={value} is a bool: {remedy}")
    check_type(name, value, Integral, remedy)
    if not -(2**63) <= value < 2**63:
        raise ValueError(f"{name}={value} is too large: {remedy}")


def check_ints(name: str, values: Any, remedy: str) -> None:
    """Check that an argument is a sequence of integers."""
    if isinstance(values, (str, bytes)) or not isinstance(values, Sequence):
        raise TypeError(f"{name}={values!r} is a {type(values).__name__}: {remedy}")
    for i, value in enumerate(values):
        check_int(f"{name}[{i}]", value, remedy)


def check_image_shape(num_classes: Any, input_shape: Any) -> None:
    """Check the number of classes, and that inputs are images `(C, H, W)`."""
    check_int("num_classes", num_classes)
    check_ints("input_shape", input_shape, "give the shape of one input, such as (1, 28, 28)")
    if num_classes < 2:
        raise ValueError(f"num_classes={num_classes}: must be at least 2")
    if len(input_shape) != 3 or min(input_shape) < 1:
        raise ValueError(f"input_shape={tuple(input_shape)}: give channels, height and width, such as (1, 28, 28)")


def check_number(name: str, value: Any, remedy: str, above: float = -math.inf, least: float = -math.inf) -> None:
    """Check that an argument is a finite number, above one bound and not below another.

    Raises:
        TypeError: it is not a number.
        ValueError: it is not finite, or out of bounds.
    """
    if isinstance(value, bool):
        raise TypeError(f"{name}={value} is a bool: {remedy}")
    check_type(name, value, Real, f"give a number; {remedy}")
    if not (math.isfinite(value) and value > above and value >= least):
        raise ValueError(f"{name}={value}: {remedy}")


def copy_if_owned(part: Part) -> Part:
    """The part itself, or a copy if another block or network already has it, since a part is built for one of them.

    Example::

        >>> relu = nn.ReLU()
        >>> copy_if_owned(relu) is relu, copy_if_owned(relu) is relu
        (True, False)
    """
    if vars(part).get("_owned"):
        part = deepcopy(part)
    vars(part)["_owned"] = True
    return part
