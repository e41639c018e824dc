"""The parts of the page, in their order."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_ff.report.grouping import Group
from lightning_ff.report.sections.accuracy import accuracy
from lightning_ff.report.sections.base import Section
from lightning_ff.report.sections.configuration import configuration
from lightning_ff.report.sections.ensembles import ensembles
from lightning_ff.report.sections.overview import overview
from lightning_ff.report.sections.pictures import pictures
from lightning_ff.report.sections.probes import probes
from lightning_ff.report.sections.repeating import repeating
from lightning_ff.report.sections.sparsity import sparsity
from lightning_ff.report.sections.training import training

__all__ = ["Section", "sections"]

_ALL = (overview, accuracy, training, sparsity, ensembles, probes, pictures, configuration, repeating)


def sections(groups: Sequence[Group]) -> list[Section]:
    """All sections with contents for these configurations."""
    return [section for make in _ALL if (section := make(groups)) is not None]
