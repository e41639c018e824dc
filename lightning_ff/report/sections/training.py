"""Curves over training."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_ff.figures import PALETTE
from lightning_ff.report.curves import Line, chart, mean_of, shade
from lightning_ff.report.grouping import Group
from lightning_ff.report.html import Child, Markup, element
from lightning_ff.report.sections.base import Section, chip
from lightning_ff.report.series import Series

_DASHES = (None, "6 3", "2 2.5", "8 3 2 3")
_LOSSES = (
    "Training loss over steps, mean over runs; the number at a line's end is the block's. Losses of different "
    "objectives are no measure of each other, so each configuration has an axis of its own."
)
_SEPARATION = (
    "Mean goodness of positives minus that of negatives (in class mode: of the true class minus the others) over "
    "training steps; the number at a line's end is the block's."
)


def training(groups: Sequence[Group]) -> Section | None:
    """Accuracy of all configurations in one chart, losses and goodness in one for each."""
    losses = _multiples(groups, "train/loss", "loss", _LOSSES)
    separation = _multiples(groups, "goodness/separation", "goodness", _SEPARATION)
    parts = [_accuracy(groups), losses, separation, _sparsity(groups)]
    return Section("training", "Training", parts) if any(parts) else None


def _accuracy(groups: Sequence[Group]) -> Child:
    key, title = "val/acc", "Validation accuracy"
    if not any(key in run.series for group in groups for run in group.runs):
        key, title = "train/acc", "Accuracy on the first images of a training batch, a rough estimate,"
    lines = [line for group in groups for line in _lines(group, key)]
    drawn = chart(lines, f"{title.strip(',')} over steps", "per cent", 720, 300)
    if drawn is None:
        return None
    runs = "; thick: mean over runs, thin: single runs" if any(len(group.runs) > 1 for group in groups) else ""
    return _figure(drawn, f"{title} over training steps (batches), by configuration{runs}.", "wide")


def _lines(group: Group, key: str) -> list[Line]:
    """Accuracy in per cent: every run, and their mean if there are several."""
    every = [run.series[key] for run in group.runs if key in run.series]
    found = [Series(series.steps, 100 * series.values) for series in every]
    mean = mean_of(found) if len(found) > 1 else None
    thin = [] if mean is None else [Line(series, group.color, thin=True) for series in found]
    dashes = _DASHES[group.hue // len(PALETTE) % len(_DASHES)]
    return [*thin, *(Line(each, group.color, group.letter, dashes=dashes) for each in ([mean] if mean else found))]


def _sparsity(groups: Sequence[Group]) -> Child:
    every = [item for group in groups for run in group.runs for item in run.series.items()]
    for key, of in (("val/sparsity", "all validation samples"), ("train/sparsity", "the batches themselves")):
        if any(name.startswith(key) and len(series.steps) > 1 for name, series in every):
            caption = f"Hoyer sparsity of each layer over training steps, of {of}; the number is the block's."
            return _multiples(groups, key, "Hoyer sparsity", caption)
    return None


def _multiples(groups: Sequence[Group], key: str, unit: str, caption: str) -> Child:
    """A small chart for each configuration: a line for each block, or one for the network."""
    drawn: list[Child] = []
    for group in groups:
        lines = _block_lines(group, key)
        shown = chart(lines, f"{key} of {group.name} over steps", unit, 320, 190)
        if shown is not None:
            drawn.append(element("div", element("div", chip(group), " ", group.name, class_="over"), shown))
    return _figure(element("div", drawn, class_="multiples"), caption) if drawn else None


def _block_lines(group: Group, key: str) -> list[Line]:
    names = sorted({k for run in group.runs for k in run.series if k.startswith(f"{key}/")})
    every = max(1, -(-len(names) // 12))
    lines = []
    for i, name in enumerate(names or [key]):
        found = [run.series[name] for run in group.runs if name in run.series]
        mean = (mean_of(found) if len(found) > 1 else None) or (found[0] if found else None)
        if mean is not None:
            label = name.rpartition("/")[2].removeprefix("block").lstrip("0") or "0" if names else ""
            color = shade(group.color, 0.55 * (1 - i / max(1, len(names) - 1))) if names else group.color
            lines.append(Line(mean, color, label if i % every == 0 else ""))
    return lines


def _figure(drawn: Markup, caption: str, class_: str | None = None) -> Markup:
    return element("figure", drawn, element("figcaption", caption), class_=class_)
