"""Kept outputs by sample: any indices, and two samples with one index."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything

from lightning_ff import ConvNet, FixedPool, ForwardForward, GreedySchedule, ScalableForwardForward
from lightning_ff.data import Digits
from lightning_ff.sweep.store import OutputCache, marks_of


def test_indices_may_be_any_numbers() -> None:
    cache, generator = OutputCache(4, 1.0), torch.Generator().manual_seed(0)
    index = torch.randint(-(2**62), 2**62, (50,), generator=generator)
    index[:3] = torch.tensor([10**12, 0, -5])
    rows = torch.rand(50, 1, 3, generator=generator)
    for part in torch.arange(50).split(7):
        cache.put(index[part], rows[part])
    assert len(cache) == 50
    order = torch.randperm(50, generator=generator)
    found = cache.get(index[order])
    assert isinstance(found, torch.Tensor)
    assert torch.equal(found, rows[order])
    assert cache.get(torch.tensor([1])) is None


def test_marks_tell_samples_apart() -> None:
    images = torch.zeros(3, 1, 2, 2)
    images[1, 0, 0, 1] = images[2, 0, 1, 0] = 1.0  # equal sums
    marks = marks_of(images, torch.tensor([1, 1, 1]))
    assert marks is not None
    assert len({tuple(row) for row in marks.tolist()}) == 3
    assert marks_of(None, None) is None


@pytest.mark.parametrize("given", ["image", "label"])
def test_two_samples_with_one_index_are_noticed(given: str) -> None:
    cache = OutputCache(4, 1.0)
    image, label = torch.rand(2, 4), torch.tensor([0, 1])
    marks = marks_of(image, None) if given == "image" else marks_of(None, label)
    cache.put(torch.tensor([3, 4]), torch.rand(2, 1, 2), marks)
    assert cache.get(torch.tensor([4, 3]), None if marks is None else marks.flip(0)) is not None
    message = "index=3 is that of two different samples: the third entry of a batch is the position"
    for use in (cache.get, lambda index, marks: cache.put(index, torch.rand(2, 1, 2), marks)):
        with pytest.raises(ValueError, match=message):
            use(torch.tensor([3, 3]), marks)  # type: ignore[operator]


class Superclasses(Iterable[Any]):
    """Batches whose third entry is a coarser class."""

    def __iter__(self) -> Iterator[Any]:
        data = Digits(batch_size=50, train_size=20)
        data.setup("fit")
        return iter([(batch.image, batch.label, batch.label // 5) for batch in data.train_dataloader()])


@pytest.mark.parametrize("mode", ["pair", "class"])
def test_a_third_entry_that_is_no_position_is_refused(mode: str) -> None:
    seed_everything(0, verbose=False)
    model: Any = ForwardForward(10, (1, 8, 8), widths=[8, 8], negatives=FixedPool())
    if mode == "class":
        model = ScalableForwardForward(ConvNet(10, 1, [4, 4]), 10, (1, 8, 8))
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False}
    trainer = Trainer(accelerator="cpu", max_epochs=2, callbacks=[GreedySchedule(1)], **quiet)
    with pytest.raises(
        ValueError, match=r"index=[01] is that of two different samples.*or give the schedule cache=False"
    ):
        trainer.fit(model, Superclasses())
