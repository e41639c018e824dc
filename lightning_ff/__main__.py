"""`python -m lightning_ff`, and the console script."""

from __future__ import annotations

import sys

from lightning_ff.cli import main
from lightning_ff.matrix import matrix
from lightning_ff.record import record
from lightning_ff.report.command import report


def run() -> None:
    """Run the command line; returns nothing, since a console script passes its result to `sys.exit`."""
    if sys.argv[1:2] == ["report"]:
        sys.exit(report(sys.argv[2:]))
    if sys.argv[1:2] == ["matrix"]:
        sys.exit(matrix(sys.argv[2:]))
    if sys.argv[1:2] == ["record"]:
        sys.exit(record(sys.argv[2:]))
    main()


if __name__ == "__main__":
    run()
