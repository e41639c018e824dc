"""A checkpoint with one changed bit in a header of its zip archive is refused, or has the values that were saved."""

from __future__ import annotations

import zipfile
from pathlib import Path

import torch

from lightning_ff.learner.resume import WholeFileIO

CENTRAL = {"name length": (28, 2), "extra length": (30, 2), "comment length": (32, 2), "attributes": (38, 4)}


def test_no_changed_bit_of_a_header_changes_values_unnoticed(tmp_path: Path) -> None:
    values = {name: torch.randn(n, generator=torch.Generator().manual_seed(n)) for name, n in {"a": 5, "b": 7}.items()}
    whole, changed = tmp_path / "a.ckpt", tmp_path / "b.ckpt"
    WholeFileIO().save_checkpoint({"state_dict": values}, whole)
    content, bits = whole.read_bytes(), list[tuple[int, int]]()
    with zipfile.ZipFile(whole) as archive:
        for entry in archive.infolist():
            bits += [(entry.header_offset + 26 + i, bit) for i in range(4) for bit in range(8)]  # lengths
    start = content.index(b"PK\x01\x02")
    while content[start : start + 4] == b"PK\x01\x02":
        bits += [(start + first + i, bit) for first, size in CENTRAL.values() for i in range(size) for bit in range(8)]
        start += 46 + int.from_bytes(content[start + 28 : start + 30], "little")
    refused = 0
    for place, bit in bits:
        damaged = bytearray(content)
        damaged[place] ^= 1 << bit
        changed.write_bytes(damaged)
        try:
            found = WholeFileIO().load_checkpoint(changed)["state_dict"]
        except RuntimeError:  # CorruptCheckpoint, or that of torch's reader
            refused += 1
        else:
            assert all(torch.equal(found[name], value) for name, value in values.items()), (place, bit)
    assert refused > 0.6 * len(bits)
