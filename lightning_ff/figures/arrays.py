"""Arguments of pictures as float64 arrays of the expected shapes: messages name argument, value and remedy.

Shapes in this package: L layers, C classes, U units, S samples, E epochs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import numpy as np
from torch import Tensor

Values: TypeAlias = Tensor | np.ndarray | Sequence[Any]
Item = TypeVar("Item")


def array(name: str, values: Values, shape: Sequence[int | None], remedy: str) -> np.ndarray:
    """Values as float64 array of a shape, where None is any size except 0; a `ValueError` if they are none.

    Example::

        >>> array("rdm", [[0.0, 1.0]], (2, 2), "give a row and a column per class")
        Traceback (most recent call last):
            ...
        ValueError: rdm of shape (1, 2): give a row and a column per class, (2, 2)
    """
    if isinstance(values, Tensor):
        values = values.detach().cpu().double().numpy()
    try:
        result = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}={values!r} is no array of numbers: {remedy}") from error
    pairs = zip(result.shape, shape, strict=False)
    if result.ndim != len(shape) or not all(have > 0 if want is None else have == want for have, want in pairs):
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise ValueError(f"{name} of shape {result.shape}: {remedy}, ({wanted}{',' if len(shape) == 1 else ''})")
    return result


def flat(values: Values) -> np.ndarray:
    """The finite values, as float64 `(N,)`."""
    every = values.detach().cpu().double().numpy() if isinstance(values, Tensor) else np.asarray(values, np.float64)
    return every[np.isfinite(every)].ravel()


def class_names(classes: Sequence[str]) -> list[str]:
    """The names of the classes; a `ValueError` if there are none, or they are one string."""
    if isinstance(classes, (str, bytes)) or len(classes) == 0:
        raise ValueError(f"classes={classes!r}: give the name of each class, such as ['shirt', 'bag']")
    return [str(name) for name in classes]


def given(name: str, values: Mapping[str, Item], what: str) -> Mapping[str, Item]:
    """Check that a mapping is not empty; a `ValueError` if it is empty, or no mapping."""
    if not isinstance(values, Mapping) or not values:
        raise ValueError(f"{name}={values!r}: give {what} by name, at least one")
    return values


def class_labels(label: Values, samples: int, classes: int) -> np.ndarray:
    """The class of each sample as integers `(S,)`; a `ValueError` if not one per sample, or one is out of range."""
    numbers = array("label", label, (samples,), "give the class of each sample")
    wrong = [value for value in numbers if not (value.is_integer() and 0 <= value < classes)]
    if wrong:
        raise ValueError(f"label has the value {wrong[0]:g}: must be a whole number from 0 to {classes - 1}")
    return numbers.astype(np.int64)
