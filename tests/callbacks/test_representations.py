"""What monitors of representations write, against numpy on activations computed by hand."""

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
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_ff import (
    MLP,
    Backprop,
    EnsembleMonitor,
    FixedPool,
    ForwardForward,
    ScalableForwardForward,
    SoftmaxReadout,
    SparsityMonitor,
    SymBa,
)
from lightning_ff.blocks import ConvNet
from lightning_ff.data import Digits

SHAPE = (1, 8, 8)


def run(model: LightningModule, *monitors: Callback, data: Digits | None = None, **flags: Any) -> Trainer:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = Trainer(
        **{"max_epochs": 2, "accelerator": "cpu", "log_every_n_steps": 5, **quiet, **flags},  # type: ignore[arg-type]
        logger=CSVLogger(".", name="run"),
        callbacks=list(monitors),
    )
    data = data or Digits(batch_size=50)
    trainer.fit(model, data)
    trainer.test(model, data, verbose=False)
    return trainer


def written(trainer: Trainer, name: str = "test") -> dict[str, np.ndarray]:
    return dict(np.load(Path(trainer.log_dir, "representations", f"{name}.npz")))  # type: ignore[arg-type]


def held(data: Digits | None = None) -> tuple[Tensor, Tensor, Tensor]:
    data = data or Digits()
    data.setup("test")
    parts = list(zip(*data.test_dataloader(), strict=True))
    return tuple(torch.cat(part) for part in parts)  # type: ignore[return-value]


def forward_forward() -> ForwardForward:
    torch.manual_seed(0)
    return ForwardForward(
        10,
        SHAPE,
        widths=[48, 32],
        readout=SoftmaxReadout(),
        negatives=FixedPool(),
        loss=SymBa(),
        optimizer=partial(torch.optim.Adam, lr=0.02),
    )


@torch.no_grad()
def by_hand(model: Any, image: Tensor, label: Tensor) -> list[np.ndarray]:
    h = model.network.normalize(model.network.labels(image, label) if model.network.labels is not None else image)
    found = []
    for block in model.eval().blocks:
        h = block.layers(h)
        found.append(h.flatten(1).double().numpy())
        h = block.normalization(h) if block.normalization is not None else h
    return found


