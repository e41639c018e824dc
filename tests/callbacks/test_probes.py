"""Linear probes of layers, against regressions fitted by hand on the same samples."""

from __future__ import annotations

import csv
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_ff import MLP, Backprop, ForwardForward, ProbeMonitor
from lightning_ff.data import Digits
from lightning_ff.metrics.similarity import balanced_indices

SHAPE, FOLDS, SAMPLES = (1, 8, 8), 3, 12


def run(model: LightningModule, *monitors: Callback, data: Digits, **flags: Any) -> Trainer:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = Trainer(
        **{"max_epochs": 2, "accelerator": "cpu", **quiet, **flags},  # type: ignore[arg-type]
        logger=CSVLogger(".", name="run"),
        callbacks=list(monitors),
    )
    trainer.fit(model, data)
    trainer.test(model, data, verbose=False)
    return trainer


def forward_forward(**arguments: Any) -> ForwardForward:
    torch.manual_seed(0)
    return ForwardForward(10, SHAPE, widths=[24, 16], optimizer=partial(torch.optim.Adam, lr=0.02), **arguments)


def probed(data: Digits) -> tuple[Tensor, Tensor]:
    """The samples that are probed, images and labels."""
    image, label, index = (torch.cat(part) for part in zip(*data.test_dataloader(), strict=True))
    rows = balanced_indices(label, SAMPLES, index)
    assert torch.bincount(label[rows]).tolist() == [SAMPLES] * 10
    return image[rows], label[rows]


def predicted(h: Tensor, label: np.ndarray, **arguments: Any) -> np.ndarray:
    """Predictions of each sample by a regression on the other folds."""
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, **arguments))
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    return np.asarray(cross_val_predict(model, h.flatten(1).double().numpy(), label, cv=folds))


def table(trainer: Trainer, stage: str = "test") -> dict[str, list[float]]:
    with Path(trainer.log_dir, "representations", f"{stage}_probes.csv").open() as file:  # type: ignore[arg-type]
        return {row.pop("layer"): [float(value) for value in row.values()] for row in csv.DictReader(file)}


@torch.no_grad()
def layers(model: Any, x: Tensor) -> dict[str, Tensor]:
    found, h = {}, model.network.normalize(x)
    for name, block in zip(model.network.names[:2], model.eval().blocks, strict=False):
        found[name] = block.layers(h)
        h = block.hand_over(found[name])
    return found


def test_a_pair_mode_learner_is_probed_on_images_that_tell_no_label() -> None:
    data, model = Digits(batch_size=50), forward_forward()
    trainer = run(model, ProbeMonitor(samples=SAMPLES, folds=FOLDS), data=data)
    image, label = probed(data)
    of = {"input": image, **layers(model, model.network.labels.neutral(image))}  # type: ignore[union-attr]
    rows = table(trainer)
    assert list(rows) == list(of) == ["input", "block00", "block01"]
    for name, h in of.items():
        said = predicted(h, label.numpy())
        right = said == label.numpy()
        assert float(trainer.callback_metrics[f"test/probe/{name}"]) == pytest.approx(right.mean(), abs=0.009)
        assert rows[name][0] == float(trainer.callback_metrics[f"test/probe/{name}"])
        recall = [right[label.numpy() == c].mean() for c in range(10)]
        assert rows[name][1:] == pytest.approx(recall, abs=1.01 / SAMPLES)
    assert not any("unseen" in key for key in trainer.callback_metrics)
    own = layers(model, model.network.labels(image, label))["block00"]  # type: ignore[union-attr, arg-type, misc]
    leaked = (predicted(own, label.numpy()) == label.numpy()).mean()
    assert leaked > rows["block00"][0]  # with their own labels written in, the probe reads the label


def test_a_class_held_out_of_training_is_told_from_the_rest() -> None:
    data = Digits(batch_size=50, held_out=[3, 5])
    torch.manual_seed(0)
    model = Backprop(MLP(10, 64, [20, 16]), 10, SHAPE)
    trainer = run(model, ProbeMonitor(samples=SAMPLES, folds=FOLDS), data=data)
    image, label = probed(data)
    for name, h in {"input": image, **layers(model, image)}.items():
        each = []
        for c in (3, 5):
            apart = (label == c).long().numpy()
            each.append(balanced_accuracy_score(apart, predicted(h, apart, class_weight="balanced")))
        assert float(trainer.callback_metrics[f"test/probe_unseen/{name}"]) == pytest.approx(np.mean(each), abs=0.02)


class Plain(LightningModule):
    """A LightningModule that is not a learner."""

    num_classes = 10

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.ReLU())
        self.head = nn.Linear(20, 10)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self.head(self.body(batch.image)), batch.label)

    validation_step = test_step = training_step

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.01)


def test_any_module_in_validations_too() -> None:
    data, model = Digits(batch_size=50), Plain()
    monitor = ProbeMonitor(["body"], samples=SAMPLES, folds=FOLDS, every_n_epochs=2)
    trainer = run(model, monitor, data=data)
    assert list(table(trainer, "val")) == list(table(trainer)) == ["input", "body"]
    image, label = probed(data)
    with torch.no_grad():
        said = predicted(model.body(image), label.numpy())
    assert table(trainer)["body"][0] == pytest.approx((said == label.numpy()).mean(), abs=0.009)
    with Path(trainer.log_dir, "metrics.csv").open() as file:  # type: ignore[arg-type]
        assert sum(bool(row["val/probe/body"]) for row in csv.DictReader(file)) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"folds": 1}, "folds=1: one is left out of every fit"),
        ({"samples": 4}, "samples=4: every one of folds=5 needs one"),
        ({"units": "pixels"}, "units='pixels': choose"),
        ({"every_n_epochs": -1}, "every_n_epochs=-1"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ProbeMonitor(**arguments)


def test_two_of_them_would_mix_their_values() -> None:
    with pytest.raises(ValueError, match="2 ProbeMonitor would write the same values and files"):
        run(Plain(), ProbeMonitor(["body"]), ProbeMonitor(["head"]), data=Digits())
