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


def training(groups: Sequence[Group]) -> Section | None:
    """Accuracy of all configurations in one chart, losses and goodness in one for each."""
    parts = [_accuracy(groups), _losses(groups), _separation(groups), _sparsity(groups)]
    return Section("training", "Training", parts) if any(parts) else None


def _accuracy(groups: Sequence[Group]) -> Child:
    key, title = "val/acc", "Validation accuracy"
    if not any(key in run.series for group in groups for run in group.runs):
        key, title = "train/acc", "Accuracy on the first images of a training batch, a rough estimate,"
    lines = [line for group in groups for line in _lines(group, key, percent=True)]
    drawn = chart(lines, f"{title.strip(',')} over steps", "per cent", 720, 300)
    if drawn is None:
        return None
    runs = "; thick: mean over runs, thin: single runs" if any(len(group.runs) > 1 for group in groups) else ""
    return _figure(drawn, f"{title} over training steps (batches), by configuration{runs}.", "wide")


def _lines(group: Group, key: str, percent: bool = False) -> list[Line]:
    """Lines of one metric: every run, and their mean if there are several."""
    found = [run.series[key] for run in group.runs if key in run.series]
    found = [Series(series.steps, 100 * series.values) if percent else series for series in found]
    mean = mean_of(found) if len(found) > 1 else None
    dashes = _DASHES[group.hue // len(PALETTE) % len(_DASHES)]
    thick = [Line(series, group.color, group.letter, dashes=dashes) for series in (found if mean is None else [mean])]
    return thick if mean is None else [*(Line(series, group.color, thin=True) for series in found), *thick]


def _losses(groups: Sequence[Group]) -> Child:
    caption = (
        "Training loss over steps, mean over runs; the number at a line's end is the block's. Losses of different "
        "objectives are no measure of each other, so each configuration has an axis of its own."
    )
    return _multiples(groups, "train/loss", "loss", caption)


def _separation(groups: Sequence[Group]) -> Child:
    caption = (
        "Mean goodness of positives minus that of negatives (in class mode: of the true class minus the others) over "
        "training steps; the number at a line's end is the block's."
    )
    return _multiples(groups, "goodness/separation", "goodness", caption)


def _sparsity(groups: Sequence[Group]) -> Child:
    kinds = {"val/sparsity": "all validation samples", "train/sparsity": "the batches themselves"}
    grown = [
        key
        for key in kinds
        if any(len(run.series[k].steps) > 1 for g in groups for run in g.runs for k in run.series if k.startswith(key))
    ]
    if not grown:
        return None
    caption = f"Hoyer sparsity of each layer over training steps, of {kinds[grown[0]]}; the number is the block's."
    return _multiples(groups, grown[0], "Hoyer sparsity", caption)


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
