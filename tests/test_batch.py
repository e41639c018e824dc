"""Unpacking of batches: every accepted form, and the message for others."""

from __future__ import annotations

import re
from collections import OrderedDict, UserDict
from typing import Any, NamedTuple

import pytest
import torch

from lightning_ff.batch import unpack, unpack_image
from lightning_ff.data import Batch

IMAGE, LABEL, INDEX = torch.rand(3, 1, 2, 2), torch.tensor([1, 0, 2]), torch.tensor([7, 8, 9])


class Other(NamedTuple):
    """A foreign named tuple: its order counts, not its names."""

    label: torch.Tensor
    image: torch.Tensor


@pytest.mark.parametrize("make", [tuple, list, lambda parts: Batch(*parts)], ids=["tuple", "list", "Batch"])
def test_three_tensors_in_order(make: Any) -> None:
    image, label, index = unpack(make([IMAGE, LABEL, INDEX]))
    assert image is IMAGE
    assert label is LABEL
    assert index is INDEX


@pytest.mark.parametrize("make", [tuple, list, lambda parts: Other(*parts)], ids=["tuple", "list", "named"])
def test_two_tensors_have_no_index(make: Any) -> None:
    image, label, index = unpack(make([IMAGE, LABEL]))
    assert image is IMAGE
    assert label is LABEL
    assert index is None


@pytest.mark.parametrize("make", [dict, OrderedDict, UserDict])
@pytest.mark.parametrize("image_key", ["image", "images", "x", "input", "inputs", "data"])
@pytest.mark.parametrize("label_key", ["label", "labels", "y", "target", "targets"])
def test_mappings_with_the_usual_names(make: Any, image_key: str, label_key: str) -> None:
    image, label, index = unpack(make({"path": ["a", "b", "c"], label_key: LABEL, image_key: IMAGE}))
    assert image is IMAGE
    assert label is LABEL
    assert index is None


@pytest.mark.parametrize("key", ["index", "indices", "idx"])
def test_mappings_with_an_index(key: str) -> None:
    batch = {key: INDEX, "x": IMAGE, "y": LABEL}
    assert unpack(batch)[2] is INDEX
    assert unpack_image(batch)[1] is INDEX


def test_the_first_usual_name_that_holds_a_tensor_counts() -> None:
    batch = {"data": {"source": "camera"}, "x": IMAGE, "label": ["cat", "dog", "emu"], "target": LABEL}
    image, label, _ = unpack(batch)
    assert image is IMAGE
    assert label is LABEL


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32])
def test_small_integers_become_int64(dtype: torch.dtype) -> None:
    """One-hot codes and torch's cross-entropy want int64."""
    _, label, index = unpack((IMAGE, LABEL.to(dtype), INDEX.to(dtype)))
    assert index is not None
    assert (label.dtype, index.dtype) == (torch.int64, torch.int64)
    assert torch.equal(label, LABEL)
    assert torch.equal(index, INDEX)
    assert unpack_image({"x": IMAGE, "idx": INDEX.to(dtype)})[1].dtype == torch.int64  # type: ignore[union-attr]


WANTED = "integers of shape (3,) for an image of shape (3, ...)"
WRONG: dict[str, tuple[torch.Tensor, str]] = {
    "float": (torch.rand(3), "has shape (3,) and type torch.float32: give "),
    "bool": (torch.ones(3, dtype=torch.bool), "has shape (3,) and type torch.bool: give "),
    "fewer": (torch.arange(2), "has shape (2,) and type torch.int64: give "),
    "more": (torch.arange(4).int(), "has shape (4,) and type torch.int32: give "),
    "a column": (torch.arange(3).view(3, 1), "has shape (3, 1) and type torch.int64: give "),
    "a scalar": (torch.tensor(3), "has shape () and type torch.int64: give "),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_label_or_index_is_named_with_what_was_got_and_what_is_wanted(wrong: str) -> None:
    given, got = WRONG[wrong]
    label, index = f"the batch's label {got}class numbers (N,), {WANTED}", f"the batch's index {got}as the third entry "
    index += f"the samples' positions in the data set (N,), {WANTED}"
    refused: list[tuple[Any, Any, str]] = [
        (unpack, (IMAGE, given), label),
        (unpack, (IMAGE, given, INDEX), label),
        (unpack, {"y": given, "x": IMAGE}, label),
        (unpack, (IMAGE, LABEL, given), index),
        (unpack, {"y": LABEL, "x": IMAGE, "idx": given}, index),
        (unpack_image, (IMAGE, given, given), index),
    ]
    for take, batch, message in refused:
        with pytest.raises(ValueError, match="^" + re.escape(message) + "$"):
            take(batch)
    assert unpack_image((IMAGE, given))[0] is IMAGE  # a prediction needs no label


@pytest.mark.parametrize("shape", [(0, 1, 2, 2), ()])
def test_a_batch_of_no_sample_is_named(shape: tuple[int, ...]) -> None:
    image, none = torch.zeros(shape), torch.zeros(0, dtype=torch.int64)
    message = re.escape(f"the batch's image has shape {shape}: give (N, ...) of at least one sample")
    for take, batch in ((unpack, (image, none)), (unpack, (image, none, none)), (unpack_image, image)):
        with pytest.raises(ValueError, match=f"^{message}$"):
            take(batch)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("batch", "outline"),
    [
        (IMAGE, "not a Tensor"),
        ((IMAGE,), r"not a tuple of \['Tensor'\]"),
        ((IMAGE, LABEL, INDEX, INDEX), "not a tuple of"),
        ((IMAGE, [1, 0, 2]), r"not a tuple of \['Tensor', 'list'\]"),
        ([], r"not a list of \[\]"),
        ({"image": IMAGE}, r"not a dict of \{'image': 'Tensor'\}"),
        ({"image": IMAGE, "label": [1, 0, 2]}, r"not a dict of \{'image': 'Tensor', 'label': 'list'\}"),
        ({"pixels": IMAGE, "y": LABEL}, r"not a dict of \{'pixels': 'Tensor', 'y': 'Tensor'\}"),
        ("text", "not a str of"),
        (None, "not a NoneType"),
        (3.5, "not a float"),
    ],
)
def test_other_batches_are_named(batch: Any, outline: str) -> None:
    with pytest.raises(TypeError, match=r"a batch must be \(image, label\[, index\]\) or a dict.*" + outline):
        unpack(batch)


def test_for_prediction_the_image_is_enough() -> None:
    forms: list[Any] = [IMAGE, (IMAGE,), [IMAGE], {"x": IMAGE}, (IMAGE, LABEL), {"image": IMAGE, "path": ["a"]}]
    for batch in forms:
        image, index = unpack_image(batch)
        assert image is IMAGE
        assert index is None
    image, index = unpack_image(Batch(IMAGE, LABEL, INDEX))
    assert image is IMAGE
    assert index is INDEX


@pytest.mark.parametrize("batch", [{"label": LABEL}, [], (IMAGE, "a"), None, {"image": "a.png"}])
def test_for_prediction_other_batches_are_named(batch: Any) -> None:
    with pytest.raises(
        TypeError, match=r"a batch must be an image tensor, \(image, \.\.\.\) or a dict with 'image', not a"
    ):
        unpack_image(batch)
