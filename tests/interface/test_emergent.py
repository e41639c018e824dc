"""The pictures of the docs are drawn from what runs of a matrix leave behind."""

from __future__ import annotations

import csv
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from lightning_ff.matrix import matrix

MODELS: dict[str, Any] = {
    "FF": {"class_path": "ForwardForward", "init_args": {"widths": [12, 8]}},
    "BP": {
        "class_path": "Backprop",
        "init_args": {
            "model": {
                "class_path": "lightning_ff.MLP",
                "init_args": {"num_classes": 10, "inputs": 64, "widths": [12, 8]},
            }
        },
    },
}


@pytest.fixture
def runs(forked_python: None, tmp_path: Path) -> Path:
    """A matrix of both models on digits, made."""
    for name, model in MODELS.items():
        callbacks = [{"class_path": "EnsembleMonitor", "init_args": {"pictures": False, "samples": 5}}]
        trainer = {"accelerator": "cpu", "max_epochs": 1, "enable_model_summary": False, "callbacks": callbacks}
        config = {"model": model, "data": {"class_path": "Digits"}, "trainer": trainer}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(config))
    file = tmp_path / "matrix.yaml"
    entries = {name: {"config": f"{name}.yaml"} for name in MODELS}
    file.write_text(yaml.safe_dump({"output": "logs/m", "runs": entries}))
    assert matrix([str(file)]) == 0
    return Path("logs/m")


def test_pictures_of_a_matrix(examples: Path, runs: Path) -> None:
    script = runpy.run_path(str(examples / "emergent" / "pictures.py"))
    script["main"](runs, Path("drawn"))
    kinds = [f"{kind}_{name}" for name in MODELS for kind in ("wall", "rdms", "connectivity")]
    assert {file.stem for file in Path("drawn").iterdir()} == {*kinds, "scatter"}
    for file in Path("drawn").iterdir():
        with Image.open(file) as image:
            assert np.asarray(image.convert("L")).std() > 5  # not blank
    with (runs / "BP" / "seed0" / "metrics.csv").open() as opened:
        tested = [float(row["test/acc"]) for row in csv.DictReader(opened) if row["test/acc"]]
    assert script["accuracy"](runs / "BP" / "seed0") == tested[-1]
    stored = dict(np.load(runs / "FF" / "seed0" / "representations" / "test.npz"))
    stored["seen"] = np.arange(10) != 4
    count, hoyer = (np.delete(stored[f"block00/{key}"], 4) for key in ("count", "hoyer"))
    assert script["sparsity"](stored, "block00") == pytest.approx(
        np.nansum(hoyer * count) / count[~np.isnan(hoyer)].sum()
    )
