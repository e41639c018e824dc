"""The same sweep over many processes; importing the package registers these strategies by name."""

from lightning_ff.strategies.ddp import LocalDDPStrategy, register

__all__ = ["LocalDDPStrategy"]

register()
