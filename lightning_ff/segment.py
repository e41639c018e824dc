"""Segment: consecutive blocks with one loss and one backward."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Segment:
    """Consecutive blocks with one loss and one backward.

    Attributes:
        index: Index among the segments.
        blocks: Indices of its blocks in the network.
        name: The block's name for a segment of one block, "network" for one objective of all blocks, else the names of
            the first and the last block, such as "block00-04".
    """

    index: int
    blocks: tuple[int, ...]
    name: str
