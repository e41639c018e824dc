"""Taking a batch apart: our own, a tuple, or a dict of a user's own loader."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

_IMAGE = ("image", "images", "x", "input", "inputs", "data")
_LABEL = ("label", "labels", "y", "target", "targets")
_INDEX = ("index", "indices", "idx")
_SMALL_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32)


def unpack(batch: Any) -> tuple[Tensor, Tensor, Tensor | None]:
    """Image, label and, where the loader gives it, the sample's index; integers become int64.

    Args:
        batch: A sequence of two or three tensors in that order, or a mapping with the usual names.

    Raises:
        TypeError: it is neither.

    Example::

        >>> unpack({"x": torch.zeros(1), "y": torch.ones(1)})
        (tensor([0.]), tensor([1.]), None)
    """
    image, label, index = _parts(batch)
    if image is None or label is None:
        raise TypeError(f"a batch must be (image, label[, index]) or a dict with such keys, not {_outline(batch)}")
    return image, _long(label), None if index is None else _long(index)


def unpack_image(batch: Any) -> tuple[Tensor, Tensor | None]:
    """Image and index of a batch that may lack labels, or be the image alone."""
    if isinstance(batch, Tensor):
        return batch, None
    image, _, index = _parts(batch)
    if image is None:
        raise TypeError(f"a batch must be an image tensor, (image, ...) or a dict with 'image', not {_outline(batch)}")
    return image, None if index is None else _long(index)


def _parts(batch: Any) -> tuple[Any, Any, Any]:
    if isinstance(batch, Mapping):
        return tuple(  # type: ignore[return-value]
            next((batch[key] for key in names if isinstance(batch.get(key), Tensor)), None)
            for names in (_IMAGE, _LABEL, _INDEX)
        )
    if isinstance(batch, Sequence) and 1 <= len(batch) <= 3 and all(isinstance(entry, Tensor) for entry in batch):
        return (*batch, None, None)[:3]
    return None, None, None


def _long(numbers: Tensor) -> Tensor:
    """Class numbers and indexes as torch wants them; what is no integer stays, and is refused with its range."""
    return numbers.long() if numbers.dtype in _SMALL_INTEGERS else numbers


def _outline(batch: Any) -> str:
    if isinstance(batch, Mapping):
        return f"a {type(batch).__name__} of { {key: type(entry).__name__ for key, entry in batch.items()} }"
    if isinstance(batch, Sequence):
        return f"a {type(batch).__name__} of {[type(entry).__name__ for entry in batch]}"
    return f"a {type(batch).__name__}"
