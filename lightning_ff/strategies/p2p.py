"""Point-to-point messages from one process of a pipeline to the next, received in the background."""

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
    """Tensors and integers that are sent together."""

    tensors: list[Tensor]
    numbers: list[int]


class P2P:
    """Connections of a process of a pipeline: `send` to the next process and `recv` from the one before.

    A thread receives up to `depth` messages ahead while the process computes; sends are asynchronous. Messages are
    received in the order in which they were sent.

    Args:
        before: Group of this process and the one before; None for the first.
        after: Group of this process and the next; None for the last.
        device: Device of the received tensors.
        depth: Largest number of messages queued on either side.
    """

    def __init__(self, before: Any, after: Any, device: torch.device, depth: int = 2) -> None:
        self.before, self.after, self.device, self.depth = before, after, device, depth
        self._in_flight: deque[tuple[list[Any], list[Tensor]]] = deque()
        self._received: Queue[Message | BaseException | None] = Queue(depth)
        if before is not None:
            self._thread = threading.Thread(target=self._recv_in_thread, name="pipeline-recv", daemon=True)
            self._thread.start()

    def send(self, tensors: Sequence[Tensor], numbers: Sequence[int] = ()) -> None:
        """Send a message asynchronously; blocks while the next process is `depth` messages behind."""
        header = [len(tensors), len(numbers), *numbers]
        dense = [_as_contiguous(tensor) for tensor in tensors]
        for tensor, channels_last in dense:
            header += [_TYPES.index(tensor.dtype), int(channels_last), tensor.dim(), *tensor.shape]
        if len(header) > _HEADER:
            raise ValueError(f"{len(tensors)} tensors and {len(numbers)} numbers do not fit into one message")
        self._isend(header, [tensor for tensor, _ in dense])

    def _isend(self, header: list[int], tensors: list[Tensor]) -> None:
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
            raise RuntimeError("the process before this one in the pipeline has failed") from message
        if message is None:
            raise RuntimeError("the process before this one in the pipeline has ended")
        if self.device.type == "cuda":
            torch.cuda.current_stream(self.device).wait_stream(self._stream)
            for tensor in message.tensors:
                tensor.record_stream(torch.cuda.current_stream(self.device))
        return message

    def _recv_in_thread(self) -> None:
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
        received = []
        for _ in range(tensors):
            dtype, channels_last, dims, *rest = rest
            shape, rest = rest[:dims], rest[dims:]
            tensor = torch.empty(shape, dtype=_TYPES[dtype], device=self.device)
            if tensor.numel():
                dist.recv(tensor, peer, group=self.before)
            received.append(tensor.movedim(-1, 1) if channels_last else tensor)
        return Message(received, numbers)

    def close(self, patience: float) -> None:
        """Send the end marker, wait for all sends, and for the end marker of the process before."""
        if self.after is not None:
            with suppress(RuntimeError):  # the next process has ended
                self._isend([_END, 0], [])
                for works, _ in self._in_flight:
                    for work in works:
                        work.wait()
            self._in_flight.clear()
        if self.before is not None:
            with suppress(Empty):
                while self._received.get(timeout=patience) is not None:
                    continue
            self._thread.join(patience)


def _as_contiguous(tensor: Tensor) -> tuple[Tensor, bool]:
    """A detached, contiguous tensor, and whether its channels were moved to the last axis (channels_last).

    The receiver restores the memory format, so the next block computes bit for bit what it would in this process.
    """
    tensor = tensor.detach()
    if tensor.dim() > 2 and not tensor.is_contiguous() and (moved := tensor.movedim(1, -1)).is_contiguous():
        return moved, True
    return tensor.contiguous(), False
