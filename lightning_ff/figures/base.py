"""Base of all pictures: palette, font sizes, panels in rows, legend, text in empty panels."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes as Axes
    from matplotlib.colorbar import Colorbar
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure as Figure
else:  # the types for the other files: matplotlib is imported when a figure is drawn
    Axes = Figure = Any

PALETTE = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#555555", "#000000")  # Okabe and Ito
MARKERS, LINES, HATCHES = "osD^vP<X", ("-", "--", ":", "-."), ("", "//", "..", "xx")  # the latter two: next round
INK, SOFT, MISSING, FAINT = "#333333", "#8c8c8c", "#bdbdbd", "#e3e3e3"
SMALL, NORMAL = 8.0, 9.0
LETTER, LINE = 0.067, 0.135  # inches of a mean letter and of a line of SMALL print


def new_figure(width: float, height: float, layout: Literal["constrained"] | None = "constrained") -> Figure:
    """An empty figure on the Agg canvas, in inches; matplotlib is first imported here."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout=layout)
    FigureCanvasAgg(figure)
    return figure


def panels(
    count: int,
    width: float,
    height: float,
    most: int = 4,
    share_y: bool = False,
    extra: float = 0.0,
    layout: Literal["constrained"] | None = "constrained",
) -> tuple[Figure, list[Axes]]:
    """A figure of equal panels in rows of as equal length as possible, with extra height above; sizes in inches.

    The layout engine of matplotlib measures every label; None leaves the layout to the caller.
    """
    rows = ceil(count / most)
    columns = ceil(count / rows)
    figure = new_figure(max(3.2, width * columns), height * rows + extra, layout)
    axes = list(figure.subplots(rows, columns, squeeze=False, sharey=share_y).flat)
    for axis in axes[count:]:
        axis.remove()
    return figure, axes[:count]


def settled(figure: Figure) -> Figure:
    """Run the layout of the figure once and keep it; running it again would not move anything by a pixel."""
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
    figure.set_layout_engine("none")
    return figure


def tidy(axis: Axes, title: str = "", xlabel: str = "", ylabel: str = "", frame: bool = False, most: int = 30) -> None:
    """Style of a panel: a title of N letters, labels and ticks in one size and colour, and no spines except two."""
    axis.set_title(plain(title, most), fontsize=NORMAL, color=INK)
    axis.set_xlabel(xlabel, fontsize=SMALL, color=INK)
    axis.set_ylabel(ylabel, fontsize=SMALL, color=INK)
    axis.tick_params(labelsize=SMALL, labelcolor=INK, color=SOFT, length=2.5, width=0.6)
    for side, spine in axis.spines.items():
        spine.set_visible(frame or side in ("left", "bottom"))
        spine.set(color=SOFT, linewidth=0.6)


def short(name: str, most: int = 16) -> str:
    """A name on one line; the middle of a long name is left out, since names often differ at their end.

    Example::

        >>> short("a class with a long name")
        'a class w…g name'
    """
    line, tail = " ".join(str(name).split()), (most - 1) * 2 // 5
    return line if len(line) <= most else f"{line[: most - 1 - tail]}…{line[len(line) - tail :]}"


def plain(name: str, most: int = 16) -> str:
    """A short name, escaped so that matplotlib does not parse it as a formula."""
    return short(name, most).replace("$", r"\$")


def left_label(axes: Sequence[Axes], text: str) -> None:
    """A label of the y axis for the panels in the first column."""
    for axis in axes:
        if axis.get_subplotspec().is_first_col():  # type: ignore[union-attr]
            axis.set_ylabel(text, fontsize=SMALL, color=INK)


def empty(axis: Axes, text: str) -> None:
    """Write into the middle of an empty panel why nothing is drawn."""
    words = axis.text(0.5, 0.5, text, transform=axis.transAxes, ha="center", va="center", fontsize=SMALL, color=INK)
    words.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 2.0})


def legend(figure: Figure, handles: Sequence[Any], names: Sequence[str]) -> None:
    """A legend above all panels, in rows of equal length that are at most as wide as the figure."""
    shown = [f" {name}" if name.startswith("_") else name for name in (plain(name, 32) for name in names)]
    most = max(1, int(figure.get_figwidth() // (max(map(len, shown)) * LETTER + 0.6)))
    columns = ceil(len(shown) / ceil(len(shown) / most))
    above = figure.legend(handles, shown, loc="outside upper center", ncols=columns)
    above.set_frame_on(False)
    for text in above.get_texts():
        text.set(fontsize=SMALL, color=INK)


def log_scale(axis: Axes, side: Literal["x", "y"], low: float, high: float) -> None:
    """A logarithmic axis between two limits, with minor ticks if there are too few powers of 10."""
    from matplotlib.ticker import FuncFormatter, LogLocator

    ticks = axis.xaxis if side == "x" else axis.yaxis
    axis.set(**{f"{side}scale": "log", f"{side}lim": (low, high)})
    axis.minorticks_off()
    if high < 200 * low:
        ticks.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        ticks.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def color_bar(figure: Figure, image: Any, axes: Any, label: str, extend: str = "neither") -> Colorbar:
    """A thin colour bar next to one or several panels."""
    bar = figure.colorbar(image, ax=axes, label=label, extend=extend, fraction=0.06, pad=0.02, aspect=28)
    bar.ax.tick_params(labelsize=SMALL, labelcolor=INK, color=SOFT, length=2.5, width=0.6)
    bar.ax.yaxis.label.set(fontsize=SMALL, color=INK)
    bar.outline.set_visible(False)
    return bar


def color_map(name: str, bad: str = FAINT) -> Colormap:
    """A colour map with a separate colour for NaN."""
    from matplotlib import colormaps

    return colormaps[name].with_extremes(bad=bad)


def color(i: int) -> str:
    """Colour of the i-th series; colours repeat after the eighth, with other lines, markers or hatches."""
    return PALETTE[i % len(PALETTE)]


def again(i: int, kinds: Sequence[str]) -> str:
    """Line style or hatch that distinguishes the i-th series from others of the same colour."""
    return kinds[i // len(PALETTE) % len(kinds)]
