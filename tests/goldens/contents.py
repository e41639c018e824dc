"""Cases of what a checkpoint holds, and of what callbacks get."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lightning_ff import (
    AllWrongLabels,
    AppendOneHot,
    Compose,
    CosineToEnd,
    FixedPool,
    GreedySchedule,
    HardLabel,
    IntervalReadout,
    LinearReadout,
    MineNegatives,
    MixNegatives,
    Mixture,
    NegativeSampler,
    PeerNormalization,
    RandomShift,
    SymBa,
    WrongLabel,
)
from tests.goldens.found import Found, digest, kind, plain, together
from tests.goldens.nets import Skipping
from tests.goldens.runs import QUIET, SGD, Save, conv, digits, loader, of_digits, pair


class Counting(NegativeSampler):
    """Wrong labels by a count, which is saved."""

    count: Tensor

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        self.register_buffer("count", torch.zeros((), dtype=torch.long))

    def forward(self, x: Tensor, y: Tensor, index: Tensor, learner: Any) -> Tensor:
        self.count += 1
        return learner.labels(x, (y + 1 + self.count % (learner.num_classes - 1)) % learner.num_classes)


def _saved(model: LightningModule, *callbacks: Callback, data: Any = None, validate: Any = None, **flags: Any) -> Found:
    """Contents of a checkpoint."""
    trainer = Trainer(**{**QUIET, **flags}, callbacks=[*callbacks, Save()])
    trainer.fit(model, digits() if data is None else data, validate)
    saved = torch.load("saved.ckpt", weights_only=True)
    (optimizer,) = saved["optimizer_states"]
    plainly = ("hyper_parameters", "hparams_name", "callbacks", "negatives", "waiting", "gradients")
    structure = {
        "keys": sorted(saved),
        "state_dict": sorted(saved["state_dict"]),
        "optimizer": sorted(optimizer),
        "groups": [{key: group[key] for key in ("name", "fused", "params")} for group in optimizer["param_groups"]],
        "state": {i: {key: kind(v) for key, v in sorted(held.items())} for i, held in optimizer["state"].items()},
        "schedulers": [sorted(held) for held in saved["lr_schedulers"]],
        "rng": sorted(saved["rng"]),
        "loader": plain(saved["loops"]["fit_loop"]["state_dict"].get("combined_loader")),
        **{key: plain(saved[key]) for key in plainly if key in saved},
    }
    return Found(structure, {})


def checkpoints() -> Found:
    """Names and arguments in checkpoints, by which they load again."""
    everything = {
        "labels": AppendOneHot(on_value=3.0),
        "loss": SymBa(alpha=2.0),
        "terms": [PeerNormalization()],
        "readout": LinearReadout(view="positive"),
        "negatives": Counting(),
        "augment": Compose([RandomShift(1)]),
        "scheduler": CosineToEnd,
        "block_optimizers": {"block01": SGD, "readout": partial(torch.optim.AdamW, lr=0.02)},
        "accumulate_grad_batches": 2,
    }
    mixture = Mixture([WrongLabel(), HardLabel(fraction=0.5)], [1.0, 2.0])
    return together(
        pair=_saved(of_digits(**everything), MineNegatives(above=0.0)),
        mixture=_saved(of_digits(negatives=mixture)),
        mixed=_saved(of_digits(), MixNegatives([Counting(), WrongLabel()], start=[1.0, 2.0])),
        greedy=_saved(of_digits(negatives=FixedPool(seed=2)), GreedySchedule(1), max_epochs=-1),
        **{"class": _saved(conv(Skipping, cuts="layers", readout=LinearReadout()), data=loader())},
        interval=_saved(conv(readout=IntervalReadout(), head="none", frozen=1), data=loader(), validate=loader(2)),
    )


class Outputs(Callback):
    """Keeps what callbacks get of the first and of the last batch."""

    def __init__(self) -> None:
        self.got: list[dict[str, Any]] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any) -> None:
        self.got = [*self.got[:1], outputs]


def _number(value: Tensor | int) -> Any:
    return digest(value) if isinstance(value, Tensor) else value


def _each(of: Any, outputs: dict[str, Any]) -> dict[str, Any]:
    """A function of every entry of some outputs, which may be dicts by block."""
    inside = {key: {name: of(v) for name, v in held.items()} for key, held in outputs.items() if isinstance(held, dict)}
    return {key: inside[key] if key in inside else of(held) for key, held in sorted(outputs.items())}


def _outputs(model: LightningModule, *callbacks: Callback, **flags: Any) -> Found:
    """Keys, types and numbers of the outputs that callbacks get."""
    kept = Outputs()
    Trainer(**{**QUIET, **flags}, callbacks=[*callbacks, kept]).fit(model, loader(4))
    first, last = kept.got
    both = {"first": first, "last": last}
    structure, values = ({when: _each(of, got) for when, got in both.items()} for of in (kind, _number))
    return Found(structure, values)


def outputs() -> Found:
    """What `on_train_batch_end` gets: `target` is the number of positives, or the labels."""
    return together(
        pair=_outputs(pair(negatives=AllWrongLabels())),
        read=_outputs(pair(readout=LinearReadout(), backward="summed")),
        network=_outputs(pair(segments="loss_of_sum")),
        greedy=_outputs(pair(negatives=FixedPool()), GreedySchedule(1), max_epochs=-1),
        **{"class": _outputs(conv(frozen=1))},
    )
