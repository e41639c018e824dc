"""Reads a report as a browser would: tables, pictures, headings, and whether every element is closed."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

VOID = {"br", "img", "meta", "wbr"}


@dataclass
class Table:
    """A table of the page.

    Attributes:
        caption: The text over it.
        rows: Text of every cell, the heading's row first.
    """

    caption: str = ""
    rows: list[list[str]] = field(default_factory=list)

    def row(self, head: str) -> list[str]:
        """Cells after the one row whose first cell is this text."""
        (found,) = [row[1:] for row in self.rows if row[0] == head]
        return found


class Page(HTMLParser):
    """A page, read from its text.

    Attributes:
        tables: In order.
        images: Sources of all pictures.
        tags: Every element and its attributes.
        text: All text but the style sheet.
        style: The style sheet.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: list[Table] = []
        self.images: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = self.style = ""
        self._open: list[str] = []
        self._caption = ""
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "figcaption":
            self._caption = ""
        elif tag == "table":
            self.tables.append(Table(self._caption))
        elif tag == "tr":
            self.tables[-1].rows.append([])
        elif tag in ("td", "th"):
            self.tables[-1].rows[-1].append("")
        elif tag == "img":
            self.images.append(dict(attrs)["src"] or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self._open:
            self.style += data
            return
        self.text += data
        if "figcaption" in self._open:
            self._caption += data
        if "table" in self._open and self._open[-1] != "tr" and self.tables[-1].rows and self.tables[-1].rows[-1]:
            self.tables[-1].rows[-1][-1] += data

    def table(self, caption: str) -> Table:
        """The one table over which this is written."""
        (found,) = [table for table in self.tables if caption in table.caption]
        return found


def read_page(file: Path) -> Page:
    """Read a page from its file."""
    return Page(file.read_text(encoding="utf-8"))
