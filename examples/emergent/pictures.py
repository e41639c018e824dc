"""Draw the pictures of docs/emergent.md again, from what runs of a matrix left in their folders.

python examples/emergent/pictures.py logs/emergent_mnist pictures
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from lightning_ff import figures
from lightning_ff.metrics import class_mean_rdm, ensemble_connectivity

Stored = Mapping[str, np.ndarray]


def accuracy(run: Path) -> float:
    """Test accuracy of a run."""
    with (run / "metrics.csv").open(newline="") as file:
        return float([row["test/acc"] for row in csv.DictReader(file) if row.get("test/acc")][-1])


def sparsity(stored: Stored, layer: str) -> float:
    """Mean over the samples of classes that training has seen."""
    hoyer, count = stored[f"{layer}/hoyer"], stored[f"{layer}/count"]
    known = stored["seen"] & ~np.isnan(hoyer)
    return float(np.average(hoyer[known], weights=count[known]))


def pictures(runs: Mapping[str, Path]) -> Iterator[tuple[str, Figure]]:
    """Each picture and its name, of runs by name."""
    points = []
    for name, run in runs.items():
        stored: Stored = np.load(run / "representations" / "test.npz")
        classes, layers = stored["classes"].tolist(), stored["layers"].tolist()
        points.append(figures.RunPoint(name, accuracy(run), {layer: sparsity(stored, layer) for layer in layers}))
        first = layers[0]
        wall = {f"{name}, {first}": stored[f"{first}/activations"]}
        members = {f"{name}, {first}": stored[f"{first}/members"]}
        yield f"wall_{name}", figures.activation_wall(wall, stored["label"], classes, members)
        rdms = {f"{name}, {layer}": class_mean_rdm(torch.from_numpy(stored[f"{layer}/mean"])) for layer in layers}
        yield f"rdms_{name}", figures.rdm_maps(rdms, classes)
        second = layers[1]
        between = (torch.from_numpy(stored[f"{layer}/members"]) for layer in (first, second))
        matrix = ensemble_connectivity(torch.from_numpy(stored[f"{second}/weight"]), *between)
        yield f"connectivity_{name}", figures.connectivity_map(matrix, classes, f"{name}: {first} to {second}")
    yield "scatter", figures.accuracy_sparsity_scatter(points)


def main(matrix: Path, output: Path) -> None:
    """Draw for the first seed of every run below a matrix's folder."""
    tested = sorted(matrix.glob("*/seed*/representations/test.npz"), reverse=True)
    found = {file.parents[2].name: file.parents[1] for file in tested}  # the first seed comes last, and stays
    output.mkdir(parents=True, exist_ok=True)
    for name, figure in pictures(dict(sorted(found.items()))):
        figure.savefig(output / f"{name}.png", dpi=100)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
