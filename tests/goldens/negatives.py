"""Cases of negatives: samplers, and the callbacks that change them."""

from __future__ import annotations

from lightning.pytorch import Callback
from torch import nn

from lightning_ff import (
    AllWrongLabels,
    AppendOneHot,
    FixedPool,
    HardLabel,
    HybridImages,
    LabelChannel,
    LinearReadout,
    MineNegatives,
    MixNegatives,
    Mixture,
    RefreshNegatives,
    SwitchNegatives,
    Unlabelled,
    WrongLabel,
)
from tests.goldens.found import Found, together
from tests.goldens.runs import digits, fit, of_digits, pair


def hard() -> HardLabel:
    """Hard labels in every second batch, from the start."""
    return HardLabel(fraction=0.5, start_epoch=0, seed=3)


def samplers() -> Found:
    """Every sampler that writes a label, in a run of two epochs."""
    made = {
        "hard": hard(),
        "mixture": Mixture([WrongLabel(), hard(), FixedPool(1)], [1.0, 2.0, 1.0], seed=5),
        "all": AllWrongLabels(),
    }
    return together(**{name: fit(pair(negatives=made[name]), max_epochs=2) for name in made})


def hybrid_images() -> Found:
    """Training without labels, and a readout that learns together with the blocks."""
    views = ("neutral", "positive")
    return together(
        **{
            view: fit(pair(labels=Unlabelled(), negatives=HybridImages(2), readout=LinearReadout(view=view)))
            for view in views
        }
    )


def encodings() -> Found:
    """Other ways to write a label, with classes that are held out."""

    def run(labels: object, **arguments: object) -> Found:
        return fit(of_digits(labels=labels, **arguments), data=digits(held_out=[3, 7]))

    layers = [nn.Conv2d(2, 4, 3), nn.Sequential(nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3))]
    return together(
        one_hot=run(AppendOneHot(on_value=3.0)),
        hard=run(AppendOneHot(), negatives=hard()),
        channel=run(LabelChannel(), widths=None, blocks=layers),
    )


def changed_negatives() -> Found:
    """Callbacks that mine, switch, mix and redraw negatives."""

    def run(*callbacks: Callback, **arguments: object) -> Found:
        return fit(of_digits(**arguments), *callbacks, data=digits(), max_epochs=3)

    return together(
        mine=run(MineNegatives(fraction=0.5, above=0.0)),
        switch=run(SwitchNegatives({1: hard(), 2: AllWrongLabels()})),
        mix=run(MixNegatives([WrongLabel(), hard()], start=[1.0, 0.0], end=[0.0, 1.0], epochs=2)),
        refresh=run(RefreshNegatives(), negatives=FixedPool(seed=2)),
    )
