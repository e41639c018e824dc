"""Taking a batch apart: every accepted form, and the sentence for the others."""

from __future__ import annotations

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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool])
def test_what_is_no_class_number_stays_so_that_it_is_refused(dtype: torch.dtype) -> None:
    assert unpack((IMAGE, LABEL.to(dtype)))[1].dtype == dtype


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
