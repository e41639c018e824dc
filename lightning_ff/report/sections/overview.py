"""The compared configurations, their letters, and notes on their runs."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_ff.report.grouping import Group
from lightning_ff.report.html import Child, Column, Markup, Rows, element, table
from lightning_ff.report.numbers import DASH
from lightning_ff.report.runs import Run
from lightning_ff.report.sections.base import Section, chip, named, paragraph, path
from lightning_ff.report.settings import seeds, written


def overview(groups: Sequence[Group]) -> Section:
    """The key to letters and colours, and notes on single runs."""
    rows = [
        [named(group), setting(group, "model"), setting(group, "data"), str(len(group.runs)), _folders(group)]
        for group in groups
    ]
    caption = (
        "The configurations, each with the letter and the colour that stand for it on the whole page. Runs count as "
        "one configuration where they differ in seeds and places only; their numbers are mean ± standard deviation "
        f"between runs (n\u2009\u2212\u20091), and {DASH} stands for what was not measured."
    )
    columns = [Column(head) for head in ("Configuration", "Model", "Data", "Runs", "Folders")]
    lines = [
        element("li", chip(group), " ", path(run.folder), ": ", text)
        for group in groups
        for run in group.runs
        for text in notes(run)
    ]
    lines += [element("li", chip(group), " ", text) for group in groups for text in _of_group(group)]
    noted: Child = [paragraph("To be kept in mind:"), element("ul", lines, class_="notes")] if lines else None
    return Section("configurations", "What is compared", [table(columns, [Rows(rows)], caption), noted])


def setting(group: Group, name: str) -> str:
    """A setting as text, a dash if unknown."""
    return written(group.settings[name]) if name in group.settings else DASH


def _folders(group: Group) -> Markup:
    """Paths of the runs; of several in one folder as version_{0,1}."""
    folders = [run.folder for run in group.runs]
    parent, names = folders[0].parent, [folder.name for folder in folders]
    if len(folders) == 1 or any(folder.parent != parent for folder in folders):
        return Markup("<br/>".join(path(folder) for folder in folders))
    stem = names[0].rstrip("0123456789")
    ends = [name.removeprefix(stem) for name in names]
    stem, ends = (stem, ends) if all(map(str.isdigit, ends)) else ("", names)
    return path(f"{parent}/{stem}{{{','.join(ends)}}}")


def notes(run: Run) -> list[str]:
    """Notes on a run that affect the reading of its numbers."""
    texts = list(run.notes)
    if run.broke_off:
        of = f" of {run.planned}" if run.planned else ""
        texts.append(f"stopped in epoch {run.epochs or DASH}{of}; not put together with runs that went to the end")
    if run.earlier is not None:
        folder = run.earlier.folder
        earlier = folder.name if folder.parent == run.folder.parent else folder
        texts.append(f"goes on from {earlier}, whose steps are its first")
    if not run.trained:
        texts.append("measured only, no training; the run whose checkpoint it loaded is not on this page")
    return texts


def _of_group(group: Group) -> list[str]:
    texts = []
    given = [tuple(seeds(run).items()) for run in group.runs]
    if len(set(given)) < len(given) and all(given):
        texts.append("some of its runs have the same seeds: the deviation is not one between seeds")
    if len(group.runs) > 1 and not group.runs[0].config:
        texts.append("no configuration was saved: grouped by the learner's arguments and the folder, data not compared")
    return texts
