"""Activations kept by sample."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lightning_ff.sweep.store import OutputCache


@pytest.mark.parametrize("memory", [1.0, 0.0])
def test_rows_come_back_by_sample_whatever_the_order_and_however_many(memory: float) -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(50, 2, 3, generator=generator)
    index = torch.randperm(900, generator=generator)[:50]
    kept = OutputCache(samples=10, memory=memory)  # more samples than expected
    for part in torch.arange(50).split(7):
        assert kept.get(index[part]) is None
        kept.put(index[part], rows[part])
    order = torch.randperm(50, generator=generator)
    assert torch.equal(kept.get(index[order]), rows[order])  # type: ignore[arg-type]
    assert len(kept) == 50
    assert kept.on_disk == (memory == 0.0)
    missing = next(i for i in range(900) if i not in index)
    assert kept.get(torch.tensor([int(index[0]), missing])) is None


def test_rows_may_be_replaced_and_tuples_kept() -> None:
    kept = OutputCache(4, 1.0)
    index = torch.tensor([2, 0])
    kept.put(index, (torch.zeros(2, 1, 3), torch.ones(2, 1)))
    kept.put(torch.tensor([0]), (torch.full((1, 1, 3), 5.0), torch.full((1, 1), 7.0)))
    first, second = kept.get(torch.tensor([0, 2]))  # type: ignore[misc]
    assert first[:, 0, 0].tolist() == [5.0, 0.0]
    assert second[:, 0].tolist() == [7.0, 1.0]
    assert len(kept) == 2


def test_half_precision_is_kept_as_it_is() -> None:
    kept = OutputCache(2, 0.0)
    kept.put(torch.tensor([0]), torch.ones(1, 1, 2, dtype=torch.bfloat16))
    assert kept.get(torch.tensor([0])).dtype == torch.bfloat16  # type: ignore[union-attr]


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux lists mapped files there")
def test_closing_frees_the_file() -> None:
    def mapped() -> int:
        return Path("/proc/self/maps").read_text().count("lightning-ff-")

    before, kept = mapped(), OutputCache(2, 0.0)
    kept.put(torch.tensor([1]), torch.ones(1, 1, 2))
    assert mapped() == before + 1
    kept.close()
    assert mapped() == before
    assert not kept.on_disk
    assert kept.get(torch.tensor([1])) is None
