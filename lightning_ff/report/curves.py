"""Line charts as inline SVG, with the fonts of the page and without a script."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

import numpy as np

from lightning_ff.report.html import Markup, element
from lightning_ff.report.series import Series

_LABEL_WIDTH, _LABEL_HEIGHT = 18.0, 10.5
_LEFT, _RIGHT, _TOP, _BOTTOM = 46.0, 26.0, 26.0, 34.0


@dataclass(frozen=True)
class Line:
    """One line of a chart."""

    series: Series
    color: str
    label: str = ""  # at its end
    thin: bool = False  # for single runs behind their mean
    dashes: str | None = None  # SVG's `stroke-dasharray`, to distinguish lines of one colour


def mean_of(runs: Sequence[Series]) -> Series | None:
    """Mean over runs at the steps that all of them have; None for fewer than two such steps.

    Example::

        >>> mean_of([Series.of([(0, 1.0), (5, 3.0)]), Series.of([(0, 3.0), (5, 5.0), (9, 1.0)])]).values
        array([2., 4.])
    """
    latest = [dict(zip(series.steps.tolist(), series.values.tolist(), strict=True)) for series in runs]
    steps = sorted(set.intersection(*map(set, latest))) if latest else []
    if len(steps) < 2:
        return None
    return Series.of((step, float(np.mean([values[step] for values in latest]))) for step in steps)


def thinned(series: Series, limit: int = 300) -> Series:
    """At most `limit` points, each the mean of equally many neighbours."""
    if len(series.steps) <= limit:
        return series
    parts = np.array_split(np.arange(len(series.steps)), limit)
    return Series.of((float(series.steps[part].mean()), float(series.values[part].mean())) for part in parts)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers from `low` to `high`, about `count` of them.

    Example::

        >>> ticks(0.0, 1.0), ticks(0, 2300)
        ([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], [0.0, 500.0, 1000.0, 1500.0, 2000.0])
    """
    rough = (high - low) / count
    power = 10.0 ** floor(log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if rough <= power * factor * 1.0001)
    first, last = ceil(low / step - 1e-9), floor(high / step + 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]


