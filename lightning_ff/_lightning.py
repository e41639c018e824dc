"""The only home of Lightning's private names; `tests/test_lightning_private.py` fails when one of them moves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy

if TYPE_CHECKING:
    from lightning.pytorch.cli import LightningCLI


def batches_seen(trainer: Trainer) -> int:
    """Training batches before this one, over all epochs: the step axis of every logger (#17958).

    `trainer.global_step` counts optimizer steps, which accumulate over several batches.
    """
    return trainer.fit_loop.epoch_loop._batches_that_stepped


def trainer_of(module: LightningModule) -> Trainer | None:
    """The module's Trainer; None where there is none, for which `module.trainer` is an error."""
    return module._trainer


def state_key(callback: Callback, **arguments: Any) -> str:
    """Key of a callback's state in a checkpoint that tells instances with other arguments apart."""
    return callback._generate_state_key(**arguments)


def setting(cli: LightningCLI, config: Any, key: str) -> Any:
    """A value of the command line's configuration, whether there is a subcommand or not."""
    return cli._get(config, key)


def one_backward(strategy: object) -> bool:
    """Whether a strategy expects the gradients of all parameters from every single backward, as plain DDP does."""
    return type(strategy) is DDPStrategy and not strategy._ddp_kwargs.get("find_unused_parameters", False)


def leave_samplers(trainer: Trainer) -> None:
    """Give every process all samples, in the order of the loader, instead of a share."""
    trainer._accelerator_connector.use_distributed_sampler = False


def meet_for_no_signal(trainer: Trainer) -> None:
    """Do not ask the other processes before every training batch whether the first was told to end."""
    loop = trainer.fit_loop.epoch_loop
    if hasattr(loop, "_broadcast_sigterm_tensor"):
        loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]
