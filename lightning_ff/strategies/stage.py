"""The blocks of one process of a pipeline, and what it exchanges with the others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import DataLoader
from typing_extensions import override

from lightning_ff.blocks.local_block import Activation
from lightning_ff.learner import LocalLearner
from lightning_ff.strategies.link import Link
from lightning_ff.sweep import Arrived, Placement, Segment


class Stage(Placement):
    """Answers the sweep's questions for one process.

    Args:
        learner: Whose blocks they are.
        owned: Places of the blocks of each process.
        link: This process's ends of the pipeline.
    """

    def __init__(self, learner: LocalLearner, owned: list[range], link: Link) -> None:
        self.learner, self.owned, self.link = learner, owned, link
        self.rank, self.last = dist.get_rank(), len(owned) - 1

    def __deepcopy__(self, memo: Any) -> Placement:
        return Placement()  # of a copy of the network all blocks are here

    @override
    def owns(self, segment: Segment) -> bool:
        return segment.blocks[0] in self.owned[self.rank]

    @override
    def mine(self, blocks: int) -> range:
        return self.owned[self.rank]

    @property
    @override
    def complete(self) -> bool:
        return False

    @property
    @override
    def sends(self) -> bool:
        return self.rank < self.last

    @property
    @override
    def reads(self) -> bool:
        return self.rank == self.last

    @override
    def take(self, label: Tensor) -> Arrived | None:
        if self.rank == 0:
            return None
        tensors, (parts, positives) = self.link.receive()
        x = tensors[0] if parts == 1 else tuple(tensors[:parts])
        return Arrived(x, label if positives < 0 else positives, tensors[parts:])

    @override
    def send(self, x: Activation, target: Tensor | int, features: list[Tensor]) -> None:
        parts = [x] if isinstance(x, Tensor) else [*x]
        self.link.send([*parts, *features], [len(parts), target if isinstance(target, int) else -1])

    @override
    def enter(self, x: Activation) -> Activation:
        if self.rank == 0:
            return x
        tensors, _ = self.link.receive()
        return tensors[0] if len(tensors) == 1 else tuple(tensors)

    @override
    def leave(self, x: Activation) -> None:
        if self.sends:
            self.link.send([x] if isinstance(x, Tensor) else [*x])

    @override
    def collect(self, outputs: list[Tensor]) -> list[Tensor] | None:
        outputs = [*(self.link.receive().tensors if self.rank else ()), *outputs]
        if self.sends:
            self.link.send(outputs)
            return None
        return outputs

    @override
    def share(self, answer: Tensor | dict[str, Tensor] | None) -> Any:
        found = [answer]
        dist.broadcast_object_list(found, self.last)
        return found[0]

    @override
    def gather(self, values: dict[str, Any]) -> dict[str, Any]:
        parts: list[Any] = [None] * (self.last + 1)
        dist.all_gather_object(parts, values)
        return {name: value for part in parts for name, value in part.items()}

    def names(self, rank: int) -> list[str]:
        """Names of a process's blocks, and of the readout for the last."""
        names = [self.learner.network.names[k] for k in self.owned[rank]]
        return [*names, "readout"] if rank == self.last else names

    @torch.no_grad()
    def whole(self) -> None:
        """Bring the weights and statistics of all blocks into every process."""
        network = self.learner.network
        for rank in range(self.last + 1):
            modules = [network.blocks[k] for k in self.owned[rank]]
            for module in [*modules, network.readout] if rank == self.last else modules:
                for tensor in (*module.parameters(), *module.buffers()):
                    dist.broadcast(tensor, rank)

    def optimizer_state(self, own: dict[str, Any]) -> dict[str, Any]:
        """State of the facade with the state of every block from where it learns."""
        facade = self.learner.facade
        places = {id(p): i for i, p in enumerate(p for group in facade.param_groups for p in group["params"])}
        mine = {places[id(p)] for n in self.names(self.rank) if n in facade.inner for p in facade.parameters(n)}
        parts: list[Any] = [None] * (self.last + 1)
        state = {place: value for place, value in own["state"].items() if place in mine}
        dist.all_gather_object(parts, state)
        return {**own, "state": {place: value for part in parts for place, value in sorted(part.items())}}


class SameOrder:
    """A loader of shuffled samples whose order is that of the first process in all of them.

    Args:
        loader: The loader.
    """

    def __init__(self, loader: DataLoader[Any]) -> None:
        self.loader = loader

    def __len__(self) -> int:
        return len(self.loader)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["loader"], name)

    def __iter__(self) -> Iterator[Any]:
        state = torch.get_rng_state()
        dist.broadcast(state, 0)
        torch.set_rng_state(state)
        return iter(self.loader)