@dataclass(frozen=True)
class _Axis:
    """Map from values to positions, linear or logarithmic."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def place(self, values: np.ndarray) -> np.ndarray:
        low, high = (np.log10(self.low), np.log10(self.high)) if self.log else (self.low, self.high)
        scaled = np.log10(values) if self.log else values
        return self.start + (scaled - low) / (high - low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        if not self.log:
            return ticks(self.low, self.high)
        powers = range(floor(log10(self.low)), ceil(log10(self.high)) + 1)
        factors = (1,) if log10(self.high / self.low) > 2.5 else (1, 2, 5)
        marks = [factor * 10.0**k for k in powers for factor in factors]
        return [mark for mark in marks if self.low * 0.999 <= mark <= self.high * 1.001]


def chart(lines: Sequence[Line], label: str, y: str, width: float = 520, height: float = 250) -> Markup | None:
    """A chart of lines over steps with a title for screen readers; None if no line has a finite point.

    The vertical axis is logarithmic for positive values over more than a factor of 30.
    """
    drawn = []
    for line in lines:
        series = thinned(line.series)
        keep = np.isfinite(series.values)
        if keep.any():
            drawn.append((line, Series(series.steps[keep], series.values[keep])))
    if not drawn:
        return None
    values = np.concatenate([series.values for _, series in drawn])
    steps = np.concatenate([series.steps for _, series in drawn])
    log = bool(values.min() > 0 and values.max() > 30 * values.min())
    across = _Axis(*_with_margin(min(0, steps.min()), steps.max(), 0.0), _LEFT, width - _RIGHT)
    up = _Axis(*_with_margin(values.min(), values.max(), 0.0 if log else 0.04), height - _BOTTOM, _TOP, log)
    return element(
        "svg",
        element("title", label),
        _grid(across, up),
        [_line(line, series, across, up) for line, series in drawn],
        _labels(drawn, across, up),
        element("text", "step", x=width - _RIGHT, y=height - 4, class_="axis", text_anchor="end"),
        element("text", f"{y} (logarithmic)" if log else y, x=0, y=11, class_="axis"),
        viewBox=f"0 0 {width:g} {height:g}",
        role="img",
        class_="chart",
    )


def _with_margin(low: float, high: float, share: float) -> tuple[float, float]:
    """A range with a margin, never empty."""
    if high == low:
        spread = abs(low) * 0.1 or 1.0
        return low - spread, high + spread
    return low - share * (high - low), high + share * (high - low)


def _number(value: float) -> str:
    if value and abs(value) < 1e-3:
        return f"{value:.0e}".replace("e-0", "e-").replace("-", "\u2212")
    if abs(value) >= 10000:
        return f"{value / 1000:,.10g}k" if abs(value) < 1e6 else f"{value / 1e6:,.10g}M"
    return f"{value:.10g}".replace("-", "\u2212")


def _grid(across: _Axis, up: _Axis) -> list[Markup]:
    drawn = []
    for value in up.ticks():
        at = round(float(up.place(np.array(value))), 1)
        drawn.append(element("line", x1=across.start, x2=across.end, y1=at, y2=at, class_="grid"))
        drawn.append(element("text", _number(value), x=across.start - 6, y=at + 3.5, class_="tick", text_anchor="end"))
    for value in across.ticks():
        at = round(float(across.place(np.array(value))), 1)
        drawn.append(element("line", x1=at, x2=at, y1=up.start, y2=up.start + 4, class_="rule"))
        drawn.append(element("text", _number(value), x=at, y=up.start + 15, class_="tick", text_anchor="middle"))
    return [*drawn, element("line", x1=across.start, x2=across.end, y1=up.start, y2=up.start, class_="rule")]


def _line(line: Line, series: Series, across: _Axis, up: _Axis) -> Markup:
    x, y = across.place(series.steps.astype(float)), up.place(series.values)
    if len(x) == 1:
        return element("circle", cx=f"{x[0]:.1f}", cy=f"{y[0]:.1f}", r=1.6 if line.thin else 2.6, fill=line.color)
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
    kind = "run" if line.thin else "mean"
    return element("polyline", points=points, stroke=line.color, stroke_dasharray=line.dashes, class_=kind)


def _labels(drawn: Sequence[tuple[Line, Series]], across: _Axis, up: _Axis) -> list[Markup]:
    """Names at the lines' ends, moved apart if they would overlap."""
    groups: list[list[tuple[float, float, Line]]] = []
    for line, series in drawn:
        if line.label:
            x, y = across.place(series.steps[-1:].astype(float))[0], up.place(series.values[-1:])[0]
            near = next((group for group in groups if abs(group[0][0] - x) < _LABEL_WIDTH), None)
            if near is None:
                groups.append(near := [])
            near.append((float(x), float(y), line))
    shown: list[Markup] = []
    for group in groups:
        group.sort(key=lambda end: end[1])
        # at least a label's height apart: moved down, and up again if the last is below the axis
        offsets = _LABEL_HEIGHT * np.arange(len(group))
        down = np.maximum.accumulate([y for _, y, _ in group] - offsets) + offsets
        for (x, _, line), y in zip(group, np.minimum(down, up.start - offsets[::-1]), strict=True):
            ink = shade(line.color, -0.25)
            shown.append(element("text", line.label, x=f"{x + 5:.1f}", y=f"{y + 3.5:.1f}", fill=ink, class_="end"))
    return shown


def shade(color: str, white: float) -> str:
    """A colour mixed with white, or, for a negative share, with black.

    Example::

        >>> shade("#0072b2", 0.5), shade("#0072b2", -0.5)
        ('#80b8d8', '#003959')
    """
    parts = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    mixed = [round(part + ((255 - part) * white if white > 0 else part * white)) for part in parts]
    return "#" + "".join(f"{part:02x}" for part in mixed)
