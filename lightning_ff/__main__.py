"""`python -m lightning_ff`."""

from lightning_ff.cli import main

if __name__ == "__main__":
    main()
