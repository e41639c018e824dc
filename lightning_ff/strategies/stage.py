"""The blocks of one process of a pipeline, and what it exchanges with the others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import DataLoader
from typing_extensions import override

from lightning_ff._lightning import Stops
from lightning_ff.blocks.local_block import Activation
from lightning_ff.learner import LocalLearner
from lightning_ff.strategies.link import Link
from lightning_ff.strategies.meeting import Meeting
from lightning_ff.sweep import Arrived, Segment

_OTHER = (
    "the processes of a pipeline read other samples, or in another order: use one of the data modules, a "
    "DataLoader(shuffle=True), or a sampler with a seed of its own that is the same in all processes"
)


class Stage(Meeting):
    """Answers the sweep's questions for one process.

    Args:
        learner: Whose blocks they are.
        owned: Places of the blocks of each stage.
        stage: Which stage this process is.
        link: This process's ends of the pipeline.
        stops: What this process wishes of the trainer.
        group: The processes of the pipeline; None is all.
    """

    def __init__(
        self,
        learner: LocalLearner,
        owned: list[range],
        stage: int,
        link: Link,
        stops: Stops,
        group: Any,
    ) -> None:
        super().__init__(stops, link.device)
        self.learner, self.owned, self.stage = learner, owned, stage
        self.link, self.group = link, group
        self.last, self.first_rank = len(owned) - 1, dist.get_rank() - stage
        self._label = torch.empty(0, dtype=torch.int64)
        self._other = torch.zeros((), dtype=torch.int32, device=link.device)

    @override
    def owns(self, segment: Segment) -> bool:
        return segment.blocks[0] in self.owned[self.stage]

    @override
    def mine(self, blocks: int) -> range:
        return self.owned[self.stage]

    @property
    @override
    def complete(self) -> bool:
        return False

    @property
    @override
    def sends(self) -> bool:
        return self.stage < self.last

    @property
    @override
    def reads(self) -> bool:
        return self.stage == self.last

    @override
    def take(self, label: Tensor) -> Arrived | None:
        self._label = label
        if self.stage == 0:
            return None
        (of_first, *tensors), (parts, positives) = self.link.receive()
        self._label = self._compared(of_first, label)
        x = tensors[0] if parts == 1 else tuple(tensors[:parts])
        return Arrived(x, of_first if positives < 0 else positives, tensors[parts:])

    @override
    def send(self, x: Activation, target: Tensor | int, features: list[Tensor]) -> None:
        parts = [x] if isinstance(x, Tensor) else [*x]
        self.link.send([self._label, *parts, *features], [len(parts), target if isinstance(target, int) else -1])

    @override
    def enter(self, x: Activation) -> Activation:
        if self.stage == 0:
            return x
        tensors, _ = self.link.receive()
        return tensors[0] if len(tensors) == 1 else tuple(tensors)

    @override
    def leave(self, x: Activation) -> None:
        if self.sends:
            self.link.send([x] if isinstance(x, Tensor) else [*x])

    @override
    def collect(self, outputs: list[Tensor]) -> list[Tensor] | None:
        outputs = [*(self.link.receive().tensors if self.stage else ()), *outputs]
        if self.sends:
            self.link.send(outputs)
            return None
        return outputs

    @override
    def share(self, answer: Tensor | dict[str, Tensor] | None) -> Any:
        found = [answer]
        dist.broadcast_object_list(found, self.first_rank + self.last, self.group)
        return found[0]

    @override
    def gather(self, values: dict[str, Any]) -> dict[str, Any]:
        parts: list[Any] = [None] * (self.last + 1)
        dist.all_gather_object(parts, values, self.group)
        return {name: value for part in parts for name, value in part.items()}

    @override
    def same(self, label: Tensor) -> None:
        if self.stage:
            (of_first,) = self.link.receive().tensors
            label = self._compared(of_first, label)
        if self.sends:
            self.link.send([label])

    def _compared(self, of_first: Tensor, own: Tensor) -> Tensor:
        """The first process's labels; whether they are also this one's is asked on the device, and told by `agree`."""
        if len(of_first) != len(own):
            raise ValueError(_OTHER)
        self._other = torch.maximum(self._other, (of_first != own).any().int())
        return of_first

    @override
    def agree(self) -> None:
        dist.all_reduce(self._other, dist.ReduceOp.MAX)
        if self._other:
            self._other.zero_()
            raise ValueError(_OTHER)

    def names(self, stage: int) -> list[str]:
        """Names of a stage's blocks, and of the readout for the last."""
        names = [self.learner.network.names[k] for k in self.owned[stage]]
        return [*names, "readout"] if stage == self.last else names

    @torch.no_grad()
    def whole(self) -> None:
        """Bring the weights and statistics of all blocks into every process."""
        network = self.learner.network
        for stage, owned in enumerate(self.owned):
            modules = [network.blocks[k] for k in owned]
            for module in [*modules, network.readout] if stage == self.last else modules:
                for tensor in (*module.parameters(), *module.buffers()):
                    dist.broadcast(tensor, self.first_rank + stage, self.group)

    def optimizer_state(self, own: dict[str, Any]) -> dict[str, Any]:
        """State of the facade with the state of every block from where it learns."""
        facade = self.learner.facade
        places = {id(p): i for i, p in enumerate(p for group in facade.param_groups for p in group["params"])}
        mine = {places[id(p)] for n in self.names(self.stage) if n in facade.inner for p in facade.parameters(n)}
        parts: list[Any] = [None] * (self.last + 1)
        state = {place: value for place, value in own["state"].items() if place in mine}
        dist.all_gather_object(parts, state, self.group)
        return {**own, "state": {place: value for part in parts for place, value in sorted(part.items())}}


class SameOrder:
    """A loader of shuffled samples whose order is that of the pipeline's first process in all of it.

    Args:
        loader: The loader.
        group: The processes of the pipeline; None is all.
    """

    def __init__(self, loader: DataLoader[Any], group: Any = None) -> None:
        self.loader, self.group = loader, group

    def __len__(self) -> int:
        return len(self.loader)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["loader"], name)

    def __iter__(self) -> Iterator[Any]:
        state = [torch.get_rng_state()]  # as an object, which travels wherever the backend wants it
        first = 0 if self.group is None else dist.get_global_rank(self.group, 0)
        dist.broadcast_object_list(state, first, self.group)
        torch.set_rng_state(state[0])
        return iter(self.loader)
