"""Parts by name and by class_path on the command line: of the package, of torch, and user-defined."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import Trainer, seed_everything
from torch import Tensor
from torch.optim import SGD, Adam, AdamW
from torch.optim.lr_scheduler import ReduceLROnPlateau, StepLR

from lightning_ff import (
    ActivationRelaxation,
    Backprop,
    FixedPool,
    ForwardForward,
    Goodness,
    LinearReadout,
    NegativeSampler,
    PairLoss,
    PeerNormalization,
    PixelOverlay,
    SwitchNegatives,
    WrongLabel,
)
from lightning_ff.cli import CLI
from lightning_ff.data import Digits

Command = Callable[..., CLI]
TINY = ("--data=Digits", "--trainer.max_epochs=1", "--trainer.log_every_n_steps=4")
MODEL = ("--model=ForwardForward", "--model.widths=[16,16]")
OWN_PARTS = '''
from __future__ import annotations
import torch
from torch import Tensor
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, TensorDataset
from lightning_ff import Goodness, NegativeSampler, PairLoss

class Quartic(Goodness):
    """Mean of fourth powers.

    Args:
        scale: Its factor.
    """

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, h: Tensor) -> Tensor:
        return self.scale * h.flatten(1).pow(4).mean(1)

class Hinge(PairLoss):
    def __init__(self, margin: float = 1.0) -> None:
        super().__init__()
        self.margin = margin

    def pair(self, positive: Tensor, negative: Tensor) -> Tensor:
        return (self.margin - positive).relu().mean() + negative.mean()

class NextLabel(NegativeSampler):
    def forward(self, x, y, index, learner):
        return learner.labels(x, (y + 1) % learner.num_classes)

class Bare(LightningDataModule):
    def train_dataloader(self):
        return DataLoader(TensorDataset(torch.rand(8, 1, 4, 4), torch.arange(8) % 3), batch_size=4)

    def val_dataloader(self):
        return self.train_dataloader()

class Told(Bare):
    def __init__(self) -> None:
        super().__init__()
        self.num_classes, self.input_shape = 3, (1, 4, 4)

class Unknown(Told):
    def __init__(self) -> None:
        super().__init__()
        self.input_shape = None

class Broken(Told):
    @property
    def input_shape(self):
        return self.sizes

    @input_shape.setter
    def input_shape(self, value):
        pass
'''


@pytest.fixture
def own_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of a module of the user's on the path, as PYTHONPATH would have it."""
    (tmp_path / "own_parts.py").write_text(OWN_PARTS)
    monkeypatch.syspath_prepend(tmp_path)
    return "own_parts"


def described(file: str, init_args: dict[str, Any], **trainer: Any) -> str:
    """A configuration file of a small Forward-Forward run on digits."""
    init_args = {"widths": [16, 16], **init_args}
    trainer = {"max_epochs": 2, "log_every_n_steps": 4, **trainer}
    config = {"model": {"class_path": "ForwardForward", "init_args": init_args}, "data": "Digits", "trainer": trainer}
    Path(file).write_text(yaml.safe_dump(config))
    return file


def part(name: str, **init_args: Any) -> dict[str, Any]:
    return {"class_path": name, "init_args": init_args}


def test_every_part_may_come_from_a_file(command: Command) -> None:
    file = described(
        "parts.yaml",
        {
            "labels": "PixelOverlay",
            "readout": part("LinearReadout", skip_first=False),
            "terms": [part("PeerNormalization", weight=0.05), part("PeerNormalization", momentum=0.5)],
            "optimizer": part("SGD", lr=0.02),
            "scheduler": part("StepLR", step_size=1, gamma=0.5),
            "block_optimizers": {"block01": part("torch.optim.AdamW", lr=0.004), "readout": part("Adam", lr=0.1)},
        },
        callbacks=[part("SwitchNegatives", samplers={0: "WrongLabel", 1: part("FixedPool", seed=7)})],
    )
    cli = command("fit", "--config", file)
    learner, (switch,) = cli.model, [c for c in cli.trainer.callbacks if isinstance(c, SwitchNegatives)]
    assert isinstance(learner.labels, PixelOverlay)
    assert isinstance(learner.network.readout, LinearReadout)
    assert len(learner.network.readout.linear) == 2
    terms = [[(type(term), term.weight, term.momentum) for term in block.terms] for block in learner.blocks]
    assert terms == [[(PeerNormalization, 0.05, 0.9), (PeerNormalization, 0.03, 0.5)]] * 2
    optimizers = {name: (type(o), o.param_groups[0]["lr"]) for name, o in learner.local_optimizers.by_block.items()}
    # two epochs have halved each rate twice
    assert optimizers == {"block00": (SGD, 0.005), "block01": (AdamW, 0.001), "readout": (Adam, 0.025)}
    (scheduler,) = {type(s) for s in cli.trainer.lr_scheduler_configs[0].scheduler.by_block.values()}
    assert scheduler is StepLR
    assert {epoch: type(s) for epoch, s in switch.samplers.items()} == {0: WrongLabel, 1: FixedPool}
    assert learner.negatives is switch.samplers[1]
    assert learner.negatives.seed == 7


