"""The negative sampler of a learner, and the one with which a callback replaces it for a run."""

from __future__ import annotations

import torch

from lightning_ff.negatives import NegativeSampler, check_sampler
from lightning_ff.network import LocalNetwork


class Sampling:
    """Holds samplers outside the learner's submodules, so that they are not in its `state_dict`.

    Args:
        own: The learner's own sampler; None in class mode.

    Attributes:
        own: The learner's own sampler.
        current: The sampler in use.
        installed: The sampler that was checked and moved to the device last.
    """

    def __init__(self, own: NegativeSampler | None) -> None:
        self.replace(own)

    def replace(self, own: NegativeSampler | None) -> None:
        """Replace the learner's own sampler."""
        self.own = self.current = own
        self.installed: NegativeSampler | None = None

    def reset(self) -> None:
        """Use the learner's own sampler again."""
        self.current = self.own

    def install(self, sampler: NegativeSampler, network: LocalNetwork, device: torch.device) -> None:
        """Use a sampler from now on, on the device and in the precision of the weights.

        Raises:
            ValueError: the sampler does not fit the network, or needs blocks that are in other processes.
        """
        check_sampler(sampler, network)
        if sampler.needs_scores and not (network.stage.is_first and network.stage.is_last):
            raise ValueError(
                f"negatives={sampler} need the scores of all blocks before the first one learns, and these are in "
                "several processes: use WrongLabel(), or strategy='ff_ddp'"
            )
        dtype = next((p.dtype for p in network.parameters()), torch.float32)
        # only precision='64-true' and 'bf16-true' cast modules
        self.current = self.installed = sampler.to(device, None if dtype == torch.float32 else dtype)

    def version(self) -> int | None:
        """Number that changes when a sample's inputs change; None if they change every epoch."""
        return 0 if self.current is None else self.current.version
