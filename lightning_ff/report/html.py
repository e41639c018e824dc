"""HTML that escapes by default: elements as functions, and tables with aligned numbers."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias, Union

from lightning_ff.report.numbers import DASH, Stat, fixed

_VOID = {"br", "img", "meta", "hr", "circle", "line", "path", "polyline", "polygon", "rect"}


class Markup(str):
    """Text that is HTML; any other string is escaped when it is put into an element."""

    __slots__ = ()


Child: TypeAlias = Union[str, Iterable["Child"], None]  # noqa: UP007  a name in quotes knows no |
Cell: TypeAlias = str | float | int | Stat | None


def render(child: Child) -> Markup:
    """A child as HTML: markup unchanged, text escaped, None as empty text, and lists concatenated."""
    if isinstance(child, str):
        return child if isinstance(child, Markup) else Markup(html.escape(child))
    return Markup("".join(map(render, child or ())))


def element(name: str, /, *children: Child, **attributes: str | float | bool | None) -> Markup:
    """One element; an underscore at an attribute's end is dropped, within it is a hyphen, None leaves it out.

    Example::

        >>> print(element("p", "a < b", class_="note"))
        <p class="note">a &lt; b</p>
    """
    given = {k.rstrip("_").replace("_", "-"): v for k, v in attributes.items() if v is not None and v is not False}
    shown = "".join(f" {k}" if v is True else f' {k}="{html.escape(str(v))}"' for k, v in given.items())
    if name in _VOID and not children:
        return Markup(f"<{name}{shown}/>")
    return Markup(f"<{name}{shown}>{render(children)}</{name}>")


def folded(summary: Child, *children: Child, printed: bool = True) -> Markup:
    """A `details` element; in print it is open if it is to be printed."""
    return element("details", element("summary", summary), *children, class_="printed" if printed else "unprinted")


@dataclass
class Column:
    """A column of a table: its heading, and the digits after the point of its numbers; None for text."""

    head: Child
    decimals: int | None = None


@dataclass
class Rows:
    """A group of rows below its heading, if it has one."""

    rows: Sequence[Sequence[Cell]]
    head: Child = None


def table(columns: Sequence[Column], parts: Sequence[Rows], caption: Child, class_: str | None = None) -> Markup:
    """A table: the first cell of a row is its heading; mean and deviation are in separate cells."""
    spread = [any(_has_deviation(row[i]) for part in parts for row in part.rows) for i in range(len(columns))]
    heads = []
    for column, wide in zip(columns, spread, strict=True):
        kind = None if column.decimals is None else "number"
        heads.append(element("th", column.head, scope="col", colspan=2 if wide else None, class_=kind))
    bodies = []
    for part in parts:
        rows = [element("tr", _cells(row, columns, spread)) for row in part.rows]
        head = element("th", part.head, scope="rowgroup", colspan=len(columns) + sum(spread))
        bodies.append(element("tbody", element("tr", head, class_="part") if part.head else None, rows))
    shown = element("table", element("thead", element("tr", heads)), bodies, class_=class_)
    return element("figure", element("figcaption", caption), element("div", shown, class_="scroll"), class_="table")


def _has_deviation(cell: Cell) -> bool:
    return isinstance(cell, Stat) and (cell.deviation is not None or (cell.missing and cell.count > 0))


def _cells(row: Sequence[Cell], columns: Sequence[Column], spread: Sequence[bool]) -> list[Markup]:
    cells: list[Markup] = []
    for i, (cell, column, wide) in enumerate(zip(row, columns, spread, strict=True)):
        if column.decimals is None:
            text = DASH if cell is None or cell == "" else cell if isinstance(cell, str) else str(cell)
            cells.append(element("td", text) if i else element("th", text, scope="row"))
            continue
        stat = cell if isinstance(cell, Stat) else Stat.of([None if isinstance(cell, str) else cell])
        cells.append(element("td", fixed(stat.mean, column.decimals), class_="number"))
        if wide:
            deviation = None if stat.deviation is None else f"±\u2009{fixed(stat.deviation, column.decimals)}"
            count = element("small", f" n\u2009=\u2009{stat.count}") if stat.missing and stat.count else None
            cells.append(element("td", deviation, count, class_="deviation"))
    return cells
