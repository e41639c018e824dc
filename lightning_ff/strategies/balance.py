"""Assignment of consecutive blocks to processes, with the smallest cost of the slowest process."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import accumulate, pairwise

import torch

from lightning_ff.blocks.local_block import Activation
from lightning_ff.network import LocalNetwork

_BATCH_SIZE, _REPEATS = 32, 3


def balanced(costs: Sequence[float], parts: int) -> list[int]:
    """Numbers of consecutive entries in each part, such that the largest sum over a part is smallest.

    Example::

        >>> balanced([1.0, 1.0, 1.0, 3.0], 2)
        [3, 1]
    """
    sums = [0.0, *accumulate(costs)]
    best: dict[tuple[int, int], tuple[float, list[int]]] = {(0, 0): (0.0, [])}
    for part in range(1, parts + 1):
        for end in range(part, len(costs) + 1):
            candidates = [
                (max(best[part - 1, start][0], sums[end] - sums[start]), [*best[part - 1, start][1], end - start])
                for start in range(part - 1, end)
                if (part - 1, start) in best
            ]
            best[part, end] = min(candidates)
    return best[parts, len(costs)][1]


def costs(network: LocalNetwork) -> list[float]:
    """Seconds of each block's forward pass on a batch of zeros, the minimum over a few repeats."""
    seconds = []
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    with torch.no_grad():
        weight = next(network.parameters())
        zeros = torch.zeros(_BATCH_SIZE, *network.encoded_shape, dtype=weight.dtype, device=weight.device)
        x: Activation = network.normalize(zeros)
        for k in range(len(network.blocks)):
            times = []
            for _ in range(_REPEATS):
                start = time.perf_counter()
                (output,) = network.run(x, k, k + 1)
                if weight.is_cuda:
                    torch.cuda.synchronize(weight.device)
                times.append(time.perf_counter() - start)
            seconds.append(min(times))
            x = output.onwards
    for module, training in modes:
        module.training = training
    return seconds


def ranges(counts: Sequence[int]) -> list[range]:
    """Indices of the blocks of each process."""
    return [range(start, end) for start, end in pairwise([0, *accumulate(counts)])]
