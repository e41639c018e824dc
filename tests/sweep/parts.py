"""Small parts of every kind that a block may learn from, and networks of them, each with its plain-torch twin."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from lightning_ff import LinearReadout, LocalBlock, LocalLearner, LocalNetwork, Readout, Term
from lightning_ff.data import BatchLoader
from lightning_ff.objectives import Goodness
from tests.strategies.runs import BATCH, CLASSES, SHAPE, Shares

SGD = partial(torch.optim.SGD, lr=0.1, momentum=0.9)
WIDTHS = [36, 10, 8]


def encoders(widths: list[int] = WIDTHS) -> list[nn.Module]:
    """Fully connected layers, initialised from one seed."""
    torch.manual_seed(3)
    made = [nn.Sequential(nn.Linear(a, b), nn.ReLU()) for a, b in pairwise(widths)]
    made[0].insert(0, nn.Flatten())
    return [*made]


class Reconstruction(Term):
    """Squared error of the block's input from its activation, by a linear decoder; tells the types that it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[torch.dtype] = set()
        self.decoder: nn.Module = nn.Identity()

    @override
    def build(self, shape: torch.Size, inputs: torch.Size, num_classes: int) -> None:
        torch.manual_seed(shape.numel())
        self.decoder = nn.Linear(shape.numel(), inputs.numel())

    @override
    def forward(self, x: Tensor, h: Tensor, target: Any) -> Tensor:
        self.seen |= {x.dtype, h.dtype}
        return F.mse_loss(self.decoder(h.flatten(1)), x.flatten(1))


def unsupervised(readout: Readout | None = None, **arguments: Any) -> LocalLearner:
    """Two blocks that reconstruct their inputs, read out by a linear layer."""
    blocks = [LocalBlock(layer, terms=[Reconstruction()]) for layer in encoders()]
    torch.manual_seed(4)
    network = LocalNetwork(blocks, SHAPE, CLASSES, readout or LinearReadout(skip_first=False))
    return LocalLearner(network, **{"optimizer": SGD, **arguments})


class Ridge(Goodness):
    """Class scores by a ridge regression of one-hot labels on the activations of an epoch."""

    mode: Literal["pair", "class"] = "class"
    sums = ("gram", "moment")
    gram: Tensor
    moment: Tensor
    weight: Tensor

    def __init__(self, ridge: float = 0.1) -> None:
        super().__init__()
        self.ridge = ridge

    @override
    def build(self, shape: torch.Size, num_classes: int) -> None:
        size = shape.numel()
        self.classes = num_classes
        self.register_buffer("gram", torch.zeros(size, size, dtype=torch.float64))
        self.register_buffer("moment", torch.zeros(size, num_classes, dtype=torch.float64))
        self.register_buffer("weight", torch.zeros(size, num_classes))

    @override
    def observe(self, h: Tensor, target: Any) -> None:
        rows, label = h.flatten(1).double(), target.label
        self.gram += rows.T @ rows
        self.moment += rows.T @ F.one_hot(label, self.classes).double()

    @override
    def fit(self, reduce: Callable[[Tensor], Tensor]) -> None:
        gram, moment = reduce(self.gram), reduce(self.moment)
        self.weight.copy_(torch.linalg.solve(gram + self.ridge * torch.eye(len(gram)), moment))
        self.gram.zero_()
        self.moment.zero_()

    @override
    def forward(self, h: Tensor) -> Tensor:
        return h.flatten(1) @ self.weight


def plain_ridge(rows: Tensor, label: Tensor, ridge: float = 0.1) -> Tensor:
    """The same by one solve on all rows at once."""
    rows, onehot = rows.double(), F.one_hot(label, CLASSES).double()
    stacked = torch.cat((rows, ridge**0.5 * torch.eye(rows.shape[1], dtype=torch.float64)))
    return torch.linalg.lstsq(stacked, torch.cat((onehot, onehot.new_zeros(rows.shape[1], CLASSES)))).solution


class Recorded(Goodness):
    """Class goodness `(N, C)` by a linear head, which keeps the labels that the loss gets."""

    mode: Literal["pair", "class"] = "class"

    @override
    def build(self, shape: torch.Size, num_classes: int) -> None:
        torch.manual_seed(shape.numel())
        self.head = nn.Linear(shape.numel(), num_classes)

    @override
    def forward(self, h: Tensor) -> Tensor:
        return self.head(h.flatten(1))


class Stored(LightningDataModule):
    """The samples of `Shares` by a loader that resumes in mid-epoch."""

    @override
    def train_dataloader(self) -> BatchLoader:
        images, labels, _ = Shares().samples.tensors
        assert self.trainer is not None
        size, rank = self.trainer.world_size, self.trainer.global_rank
        return BatchLoader(images, labels, batch_size=BATCH // size, rank=rank, world_size=size)


class SaveAt(Callback):
    """Saves a checkpoint after a number of batches."""

    def __init__(self, step: int, path: Any) -> None:
        self.step, self.path = step, path

    @override
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)


def resumes_exactly(make: Callable[[], LocalLearner], path: Any, step: int = 13) -> Trainer:
    """Assert that a run resumed in mid-epoch ends with the state of the unbroken one; returns the resumed Trainer."""
    quiet: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    quiet |= {"accelerator": "cpu", "max_epochs": 2, "enable_checkpointing": False}
    whole, again = make(), make()
    Trainer(**quiet, callbacks=[SaveAt(step, path)]).fit(whole, Stored())
    resumed = Trainer(**quiet)
    resumed.fit(again, Stored(), ckpt_path=path)
    one, two = whole.state_dict(), again.state_dict()
    assert one.keys() == two.keys()
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert any(not torch.equal(one[key], value) for key, value in make().state_dict().items())
    return resumed
