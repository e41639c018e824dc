"""Cases of the sweep: segments, backwards, steps, optimizers, schedules, readouts, random numbers."""

from __future__ import annotations

from functools import partial

import torch
from torch.optim.lr_scheduler import LinearLR, ReduceLROnPlateau

from lightning_ff import (
    Backprop,
    Compose,
    CosineToEnd,
    Cutout,
    DeepSupervision,
    FixedPool,
    GreedySchedule,
    IntervalReadout,
    LinearReadout,
    PeerNormalization,
    RandomFlip,
    RandomShift,
    SumSquare,
    SymBa,
    WindowSchedule,
)
from tests.goldens.found import Found, together
from tests.goldens.nets import Dropping, Skipping
from tests.goldens.runs import ADAM, SGD, conv, digits, fit, loader, of_digits, pair


def scalable_forward_forward() -> Found:
    """Class mode on a small convolutional network, with every kind of head."""
    return together(
        local=fit(conv()), auxiliary=fit(conv(head="auxiliary", optimizer=ADAM)), none=fit(conv(head="none", frozen=1))
    )


def skips() -> Found:
    """Activations that are tuples."""
    cuts = {cut: fit(conv(Skipping, cuts=cut)) for cut in ("layers", "finest")}
    return together(**cuts, recompute=fit(conv(Skipping, cuts="layers", recompute=True)))


def controls() -> Found:
    """Backprop and deep supervision."""
    return together(backprop=fit(conv(method=Backprop)), deep=fit(conv(method=DeepSupervision)))


def segments() -> Found:
    """The whole network as one segment, in both modes."""
    kinds = ("sum_of_losses", "loss_of_sum", "last")
    pairs = {f"pair {kind}": fit(pair(segments=kind, goodness=SumSquare())) for kind in kinds}
    return together(**pairs, **{f"class {kind}": fit(conv(segments=kind)) for kind in kinds})


def summed_backward() -> Found:
    """One backward on the sum of the local losses."""
    read = pair(backward="summed", readout=LinearReadout(), accumulate_grad_batches=2)
    return together(
        pair=fit(pair(backward="summed")), read=fit(read), **{"class": fit(conv(Skipping, backward="summed"))}
    )


def learned_readout() -> Found:
    """A readout with weights, from each view."""
    views = {view: fit(pair(readout=LinearReadout(view=view))) for view in ("neutral", "positive")}
    every = conv(readout=LinearReadout(skip_first=False), step="block")
    return together(**views, **{"class": fit(every)})


def interval_readout() -> Found:
    """Readouts fitted to the validation data, in both modes; their choice is among the weights."""
    check = {"validate": loader(4), "max_epochs": 2}
    votes = IntervalReadout(softmax=True)
    return together(pair=fit(pair(readout=votes), **check), **{"class": fit(conv(readout=IntervalReadout()), **check)})


def accumulation() -> Found:
    """Three batches a step, with clipped gradients and a scheduler; the last step of an epoch has one batch."""
    arguments = {
        "accumulate_grad_batches": 3,
        "gradient_clip_val": 0.05,
        "scheduler": partial(LinearLR, start_factor=0.1, total_iters=6),
        "scheduler_interval": "step",
    }
    by_value = arguments | {"gradient_clip_algorithm": "value", "scheduler": CosineToEnd}
    steps = {"data": loader(10), "max_epochs": 2}
    return together(pair=fit(pair(**arguments), **steps), **{"class": fit(conv(**by_value), **steps)})


def block_steps() -> Found:
    """Every block steps right after its backward, and runs again for the next one."""
    refreshed = {"step": "block", "refresh_output": True}
    return together(
        pair=fit(pair(**refreshed)), plain=fit(pair(step="block")), **{"class": fit(conv(Dropping, **refreshed))}
    )


def optimizers() -> Found:
    """Another optimizer and rate for each block, a term, a scheduler that monitors a metric."""
    plateau = partial(ReduceLROnPlateau, factor=0.5, patience=0, mode="max")
    model = of_digits(
        block_optimizers={"block01": SGD, "readout": partial(torch.optim.AdamW, lr=0.02)},
        lr_decay=0.5,
        terms=[PeerNormalization()],
        loss=SymBa(),
        readout=LinearReadout(),
        scheduler=plateau,
        scheduler_monitor="val/acc",
    )
    return fit(model, data=digits(), max_epochs=4)


def greedy() -> Found:
    """Block after block from kept outputs, in two laps; in class mode by windows, with skips."""
    blocks = {"max_epochs": -1, "data": loader(5)}
    pool = {"negatives": FixedPool(), "scheduler": CosineToEnd}
    each = GreedySchedule([1, 2, 1], laps=2, cache=True)
    windows = WindowSchedule([[(0, 2)], [(1, 3)], [(2, 4)], [(3, 5)]], cache=True)
    again = GreedySchedule(1, cache=False)
    return together(
        pair=fit(pair(**pool), each, **blocks),
        uncached=fit(pair(readout=LinearReadout(view="positive")), again, **blocks),
        **{"class": fit(conv(Skipping, cuts="layers"), windows, **blocks)},
    )


def random_order() -> Found:
    """Dropout, batch norm and augmented images, all from torch's random numbers."""

    def augment() -> Compose:
        return Compose([RandomShift(1), RandomFlip(), Cutout(3)])

    return together(
        pair=fit(pair(dropout=0.3, augment=augment(), readout=LinearReadout())),
        block=fit(pair(dropout=0.3, step="block", refresh_output=True)),
        **{"class": fit(conv(Dropping, augment=augment()))},
    )
