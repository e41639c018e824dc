"""A process that has imported the package, and forks one for every `python -m MODULE` of the tests.

Starting Python and importing torch and Lightning takes seconds, forking takes milliseconds. A forked process has its
own memory, arguments, files, folder, environment and exit status; only its imports are those of the server. macOS
starts Python each time, since its libraries are not made for a fork.

    python tests/fork_server.py SOCKET MODULE [MODULE ...]
"""

from __future__ import annotations

import atexit
import fcntl
import gc
import importlib
import json
import os
import runpy
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
FORKS = sys.platform != "darwin"
# what `python -m lightning_ff` imports, and what it imports later in a run
PRELOADED = (
    "lightning_ff.cli",
    "lightning_ff.matrix",
    "lightning_ff.report.command",
    "lightning_ff.report.page",
    "sklearn.datasets",
    "sklearn.model_selection",
    "tests.strategies.runs",
    "torch.distributed.fsdp",
    "torch.distributed.run",
)


@contextmanager
def interpreter(shared: Path, path: Path = ROOT, preloaded: tuple[str, ...] = PRELOADED) -> Iterator[str]:
    """Path of a program that stands in for `sys.executable`; all test processes with this folder use one server.

    Args:
        shared: Folder for the address of the server and its log.
        path: Folder of the package.
        preloaded: Modules that the server imports.
    """
    if not FORKS:
        program = Path(tempfile.mkdtemp(prefix="fork")) / "python"
        _write(program, f'PYTHONPATH={shlex.quote(str(path))}:"$PYTHONPATH"', sys.executable)
        yield str(program)
        return
    with (shared / "fork_server").open("a+") as note:
        fcntl.flock(note, fcntl.LOCK_EX)
        note.seek(0)
        folder = Path(note.read() or shared / "none")
        hold = _hold(folder)
        if hold is None:
            folder, log = Path(tempfile.mkdtemp(prefix="fork")), shared / "fork_server.log"  # addresses are short
            _start(folder, log, path, preloaded)
            hold = _hold(folder)
            assert hold is not None, log.read_text()
            note.truncate(0)
            note.write(str(folder))
    with hold:
        yield str(folder / "python")


def _hold(folder: Path) -> socket.socket | None:
    """A connection that keeps the server alive; None if there is no server."""
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(str(folder / "socket"))
        connection.sendall(bytes(4))
        if connection.recv(1):
            return connection
    except OSError:
        pass
    connection.close()
    return None


def _start(folder: Path, log: Path, path: Path, preloaded: tuple[str, ...]) -> None:
    """Start the server, and write the program that asks it for processes."""
    client, address, program = Path(__file__).with_name("fork_client.py"), folder / "socket", folder / "python"
    _write(program, "", sys.executable, "-IS", client, address, program)
    paths = os.pathsep.join(filter(None, (str(path), os.environ.get("PYTHONPATH", ""))))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    command = [sys.executable, __file__, str(address), *preloaded]
    with log.open("w") as out:
        subprocess.run(command, cwd=folder, stdout=out, stderr=out, env=environment, start_new_session=True, check=True)


def _write(program: Path, variables: str, *words: object) -> None:
    """Write a program that runs these words and its own arguments."""
    program.write_text(f'#!/bin/sh\n{variables} exec {shlex.join(map(str, words))} "$@"\n')
    program.chmod(0o700)


def serve(address: str, *preloaded: str) -> list[str]:
    """Fork until no test process is left; returns in the forked processes only, with what follows `-m`."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(64)
    if os.fork():
        os._exit(0)  # the test process goes on, its first connection waits for the imports
    for name in preloaded:
        importlib.import_module(name)
    gc.freeze()  # a collection in a forked process would copy all of the memory
    holds: list[socket.socket] = []
    while True:
        ready = select.select([listener, *holds], [], [], 60)[0]  # a minute for the first
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                continue
        for each in ready:
            if each is not listener:
                each.close()
                holds.remove(each)
                continue
            connection = listener.accept()[0]
            size, files = socket.recv_fds(connection, 4, 3)[:2]
            if not files:
                with suppress(OSError):  # it has already ended
                    connection.sendall(b"1")
                holds.append(connection)
            elif os.fork():
                connection.close()
                for file in files:
                    os.close(file)
            else:
                for other in (listener, *holds):
                    other.close()
                return _forked(connection, int.from_bytes(size, "big"), files)
        if not holds:
            shutil.rmtree(Path(address).parent)
            sys.exit()


def _forked(connection: socket.socket, size: int, files: list[int]) -> list[str]:
    """Fork once more: the one process waits for the other and tells the client how it ended, the other returns."""
    with connection.makefile("rb") as reader:
        job: dict[str, Any] = json.loads(reader.read(size))
    pid = os.fork()
    if pid:
        for file in files:
            os.close(file)
        threading.Thread(target=_pass_on, args=(connection, pid), daemon=True).start()
        status = os.waitpid(pid, 0)[1]
        with suppress(OSError):
            connection.sendall(status.to_bytes(4, "big"))
        os._exit(0)
    connection.close()
    for target, file in enumerate(files):
        os.dup2(file, target)
        os.close(file)
    os.chdir(job["folder"])
    os.environ.clear()
    os.environ.update(job["environment"])
    path = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:0] = [job["folder"], *(entry for entry in path if entry and entry not in sys.path)]
    sys.executable = job["executable"]
    return list(job["line"])


def _pass_on(connection: socket.socket, pid: int) -> None:
    """Pass signals of the client on to the process, which ends with the client."""
    with suppress(ProcessLookupError):
        while numbers := connection.recv(16):
            for number in numbers:
                os.kill(pid, number)
        os.kill(pid, signal.SIGKILL)


def _run(module: str) -> None:
    """Run a module as `python -m` does, and end without clearing the memory, which takes a second."""
    code: Any = 0
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code or 0
        if not isinstance(code, int):
            print(code, file=sys.stderr)
            code = 1
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        code = 1
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code & 0xFF)


if __name__ == "__main__":
    del sys.path[0]  # the folder of this file
    sys.argv = serve(*sys.argv[1:])
    _run(sys.argv[0])
