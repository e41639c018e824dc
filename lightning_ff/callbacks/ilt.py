"""Interleaved layer training, the schedules of CwC."""

from __future__ import annotations

from typing import Any, Literal

from lightning_ff.callbacks.schedule import WindowSchedule
from lightning_ff.sweep.schedule import Window
from lightning_ff.validate import check_flag

Pace = Literal["fast", "acc"]
# Windows of the convolutions, and the epochs of the run, in which a softmax head goes on learning.
_ILT: dict[str, dict[str, tuple[list[Window], int]]] = {
    "mnist": {"fast": ([(0, 3), (1, 4), (2, 5), (3, 6)], 20), "acc": ([(0, 2), (0, 3), (0, 4), (0, 5)], 20)},
    "fashion_mnist": {
        "fast": ([(0, 7), (1, 10), (2, 13), (3, 16)], 40),
        "acc": ([(0, 10), (0, 15), (0, 19), (0, 23)], 50),
    },
    "cifar10": {"fast": ([(0, 11), (2, 18), (4, 26), (6, 32)], 50), "acc": ([(0, 11), (0, 16), (0, 21), (0, 25)], 50)},
    "cifar100": {"acc": ([(0, 30), (0, 30), (30, 60), (30, 60), (60, 85), (60, 85)], 100)},
}


class ILT(WindowSchedule):
    """Interleaved layer training: the published windows of epochs in which CwC's blocks learn (arXiv 2312.12668).

    Args:
        data: "mnist", "fashion_mnist", "cifar10" or "cifar100".
        pace: "fast" or "acc"; CIFAR-100 has "acc" alone.
        head: Go on to the published number of epochs, in which the softmax head learns alone.
        **kwargs: See :class:`~lightning_ff.WindowSchedule`.

    Raises:
        ValueError: there are no such windows.
        TypeError: head is not a bool.

    Example::

        >>> ILT("mnist", "fast").windows
        [[(0, 3)], [(1, 4)], [(2, 5)], [(3, 6)]]
    """

    def __init__(self, data: str, pace: Pace = "fast", head: bool = False, **kwargs: Any) -> None:
        if not isinstance(data, str) or data not in _ILT or not isinstance(pace, str) or pace not in _ILT[data]:
            known = ", ".join(f"{name} {'/'.join(paces)}" for name, paces in _ILT.items())
            raise ValueError(f"data={data!r}, pace={pace!r}: choose one of {known}")
        check_flag("head", head)
        windows, epochs = _ILT[data][pace]
        super().__init__([[window] for window in windows], epochs=epochs if head else None, **kwargs)
