"""Detection of a process that has died, reported by all others, whatever they are waiting for.

Collectives do not report it: with NCCL the other processes wait until their timeout, and the error names no process.
"""

from __future__ import annotations

import hmac
import os
import secrets
import selectors
import socket
import sys
import threading
import time
from contextlib import suppress
from typing import Any

import torch.distributed as dist

_CLOSED, _LOST, _FAILED = b"B", b"L", b"F"
_MAX_BYTES = 512
_TIMEOUT = 60.0  # seconds for all processes to connect


class FailureDetector:
    """Star of connections around the first process, watched by a thread in each process.

    A process whose connection closes without a message was killed: the others print its rank, and exit with code 1
    after `grace` seconds unless they have ended before.

    Args:
        address: Host of the first process.
        grace: Seconds until the exit.
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
        """Connect all processes to the first, which closes connections without the token."""
        listener = _listen(address) if self.rank == 0 else None
        offer: list[Any] = [None if listener is None else (listener.getsockname()[1], secrets.token_bytes(16))]
        dist.broadcast_object_list(offer, 0)
        port, token = offer[0]
        if listener is None:
            peer = socket.create_connection((address, port), timeout=_TIMEOUT)
            peer.sendall(token + self.rank.to_bytes(4, "big"))
            peer.settimeout(None)
            self._peers[peer] = 0
        else:
            with listener:
                self._peers = accept(listener, token, dist.get_world_size() - 1)
        dist.barrier()

    def _watch(self) -> None:
        with selectors.DefaultSelector() as selector:
            for peer in self._peers:
                selector.register(peer, selectors.EVENT_READ)
            while selector.get_map():
                for key, _ in selector.select():
                    if not self._handle(key.fileobj):  # type: ignore[arg-type]
                        selector.unregister(key.fileobj)

    def _handle(self, peer: socket.socket) -> bool:
        """Handle a message of a process, or its closed connection; returns whether to keep reading."""
        message = _recv(peer)
        if self._ending.is_set() or message[:1] == _CLOSED:
            return False
        if message[:1] in (_LOST, _FAILED):
            self._end(message)
        else:
            self._end(_LOST + f"rank {self._peers[peer]} was killed, or its machine is gone".encode(), peer)
        return False

    def _end(self, message: bytes, closed: socket.socket | None = None) -> None:
        """Notify the others, print the message, and start the timer that ends this process."""
        self._ending.set()
        self._notify(message, closed)
        text = message[1:].decode(errors="replace")
        print(f"rank {self.rank}: {text}: ending; the last checkpoint is complete", file=sys.stderr, flush=True)
        self._timer.start()
        self._failure_seen.set()

    def _notify(self, message: bytes, exclude: socket.socket | None = None) -> None:
        with self._lock:
            for peer in self._peers:
                if peer is not exclude:
                    try:
                        peer.sendall(len(message[:_MAX_BYTES]).to_bytes(2, "big") + message[:_MAX_BYTES])
                    except OSError:  # it has already ended
                        continue

    def failed(self, error: BaseException) -> None:
        """Notify the others of an error in this process, so that they do not wait for it.

        An error caused by the end of another process is not sent: the message about that process arrives first.
        """
        if not self._failure_seen.wait(1.0) and not self._ending.is_set():
            self._ending.set()
            message = " ".join(str(error).split())
            self._notify(_FAILED + f"rank {self.rank} failed with {type(error).__name__}: {message}".encode())

    def close(self) -> None:
        """Stop: other processes may end from now on, and code that caught the error here continues."""
        self._ending.set()
        self._timer.cancel()
        self._notify(_CLOSED)


def _listen(address: str) -> socket.socket:
    """A listener at the job's own address, or at all addresses where that is another name of this host."""
    try:
        return socket.create_server((address, 0))
    except OSError:
        print(f"failure detector: {address} is no address of this host, listening on all", file=sys.stderr, flush=True)
        return socket.create_server(("", 0))


def accept(listener: socket.socket, token: bytes, count: int, timeout: float = _TIMEOUT) -> dict[socket.socket, int]:
    """Connections that send the token at once, by rank; others are closed.

    Raises:
        TimeoutError: fewer than `count` have connected in time.
    """
    peers: dict[socket.socket, int] = {}
    end = time.monotonic() + timeout
    while len(peers) < count:
        listener.settimeout(max(0.01, end - time.monotonic()))
        peer, _ = listener.accept()
        start = time.monotonic()
        peer.settimeout(0.5)
        message = _recv_exactly(peer, 20)
        if hmac.compare_digest(message[:16], token) and len(message) == 20:
            peer.settimeout(None)
            peers[peer] = int.from_bytes(message[16:], "big")
        else:
            peer.close()
            end += time.monotonic() - start  # strangers take no time from the others
    return peers


def _recv(peer: socket.socket) -> bytes:
    """One message, preceded by its length; empty if the connection is closed."""
    return _recv_exactly(peer, int.from_bytes(_recv_exactly(peer, 2), "big"))


def _recv_exactly(peer: socket.socket, size: int) -> bytes:
    """A number of bytes; fewer if the connection is closed or lost."""
    message = b""
    with suppress(OSError):
        while len(message) < size and (more := peer.recv(size - len(message))):
            message += more
    return message
