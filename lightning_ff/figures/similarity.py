"""Representational dissimilarity matrices of classes or samples. Shapes: C classes, S samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from lightning_ff.figures.arrays import Values, array, class_labels, class_names, given
from lightning_ff.figures.base import MISSING, SOFT, Figure, color_bar, color_map, empty, panels, settled, tidy
from lightning_ff.figures.names import class_rows, class_ticks


def rdm_map(rdm: Values, classes: Sequence[str], title: str = "", label: Values | None = None) -> Figure:
    """A representational dissimilarity matrix, of classes or of samples.

    Args:
        rdm: Dissimilarities of classes `(C, C)`, or, with labels, of samples `(S, S)`; NaN is grey.
        classes: Names of the classes.
        title: Above the picture.
        label: Class of each sample `(S,)`: samples are sorted by class, and lines drawn between classes.

    Raises:
        ValueError: shapes or labels that do not fit.
    """
    return rdm_maps({title: rdm}, classes, label)


def rdm_maps(rdms: Mapping[str, Values], classes: Sequence[str], label: Values | None = None) -> Figure:
    """Several dissimilarity matrices of the same classes or samples side by side, on the same colour scale.

    Args:
        rdms: Name, of a layer or a model, to dissimilarities as :func:`rdm_map` takes them.
        classes: Names of the classes.
        label: See :func:`rdm_map`.

    Raises:
        ValueError: shapes or labels that do not fit.
    """
    names = class_names(classes)
    given("rdms", rdms, "dissimilarities (C, C)")
    size = len(names) if label is None else len(array("label", label, (None,), "give the class of each sample"))
    remedy = f"give a row and a column per {'class' if label is None else 'sample'}"
    values = {name: array(f"rdm {name!r}" if name else "rdm", rdm, (size, size), remedy) for name, rdm in rdms.items()}
    of = np.arange(size) if label is None else class_labels(label, size, len(names))
    order = np.argsort(of, kind="stable")
    finite = np.concatenate([rdm[np.isfinite(rdm)] for rdm in values.values()])
    low, high = min(0.0, finite.min(initial=0.0)), finite.max(initial=0.0)
    colors = color_map("YlGnBu_r", bad=MISSING)
    side = max(3.0, 0.17 * min(len(names), 40 if len(values) == 1 else 24))
    figure, axes = panels(len(values), side, side if label is None else side - 0.6)
    figure.set_layout_engine("compressed")  # the colour bar is as high as the maps
    for axis, (name, rdm) in zip(axes, values.items(), strict=True):
        shown = np.ma.masked_invalid(rdm[np.ix_(order, order)])
        scaling = "nearest" if label is None else "antialiased"
        image = axis.imshow(shown, colors, vmin=low, vmax=high if high > low else 1.0, interpolation=scaling)
        tidy(axis, name, frame=True)
        if label is None:
            class_ticks(axis, names, side - 1.1)
        else:
            class_rows(axis, of[order], names, side - 0.8)
            axis.set_xticks([])
            for start in np.flatnonzero(np.diff(of[order])):
                axis.axvline(start + 0.5, color=SOFT, linewidth=0.4)
        if not shown.count():
            empty(axis, "no values")
    color_bar(figure, image, axes, "dissimilarity")
    return settled(figure)
