"""Unpacking of batches: tuples, or dicts of a user-defined loader."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

_IMAGE = ("image", "images", "x", "input", "inputs", "data")
_LABEL = ("label", "labels", "y", "target", "targets")
_INDEX = ("index", "indices", "idx")
_MEANING = {
    "label": "class numbers",
    "index": "as the third entry the samples' positions in the data set",
}
_SMALL_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32)


def unpack(batch: Any) -> tuple[Tensor, Tensor, Tensor | None]:
    """Image, label and, if the loader returns it, index of the samples; integers become int64.

    Args:
        batch: A sequence of two or three tensors in that order, or a mapping with the usual names.

    Raises:
        TypeError: it is neither.
        ValueError: there is no sample, or labels or indices are not one integer per sample.

    Example::

        >>> unpack({"x": torch.zeros(1, 2), "y": torch.tensor([3], dtype=torch.uint8)})
        (tensor([[0., 0.]]), tensor([3]), None)
    """
    image, label, index = _parts(batch)
    if image is None or label is None:
        keys = "a dict with the keys image, label and, if there is one, index"
        raise TypeError(f"a batch must be (image, label[, index]) or {keys}, not {_describe(batch)}")
    samples = _count(image)
    return image, _as_int64("label", label, samples), _index(index, samples)


def unpack_image(batch: Any) -> tuple[Tensor, Tensor | None]:
    """Image and index of a batch that may lack labels, or be the image alone."""
    image, _, index = (batch, None, None) if isinstance(batch, Tensor) else _parts(batch)
    if image is None:
        raise TypeError(f"a batch must be an image tensor, (image, ...) or a dict with 'image', not {_describe(batch)}")
    return image, _index(index, _count(image))


def _parts(batch: Any) -> tuple[Any, Any, Any]:
    if isinstance(batch, Mapping):
        return _entry(batch, _IMAGE), _entry(batch, _LABEL), _entry(batch, _INDEX)
    if isinstance(batch, Sequence) and 1 <= len(batch) <= 3 and all(isinstance(entry, Tensor) for entry in batch):
        return (*batch, None, None)[:3]
    return None, None, None


def _entry(batch: Mapping[Any, Any], names: Sequence[str]) -> Any:
    """The first tensor under one of the names; None if there is none."""
    return next((batch[key] for key in names if isinstance(batch.get(key), Tensor)), None)


def _count(image: Tensor) -> int:
    """Number of samples, at least one."""
    if image.dim() == 0 or len(image) == 0:
        raise ValueError(f"the batch's image has shape {tuple(image.shape)}: give (N, ...) of at least one sample")
    return len(image)


def _index(index: Tensor | None, samples: int) -> Tensor | None:
    return None if index is None else _as_int64("index", index, samples)


def _as_int64(entry: str, numbers: Tensor, samples: int) -> Tensor:
    """Class numbers or indices as int64; checks dtype and shape, without a device sync."""
    integers = numbers.dtype == torch.int64 or numbers.dtype in _SMALL_INTEGERS
    if not integers or tuple(numbers.shape) != (samples,):
        raise ValueError(
            f"the batch's {entry} has shape {tuple(numbers.shape)} and type {numbers.dtype}: give {_MEANING[entry]} "
            f"(N,), integers of shape ({samples},) for an image of shape ({samples}, ...)"
        )
    return numbers.long()


def _describe(batch: Any) -> str:
    if isinstance(batch, Mapping):
        return f"a {type(batch).__name__} of { {key: type(entry).__name__ for key, entry in batch.items()} }"
    if isinstance(batch, Sequence):
        return f"a {type(batch).__name__} of {[type(entry).__name__ for entry in batch]}"
    return f"a {type(batch).__name__}"
