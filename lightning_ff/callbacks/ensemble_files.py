"""Output of an ensemble monitor: summary values, files from which pictures can be redrawn, and pictures."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from lightning_ff._lightning import datamodule_of
from lightning_ff.blocks.local_block import LocalBlock
from lightning_ff.loggers import log_figure, run_folder
from lightning_ff.metrics import (
    class_mean_rdm,
    ensemble_connectivity,
    ensemble_sizes,
    mean_jaccard,
    selectivity_order,
    shared_units,
)

Data = Mapping[str, np.ndarray]


def class_names(trainer: Trainer, module: LightningModule) -> list[str]:
    """Names of the classes from the data module, or else their indices.

    Raises:
        ValueError: the number of classes is unknown.
    """
    names = getattr(datamodule_of(trainer), "class_names", None)
    if names is not None:
        return list(names)
    count = getattr(module, "num_classes", None) or getattr(datamodule_of(trainer), "num_classes", None)
    if not isinstance(count, int):
        raise ValueError(
            f"neither {type(module).__name__} nor the data module has num_classes, which ensembles of classes need: "
            "set self.num_classes in the __init__ of the module"
        )
    return [str(c) for c in range(count)]


def summary(data: Data) -> dict[str, float]:
    """One value per layer and measure, by the key that is logged; over the classes that training has seen."""
    values: dict[str, float] = {}
    seen = data["seen"]
    for name in map(str, data["layers"]):
        members = torch.from_numpy(data[f"{name}/members"][seen])
        count, valid = data[f"{name}/count"], seen & ~np.isnan(data[f"{name}/hoyer"])
        hoyer = np.average(data[f"{name}/hoyer"][valid], weights=count[valid]) if valid.any() else np.nan
        values |= {
            f"ensemble/sparsity/{name}": float(hoyer),
            f"ensemble/size/{name}": float(ensemble_sizes(members).double().mean()),
            f"ensemble/jaccard/{name}": float(mean_jaccard(members)),
            f"ensemble/shared/{name}": float((selectivity_order(members) > 1).sum()),
            f"ensemble/dead_units/{name}": float(data[f"{name}/dead_units"]),
        }
    return values


def weights(layer: nn.Module, name: str) -> dict[str, Tensor]:
    """Weight and bias of a layer with exactly one linear layer; empty for others."""
    inner = layer.layers if isinstance(layer, LocalBlock) else layer
    linear = [module for module in inner.modules() if isinstance(module, nn.Linear)]
    if len(linear) != 1:
        return {}
    found = {f"{name}/weight": linear[0].weight.detach().float()}
    return found if linear[0].bias is None else {**found, f"{name}/bias": linear[0].bias.detach().float()}


def save(trainer: Trainer, stage: str, data: Data) -> None:
    """Write `representations/<stage>.npz` and `.csv` into the run's folder; in `fit` also one pair per epoch."""
    folder = run_folder(trainer)
    if folder is None:
        return
    folder = folder / "representations"
    folder.mkdir(parents=True, exist_ok=True)
    names = [stage] + ([f"{stage}-epoch={trainer.current_epoch:03d}"] if trainer.state.fn == "fit" else [])
    for name in names:
        small = {key: value for key, value in data.items() if name == stage or not key.endswith("/activations")}
        partial = folder / f"{name}.partial.npz"
        np.savez(partial, **small)  # type: ignore[arg-type]
        partial.replace(folder / f"{name}.npz")
        _write_table(folder / f"{name}.csv", data)


def _write_table(path: Any, data: Data) -> None:
    """Write the values of each layer and class as one row."""
    keys = ("count", "hoyer", "treves_rolls", "active_fraction")
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["layer", "class", "seen", "accuracy", *keys, "ensemble_size"])
        for layer in map(str, data["layers"]):
            for c, name in enumerate(data["classes"]):
                numbers = [float(data[f"{layer}/{key}"][c]) for key in keys]
                size = int(data[f"{layer}/members"][c].sum())
                accuracy = float(data["accuracy"][c]) if "accuracy" in data else ""
                rows.writerow([layer, name, bool(data["seen"][c]), accuracy, *numbers, size])


def draw(trainer: Trainer, stage: str, data: Data) -> None:
    """Draw every picture for which there is data, and log it."""
    from lightning_ff import figures

    classes, layers = [str(name) for name in data["classes"]], [str(name) for name in data["layers"]]
    by_layer = {key: {name: data[f"{name}/{key}"] for name in layers} for key in ("hoyer", "members", "mean")}
    sizes = {name: members.sum(1) for name, members in by_layer["members"].items()}
    pictures = {
        "sparsity": figures.class_bars({"": by_layer["hoyer"]}, classes, "Hoyer sparsity"),
        "sizes": figures.class_bars({"": sizes}, classes, "units in the ensemble"),
        "rdms": figures.rdm_maps(
            {name: class_mean_rdm(torch.from_numpy(mean)) for name, mean in by_layer["mean"].items()}, classes
        ),
    }
    for name in layers:
        members = torch.from_numpy(data[f"{name}/members"])
        pictures[f"sharing/{name}"] = figures.sharing_map(shared_units(members), classes)
        pictures[f"profiles/{name}"] = figures.class_profiles(data[f"{name}/mean"], members, classes, name)
    if "label" in data and len(data["label"]):
        activations = {name: data[f"{name}/activations"] for name in layers}
        pictures["wall"] = figures.activation_wall(activations, data["label"], classes)
    linear = {name: data[f"{name}/weight"] for name in layers if f"{name}/weight" in data}
    if linear:
        pictures["weights"] = figures.weight_histograms(linear)
    for before, after in pairwise(layers):
        if f"{after}/weight" in data and data[f"{after}/weight"].shape[1] == data[f"{before}/mean"].shape[1]:
            ends = (torch.from_numpy(data[f"{name}/members"]) for name in (before, after))
            matrix = ensemble_connectivity(torch.from_numpy(data[f"{after}/weight"]), *ends)
            pictures[f"connectivity/{after}"] = figures.connectivity_map(matrix, classes)
    for key, figure in pictures.items():
        log_figure(trainer, f"{stage}/ensembles/{key}", figure)
