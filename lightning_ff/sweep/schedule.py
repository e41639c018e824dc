"""Schedules: which segments learn in which epoch. Schedules have no state: results depend on the arguments alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from typing_extensions import override

from lightning_ff.segment import Segment
from lightning_ff.validate import check_ints, check_type

Window = tuple[int, int]


class Schedule:
    """Which segments learn; this one: all of them, in every epoch."""

    def learns(self, segment: Segment, epoch: int) -> bool:
        """Whether a segment learns in an epoch."""
        return True

    def epochs(self, segment: Segment) -> int | None:
        """Number of epochs in which a segment learns, over which its scheduler decays; None is all epochs."""
        return None


class Windows(Schedule):
    """Every segment learns in its own windows of epochs.

    Args:
        windows: For each segment its windows `[first epoch, end)`, in order.

    Raises:
        ValueError: they are empty or overlap, or no segment has one.
        TypeError: they are not lists of pairs of integers.

    Example::

        >>> windows = Windows([[(0, 2)], [(2, 6)]])
        >>> windows.learning(1), windows.learning(2), windows.first(2), windows.fixed_since(1, 2)
        ([0], [1], 1, 2)
    """

    def __init__(self, windows: Sequence[Sequence[Window]]) -> None:
        self.windows = checked_windows(windows)

    @property
    def length(self) -> int:
        """Number of epochs until the last window ends."""
        return max(end for of_segment in self.windows for _, end in of_segment)

    @override
    def learns(self, segment: Segment, epoch: int) -> bool:
        return self._in_window(segment.index, epoch)

    @override
    def epochs(self, segment: Segment) -> int:
        return sum(end - first for first, end in self.windows[segment.index])

    def learning(self, epoch: int) -> list[int]:
        """Indices of the segments that learn in an epoch."""
        return [k for k in range(len(self.windows)) if self._in_window(k, epoch)]

    def _in_window(self, index: int, epoch: int) -> bool:
        return any(first <= epoch < end for first, end in self.windows[index])

    def first(self, epoch: int) -> int:
        """Index of the first segment that learns in an epoch, 0 where none does."""
        return next((k for k in range(len(self.windows)) if self._in_window(k, epoch)), 0)

    def fixed_since(self, index: int, epoch: int) -> int:
        """Epoch since which the weights of the segments before this one have not changed."""
        ends = (end for of_segment in self.windows[:index] for _, end in of_segment)
        return max((end for end in ends if end <= epoch), default=0)

    def not_begun(self, epoch: int) -> set[int]:
        """Indices of segments that have windows, of which the first has not started."""
        return {k for k, of_segment in enumerate(self.windows) if of_segment and epoch < of_segment[0][0]}


def checked_windows(windows: Any) -> list[list[Window]]:
    """Windows by segment as `(first epoch, end)`.

    Raises:
        ValueError: they are empty or overlap, or no segment has one.
        TypeError: they are not lists of pairs of integers.
    """
    check_type("windows", windows, Sequence, "give a list of windows for each block, such as [[(0, 5)], [(5, 10)]]")
    checked: list[list[Window]] = []
    for k, of_block in enumerate(windows):
        check_type(f"windows[{k}]", of_block, Sequence, "give a list of windows, such as [(0, 5)]")
        of_this: list[Window] = []
        for window in of_block:
            check_ints(f"windows[{k}]", window, "give windows as two epochs, such as [(0, 5)]")
            if len(window) != 2 or not (of_this[-1][1] if of_this else 0) <= window[0] < window[1]:
                raise ValueError(
                    f"windows[{k}]={list(of_block)}: give (first epoch, end) with end after first, one after another"
                )
            of_this.append((int(window[0]), int(window[1])))
        checked.append(of_this)
    if not any(checked):
        raise ValueError(f"windows={list(windows)}: let at least one block learn")
    return checked
