"""Representations stored by an `EnsembleMonitor`, and values computed from them. Shapes: C classes, U units."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from functools import cached_property
from math import nan
from pathlib import Path

import numpy as np
import torch

from lightning_ff.metrics.ensembles import mean_jaccard, selectivity_order


@dataclass(frozen=True)
class Layer:
    """One layer's statistics."""

    name: str  # such as `block00`
    count: np.ndarray  # samples of each class (C,)
    per_class: dict[str, np.ndarray]  # `hoyer`, `treves_rolls` and `active_fraction`, each (C,)
    dead_units: float  # number of units that are active for no sample
    members: np.ndarray  # ensembles: units of each class (C, U), bool
    seen: np.ndarray  # whether a class was trained on (C,), bool

    @property
    def units(self) -> int:
        """Number of units."""
        return int(self.members.shape[1])

    @property
    def sizes(self) -> np.ndarray:
        """Units in the ensemble of each class `(C,)`."""
        return self.members.sum(1)

    def over_samples(self, name: str) -> float:
        """Mean over the samples of all seen classes; NaN if it is undefined in all of them."""
        values, weights = self.per_class[name][self.seen], self.count[self.seen]
        known = ~np.isnan(values) & (weights > 0)
        return float(np.average(values[known], weights=weights[known])) if known.any() else nan

    def by_class(self, name: str) -> np.ndarray:
        """A sparsity, or `size`, of every class `(C,)`."""
        return self.sizes if name == "size" else self.per_class[name]

    @property
    def mean_size(self) -> float:
        """Mean size of the ensembles of seen classes."""
        return float(self.sizes[self.seen].mean()) if self.seen.any() else nan

    @property
    def mean_jaccard(self) -> float:
        """Mean Jaccard index over pairs of seen classes, without pairs of empty ensembles."""
        return float(mean_jaccard(torch.from_numpy(self.members[self.seen])))

    @cached_property
    def order(self) -> np.ndarray:
        """Number of ensembles of seen classes that each unit is in `(U,)`."""
        return selectivity_order(torch.from_numpy(self.members[self.seen])).numpy()


@dataclass(frozen=True)
class Representation:
    """One file of statistics."""

    file: Path
    stage: str  # `test` or `validate`
    classes: list[str]
    accuracy: np.ndarray | None  # of each class (C,), if stored
    definition: str  # of the ensembles
    samples: str  # `correct`, if only correctly classified samples are used, or `all`
    seen: np.ndarray  # whether a class was trained on (C,), bool
    label_policy: str  # label written into images of unseen classes
    layers: dict[str, Layer]

    def array(self, key: str) -> np.ndarray | None:
        """One of the large arrays, read on demand; None if it was not stored."""
        with self.file.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return np.asarray(stored[key]) if key in stored else None


def read_representation(file: Path) -> Representation | str:
    """Statistics of one file, or a line with the reason why it cannot be read."""
    try:
        _check_arrays(file)
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as stored:
            classes = [str(name) for name in stored["classes"]]
            seen = stored["seen"].astype(bool) if "seen" in stored else np.ones(len(classes), bool)
            layers = {str(name): _layer(stored, str(name), seen) for name in stored["layers"]}
            stage, accuracy = file.stem.partition("-")[0], stored.get("accuracy")
            if accuracy is not None and len(accuracy) != len(classes):
                raise ValueError(f"accuracy is for {len(accuracy)} classes, not {len(classes)}")
            definition, samples, policy = (
                str(stored.get(key, "")) for key in ("definition", "samples", "label_policy")
            )
            return Representation(file, stage, classes, accuracy, definition, samples, seen, policy, layers)
    except KeyError as error:
        return f"representations/{file.name} cannot be read: it lacks {error}"
    except Exception as error:  # damaged files raise many types of errors
        return f"representations/{file.name} cannot be read: {error}"


_AXES = {"classes": 1, "layers": 1, "accuracy": 1, "seen": 1, "label": 1, "count": 1, "hoyer": 1, "treves_rolls": 1}
_AXES |= {"active_fraction": 1, "dead_units": 0, "confusion": 2, "members": 2, "mean": 2, "activations": 2, "weight": 2}


def _check_arrays(file: Path) -> None:
    """Check that a file is whole, and its arrays have as many axes as they should, and numbers; reads no array."""
    with zipfile.ZipFile(file) as archive:
        if damaged := archive.testzip():
            raise ValueError(f"{damaged} is damaged")
        for name in archive.namelist():
            with archive.open(name) as stored:
                version = np.lib.format.read_magic(stored)
                reads = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
                shape, _, kind = reads[version](stored)
            key = name.removesuffix(".npy")
            axes = _AXES.get(key.rpartition("/")[2])
            numbers = key.rpartition("/")[2] not in ("classes", "layers")
            if axes is not None and (len(shape) != axes or (numbers and kind.kind not in "biuf")):
                raise ValueError(f"{key} holds {kind} of shape {shape}, and should have {axes} axes of numbers")


def _layer(stored: np.lib.npyio.NpzFile, name: str, seen: np.ndarray) -> Layer:
    measures = {key: stored[f"{name}/{key}"].astype(float) for key in ("hoyer", "treves_rolls", "active_fraction")}
    members = stored[f"{name}/members"].astype(bool)
    count = stored[f"{name}/count"].astype(float)
    for key, values in {**measures, "members": members, "count": count}.items():
        if len(values) != len(seen):
            raise ValueError(f"{name}/{key} is for {len(values)} classes, not {len(seen)}")
    return Layer(name, count, measures, float(stored[f"{name}/dead_units"]), members, seen)