def hoyer(h: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        root = np.sqrt(h.shape[1])
        return (root - np.abs(h).sum(1) / np.sqrt((h**2).sum(1))) / (root - 1)


def check(data: dict[str, np.ndarray], name: str, h: np.ndarray, label: np.ndarray, k: float = 1.0) -> None:
    """Everything in the file about a layer, from its activations."""
    for c in range(10):
        rows = h[label == c]
        assert data[f"{name}/count"][c] == len(rows)
        if not len(rows):
            assert np.isnan(data[f"{name}/hoyer"][c])
            assert not data[f"{name}/members"][c].any()
            continue
        np.testing.assert_allclose(data[f"{name}/hoyer"][c], np.nanmean(hoyer(rows)), rtol=1e-5)
        np.testing.assert_allclose(data[f"{name}/mean"][c], rows.mean(0), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(data[f"{name}/active"][c], (rows > 0).mean(0))
        mean = rows.mean(0)
        others = (mean.sum() - mean) / (len(mean) - 1)
        clear = np.abs(mean - (1 + k) * others) > 1e-5
        assert (data[f"{name}/members"][c] == (mean > (1 + k) * others))[clear].all()
    assert data[f"{name}/dead_units"] == ((h > 0).sum(0) == 0).sum()


def test_a_pair_mode_learner_is_seen_with_its_own_labels() -> None:
    model = forward_forward()
    trainer = run(model, EnsembleMonitor(every_n_epochs=2, samples=7, pictures=False))
    image, label, index = held()
    right = model(image).argmax(1) == label
    assert 0.4 < right.float().mean() < 1
    data = written(trainer)
    np.testing.assert_allclose(data["accuracy"], [right[label == c].double().mean() for c in range(10)])
    assert data["confusion"].sum(1).tolist() == label.bincount().tolist()
    assert list(data["layers"]) == ["block00", "block01"]
    activations = by_hand(model, image, label)
    for name, h in zip(data["layers"], activations, strict=True):
        check(data, str(name), h[right.numpy()], label[right].numpy())
    kept = {int(i): row for row, i in enumerate(index)}
    assert np.bincount(data["label"]).max() == 7
    assert sorted(data["label"].tolist()) == data["label"].tolist()
    rows = [kept[int(i)] for i in data["index"]]
    assert label[rows].tolist() == data["label"].tolist()
    np.testing.assert_allclose(data["block01/activations"], activations[1][rows], rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(data["block00/weight"], model.blocks[0].layers[1].weight.detach())  # type: ignore[index]
    values = trainer.callback_metrics
    members = data["block00/members"]
    assert float(values["test/ensemble/size/block00"]) == pytest.approx(members.sum(1).mean())
    assert float(values["test/ensemble/shared/block00"]) == (members.sum(0) > 1).sum()
    assert float(values["test/ensemble/dead_units/block01"]) == data["block01/dead_units"]
    of_all = np.nanmean(hoyer(activations[0][right.numpy()]))
    assert float(values["test/ensemble/sparsity/block00"]) == pytest.approx(of_all, rel=1e-5)
    with Path(trainer.log_dir, "representations", "test.csv").open() as file:  # type: ignore[arg-type]
        table = list(csv.DictReader(file))
    assert len(table) == 20
    assert float(table[13]["hoyer"]) == pytest.approx(data["block01/hoyer"][3])
    assert [name.name for name in sorted(Path(trainer.log_dir, "representations").glob("val*.npz"))] == [  # type: ignore[arg-type]
        "val-epoch=001.npz",
        "val.npz",
    ]


def test_all_samples_and_another_definition() -> None:
    model = forward_forward()
    monitor = EnsembleMonitor(
        only_correct=False, definition="quantile_median", parameter=0.8, samples=400, every_n_epochs=0, pictures=False
    )
    data = written(run(model, monitor))
    image, label, _ = held()
    h = by_hand(model, image, label)[0]
    assert data["block00/count"].sum() == len(label)
    assert str(data["definition"]) == "quantile_median quantile=0.8"
    assert str(data["samples"]) == "all"
    for c in range(10):
        rows = h[label.numpy() == c]
        bound, median = np.quantile(rows, 0.8), np.median(rows, 0)
        clear = np.abs(median - bound) > 1e-5
        assert (data["block00/members"][c] == (median > bound))[clear].all()


def test_two_monitors_of_ensembles_would_overwrite_each_other() -> None:
    with pytest.raises(ValueError, match="2 EnsembleMonitor would write the same files"):
        run(forward_forward(), EnsembleMonitor(), EnsembleMonitor(samples=0))


def test_without_class_scores_no_accuracy_is_made_up() -> None:
    trainer = run(Plain(), EnsembleMonitor(["body"], only_correct=False, every_n_epochs=0, pictures=False))
    data = written(trainer)
    assert not {"accuracy", "confusion"} & data.keys()
    with Path(trainer.log_dir, "representations", "test.csv").open() as file:  # type: ignore[arg-type]
        assert {row["accuracy"] for row in csv.DictReader(file)} == {""}


@pytest.mark.parametrize("make", ["backprop", "class mode"])
def test_class_mode_learners_are_seen_as_they_evaluate(make: str) -> None:
    torch.manual_seed(0)
    model: Any = (
        Backprop(MLP(10, 64, [40, 30]), 10, SHAPE)
        if make == "backprop"
        else ScalableForwardForward(ConvNet(10, 1, [6, 8]), 10, SHAPE)
    )
    trainer = run(model, EnsembleMonitor(every_n_epochs=0, samples=0))
    image, label, _ = held()
    right = (model(image).argmax(1) == label).numpy()
    data = written(trainer)
    assert list(data["layers"]) == ["block00", "block01"]  # no classifier
    for name, h in zip(data["layers"], by_hand(model, image, label)[:2], strict=True):
        check(data, str(name), h[right], label.numpy()[right])


def test_channels_are_averaged_over_positions() -> None:
    torch.manual_seed(0)
    model = ScalableForwardForward(ConvNet(10, 1, [6, 8]), 10, SHAPE)
    data = written(run(model, EnsembleMonitor(every_n_epochs=0, only_correct=False, units="channels", pictures=False)))
    image, label, _ = held()
    with torch.no_grad():
        h = model.eval().blocks[0].layers(image).mean((2, 3)).numpy()
    check(data, "block00", h.astype(np.float64), label.numpy())


class Plain(LightningModule):
    """An ordinary LightningModule, not a learner."""

    num_classes = 10

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.ReLU(inplace=True))
        self.head = nn.Linear(20, 10)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self.head(self.body(batch.image)), batch.label)

    def validation_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.training_step(batch, batch_idx)

    def test_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.training_step(batch, batch_idx)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.01)


