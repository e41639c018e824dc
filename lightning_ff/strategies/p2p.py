"""What flows from one process of a pipeline to the next: tensors and a few numbers, ahead of need."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from queue import Empty, Queue
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

_HEADER = 96
_TYPES = [
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.bool,
    torch.uint8,
]
_END = -1


class Message(NamedTuple):
    """Tensors and whole numbers that belong together."""

    tensors: list[Tensor]
    numbers: list[int]


class P2P:
    """One process's ends of the pipeline: `send` to the next process and `recv` from the one before.

    A thread receives what comes while the process computes, `depth` messages ahead; sends go out in the background. The
    order of messages is that of sending.

    Args:
        before: Group of this process and the one before; None for the first.
        after: Group of this process and the next; None for the last.
        device: Where received tensors go.
        depth: Messages that may wait on either side.
    """

    def __init__(self, before: Any, after: Any, device: torch.device, depth: int = 2) -> None:
        self.before, self.after, self.device, self.depth = before, after, device, depth
        self._in_flight: deque[tuple[list[Any], list[Tensor]]] = deque()
        self._received: Queue[Message | BaseException | None] = Queue(depth)
        if before is not None:
            self._thread = threading.Thread(target=self._listen, name="pipeline", daemon=True)
            self._thread.start()

    def send(self, tensors: Sequence[Tensor], numbers: Sequence[int] = ()) -> None:
        """Send a message on its way; waits where the next process is `depth` messages behind."""
        header = [len(tensors), len(numbers), *numbers]
        dense = [_channels_behind(tensor) for tensor in tensors]
        for tensor, behind in dense:
            header += [_TYPES.index(tensor.dtype), int(behind), tensor.dim(), *tensor.shape]
        if len(header) > _HEADER:
            raise ValueError(f"{len(tensors)} tensors and {len(numbers)} numbers do not fit into one message")
        self._post(header, [tensor for tensor, _ in dense])

    def _post(self, header: list[int], tensors: list[Tensor]) -> None:
        while len(self._in_flight) >= self.depth:
            for work in self._in_flight.popleft()[0]:
                work.wait()
        first = torch.tensor([*header, *[0] * (_HEADER - len(header))]).to(self.device)
        parts = [first, *(tensor for tensor in tensors if tensor.numel())]
        peer = dist.get_rank() + 1
        self._in_flight.append(([dist.isend(part, peer, group=self.after) for part in parts], parts))

    def recv(self) -> Message:
        """The next message."""
        message = self._received.get()
        if isinstance(message, BaseException):
            raise RuntimeError("the process before this one in the pipeline is gone") from message
        if message is None:
            raise RuntimeError("the process before this one in the pipeline has ended")
        if self.device.type == "cuda":
            torch.cuda.current_stream(self.device).wait_stream(self._stream)
            for tensor in message.tensors:
                tensor.record_stream(torch.cuda.current_stream(self.device))
        return message

    def _listen(self) -> None:
        try:
            if self.device.type == "cuda":
                torch.cuda.set_device(self.device)
                self._stream = torch.cuda.Stream(self.device)
                with torch.cuda.stream(self._stream):
                    self._recv_all()
            else:
                self._recv_all()
        except BaseException as error:
            self._received.put(error)

    def _recv_all(self) -> None:
        while (message := self._recv()) is not None:
            self._received.put(message)
        self._received.put(None)

    def _recv(self) -> Message | None:
        peer = dist.get_rank() - 1
        header = torch.empty(_HEADER, dtype=torch.int64, device=self.device)
        dist.recv(header, peer, group=self.before)
        tensors, count, *rest = header.tolist()
        if tensors == _END:
            return None
        numbers, rest = rest[:count], rest[count:]
        tensors_in = []
        for _ in range(tensors):
            kind, behind, dims, *rest = rest
            shape, rest = rest[:dims], rest[dims:]
            tensor = torch.empty(shape, dtype=_TYPES[kind], device=self.device)
            if tensor.numel():
                dist.recv(tensor, peer, group=self.before)
            tensors_in.append(tensor.movedim(-1, 1) if behind else tensor)
        return Message(tensors_in, numbers)

    def close(self, patience: float) -> None:
        """Say that nothing more comes, and wait until what was sent has gone and the process before has said so too."""
        if self.after is not None:
            with suppress(RuntimeError):  # the next process is gone
                self._post([_END, 0], [])
                for works, _ in self._in_flight:
                    for work in works:
                        work.wait()
            self._in_flight.clear()
        if self.before is not None:
            with suppress(Empty):
                while self._received.get(timeout=patience) is not None:
                    continue
            self._thread.join(patience)


def _channels_behind(tensor: Tensor) -> tuple[Tensor, bool]:
    """A dense tensor without its graph, and whether its channels were moved behind its space to have it so.

    Kept in the memory format that it has, the next block computes bit for bit what it would in this process.
    """
    tensor = tensor.detach()
    if tensor.dim() > 2 and not tensor.is_contiguous() and (moved := tensor.movedim(1, -1)).is_contiguous():
        return moved, True
    return tensor.contiguous(), False
