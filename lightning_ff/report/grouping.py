"""Groups of runs with one configuration, and the differences of configurations."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

from lightning_ff.figures import PALETTE
from lightning_ff.report.runs import Run
from lightning_ff.report.settings import ABSENT, compared, seeds, settings_of, written


@dataclass
class Group:
    """Runs of one configuration."""

    number: int  # index on the page
    name: str  # short and unique
    runs: list[Run] = field(default_factory=list)  # one per seed
    settings: dict[str, Any] = field(default_factory=dict)  # the configuration, flat, without seeds and paths
    hue: int = 0  # index of its colour in pictures

    @property
    def letter(self) -> str:
        """A, B, ..., Z, AA, ..."""
        letters, rest = "", self.number + 1
        while rest:
            rest, place = divmod(rest - 1, 26)
            letters = chr(ord("A") + place) + letters
        return letters

    @property
    def color(self) -> str:
        """Its colour in every picture."""
        return PALETTE[self.hue % len(PALETTE)]

    @property
    def shown(self) -> Run:
        """The run whose pictures are shown."""
        return next((run for run in self.runs if run.representation is not None), self.runs[0])


def group(runs: Sequence[Run]) -> list[Group]:
    """Group runs by configuration, in the given order; interrupted runs are not grouped with others.

    A setting that is null equals a missing one, so that runs of an older version without it are in the same group.
    Without a saved configuration the learner's arguments and the logger's name are compared, without the data: runs in
    folders of the default name are then not grouped.
    """
    groups: dict[object, Group] = {}
    for run in runs:
        settings = {key: value for key, value in settings_of(run).items() if compared(key) and value is not None}
        key: object = (repr(sorted(settings.items(), key=lambda item: item[0])), run.broke_off)
        parent = run.folder.resolve().parent
        if not run.config:
            key = id(run) if not settings or parent.name == "lightning_logs" else (key, parent)
        groups.setdefault(key, Group(len(groups), folder_name(run), settings=settings)).runs.append(run)
    found = list(groups.values())
    for each in found:
        each.name = _common([folder_name(run) for run in each.runs])
        each.runs.sort(key=lambda run: [str(value).rjust(12) for value in seeds(run).values()])
    _distinguish(found)
    # pictures of representations use colours in the order of groups that have them
    for hue, each in enumerate(sorted(found, key=lambda each: each.shown.representation is None)):
        each.hue = hue
    return found


def folder_name(run: Run) -> str:
    """The logger's name if the folder is a version of it, else the folder's name."""
    folder = run.folder.resolve()
    named = str(settings_of(run).get("trainer.logger.name")) == folder.parent.name
    return folder.parent.name if named or folder.name.startswith("version_") or not run.config else folder.name


def _common(names: list[str]) -> str:
    """Common prefix of the names of runs, without a suffix for the seed.

    Example::

        >>> _common(["ff_s0", "ff_s1"]), _common(["a", "b"])
        ('ff', 'a')
    """
    start = "".join(letters[0] for letters in takewhile(lambda each: len(set(each)) == 1, zip(*names, strict=False)))
    return names[0] if len(set(names)) == 1 else re.sub(r"[-_. ]+(s|seed|run)?[-_. ]*$", "", start) or names[0]


def _distinguish(groups: Sequence[Group]) -> None:
    """Add to equal names of groups the settings that differ, or the folder."""
    by_name: dict[str, list[Group]] = {}
    for each in groups:
        by_name.setdefault(each.name, []).append(each)
    for name, same in by_name.items():
        if len(same) < 2:
            continue
        rows = [row for row in differences(same) if all(not isinstance(value, (list, dict)) for value in row[1])]
        rows = _separating(rows, len(same))
        for i, each in enumerate(same):
            suffixes = [f"{key.rpartition('.')[2]} {written(values[i])}" for key, values in rows]
            if each.runs[0].broke_off and any(other.settings == each.settings for other in same if other is not each):
                suffixes.append("stopped early")
            elif not suffixes and not any(other.runs[0].broke_off for other in same):
                suffixes.append(each.runs[0].folder.name)
            each.name = ", ".join([name, *suffixes])


def _separating(rows: Sequence[tuple[str, list[Any]]], count: int) -> list[tuple[str, list[Any]]]:
    """The fewest settings, or nearly so, that tell N groups apart as far as settings do, each adding something."""
    chosen: list[tuple[str, list[Any]]] = []
    apart = 1
    while rows and apart < count:
        told = [
            len({tuple(map(str, each)) for each in zip(*(v for _, v in [*chosen, row]), strict=True)}) for row in rows
        ]
        if max(told) == apart:
            break
        apart = max(told)
        chosen.append(rows[told.index(apart)])
    return chosen


def differences(groups: Sequence[Group]) -> list[tuple[str, list[Any]]]:
    """Settings in which groups differ: name, and value in each, `ABSENT` if missing; classes are first."""
    names = dict.fromkeys(name for each in groups for name in each.settings)
    rows = [(name, [each.settings.get(name, ABSENT) for each in groups]) for name in names]
    return [row for row in rows if len(set(map(repr, row[1]))) > 1]
