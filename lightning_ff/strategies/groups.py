"""Process groups of a grid of pipelines."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import torch.distributed as dist

_FOREVER = timedelta(days=365)  # a process waits for the one before it as long as that one computes


class Groups:
    """Process groups of this process, set by `make`; the ranks of a pipeline are consecutive.

    Attributes:
        pipeline: This process's pipeline; None is all processes.
        peers: The processes with the same blocks, one in each pipeline; None where there is one pipeline.
        before: This process and the one before it; None for the first of a pipeline.
        after: This process and the one after it; None for the last of a pipeline.
    """

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self._made: list[Any] = []
        self.pipeline = self.peers = self.before = self.after = None

    def make(self, stages: int, copies: int, backend: str | None, timeout: timedelta) -> None:
        """Create all groups, a collective call, and keep those of this process."""
        rank = dist.get_rank()
        for first in range(0, stages * copies, stages):
            for before in range(first, first + stages - 1):
                group = self._new([before, before + 1], backend, _FOREVER)
                self.after = group if rank == before else self.after
                self.before = group if rank == before + 1 else self.before
        if copies > 1:
            for first in range(0, stages * copies, stages):
                members = list(range(first, first + stages))
                group = self._new(members, backend, timeout)
                self.pipeline = group if rank in members else self.pipeline
            for stage in range(stages):
                members = list(range(stage, stages * copies, stages))
                group = self._new(members, backend, timeout)
                self.peers = group if rank in members else self.peers

    def _new(self, ranks: list[int], backend: str | None, timeout: timedelta) -> Any:
        self._made.append(dist.new_group(ranks, timeout, backend))
        return self._made[-1]

    def end(self) -> None:
        """Destroy all groups."""
        for group in self._made:
            if group is not dist.GroupMember.NON_GROUP_MEMBER:
                dist.destroy_process_group(group)
        self._clear()
