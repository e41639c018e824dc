"""Classes that training does not see."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_ff import AllWrongLabels, ForwardForward, PixelOverlay
from lightning_ff.data import Digits
from lightning_ff.learner.checks import held_out


def labels(loader: Any) -> Tensor:
    return torch.cat([batch.label for batch in loader])


@pytest.mark.parametrize("train_size", [None, 20])
def test_images_of_a_class_are_left_out_of_training_and_validation_alone(train_size: int | None) -> None:
    whole, data = Digits(train_size=train_size), Digits(train_size=train_size, held_out=["3", 7])
    for each in (whole, data):
        each.setup("fit")
        each.setup("test")
    assert data.held_out_classes == [3, 7]
    for loader in ("train_dataloader", "val_dataloader"):
        all_, seen = (labels(getattr(each, loader)()) for each in (whole, data))
        kept = all_[(all_ != 3) & (all_ != 7)]
        assert seen.bincount(minlength=10).tolist() == kept.bincount(minlength=10).tolist()
    assert torch.equal(labels(whole.test_dataloader()), labels(data.test_dataloader()))


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ([10], ValueError, r"held_out=\[10\]: there is no class 10, choose of 0, 1"),
        (["cat"], ValueError, "there is no class 'cat'"),
        ([True], ValueError, "there is no class True"),
        ("3", TypeError, "held_out='3': give a list"),
    ],
)
def test_bad_arguments(given: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Digits(held_out=given)


def test_two_classes_must_be_left() -> None:
    with pytest.raises(ValueError, match="leaves fewer than 2 of 10 classes"):
        held_out(Digits(held_out=list(range(9))), 10)


def test_all_wrong_labels_are_those_of_the_classes_seen() -> None:
    model = ForwardForward(4, (8,), widths=[4], labels=PixelOverlay(on_value=1.0))
    model.held_out = (2,)
    negatives = AllWrongLabels()(torch.zeros(3, 8), torch.tensor([0, 1, 3]), torch.arange(3), model)
    assert negatives[:, :4].argmax(1).view(2, 3).T.tolist() == [[1, 3], [3, 0], [0, 1]]
