"""Pictures redrawn from stored representations, by type, and pictures logged by runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import torch

from lightning_ff.figures import activation_wall, class_profiles, connectivity_map, rdm_maps, weight_histograms
from lightning_ff.metrics import ensemble_connectivity
from lightning_ff.report.drawing import drawn, image
from lightning_ff.report.grouping import Group
from lightning_ff.report.html import Child, Markup, element, folded
from lightning_ff.report.representations import Representation
from lightning_ff.report.runs import Run
from lightning_ff.report.sections.base import Section, lead, named, paragraph, path
from lightning_ff.report.sections.connections import connections
from lightning_ff.report.sections.similarity import agreement, class_rdms
from lightning_ff.report.stored import measured, samples_of

_MOST_CLASSES = 50
_OF_WALLS = (
    "A row for each stored sample, sorted by class; a column for each unit, sorted by the class in whose ensemble it "
    "is most active. Units right of the line are in none."
)
_OF_RDMS = "1 less Pearson's correlation, over units, of the classes' mean activities."
_OF_CONNECTIONS = "Mean weight from ensembles of one layer to those of the next; grey where one of the two is empty."
Drawings = list[Markup | None]


def pictures(groups: Sequence[Group]) -> Section | None:
    """Pictures by type, for each configuration of one of its runs."""
    kinds: list[tuple[str, str, Callable[[Group, Representation], Drawings]]] = [
        ("Activations", _OF_WALLS, _walls),
        (
            "Mean activity by class",
            "A line for each unit, with a dot if it is in the ensemble of the class.",
            _profiles,
        ),
        ("Dissimilarity of the classes", _OF_RDMS, _rdms),
        ("Weights between ensembles", _OF_CONNECTIONS, _connections),
        ("Weights", "Share of the weights by size.", _weights),
    ]
    parts: list[Child] = [
        part for title, description, make in kinds if (part := _kind(title, description, make, groups))
    ]
    logged = [_logged(group) for group in groups]
    if any(logged):
        parts += [element("h3", "Logged during training"), *logged]
    intro = paragraph("Of several runs of one configuration the first is shown that has the picture.")
    several = any(len(group.runs) > 1 for group in groups)
    return Section("pictures", "Pictures", [intro if several else None, *parts]) if parts else None


def _kind(
    title: str, description: str, make: Callable[[Group, Representation], Drawings], groups: Sequence[Group]
) -> list[Child]:
    shown: list[Child] = []
    for group in groups:
        stored = group.shown.representation
        if stored is not None and len(stored.classes) <= _MOST_CLASSES:
            shown += [each for each in make(group, stored) if each is not None]
    if not shown:
        return []
    if make is _rdms:
        shown += agreement(measured(groups))
    page_parts = [element("div", shown, class_="beside"), connections(groups)] if make is _connections else shown
    return [element("h3", title), paragraph(description), page_parts]


def _caption(group: Group, description: str) -> list[Child]:
    return [named(group), f": {description}, {samples_of([group])}."]


def _walls(group: Group, stored: Representation) -> Drawings:
    label = stored.array("label")
    kept = {name: h for name in stored.layers if (h := stored.array(f"{name}/activations")) is not None}
    if label is None or not kept:
        return []
    members = {name: layer.members for name, layer in stored.layers.items()}
    caption = _caption(group, f"{len(label)} samples")
    return [
        drawn(partial(activation_wall, kept, label, stored.classes, members), f"Activations, {group.name}", caption)
    ]


def _profiles(group: Group, stored: Representation) -> Drawings:
    made: list[Markup | None] = []
    for name, layer in stored.layers.items():
        mean = stored.array(f"{name}/mean")
        if mean is not None:
            make = partial(class_profiles, mean, layer.members, stored.classes, name)
            made.append(drawn(make, f"Mean activity of {name} by class, {group.name}", _caption(group, name)))
    first, rest = made[:1], [each for each in made[1:] if each is not None]
    return [*first, folded(f"The other layers of {group.letter}", rest, printed=False) if rest else None]


def _rdms(group: Group, stored: Representation) -> Drawings:
    rdms = class_rdms(stored)
    if not rdms:
        return []
    caption = _caption(group, "a map for each layer")
    return [drawn(partial(rdm_maps, rdms, stored.classes), f"Dissimilarity of classes, {group.name}", caption)]


def _connections(group: Group, stored: Representation) -> Drawings:
    layers = [*stored.layers.values()]
    made = []
    for before, after in pairwise(layers):
        weight = stored.array(f"{after.name}/weight")
        if weight is not None and weight.shape == (after.units, before.units):
            found = ensemble_connectivity(*map(torch.from_numpy, (weight, before.members, after.members)))
            title = f"{before.name} to {after.name}"
            make = partial(connectivity_map, found, stored.classes, title)
            made.append(drawn(make, f"{title}, {group.name}", [named(group), f": {title}."]))
    return made


def _weights(group: Group, stored: Representation) -> Drawings:
    weights = {name: weight for name in stored.layers if (weight := stored.array(f"{name}/weight")) is not None}
    if not weights:
        return []
    return [drawn(partial(weight_histograms, weights), f"Weights of {group.name}", [named(group), "."])]


def _logged(group: Group) -> Child:
    again = group.shown.representation is not None  # then the pictures of an ensemble monitor are drawn above
    run = next((run for run in group.runs if _own(run, again)), None)
    if run is None:
        return None
    shown = [
        image(data, f"{key} of {run.folder}", [named(group), ": ", element("code", key), f", after {step} batches."])
        for key, (step, data) in sorted(_own(run, again).items())
    ]
    return [lead(named(group), ", logged in ", path(run.folder), ":"), *shown]


def _own(run: Run, again: bool) -> dict[str, tuple[int, bytes]]:
    """Pictures that a run logged, without those that are redrawn."""
    return {key: found for key, found in run.pictures.items() if not (again and "/ensembles/" in key)}
