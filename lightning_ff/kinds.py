"""Checks of single arguments, for parts that are plain torch: every message names argument, value and remedy."""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Integral
from typing import Any


def kind(name: str, value: Any, wanted: type | tuple[type, ...], remedy: str) -> None:
    """Check that an argument is what its annotation says.

    Raises:
        TypeError: it is something else.

    Example::

        >>> kind("loss", "SymBa", int, "give an instance, such as SymBa()")
        Traceback (most recent call last):
            ...
        TypeError: loss='SymBa' is a str: give an instance, such as SymBa()
    """
    if not isinstance(value, wanted):
        is_class = isinstance(value, type)
        what = f"{value.__name__} is a class" if is_class else f"{value!r} is a {type(value).__name__}"
        raise TypeError(f"{name}={what}: {remedy}")


def whole(name: str, value: Any, remedy: str = "give a whole number") -> None:
    """Check that an argument is a whole number; NumPy's count, True and 10.0 do not."""
    if isinstance(value, bool):
        raise TypeError(f"{name}={value} is a bool: {remedy}")
    kind(name, value, Integral, remedy)


def sizes(name: str, values: Any, remedy: str) -> None:
    """Check that an argument is a sequence of whole numbers."""
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise TypeError(f"{name}={values!r} is a {type(values).__name__}: {remedy}")
    for i, value in enumerate(values):
        whole(f"{name}[{i}]", value, remedy)
