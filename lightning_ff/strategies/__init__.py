"""The same sweep over many processes; importing the package registers these strategies by name."""

from lightning_ff.strategies import ddp, fsdp2, pipeline
from lightning_ff.strategies.ddp import LocalDDPStrategy
from lightning_ff.strategies.fsdp2 import LocalFSDP2Strategy
from lightning_ff.strategies.pipeline import LocalPipelineStrategy

__all__ = ["LocalDDPStrategy", "LocalFSDP2Strategy", "LocalPipelineStrategy"]

ddp.register()
fsdp2.register()
pipeline.register()
