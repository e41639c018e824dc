"""The negative sampler of a learner, and the one that a callback has put in its place for a run."""

from __future__ import annotations

import torch

from lightning_ff.negatives import NegativeSampler, check_sampler
from lightning_ff.network import LocalNetwork


class Sampling:
    """Holds samplers beside the modules: weights load whatever the sampler, and averaged weights leave it out.

    Args:
        own: The learner's own sampler; None in class mode.

    Attributes:
        own: The learner's own.
        current: The one that makes negatives now.
    """

    def __init__(self, own: NegativeSampler | None) -> None:
        self.replace(own)

    def replace(self, own: NegativeSampler | None) -> None:
        """Take another one as the learner's own."""
        self.own = self.current = own

    def reset(self) -> None:
        """Begin with the learner's own again."""
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
        # of precision='64-true' or 'bf16-true'; mixed precision and '32-true' leave modules as they are
        self.current = sampler.to(device, None if dtype == torch.float32 else dtype)

    def version(self) -> int | None:
        """A number that stays as long as every sample keeps its inputs; None where each epoch has other ones."""
        return 0 if self.current is None else self.current.version
