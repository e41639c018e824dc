"""A forked process has arguments, folder, environment, output and end of its own, as one that Python starts has."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.fork_server import FORKS

pytestmark = pytest.mark.skipif(not FORKS, reason="nothing is forked here")
MODULE = """
import os, subprocess, sys, time
from pathlib import Path

print(sys.argv[1:], Path.cwd(), os.environ.get("KEY"), __name__, "torch" in sys.modules)
what = sys.argv[1]
if what == "fail":
    raise ValueError("no")
if what == "exit":
    sys.exit(3)
if what == "nested":
    print(subprocess.run([sys.executable, "-m", "module", "exit"], capture_output=True).returncode)
if what == "wait":
    Path("pid.partial").write_text(str(os.getpid()))
    Path("pid.partial").rename("pid")
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text(MODULE)


@pytest.mark.parametrize(("what", "code"), [("end", 0), ("exit", 3), ("fail", 1), ("nested", 0)])
def test_what_is_said_and_how_it_ends(python: str, tmp_path: Path, what: str, code: int) -> None:
    command = [python, "-m", "module", what, "a b"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "KEY": "value"})
    first, *more = done.stdout.splitlines()
    assert (done.returncode, first) == (code, f"{[what, 'a b']} {tmp_path} value __main__ True")
    assert more == (["3"] if what == "nested" else [])
    assert ("ValueError: no" in done.stderr) == (what == "fail")


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("inner", [True, False], ids=["process", "program"])
def test_a_signal_ends_both(python: str, number: signal.Signals, inner: bool) -> None:
    with subprocess.Popen([python, "-m", "module", "wait"], stdout=subprocess.DEVNULL) as program:
        while not Path("pid").exists():
            time.sleep(0.01)
        pid = int(Path("pid").read_text())
        os.kill(pid if inner else program.pid, number)
        assert program.wait(30) == -number
    for _ in range(3000):
        if not alive(pid):
            break
        time.sleep(0.01)
    assert not alive(pid)


def test_without_a_module_python_itself_runs(python: str) -> None:
    done = subprocess.run([python, "-c", "import sys; print(sys.executable)"], capture_output=True, text=True)
    assert done.stdout == f"{sys.executable}\n"
