"""Strategies that run the sweep on several processes; importing the package registers them by name."""

from lightning_ff.strategies.common import register
from lightning_ff.strategies.ddp import LocalDDPStrategy
from lightning_ff.strategies.fsdp2 import LocalFSDP2Strategy
from lightning_ff.strategies.pipeline import LocalPipelineStrategy

__all__ = ["LocalDDPStrategy", "LocalFSDP2Strategy", "LocalPipelineStrategy"]

for suffix, method in {"": "popen", "_spawn": "spawn", "_fork": "fork", "_notebook": "fork"}.items():
    register(f"ff_ddp{suffix}", LocalDDPStrategy, start_method=method)
    register(f"ff_pipeline{suffix}", LocalPipelineStrategy, start_method=method)
register("ff_fsdp2", LocalFSDP2Strategy)