def test_any_lightning_module_by_module_path() -> None:
    model = Plain()
    monitor = EnsembleMonitor(["body", "body.1"], scores="head", every_n_epochs=0, pictures=False)
    trainer = run(model, monitor, SparsityMonitor(["body"]))
    image, label, _ = held()
    with torch.no_grad():
        raw = model.body[:2](image)
        h = raw.relu()
        right = (model.head(h).argmax(1) == label).numpy()
    data = written(trainer)
    check(data, "body", h.numpy()[right].astype(np.float64), label.numpy()[right])
    np.testing.assert_allclose(
        data["body.1/mean"][2], raw.numpy()[right & (label == 2).numpy()].mean(0), rtol=1e-4, atol=1e-5
    )
    assert float(trainer.callback_metrics["test/sparsity/body"]) == pytest.approx(
        np.nanmean(hoyer(h.numpy())), rel=1e-5
    )


def test_sparsity_of_all_samples_and_of_training_batches() -> None:
    model = forward_forward()
    trainer = run(model, SparsityMonitor())
    image, label, _ = held()
    for name, h in zip(("block00", "block01"), by_hand(model, image, label), strict=True):
        values = {key: float(trainer.callback_metrics[f"test/{key}/{name}"]) for key in KEYS}
        assert values["sparsity"] == pytest.approx(np.nanmean(hoyer(h)), rel=1e-5)
        treves = 1 - h.mean(1) ** 2 / (h**2).mean(1)
        assert values["treves_rolls"] == pytest.approx(np.nanmean(treves), rel=1e-5)
        assert values["active_fraction"] == pytest.approx((h > 0).mean(), rel=1e-5)
        assert values["dead_units"] == ((h > 0).sum(0) == 0).sum()
    with Path(trainer.log_dir, "metrics.csv").open() as file:  # type: ignore[arg-type]
        rows = list(csv.DictReader(file))
    assert sum(bool(row["train/sparsity/block00"]) for row in rows) == 2 * 26 // 5
    assert sum(bool(row["val/sparsity/block00"]) for row in rows) == 2


KEYS = ("sparsity", "treves_rolls", "active_fraction", "dead_units")


def test_a_training_batch_is_measured_on_its_positives() -> None:
    model, seen = forward_forward(), []

    class Look(Callback):
        def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
            if batch_idx == 6:
                network = pl_module.network
                x = network.normalize(network.labels(batch.image, batch.label))
                with torch.no_grad():
                    seen.append(np.nanmean(hoyer(network.blocks[0].layers(x).double().numpy())))

        def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
            if len(seen) == 1 and "train/sparsity/block00" in trainer.callback_metrics:
                seen.append(float(trainer.callback_metrics["train/sparsity/block00"]))

    run(model, SparsityMonitor(every_n_steps=7, every_n_epochs=0), Look(), max_epochs=1)
    assert seen[1] == pytest.approx(seen[0], rel=1e-5)


