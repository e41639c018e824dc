"""Linear probes: logistic regressions of the class on the activations of a layer.

Shapes: N samples, U units, C classes. arXiv 2305.18353 uses such probes without giving their details: these are defined
here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lightning_ff.validate import check_int

Array = npt.NDArray[Any]


def linear_probe(
    features: Tensor, label: Tensor, classes: int | None = None, folds: int = 5, seed: int = 0
) -> dict[str, Tensor]:
    """Cross-validated accuracy of a logistic regression on frozen features.

    Every sample is predicted by the regression that was fitted on the other folds. Folds are stratified by class.
    Features are standardised with the mean and standard deviation of the training folds; the penalty is scikit-learn's
    default (L2, C = 1).

    Args:
        features: Activations, or images, `(N, ...)`.
        label: Classes `(N,)`.
        classes: C; None is the highest label plus 1.
        folds: Number of folds.
        seed: Seed of the folds; they depend on the order of the samples, so use a fixed order, such as that of
            :func:`balanced_indices`.

    Returns:
        `accuracy`, a scalar; `recall` `(C,)` of each class. Classes with fewer samples than folds are left out, and
        their recall is NaN; all values are NaN if fewer than two classes remain.

    Raises:
        ValueError: there are fewer than 2 folds, the shapes differ, or a label is not below `classes`.

    Example::

        >>> label = torch.arange(3).repeat(10)
        >>> found = linear_probe(torch.eye(3)[label], label, classes=4)
        >>> found["accuracy"].item(), found["recall"].tolist()
        (1.0, [1.0, 1.0, 1.0, nan])
    """
    _check(features, label, folds)
    classes = int(label.max()) + 1 if classes is None else classes
    if int(label.max()) >= classes:
        raise ValueError(f"label has {int(label.max())} in it: classes={classes} takes labels from 0 to {classes - 1}")
    x, y = _with_enough_samples(features, label, folds)
    recall = np.full(classes, np.nan)
    accuracy = np.nan
    if len(np.unique(y)) > 1:
        correct = np.zeros(len(y), dtype=bool)
        for test, model in _fitted(x, y, folds, seed):
            correct[test] = model.predict(x[test]) == y[test]
        accuracy = correct.mean()
        for one in np.unique(y):
            recall[one] = correct[y == one].mean()
    return {"accuracy": torch.tensor(accuracy), "recall": torch.from_numpy(recall)}


def one_versus_rest_probe(
    features: Tensor, label: Tensor, chosen: int, folds: int = 5, seed: int = 0
) -> dict[str, Tensor]:
    """Cross-validated accuracy of a logistic regression of one class, such as a held-out one, against all others.

    Folds, standardisation and penalty are those of :func:`linear_probe`; the two sides have equal weight in the fit.

    Args:
        features: Activations, or images, `(N, ...)`.
        label: Classes `(N,)`.
        chosen: The class.
        folds: Number of folds.
        seed: Seed of the folds.

    Returns:
        Scalars: `balanced_accuracy`, mean of the recalls of the class and of the rest (0.5 by chance), and `auc`, area
        under the receiver operating characteristic, mean over folds. NaN if the class or the rest has fewer samples
        than folds.

    Raises:
        ValueError: there are fewer than 2 folds, or the shapes differ.

    Example::

        >>> label = torch.arange(3).repeat(10)
        >>> one_versus_rest_probe(torch.eye(3)[label], label, chosen=2)
        {'balanced_accuracy': tensor(1., dtype=torch.float64), 'auc': tensor(1., dtype=torch.float64)}
    """
    from sklearn.metrics import roc_auc_score

    _check(features, label, folds)
    check_int("chosen", chosen)
    x, y = _with_enough_samples(features, (label == chosen).long(), folds)
    if len(np.unique(y)) < 2:
        nan = torch.tensor(torch.nan, dtype=torch.float64)
        return {"balanced_accuracy": nan, "auc": nan.clone()}
    correct, areas = np.zeros(len(y), dtype=bool), []
    for test, model in _fitted(x, y, folds, seed, class_weight="balanced"):
        correct[test] = model.predict(x[test]) == y[test]
        areas.append(roc_auc_score(y[test], model.decision_function(x[test])))
    balanced = (correct[y == 0].mean() + correct[y == 1].mean()) / 2
    return {"balanced_accuracy": torch.tensor(balanced), "auc": torch.tensor(np.mean(areas))}


def _check(features: Tensor, label: Tensor, folds: int) -> None:
    check_int("folds", folds)
    if folds < 2:
        raise ValueError(f"folds={folds}: one is left out of every fit, so give at least 2")
    if label.ndim != 1 or features.shape[:1] != label.shape or not len(label):
        raise ValueError(
            f"features of shape {tuple(features.shape)} and label of shape {tuple(label.shape)}: give (N, ...) and "
            "(N,), with at least 1 sample"
        )


def _with_enough_samples(features: Tensor, label: Tensor, folds: int) -> tuple[Array, Array]:
    """Samples of the classes with at least `folds` samples."""
    kept = (torch.bincount(label) >= folds)[label]
    return features.detach().flatten(1)[kept].double().cpu().numpy(), label[kept].cpu().numpy()


def _fitted(x: Array, y: Array, folds: int, seed: int, **kwargs: Any) -> Iterator[tuple[Array, Any]]:
    """Indices of each fold, and the regression fitted on the others."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    for train, test in StratifiedKFold(folds, shuffle=True, random_state=seed).split(x, y):
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, **kwargs))
        yield test, model.fit(x[train], y[train])
