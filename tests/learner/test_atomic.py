"""Checkpoints are replaced whole, in the folder that they belong to; kept outputs leave no files."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from pathlib import Path

import pytest
import torch

from lightning_ff.learner.resume import WholeFileIO
from lightning_ff.sweep.store import OutputCache

resource = pytest.importorskip("resource", reason="limits of files are of Unix")


def test_a_full_disk_leaves_the_earlier_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    io, file = WholeFileIO(), tmp_path / "new folder" / "last.ckpt"
    monkeypatch.setattr(tempfile, "tempdir", "/nonexistent")  # nothing is written elsewhere first
    io.save_checkpoint({"state_dict": {}, "a": torch.ones(3)}, file)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limit[1]))  # writing more is an error, as on a full disk
    try:
        with pytest.raises((OSError, RuntimeError)):
            io.save_checkpoint({"state_dict": {}, "a": torch.ones(10_000)}, str(file))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert [path.name for path in file.parent.iterdir()] == ["last.ckpt"]
    assert torch.equal(io.load_checkpoint(file)["a"], torch.ones(3))


def save_forever(file: Path) -> None:
    while True:
        WholeFileIO().save_checkpoint({"state_dict": {}, "a": torch.ones(300_000)}, file)


def test_a_killed_process_leaves_a_whole_file(tmp_path: Path) -> None:
    file, part = tmp_path / "last.ckpt", tmp_path / ".last.ckpt.part"
    for k in range(5):
        process = multiprocessing.get_context("fork").Process(target=save_forever, args=(file,))
        process.start()
        while not file.exists():
            time.sleep(0.01)
        time.sleep(0.02 + 0.007 * k)
        process.kill()
        process.join()
        assert torch.equal(WholeFileIO().load_checkpoint(file)["a"], torch.ones(300_000))
        assert {path.name for path in tmp_path.iterdir()} <= {file.name, part.name}
        file.unlink()
    part.touch()
    os.utime(part, (0, time.time() - 4000))
    WholeFileIO().save_checkpoint({}, tmp_path / "other.ckpt")  # removes what is older than an hour
    assert not part.exists()


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps the name of a file that is mapped")
def test_kept_outputs_leave_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    cache = OutputCache(samples=4, memory=0.0)
    rows = torch.rand(8, 2, 3)
    for index in (torch.arange(4), torch.arange(4, 8)):  # the second one makes it grow
        cache.put(index, rows[index])
    assert cache.on_disk
    found = cache.get(torch.tensor([6, 1]))
    assert isinstance(found, torch.Tensor)
    assert torch.equal(found, rows[[6, 1]])
    assert not list(tmp_path.iterdir())
