"""A connection between processes that tells the others when one of them has died, whatever it was waiting for.

Collectives alone do not: with NCCL those that are left wait until their timeout, and nobody says for whom.
"""

from __future__ import annotations

import os
import secrets
import selectors
import socket
import sys
import threading
from typing import Any

import torch.distributed as dist

_CLOSED, _LOST, _FAILED = b"B", b"L", b"F"
_LINE = 512


class FailureDetector:
    """Star of connections around the first process, watched by a thread in each.

    A process that ends without a goodbye was killed; what is left of the job says so, and ends `grace` seconds later at
    the latest, with exit code 1, if it does not by itself before.

    Args:
        address: Where the others find the first process.
        grace: Seconds.
    """

    def __init__(self, address: str, grace: float = 20.0) -> None:
        self.rank = dist.get_rank()
        self._peers: dict[socket.socket, int] = {}
        self._ending = threading.Event()
        self._failure_seen = threading.Event()
        self._lock = threading.Lock()
        self._timer = threading.Timer(grace, os._exit, (1,))
        self._timer.daemon = True
        self._connect(address)
        self._thread = threading.Thread(target=self._watch, name="failure-detector", daemon=True)
        self._thread.start()

    def _connect(self, address: str) -> None:
        """Connect all processes to the first; a token keeps strangers out."""
        listener = socket.create_server(("", 0)) if self.rank == 0 else None
        offer: list[Any] = [None if listener is None else (listener.getsockname()[1], secrets.token_bytes(16))]
        dist.broadcast_object_list(offer, 0)
        port, token = offer[0]
        if listener is None:
            peer = socket.create_connection((address, port), timeout=60)
            peer.sendall(token + self.rank.to_bytes(4, "big"))
            peer.settimeout(None)
            self._peers[peer] = 0
        else:
            listener.settimeout(60)
            while len(self._peers) < dist.get_world_size() - 1:
                peer, _ = listener.accept()
                peer.settimeout(10)
                message = _exactly(peer, 20)
                peer.settimeout(None)
                if message[:16] == token:
                    self._peers[peer] = int.from_bytes(message[16:], "big")
                else:
                    peer.close()
            listener.close()
        dist.barrier()

    def _watch(self) -> None:
        with selectors.DefaultSelector() as waiting:
            for peer in self._peers:
                waiting.register(peer, selectors.EVENT_READ)
            while waiting.get_map():
                for key, _ in waiting.select():
                    if not self._handle(key.fileobj):  # type: ignore[arg-type]
                        waiting.unregister(key.fileobj)

    def _handle(self, peer: socket.socket) -> bool:
        """Act on what a process says, or that it is gone; returns whether to listen on."""
        try:
            message = peer.recv(_LINE)
        except OSError:
            message = b""
        if self._ending.is_set() or message[:1] == _CLOSED:
            return False
        if message[:1] in (_LOST, _FAILED):
            self._end(message)
        else:
            self._end(_LOST + f"rank {self._peers[peer]} was killed, or its machine is gone".encode(), peer)
        return False

    def _end(self, message: bytes, gone: socket.socket | None = None) -> None:
        """Tell the others, say it here, and end this process soon."""
        self._ending.set()
        self._notify(message, gone)
        text = message[1:].decode(errors="replace")
        print(f"rank {self.rank}: {text}: ending; the last checkpoint is whole", file=sys.stderr, flush=True)
        self._timer.start()
        self._failure_seen.set()

    def _notify(self, message: bytes, but: socket.socket | None = None) -> None:
        with self._lock:
            for peer in self._peers:
                if peer is not but:
                    try:
                        peer.sendall(message[:_LINE])
                    except OSError:  # it has ended before
                        continue

    def failed(self, error: BaseException) -> None:
        """Tell the others of an error here, which they would otherwise wait for.

        If it only follows from the end of another process, that is message first.
        """
        if not self._failure_seen.wait(1.0) and not self._ending.is_set():
            self._ending.set()
            message = " ".join(str(error).split())
            self._notify(_FAILED + f"rank {self.rank} failed with {type(error).__name__}: {message}".encode())

    def close(self) -> None:
        """Say goodbye: from now on others may end, and whoever caught the error here goes on."""
        self._ending.set()
        self._timer.cancel()
        self._notify(_CLOSED)


def _exactly(peer: socket.socket, size: int) -> bytes:
    message = b""
    while len(message) < size and (more := peer.recv(size - len(message))):
        message += more
    return message
