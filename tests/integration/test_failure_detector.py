"""Connections to the failure detector: strangers are closed, whatever they send, and messages are whole."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from typing import Any

import pytest

from lightning_ff.strategies import failure_detector
from lightning_ff.strategies.failure_detector import FailureDetector, accept

TOKEN = bytes(range(16))


def connect(listener: socket.socket, message: bytes) -> socket.socket:
    peer = socket.create_connection(listener.getsockname())
    peer.sendall(message)
    return peer


def test_strangers_are_closed_and_processes_found() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        reset = connect(listener, b"")
        reset.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, 0, 0, 0, 0, 0, 0, 0]))
        reset.close()
        strangers = [
            connect(listener, b""),
            connect(listener, b"B"),
            connect(listener, b"GET / HTTP/1.1\r\n\r\n" * 9),
            connect(listener, TOKEN[:-1] + b"\xff" + b"\x00\x00\x00\x07"),
        ]
        processes = [connect(listener, TOKEN + rank.to_bytes(4, "big")) for rank in (2, 1)]
        start = time.monotonic()
        found = accept(listener, TOKEN, 2)
        assert time.monotonic() - start < 10
    assert sorted(found.values()) == [1, 2]
    for stranger in strangers:
        stranger.settimeout(5)
        with suppress(ConnectionResetError):
            assert stranger.recv(1) == b""
    for each in (*processes, *found, *strangers):
        each.close()


def test_too_few_processes_end_in_a_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.raises(TimeoutError):
        accept(listener, TOKEN, 1, timeout=0.2)


def test_the_listener_is_at_the_address_of_the_job() -> None:
    with failure_detector._listen("127.0.0.1") as listener:
        assert listener.getsockname()[0] == "127.0.0.1"
    with failure_detector._listen("name.invalid") as listener:
        assert listener.getsockname()[0] == "0.0.0.0"


@pytest.mark.parametrize("pieces", [1, 3])
def test_a_message_is_read_whole(pieces: int) -> None:
    """A text that looks like another message, in pieces, before one that follows at once."""
    here, there = socket.socketpair()
    detector: Any = FailureDetector.__new__(FailureDetector)
    detector._ending, detector._peers, ended = threading.Event(), {here: 1}, []
    detector._end = lambda message, closed=None: ended.append((message, closed))
    message = b"F" + b"rank 1 failed with ValueError: B: ending L"
    sent = len(message).to_bytes(2, "big") + message + b"\x00\x01B"
    size = -(-len(sent) // pieces)
    for k in range(0, len(sent), size):
        threading.Timer(0.02 * k / size, there.sendall, (sent[k : k + size],)).start()
    detector._handle(here)
    assert ended == [(message, None)]
    assert failure_detector._recv(here) == b"B"
    there.close()
    ended.clear()
    detector._handle(here)
    assert ended == [(b"Lrank 1 was killed, or its machine is gone", here)]
    here.close()
