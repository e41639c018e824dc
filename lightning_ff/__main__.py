"""`python -m lightning_ff`, and the console script."""

from __future__ import annotations

from lightning_ff.cli import main


def run() -> None:
    """Run the command line; returns nothing, since a console script gives its result to `sys.exit`."""
    main()


if __name__ == "__main__":
    run()
