"""Pictures on the page: drawn for it or taken from a run, embedded in the page."""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Callable
from typing import Any

from lightning_ff.figures.base import Figure
from lightning_ff.report.html import Child, Markup, element

_DPI, _LOGGED_DPI = 150, 120  # of pictures drawn here, and of those that loggers write


def drawn(make: Callable[..., Figure], alt: str, caption: Child, *arguments: Any) -> Markup | None:
    """A picture by one of the functions of `lightning_ff.figures`; None if it raises for the stored data."""
    try:
        figure = make(*arguments)
    except ValueError:
        return None
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=_DPI)
    return image(file.getvalue(), alt, caption, _DPI)


def image(data: bytes, alt: str, caption: Child, dpi: int = _LOGGED_DPI) -> Markup:
    """A picture in its original size, with alternative text."""
    from PIL import Image

    with Image.open(io.BytesIO(data)) as opened:
        size, kind = opened.size, (opened.format or "png").lower()
    width, height = (round(96 * pixels / dpi) for pixels in size)
    source = f"data:image/{kind};base64,{b64encode(data).decode()}"
    shown = element("img", src=source, alt=alt, width=width, height=height)
    return element("figure", shown, element("figcaption", caption) if caption else None)
