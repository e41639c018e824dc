"""Runs in place of Python: a fork server runs `-m MODULE` with this process's files, folder and environment.

    python -IS tests/fork_client.py SOCKET PYTHON [-u] -m MODULE [ARGUMENTS]

Signals to this process reach the forked one, both end together, and in the same way. Without `-m`, Python itself runs.
"""

import json
import os
import signal
import socket
import sys

PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def main(address: str, executable: str, *line: str) -> None:
    words = line[1:] if line[:1] == ("-u",) else line  # the forked process buffers its output nevertheless
    if words[:1] != ("-m",):
        os.execv(sys.executable, [sys.executable, *line])
    job = {"line": words[1:], "folder": os.getcwd(), "environment": dict(os.environ), "executable": executable}
    body = json.dumps(job).encode()
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(address)
    for number in PASSED_ON:
        signal.signal(number, lambda received, _: connection.sendall(bytes([received])))
    socket.send_fds(connection, [len(body).to_bytes(4, "big")], [0, 1, 2])
    connection.sendall(body)
    status = connection.recv(4)
    if not status:
        sys.exit("the fork server has ended, see fork_server.log in pytest's temporary folder")
    code = os.waitstatus_to_exitcode(int.from_bytes(status, "big"))
    if code < 0:
        signal.signal(-code, signal.SIG_DFL) if -code != signal.SIGKILL else None
        os.kill(os.getpid(), -code)
    sys.exit(code)


if __name__ == "__main__":
    main(*sys.argv[1:])
