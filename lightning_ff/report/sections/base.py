"""Elements of a section of the page."""

from __future__ import annotations

from dataclasses import dataclass

from lightning_ff.report.grouping import Group
from lightning_ff.report.html import Child, Markup, element, render


@dataclass(frozen=True)
class Section:
    """A part of the page with an entry in the table of contents: its id, heading and contents after the heading."""

    anchor: str
    title: str
    body: Child


def chip(group: Group) -> Markup:
    """The letter of a configuration."""
    light = sum(weight * int(group.color[i : i + 2], 16) for weight, i in ((0.299, 1), (0.587, 3), (0.114, 5))) > 145
    return element("span", group.letter, class_=f"chip{' dark' * light}", style=f"background:{group.color}")


def named(group: Group) -> Markup:
    """Letter and name."""
    return element("span", chip(group), " ", group.name, class_="named")


def path(place: object) -> Markup:
    """A path, with possible line breaks at slashes."""
    return element("code", Markup("/<wbr/>".join(render(part) for part in str(place).split("/"))))


def paragraph(*children: Child) -> Markup:
    """A paragraph of text."""
    return element("p", *children)


def lead(*children: Child) -> Markup:
    """A line that print keeps together with the next element."""
    return element("p", *children, class_="lead")
