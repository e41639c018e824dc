"""Helpers of benchmarks: arguments, the table, the JSON file."""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import warnings
from pathlib import Path

import torch


def arguments(description: str, threads: int = 2) -> argparse.Namespace:
    """`--json FILE`, `--threads N` (with a default) and `--quick`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", type=Path, help="write the numbers to this file")
    parser.add_argument("--threads", type=int, default=min(threads, os.cpu_count() or 1), help="threads of torch")
    parser.add_argument("--quick", action="store_true", help="few repetitions: shows that it runs, not how fast")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore")
    return given


def publish(numbers: dict[str, float], notes: dict[str, str], file: Path | None) -> None:
    """Print every number with what it means, and write the file."""
    print(f"\ntorch {torch.__version__}, {platform.machine()}, {torch.get_num_threads()} threads")
    width = max(map(len, numbers))
    for name, value in numbers.items():
        print(f"{name.ljust(width)}  {value:10.4f}  {notes.get(name, '')}".rstrip())
    if file is not None:
        file.write_text(json.dumps(numbers, indent=1) + "\n")