def test_optimizer_and_scheduler_by_short_name_on_the_command_line(command: Command) -> None:
    optimizer = ("--model.optimizer=SGD", "--model.optimizer.lr=0.01")
    scheduler = ("--model.scheduler=StepLR", "--model.scheduler.step_size=1", "--model.scheduler.gamma=0.25")
    cli = command("fit", *MODEL, *TINY, *optimizer, *scheduler)
    rates = {name: (type(o), o.param_groups[0]["lr"]) for name, o in cli.model.local_optimizers.by_block.items()}
    assert rates == {"block00": (SGD, 0.0025), "block01": (SGD, 0.0025)}


def test_a_plateau_scheduler_waits_for_its_metric(command: Command) -> None:
    """The validation accuracy is at most 1, so a threshold of 5 above the best never counts as better."""
    plateau = part("torch.optim.lr_scheduler.ReduceLROnPlateau", mode="max", patience=0, factor=0.1, threshold=5.0,
                   threshold_mode="abs")  # fmt: skip
    file = described("plateau.yaml", {"scheduler": plateau, "scheduler_monitor": "val/acc"}, max_epochs=3)
    cli = command("fit", "--config", file, "--model.optimizer=SGD", "--model.optimizer.lr=0.1")
    assert isinstance(cli.trainer.lr_scheduler_configs[0].scheduler.by_block["block00"], ReduceLROnPlateau)
    assert [group["lr"] for group in cli.model.local_optimizers.param_groups] == pytest.approx([0.001, 0.001])


@pytest.mark.parametrize(
    ("given", "names"), [("[1, 2]", ["block00", "block01-02"]), ("2", ["block00-01", "block02"]), ("last", None)]
)
def test_segments_by_name_number_and_lengths(command: Command, given: str, names: list[str] | None) -> None:
    widths = "--model.widths=[16, 12, 8]"
    cli = command("fit", MODEL[0], widths, *TINY, f"--model.segments={given}", "--trainer.limit_train_batches=2")
    assert list(cli.model.local_optimizers.by_block) == (names or cli.model.network.names)
    checkpoint = cli.trainer.checkpoint_callback.best_model_path
    again = ForwardForward.load_from_checkpoint(checkpoint)
    assert again.segments == cli.model.segments == yaml.safe_load(given)
    assert [block.goodness is None for block in again.blocks] == [block.goodness is None for block in cli.model.blocks]


def test_a_credit_by_name(command: Command) -> None:
    network = part("lightning_ff.MLP", inputs=64, widths=[12, 8], num_classes=10)
    init_args = {"model": network, "cuts": 3, "credit": part("ActivationRelaxation", rate=0.25, steps=4)}
    config = {"model": part("Backprop", **init_args), "data": "Digits", "trainer": {"max_epochs": 1}}
    Path("credit.yaml").write_text(yaml.safe_dump(config))
    credit = command("fit", "--config", "credit.yaml", "--trainer.limit_train_batches=2").model.credit
    assert isinstance(credit, ActivationRelaxation)
    assert (credit.rate, credit.steps, credit.order) == (0.25, 4, "top-down")
    (checkpoint,) = Path().rglob("last.ckpt")
    assert repr(Backprop.load_from_checkpoint(checkpoint).credit) == repr(credit)


def test_number_of_classes_and_shape_come_from_the_data(command: Command, own_parts: str) -> None:
    cli = command("fit", *MODEL, f"--data={own_parts}.Told", "--trainer.fast_dev_run=1")
    assert (cli.model.num_classes, cli.model.network.input_shape) == (3, (1, 4, 4))
    linear = cli.model.blocks[0].layers[1]  # type: ignore[index]
    assert linear.in_features == 16


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("Bare", "data=Bare has no num_classes ('Bare' object has no attribute 'num_classes'), and ForwardForward"),
        ("Unknown", "data=Unknown has input_shape=None, and ForwardForward takes it from the data: set"),
        ("Broken", "data=Broken has no input_shape ('Broken' object has no attribute 'sizes'), and ForwardForward"),
    ],
)
def test_data_that_does_not_tell_is_named_with_what_it_lacks(
    command: Command, own_parts: str, data: str, said: str
) -> None:
    remedy = f"in the __init__ of {data}, or make it a property"
    with pytest.raises(ValueError, match=f"^{re.escape(said)}.*{remedy}$"):
        command("fit", *MODEL, f"--data={own_parts}.{data}", "--trainer.fast_dev_run=1")


