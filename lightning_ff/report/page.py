"""The page: a self-contained document, without network access, scripts or other files."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from importlib.resources import files
from pathlib import Path

import lightning_ff
from lightning_ff.report.files import find_runs
from lightning_ff.report.grouping import Group, group
from lightning_ff.report.html import Markup, element
from lightning_ff.report.linking import link
from lightning_ff.report.runs import read_run
from lightning_ff.report.sections import sections

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def write_report(runs: Sequence[Path | str], output: Path | str, title: str = "Runs compared") -> Path:
    """Write a page that compares runs.

    Args:
        runs: Log directories, or parent folders of several of them.
        output: The HTML file; its parent folders are created.
        title: Heading of the page.

    Returns:
        The file.

    Raises:
        ReportError: one of `runs` is not a folder or has no run.
        OSError: the file cannot be written.
    """
    file, found = Path(output), [read_run(folder) for folder in find_runs([Path(run) for run in runs])]
    text = page(group(link(found)), title)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text.encode("utf-8", "replace"))  # a folder's name need not be Unicode
    return file


def page(groups: Sequence[Group], title: str) -> str:
    """The whole document."""
    parts = sections(groups)
    runs = sum(len(each.runs) for each in groups)
    counted = f"{runs} run{'s' * (runs != 1)} of {len(groups)} configuration{'s' * (len(groups) != 1)}"
    contents = [element("li", element("a", part.title, href=f"#{part.anchor}")) for part in parts]
    now = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", Markup(files(__package__).joinpath("style.css").read_text(encoding="utf-8"))),
    )
    header = element(
        "header",
        element("h1", title),
        element("p", counted, class_="subtitle"),
        element("nav", element("ol", contents), aria_label="Contents"),
    )
    shown = [element("section", element("h2", part.title), part.body, id=part.anchor) for part in parts]
    footer = element("footer", f"Made with lightning-ff {lightning_ff.__version__} on {now}.")
    body = element("body", element("main", header, shown, footer))
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"