def test_a_class_held_out_of_training_is_measured_on_all_its_samples() -> None:
    data, labels = Digits(batch_size=50, held_out=[3]), []

    class Look(Callback):
        def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
            x, _ = pl_module.inputs(batch.image, batch.label, batch.index)
            codes = x.flatten(1)[:, :10]
            labels.extend([*codes.argmax(1).tolist(), *batch.label.tolist()])

    found = {}
    for policy in ("true", "neutral", "predicted"):
        model = forward_forward()
        monitor = EnsembleMonitor(every_n_epochs=0, label_policy=policy, pictures=False)  # type: ignore[arg-type]
        trainer = run(model, monitor, Look(), data=data)
        found[policy] = (model, written(trainer))
        members = found[policy][1]["block00/members"]
        size = float(trainer.callback_metrics["test/ensemble/size/block00"])
        assert size == pytest.approx(np.delete(members, 3, 0).sum(1).mean())  # of classes that were seen
    assert 3 not in labels
    image, label, _ = held()
    of_class = label == 3
    for policy, (model, seen) in found.items():
        assert seen["seen"].tolist() == [c != 3 for c in range(10)]
        assert str(seen["label_policy"]) == policy
        assert seen["block00/count"][3] == of_class.sum()
        network = model.network
        x = {
            "true": network.labels(image, label),
            "neutral": network.labels.neutral(image),  # type: ignore[union-attr]
            "predicted": network.labels(image, model(image).argmax(1)),
        }[policy]
        with torch.no_grad():
            h = network.blocks[0].layers(network.normalize(x)).double().numpy()[of_class]
        np.testing.assert_allclose(seen["block00/hoyer"][3], np.nanmean(hoyer(h)), rtol=1e-5)


def test_pictures_are_drawn_and_sent() -> None:
    trainer = run(forward_forward(), EnsembleMonitor(every_n_epochs=0))
    folder = Path(trainer.log_dir, "figures", "test", "ensembles")  # type: ignore[arg-type]
    drawn = {str(path.parent.relative_to(folder)) for path in folder.rglob("*.png")}
    layers = ("block00", "block01")
    assert drawn == {
        *("sparsity", "sizes", "rdms", "wall", "weights", "connectivity/block01"),
        *(f"{what}/{layer}" for what in ("sharing", "profiles") for layer in layers),
    }


def test_monitors_leave_nothing_on_the_modules() -> None:
    model = forward_forward()
    run(model, SparsityMonitor(), EnsembleMonitor(every_n_epochs=1, pictures=False))
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"layers": "block00"}, TypeError, "layers='block00' is a str"),
        ({"layers": []}, ValueError, r"layers=\[\]: name at least one"),
        ({"units": "pixels"}, ValueError, "units='pixels': choose"),
        ({"every_n_epochs": -1}, ValueError, "every_n_epochs=-1"),
        ({"definition": "best"}, ValueError, "definition='best': choose one of leave_one_out"),
        ({"definition": "quantile_median", "samples": 0}, ValueError, "needs samples, and samples=0"),
        ({"label_policy": "zeros"}, ValueError, "label_policy='zeros': choose"),
        ({"samples": -1}, ValueError, "samples=-1"),
        ({"parameter": "1"}, TypeError, "parameter='1'"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        EnsembleMonitor(**arguments)


def test_what_does_not_fit_the_module() -> None:
    with pytest.raises(ValueError, match="there is no module 'tail'"):
        run(Plain(), EnsembleMonitor(["tail"], only_correct=False))
    with pytest.raises(ValueError, match="only_correct=True needs the class scores of Plain: name the module"):
        run(Plain(), EnsembleMonitor(["body"]))
    with pytest.raises(ValueError, match="layers=None is for learners, and Plain is none"):
        run(Plain(), SparsityMonitor())
    with pytest.raises(ValueError, match="every_n_steps=-1"):
        SparsityMonitor(every_n_steps=-1)
