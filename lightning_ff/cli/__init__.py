"""`lightning-ff fit | validate | test | predict`: LightningCLI over every learner and data module here."""

from lightning_ff.cli.checkpoints import last_checkpoint
from lightning_ff.cli.main import CLI, SaveConfig, main

__all__ = ["CLI", "SaveConfig", "last_checkpoint", "main"]
