"""Records the values that `test_goldens.py` compares with: of every case, or of those that are named.

    python -m tests.goldens.record [--out FILE] [NAME ...]

Values hold for one version of torch on one kind of CPU. Elsewhere, record those of the commit to compare with there.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import random
import tempfile
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from torch import nn

from tests.goldens.cases import CASES
from tests.goldens.found import differences, digest, text

FILE = Path(__file__).with_name("values.json")


def environment() -> dict[str, Any]:
    """Everything that numbers depend on besides the package."""
    return {
        "torch": str(torch.__version__),
        "CPU capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "kernels": _kernels(),
    }


def _kernels() -> str:
    """Hash of weights that were trained without the package: libraries below torch choose kernels of their own."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        x = torch.randn(16, 1, 8, 8)
        net = nn.Sequential(nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(216, 500))
        optimizer = torch.optim.Adam(net.parameters(), fused=True)
        for _ in range(3):
            optimizer.zero_grad()
            (net(x).square().mean(1).log_softmax(0) + torch.nn.functional.softplus(net(x)).mean(1)).sum().backward()
            optimizer.step()
        weights = "".join(digest(p)["sha256"] for p in net.parameters())
    return hashlib.sha256(weights.encode()).hexdigest()[:16]


def compute(name: str) -> dict[str, Any]:
    """Results of a case as JSON. It writes into the working folder."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    return json.loads(json.dumps(CASES[name]()._asdict()))


def record(names: list[str], file: Path) -> None:
    """Write the values of some cases, beside those that the file has of others.

    Raises:
        ValueError: those others were recorded elsewhere.
    """
    found: dict[str, Any] = {"environment": environment(), "lightning": lightning.__version__, "cases": {}}
    if file.exists() and set(names) < set(CASES):
        before = json.loads(file.read_text())
        if told := differences(before["environment"], found["environment"]):
            raise ValueError(f"{file} was recorded elsewhere, so record all cases: {'; '.join(told)}")
        found["cases"] = before["cases"]
    here = Path.cwd()
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            found["cases"][name] = compute(name)
            os.chdir(here)
    found["cases"] = {name: found["cases"][name] for name in CASES if name in found["cases"]}
    file.write_text(text(found) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.goldens.record")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"all, or some of {', '.join(CASES)}")
    parser.add_argument("--out", type=Path, default=FILE, metavar="FILE", help=f"default: {FILE.name} beside this")
    given = parser.parse_args()
    if unknown := set(given.names) - set(CASES):
        parser.error(f"there is no case {', '.join(sorted(unknown))}")
    torch.set_num_threads(1)
    os.environ.setdefault("MPLBACKEND", "Agg")
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    record(given.names or list(CASES), given.out.resolve())
