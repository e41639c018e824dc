"""The same sweep over many processes; importing the package registers these strategies by name."""

from lightning_ff.strategies import ddp, fsdp2
from lightning_ff.strategies.ddp import LocalDDPStrategy
from lightning_ff.strategies.fsdp2 import LocalFSDP2Strategy

__all__ = ["LocalDDPStrategy", "LocalFSDP2Strategy"]

ddp.register()
fsdp2.register()
