"""Pictures redrawn from stored representations, by type, and pictures logged by runs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TypeAlias

import numpy as np
import torch

from lightning_ff.figures import activation_wall, class_profiles, connectivity_map, rdm_maps, weight_histograms
from lightning_ff.metrics import ensemble_connectivity
from lightning_ff.report.drawing import drawn, image
from lightning_ff.report.grouping import Group
from lightning_ff.report.html import Child, Markup, element, folded
from lightning_ff.report.representations import Representation
from lightning_ff.report.sections.base import Section, lead, named, paragraph, path
from lightning_ff.report.sections.connections import connections
from lightning_ff.report.sections.similarity import agreement, class_rdms
from lightning_ff.report.stored import measured, samples_of

_MOST_CLASSES = 50
_OF_WALLS = (
    "A row for each stored sample, sorted by class; a column for each unit, sorted by the class in whose ensemble it "
    "is most active. Units right of the line are in none."
)
_OF_PROFILES = "A line for each unit, with a dot if it is in the ensemble of the class."
_OF_RDMS = "1 less Pearson's correlation, over units, of the classes' mean activities."
_OF_CONNECTIONS = "Mean weight from ensembles of one layer to those of the next; grey where one of the two is empty."
Drawings: TypeAlias = list[Markup | None]


def pictures(groups: Sequence[Group]) -> Section | None:
    """Pictures by type, for each configuration of one of its runs."""
    every = [(group, stored) for group in groups if (stored := group.shown.representation) is not None]
    parts: list[Child] = []
    for title, description, make in (
        ("Activations", _OF_WALLS, _walls),
        ("Mean activity by class", _OF_PROFILES, _profiles),
        ("Dissimilarity of the classes", _OF_RDMS, _rdms),
        ("Weights between ensembles", _OF_CONNECTIONS, _connections),
        ("Weights", "Share of the weights by size.", _weights),
    ):
        made = [make(group, stored) for group, stored in every if len(stored.classes) <= _MOST_CLASSES]
        shown: list[Child] = [each for drawings in made for each in drawings if each is not None]
        if shown:
            more = agreement(measured(groups)) if make is _rdms else []
            body = [element("div", shown, class_="beside"), connections(groups)] if make is _connections else shown
            parts += [element("h3", title), paragraph(description), [*body, *more]]
    if any(logged := [_logged(group) for group in groups]):
        parts += [element("h3", "Logged during training"), *logged]
    intro = paragraph("Of several runs of one configuration the first is shown that has the picture.")
    several = any(len(group.runs) > 1 for group in groups)
    return Section("pictures", "Pictures", [intro if several else None, *parts]) if parts else None


def _caption(group: Group, description: str) -> list[Child]:
    return [named(group), f": {description}, {samples_of([group])}."]


def _arrays(stored: Representation, key: str) -> dict[str, np.ndarray]:
    """A large array of every layer that has it."""
    return {name: found for name in stored.layers if (found := stored.array(f"{name}/{key}")) is not None}


def _walls(group: Group, stored: Representation) -> Drawings:
    label, kept = stored.array("label"), _arrays(stored, "activations")
    if label is None or not kept:
        return []
    members = {name: layer.members for name, layer in stored.layers.items()}
    alt, caption = f"Activations, {group.name}", _caption(group, f"{len(label)} samples")
    return [drawn(activation_wall, alt, caption, kept, label, stored.classes, members)]


def _profiles(group: Group, stored: Representation) -> Drawings:
    made: list[Markup | None] = []
    for name, mean in _arrays(stored, "mean").items():
        alt, members = f"Mean activity of {name} by class, {group.name}", stored.layers[name].members
        made.append(drawn(class_profiles, alt, _caption(group, name), mean, members, stored.classes, name))
    rest = [each for each in made[1:] if each is not None]
    return [*made[:1], folded(f"The other layers of {group.letter}", rest, printed=False) if rest else None]


def _rdms(group: Group, stored: Representation) -> Drawings:
    alt, caption = f"Dissimilarity of classes, {group.name}", _caption(group, "a map for each layer")
    return [drawn(rdm_maps, alt, caption, class_rdms(stored), stored.classes)]


def _connections(group: Group, stored: Representation) -> Drawings:
    made = []
    for before, after in pairwise(stored.layers.values()):
        weight = stored.array(f"{after.name}/weight")
        if weight is not None and weight.shape == (after.units, before.units):
            found = ensemble_connectivity(*map(torch.from_numpy, (weight, before.members, after.members)))
            title = f"{before.name} to {after.name}"
            alt, caption = f"{title}, {group.name}", [named(group), f": {title}."]
            made.append(drawn(connectivity_map, alt, caption, found, stored.classes, title))
    return made


def _weights(group: Group, stored: Representation) -> Drawings:
    return [drawn(weight_histograms, f"Weights of {group.name}", [named(group), "."], _arrays(stored, "weight"))]


def _logged(group: Group) -> Child:
    redrawn = group.shown.representation is not None  # the pictures of an ensemble monitor are drawn above
    for run in group.runs:
        shown: list[Child] = []
        for key, (step, data) in sorted(run.pictures.items()):
            if not (redrawn and "/ensembles/" in key):
                caption = [named(group), ": ", element("code", key), f", after {step} batches."]
                shown.append(image(data, f"{key} of {run.folder}", caption))
        if shown:
            return [lead(named(group), ", logged in ", path(run.folder), ":"), *shown]
    return None
