"""`python -m lightning_ff`, and the console script."""

from __future__ import annotations

import sys

from lightning.pytorch.utilities.exceptions import SIGTERMException

from lightning_ff.cli import main
from lightning_ff.cli.errors import in_one_line
from lightning_ff.matrix import ENDED_EARLY, matrix
from lightning_ff.record import record
from lightning_ff.report.command import report


def run() -> None:
    """Run the command line; returns nothing, since a console script passes its result to `sys.exit`."""
    for command in (report, matrix, record):
        if sys.argv[1:2] == [command.__name__]:
            sys.exit(command(sys.argv[2:]))
    try:
        main()
    except SIGTERMException:  # its own code is that of success
        print("lightning-ff: ended early by SIGTERM; the last checkpoint resumes the run", file=sys.stderr)
        sys.exit(ENDED_EARLY)
    except Exception as error:
        if (sentence := in_one_line(error)) is None:
            raise
        print(f"lightning-ff: error: {sentence}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    run()