def test_blocks_from_a_file_are_in_the_checkpoint(command: Command) -> None:
    blocks = [part("torch.nn.Conv2d", in_channels=n, out_channels=4, kernel_size=3) for n in (2, 4)]
    file = described("blocks.yaml", {"widths": None, "blocks": blocks, "labels": "LabelChannel"}, max_epochs=1)
    cli = command("fit", "--config", file)
    images = torch.rand(3, 1, 8, 8)
    loaded = ForwardForward.load_from_checkpoint(next(Path().rglob("last.ckpt")))
    assert [tuple(shape[0]) for shape in loaded.network.shapes] == [(4, 6, 6), (4, 4, 4)]
    assert torch.equal(loaded(images), cli.model(images))


# A user-defined goodness, loss and negative sampler


class Quartic(Goodness):
    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, h: Tensor) -> Tensor:
        return self.scale * h.flatten(1).pow(4).mean(1)


class Hinge(PairLoss):
    def __init__(self, margin: float = 1.0) -> None:
        super().__init__()
        self.margin = margin

    def pair(self, positive: Tensor, negative: Tensor) -> Tensor:
        return (self.margin - positive).relu().mean() + negative.mean()


class NextLabel(NegativeSampler):
    def forward(self, x: Tensor, y: Tensor, index: Tensor, learner: Any) -> Tensor:
        return learner.labels(x, (y + 1) % learner.num_classes)


def plain_weights() -> list[Tensor]:
    """Weights of two layers after one epoch of digits with these parts, in plain torch."""
    seed_everything(5)
    data = Digits(batch_size=64)
    data.setup("fit")
    layers = [torch.nn.Linear(64, 16), torch.nn.Linear(16, 16)]
    optimizers = [SGD(layer.parameters(), lr=0.05) for layer in layers]

    def rms(x: Tensor) -> Tensor:
        return x / (x.square().mean(1, keepdim=True) + 1e-8).sqrt()

    for image, label, _ in data.train_dataloader():
        x = image.flatten(1).repeat(2, 1)
        x[:, :10] = torch.nn.functional.one_hot(torch.cat((label, (label + 1) % 10)), 10)
        x = rms(x)
        for layer, optimizer in zip(layers, optimizers, strict=True):
            h = torch.relu(layer(x))
            positive, negative = (2.0 * h.pow(4).mean(1)).chunk(2)
            loss = (1.5 - positive).relu().mean() + negative.mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            x = rms(h).detach()
    return [layer.weight.detach() for layer in layers]


def weights_of(learner: Any) -> list[Tensor]:
    return [block.layers[1].weight.detach() for block in learner.blocks]


def test_own_parts_by_class_path_train_as_in_plain_torch(command: Command, own_parts: str, tmp_path: Path) -> None:
    own = {
        "goodness": part(f"{own_parts}.Quartic", scale=2.0),
        "loss": part(f"{own_parts}.Hinge", margin=1.5),
        "negatives": f"{own_parts}.NextLabel",
        "optimizer": part("SGD", lr=0.05),
    }
    file = described("own.yaml", own, max_epochs=1)
    cli = command("fit", "--config", file, "--data.batch_size=64", "--seed_everything=5")
    torch.testing.assert_close(weights_of(cli.model), plain_weights(), rtol=1e-5, atol=1e-6)
    loaded = ForwardForward.load_from_checkpoint(next(tmp_path.rglob("last.ckpt")))
    assert (loaded.blocks[0].goodness.scale, loaded.blocks[0].loss.margin) == (2.0, 1.5)  # type: ignore[union-attr]
    assert type(loaded.negatives).__name__ == "NextLabel"
    images = torch.rand(3, 1, 8, 8)
    assert torch.equal(loaded(images), cli.model(images))


def test_own_parts_by_subclass_train_as_in_plain_torch() -> None:
    seed_everything(5)
    own: dict[str, Any] = {"goodness": Quartic(2.0), "loss": Hinge(1.5), "negatives": NextLabel()}
    learner = ForwardForward(10, (1, 8, 8), [16, 16], optimizer=partial(SGD, lr=0.05), **own)
    quiet: dict[str, Any] = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar"), False)
    Trainer(max_epochs=1, accelerator="cpu", log_every_n_steps=4, **quiet).fit(learner, Digits(batch_size=64))
    torch.testing.assert_close(weights_of(learner), plain_weights(), rtol=1e-5, atol=1e-6)


def test_help_of_a_user_s_part_is_its_docstring(
    command: Command, own_parts: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        command("fit", *MODEL, f"--model.goodness.help={own_parts}.Quartic")
    assert not stop.value.code
    text = " ".join(capsys.readouterr().out.split())
    assert "Mean of fourth powers" in text
    assert "Its factor. (type: float, default: 1.0)" in text
