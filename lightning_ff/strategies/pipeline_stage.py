"""The blocks of one process of a pipeline, and what it exchanges with the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.data import DataLoader
from typing_extensions import override

from lightning_ff.blocks.local_block import Activation
from lightning_ff.network import LocalNetwork
from lightning_ff.optim import BlockOptimizers
from lightning_ff.stage import Received, Stage
from lightning_ff.strategies.p2p import P2P
from lightning_ff.target import Labels, Pairs, Target

_DIFFERENT_SAMPLES = (
    "the processes of a pipeline read different samples, or in a different order: use one of the data modules, a "
    "DataLoader(shuffle=True), or a sampler with its own seed, the same in all processes"
)


class PipelineStage(Stage):
    """The consecutive blocks of one process, and its transport to the stages before and after.

    Args:
        network: The network.
        owned: Indices of the blocks of each stage.
        index: Index of this process's stage.
        p2p: Connections to the processes before and after.
        group: Process group of the pipeline; None is all processes.
    """

    def __init__(self, network: LocalNetwork, owned: list[range], index: int, p2p: P2P, group: Any) -> None:
        self.network, self.owned, self.index = network, owned, index
        self.p2p, self.group = p2p, group
        self.last, self.first_rank = len(owned) - 1, dist.get_rank() - index
        self._label = torch.empty(0, dtype=torch.int64)
        self._differs = torch.zeros((), dtype=torch.int32, device=p2p.device)

    def __deepcopy__(self, memo: Any) -> Stage:
        return Stage()  # a copy of the network has all blocks

    @property
    @override
    def is_first(self) -> bool:
        return self.index == 0

    @property
    @override
    def is_last(self) -> bool:
        return self.index == self.last

    @override
    def owns(self, index: int) -> bool:
        return index in self.owned[self.index]

    @override
    def recv_forward(self, label: Tensor | None = None) -> Received:
        tensors, numbers = self.p2p.recv()
        if label is None:
            return Received(tensors[0] if len(tensors) == 1 else tuple(tensors))
        (first_label, *tensors), (parts, positives) = tensors, numbers
        self._label = self._compare(first_label, label)
        x = tensors[0] if parts == 1 else tuple(tensors[:parts])
        return Received(x, Labels(first_label) if positives < 0 else Pairs(positives), tensors[parts:])

    @override
    def send_forward(
        self,
        x: Activation,
        target: Target | None = None,
        features: Sequence[Tensor] = (),
        label: Tensor | None = None,
    ) -> None:
        parts = [x] if isinstance(x, Tensor) else [*x]
        if target is None:
            self.p2p.send(parts)
            return
        first_label = label if self.is_first else self._label
        assert first_label is not None
        positives = target.positives if isinstance(target, Pairs) else -1
        self.p2p.send([first_label, *parts, *features], [len(parts), positives])

    @override
    def gather_outputs(self, outputs: list[Tensor]) -> list[Tensor] | None:
        outputs = [*(() if self.is_first else self.p2p.recv().tensors), *outputs]
        if self.is_last:
            return outputs
        self.p2p.send(outputs)
        return None

    @override
    def broadcast(self, value: Tensor | dict[str, Tensor] | None) -> Any:
        values = [value]
        dist.broadcast_object_list(values, self.first_rank + self.last, self.group)
        return values[0]

    def gather_values(self, values: dict[str, Any]) -> dict[str, Any]:
        """Values by block of all stages, from those of this one's blocks."""
        parts: list[Any] = [None] * (self.last + 1)
        dist.all_gather_object(parts, values, self.group)
        return {name: value for part in parts for name, value in part.items()}

    # Checks that all processes read the same samples

    def compare_labels(self, label: Tensor) -> None:
        """Compare this process's labels `(N,)` with the first one's, in an evaluation."""
        if not self.is_first:
            (first_label,) = self.p2p.recv().tensors
            label = self._compare(first_label, label)
        if not self.is_last:
            self.p2p.send([label])

    def _compare(self, first_label: Tensor, own: Tensor) -> Tensor:
        """The first process's labels; a difference from this one's is kept on the device until `check_order`."""
        if len(first_label) != len(own):
            raise ValueError(_DIFFERENT_SAMPLES)
        self._differs = torch.maximum(self._differs, (first_label != own).any().int())
        return first_label

    def check_order(self) -> None:
        """Check that all processes have read the same samples.

        Raises:
            ValueError: they have not.
        """
        dist.all_reduce(self._differs, dist.ReduceOp.MAX)
        if self._differs:
            self._differs.zero_()
            raise ValueError(_DIFFERENT_SAMPLES)

    # The whole network, for checkpoints

    def _modules(self, index: int) -> list[nn.Module]:
        """A stage's blocks, and the readout for the last."""
        blocks: list[nn.Module] = [self.network.blocks[k] for k in self.owned[index]]
        return [*blocks, self.network.readout] if index == self.last else blocks

    @torch.no_grad()
    def broadcast_weights(self) -> None:
        """Broadcast the weights and statistics of all blocks to every process."""
        for index in range(len(self.owned)):
            for module in self._modules(index):
                for tensor in (*module.parameters(), *module.buffers()):
                    dist.broadcast(tensor, self.first_rank + index, self.group)

    def optimizer_state(self, own: dict[str, Any], optimizers: BlockOptimizers) -> dict[str, Any]:
        """State of all optimizers, gathered from the processes that train their blocks."""
        indices = {id(p): i for i, p in enumerate(p for group in optimizers.param_groups for p in group["params"])}
        mine = {indices.get(id(p)) for module in self._modules(self.index) for p in module.parameters()}
        parts: list[Any] = [None] * (self.last + 1)
        state = {i: value for i, value in own["state"].items() if i in mine}
        dist.all_gather_object(parts, state, self.group)
        return {**own, "state": {i: value for part in parts for i, value in sorted(part.items())}}


class SameOrder:
    """A shuffling loader with the order of the pipeline's first process in all its processes.

    Args:
        loader: The loader.
        group: Process group of the pipeline; None is all processes.
    """

    def __init__(self, loader: DataLoader[Any], group: Any = None) -> None:
        self.loader, self.group = loader, group

    def __len__(self) -> int:
        return len(self.loader)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["loader"], name)

    def __iter__(self) -> Iterator[Any]:
        state = [torch.get_rng_state()]  # sent as an object, which every backend supports
        first = 0 if self.group is None else dist.get_global_rank(self.group, 0)
        dist.broadcast_object_list(state, first, self.group)
        torch.set_rng_state(state[0])
        return iter(self.loader)
