"""`run.json` of a run of `lightning-ff fit`: what its other files do not hold, such as command, commit and hardware."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from datetime import datetime, timezone
from hashlib import sha256
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch import Trainer

import lightning_ff
from lightning_ff.loggers import run_folder
from lightning_ff.report.files import RUN


def write_json(file: Path, values: Any) -> None:
    """Write a JSON file in one step, with sorted keys."""
    partial = file.with_name(f"{file.name}.partial")
    partial.write_text(json.dumps(values, indent=2, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")
    partial.replace(file)


def start_run(folder: Path, trainer: Trainer, config: str, command: str | None, checkpoint: str | None) -> None:
    """Write the file at the start of a run, from the text of its `config.yaml`; `end` is null."""
    versions = {"python": platform.python_version(), "torch": str(torch.__version__)}
    values: dict[str, Any] = {
        "command": command,
        "config_hash": sha256(config.encode()).hexdigest(),
        "end": None,
        "git": _git(),
        "hardware": _hardware(trainer.strategy.root_device),
        "minutes": _minutes_until(checkpoint),
        "processes": trainer.world_size,
        "resumed_from": checkpoint,
        "start": datetime.now(timezone.utc).isoformat(),
        "threads": torch.get_num_threads(),
        "versions": {"lightning": lightning.__version__, "lightning-ff": lightning_ff.__version__, **versions},
    }
    write_json(folder / RUN, values)


def finish_run(trainer: Trainer) -> None:
    """Add the end of a run, and its minutes."""
    folder = run_folder(trainer) if trainer.is_global_zero else None
    if folder is not None and (folder / RUN).is_file():
        run, now = json.loads((folder / RUN).read_text(encoding="utf-8")), datetime.now(timezone.utc)
        minutes = run["minutes"] + (now - datetime.fromisoformat(run["start"])).total_seconds() / 60
        write_json(folder / RUN, {**run, "end": now.isoformat(), "minutes": round(minutes, 3)})


def _minutes_until(checkpoint: str | None) -> float:
    """Minutes that a run took until it wrote a checkpoint; 0 if they are not known."""
    try:
        file = Path(checkpoint or "")
        run = json.loads((file.parents[1] / RUN).read_text(encoding="utf-8"))
        last = max(file.stat().st_mtime - datetime.fromisoformat(run["start"]).timestamp(), 0.0) / 60
        return float(run["minutes"]) + (last if run["end"] is None else 0.0)
    except (OSError, ValueError, LookupError, TypeError):
        return 0.0


def _git() -> dict[str, Any]:
    """Commit of the working folder, or else of the package's folder, and whether a file of it was changed."""
    for folder in (Path.cwd(), Path(__file__).parent):
        line = ["git", "--no-optional-locks", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40"]
        try:  # without tags, the description is the hash
            done = subprocess.run([*line, "--exclude=*"], capture_output=True, text=True, timeout=30, check=True)
        except (OSError, subprocess.SubprocessError):
            continue
        commit, _, dirty = done.stdout.strip().partition("-")
        return {"commit": commit, "dirty": bool(dirty)}
    return {"commit": None, "dirty": None}


def _hardware(device: torch.device) -> dict[str, Any]:
    info = Path("/proc/cpuinfo")
    models = re.findall(r"model name\s*: (.*)", info.read_text(encoding="utf-8") if info.is_file() else "")
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {"cores": os.cpu_count(), "cpu": (models or [platform.processor() or platform.machine()])[0], "gpu": gpu}
