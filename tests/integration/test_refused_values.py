"""Values of the wrong type or without effect are refused where they are given, schedules of samplers at set-up.

The first column is what is done, the second the whole message or its beginning.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader
from typing_extensions import override

from lightning_ff import (
    CosineToEnd,
    FixedPool,
    ForwardForward,
    GoodnessMonitor,
    HardLabel,
    HybridImages,
    LinearReadout,
    MineNegatives,
    MixNegatives,
    Mixture,
    NegativePictures,
    NegativeSampler,
    RefreshNegatives,
    SwitchNegatives,
    Unlabelled,
    WrongLabel,
)
from lightning_ff.blocks import mlp
from lightning_ff.data import BatchLoader, Digits, ImageFolder

NAN = float("nan")
ONE = [WrongLabel()]
LIST = [torch.optim.Adam]
IMAGES, LABELS = torch.rand(6, 1, 8, 8), torch.arange(6)
UNLABELLED: dict[str, Any] = {"labels": Unlabelled(), "readout": LinearReadout()}
FACTORIES = "give factories by name of the block, such as {'block00': torch.optim.SGD}"
SHARE = "must be a share in 0..1 or a whole number of images, 0 for no validation"
RATES = "must be above 0; 1 leaves all rates as they are"
FOR_WIDTHS = "acts on the layers that widths makes, put it into the blocks, or leave it out"

TYPES: dict[str, Callable[[], object]] = {
    "batch_size='50' is a str: give a whole number": lambda: Digits(batch_size="50"),  # type: ignore[arg-type]
    "batch_size=50.0 is a float: give a whole number": lambda: Digits(batch_size=50.0),  # type: ignore[arg-type]
    "batch_size=True is a bool: give a whole number": lambda: Digits(batch_size=True),
    "eval_batch_size=2.0 is a float: give a whole number": lambda: Digits(eval_batch_size=2.0),  # type: ignore[arg-type]
    "seed=1.5 is a float: give a whole number": lambda: Digits(seed=1.5),  # type: ignore[arg-type]
    "split_seed=None is a NoneType: give a whole number": lambda: Digits(split_seed=None),  # type: ignore[arg-type]
    f"val_size='0.1' is a str: give a number; {SHARE}": lambda: Digits(val_size="0.1"),  # type: ignore[arg-type]
    f"val_size=True is a bool: {SHARE}": lambda: Digits(val_size=True),
    "train_size=8.0 is a float: give a whole number of images a class, or None for all": lambda: Digits(train_size=8.0),  # type: ignore[arg-type]
    "image_size='8' is a str: give a whole number": lambda: ImageFolder(image_size="8"),  # type: ignore[arg-type]
    "channels=3.0 is a float: give 1 (grey) or 3 (colour)": lambda: ImageFolder(channels=3.0),  # type: ignore[arg-type]
    "max_memory_gb='4' is a str: give a number; give a number of 10^9 bytes": lambda: ImageFolder(max_memory_gb="4"),  # type: ignore[arg-type]
    "batch_size=2.0 is a float: give a whole": lambda: BatchLoader(IMAGES, LABELS, batch_size=2.0),  # type: ignore[arg-type]
    "rank='0' is a str: give a whole": lambda: BatchLoader(IMAGES, LABELS, rank="0"),  # type: ignore[arg-type]
    "seed=1.25 is a float: give a whole number": lambda: WrongLabel(seed=1.25),  # type: ignore[arg-type]
    "seed='0' is a str: give a whole number": lambda: FixedPool(seed="0"),  # type: ignore[arg-type]
    "draw=0.5 is a float: give a whole number": lambda: FixedPool(draw=0.5),  # type: ignore[arg-type]
    "fraction='a' is a str: give a number; must lie in (0, 1]": lambda: HardLabel(fraction="a"),  # type: ignore[arg-type]
    "fraction=True is a bool: must lie in (0, 1]": lambda: HardLabel(fraction=True),
    "start_epoch=1.0 is a float: give a whole number": lambda: HardLabel(start_epoch=1.0),  # type: ignore[arg-type]
    "blurs=6.0 is a float: give a whole number": lambda: HybridImages(blurs=6.0),  # type: ignore[arg-type]
    "weights=0.5 is a float: give a list of numbers, one for each": lambda: Mixture(list(ONE), 0.5),  # type: ignore[arg-type]
    "weights[0]='1' is a str: give a number; give a finite": lambda: Mixture(list(ONE), ["1"]),  # type: ignore[list-item]
    "samplers[0]=WrongLabel is a class: give an instance, such as": lambda: Mixture([WrongLabel], [1.0]),  # type: ignore[list-item]
    "samplers=WrongLabel(seed=0) is a WrongLabel: give a list": lambda: Mixture(WrongLabel(), [1.0]),  # type: ignore[arg-type]
    "start[0]=None is a NoneType: give a number": lambda: MixNegatives(list(ONE), [None]),  # type: ignore[list-item]
    "epochs=2.0 is a float: give a whole number": lambda: MixNegatives(list(ONE), [1.0], epochs=2.0),  # type: ignore[arg-type]
    "fraction='1' is a str: give a number; must lie in (0, 1]": lambda: MineNegatives(fraction="1"),  # type: ignore[arg-type]
    "above='0.5' is a str: give a number; give the level": lambda: MineNegatives(above="0.5"),  # type: ignore[arg-type]
    "monitor=None is a NoneType: give the name of a metric": lambda: MineNegatives(monitor=None),  # type: ignore[arg-type]
    "seed=0.5 is a float: give a whole number": lambda: MineNegatives(seed=0.5),  # type: ignore[arg-type]
    "every_n_epochs='2' is a str: give a whole number": lambda: RefreshNegatives("2"),  # type: ignore[arg-type]
    "samplers=[WrongLabel(seed=0)] is a list: give samplers by their first epoch": lambda: SwitchNegatives(ONE),  # type: ignore[arg-type]
    "an epoch in samplers='0' is a str: give samplers by their": lambda: SwitchNegatives({"0": WrongLabel()}),  # type: ignore[dict-item]
    "samplers[0]='WrongLabel' is a str: give an instance, such as WrongLabel()": lambda: SwitchNegatives(
        {0: "WrongLabel"}  # type: ignore[dict-item]
    ),
    "count=2.5 is a float: give a whole number": lambda: NegativePictures(2.5),  # type: ignore[arg-type]
    "every_n_steps='5' is a str: give a whole number, or None": lambda: GoodnessMonitor("5"),  # type: ignore[arg-type]
    "dropout='0.5' is a str: give a number; must lie in [0, 1)": lambda: mlp(4, [3], dropout="0.5"),  # type: ignore[arg-type]
}

VALUES: dict[str, Callable[[], object]] = {
    "fraction=nan: must lie in (0, 1]": lambda: HardLabel(fraction=NAN),
    "weights[1]=nan: give a finite number, 0 or more": lambda: Mixture([*ONE, *ONE], [1.0, NAN]),
    "weights[0]=inf: give a finite number, 0 or more": lambda: Mixture(list(ONE), [float("inf")]),
    "end[0]=nan: give a finite number, 0 or more": lambda: MixNegatives(list(ONE), [1.0], [NAN]),
    "above=nan: give the level of the metric": lambda: MineNegatives(above=NAN),
    "max_memory_gb=0: give a number of 10^9 bytes above 0": lambda: ImageFolder(max_memory_gb=0),
    "dropout=1.0: must lie in [0, 1)": lambda: mlp(4, [3], dropout=1.0),
    "dropout=nan: must lie in [0, 1)": lambda: mlp(4, [3], dropout=NAN),
}

ARGUMENTS: dict[str, tuple[type[Exception], dict[str, Any]]] = {
    f"block_optimizers={LIST} is a list: {FACTORIES}": (TypeError, {"block_optimizers": LIST}),
    f"a name in block_optimizers=0 is a int: {FACTORIES}": (TypeError, {"block_optimizers": {0: torch.optim.SGD}}),
    f"lr_decay='1' is a str: give a number; {RATES}": (TypeError, {"lr_decay": "1"}),
    f"lr_decay=True is a bool: {RATES}": (TypeError, {"lr_decay": True}),
    f"lr_decay=0: {RATES}": (ValueError, {"lr_decay": 0}),
    f"lr_decay=inf: {RATES}": (ValueError, {"lr_decay": float("inf")}),
    "scheduler_monitor='val/acc' with scheduler=None acts on nothing: give a scheduler, or leave it out": (
        ValueError,
        {"scheduler_monitor": "val/acc"},
    ),
    "scheduler_interval='step' with scheduler=None acts on nothing: give a scheduler, or leave it out": (
        ValueError,
        {"scheduler_interval": "step"},
    ),
    "dropout=1.0: must lie in [0, 1)": (ValueError, {"dropout": 1.0}),
    **{
        f"{name}={value!r} with blocks=...: {FOR_WIDTHS}": (
            ValueError,
            {"blocks": [nn.Linear(64, 8)], "input_shape": (64,), name: value},
        )
        for name, value in {"activation": "tanh", "full_gradient": True, "dropout": 0.5}.items()
    },
}


@pytest.mark.parametrize("message", TYPES)
def test_a_wrong_type_is_refused_when_it_is_given(message: str) -> None:
    with pytest.raises(TypeError) as caught:
        TYPES[message]()
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("message", VALUES)
def test_a_value_that_means_nothing_is_refused_when_it_is_given(message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  the message is compared below
        VALUES[message]()
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("message", ARGUMENTS)
def test_an_argument_that_could_not_act_is_refused(learner: Any, message: str) -> None:
    error, arguments = ARGUMENTS[message]
    with pytest.raises(error) as caught:
        learner(**arguments)
    assert str(caught.value) == message


def test_what_says_the_default_is_accepted_beside_blocks_and_numpy_counts_as_numbers(learner: Any) -> None:
    """The command line gives every argument, and a checkpoint is loaded with all of them."""
    model = learner(blocks=[nn.Linear(64, 8)], input_shape=(64,), activation="relu", full_gradient=False, dropout=0.0)
    assert [type(block.layers) for block in model.blocks] == [nn.Linear]
    assert learner(lr_decay=np.float64(0.5), dropout=np.float32(0.25)).lr_decay == 0.5
    assert learner(scheduler=CosineToEnd, scheduler_interval="step").scheduler_interval == "step"
    loader = BatchLoader(IMAGES, LABELS, batch_size=np.int64(2), shuffle=True, seed=np.int64(3))  # type: ignore[arg-type]
    assert {name: type(value) for name, value in loader.state_dict().items() if name in ("batch_size", "seed")} == {
        "batch_size": int,
        "seed": int,
    }


# Batches


def batches(*parts: Tensor) -> DataLoader[Any]:
    return DataLoader([parts], batch_size=None)  # type: ignore[arg-type]


SIX = "integers of shape (6,) for an image of shape (6, ...)"
INDEX = f"give as the third entry the samples' positions in the data set (N,), {SIX}"
BATCHES: dict[str, DataLoader[Any]] = {
    f"the batch's index has shape (6,) and type torch.float32: {INDEX}": batches(IMAGES, LABELS, torch.rand(6)),
    f"the batch's index has shape (6,) and type torch.bool: {INDEX}": batches(IMAGES, LABELS, LABELS > 2),
    f"the batch's index has shape (5,) and type torch.int64: {INDEX}": batches(IMAGES, LABELS, LABELS[1:]),
    f"the batch's index has shape (6, 1) and type torch.int64: {INDEX}": batches(IMAGES, LABELS, LABELS[:, None]),
    f"the batch's label has shape (4,) and type torch.int64: give class numbers (N,), {SIX}": batches(
        IMAGES, LABELS[:4]
    ),
    "the batch's image has shape (0, 1, 8, 8): give (N, ...) of at least one sample": batches(IMAGES[:0], LABELS[:0]),
}


@pytest.mark.parametrize("use", ["fit", "validate", "test"])
@pytest.mark.parametrize("message", BATCHES)
def test_a_batch_s_wrong_entry_is_named(learner: Any, trainer: Any, message: str, use: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  the message is compared below
        getattr(trainer(max_epochs=1), use)(learner(), BATCHES[message])
    assert str(caught.value) == message


# Samplers that a callback installs later


def written_nowhere(sampler: str) -> str:
    return (
        f"negatives={sampler} differ from positives by their label, and labels=Unlabelled writes none: use "
        "HybridImages, or a label encoding"
    )


MINED = (
    "MineNegatives(fraction=1.0) mixes in images with hard labels, and labels=Unlabelled writes none, so that they "
    "would equal the positives: remove it, or use a label encoding"
)
HARD = "HardLabel(seed=0, fraction=0.25, start_epoch=1)"
FLAT: dict[str, Any] = {"input_shape": (64,)}
SCHEDULES: dict[str, tuple[Callable[[], Callback], dict[str, Any], str]] = {
    "switched": (
        lambda: SwitchNegatives({0: HybridImages(), 1: WrongLabel()}),
        UNLABELLED,
        written_nowhere("WrongLabel(seed=0)"),
    ),
    "switched to a mixture": (
        lambda: SwitchNegatives({0: HybridImages(), 3: Mixture([HybridImages(), Mixture([HardLabel()], [1])], [1, 1])}),
        UNLABELLED,
        written_nowhere(HARD),
    ),
    "mixed in later": (
        lambda: MixNegatives([HybridImages(), FixedPool(seed=2)], [1.0, 0.0], [0.0, 1.0], epochs=5),
        UNLABELLED,
        written_nowhere("FixedPool(seed=2)"),
    ),
    "mined": (lambda: MineNegatives(fraction=1.0, above=0.0), UNLABELLED, MINED),
    "hybrids of flat inputs": (
        lambda: SwitchNegatives({1: HybridImages()}),
        FLAT,
        "negatives=HybridImages(seed=0, blurs=6) needs images (C, H, W), got input_shape=(64,)",
    ),
    "hybrids of flat inputs in a mixture": (
        lambda: MixNegatives([WrongLabel(), HybridImages()], [1.0, 0.0]),
        FLAT,
        "negatives=HybridImages(seed=0, blurs=6) needs images (C, H, W), got input_shape=(64,)",
    ),
}


@pytest.mark.parametrize("case", SCHEDULES)
def test_a_sampler_that_cannot_serve_is_refused_at_setup(learner: Any, digits: Any, trainer: Any, case: str) -> None:
    make, arguments, message = SCHEDULES[case]
    runner = trainer(max_epochs=2, callbacks=[make()])
    with pytest.raises(ValueError) as caught:  # noqa: PT011  the message is compared below
        runner.fit(learner(**arguments), digits())
    assert str(caught.value) == message
    assert runner.global_step == 0


class Installs(Callback):
    """A user-defined callback."""

    def __init__(self, sampler: NegativeSampler) -> None:
        self.sampler = sampler

    @override
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, ForwardForward)
        if trainer.current_epoch == 1:
            pl_module.install_negatives(self.sampler)


def test_a_callback_of_one_s_own_cannot_install_negatives_that_equal_the_positives(
    learner: Any, digits: Any, trainer: Any
) -> None:
    runner = trainer(max_epochs=2, callbacks=[Installs(WrongLabel(seed=5))])
    with pytest.raises(ValueError) as caught:  # noqa: PT011  the message is compared below
        runner.fit(learner(**UNLABELLED), digits())
    assert str(caught.value) == written_nowhere("WrongLabel(seed=5)")
    assert runner.global_step == 5  # the whole first epoch, and no batch with these


def test_schedules_of_hybrid_images_go_on_working_without_labels(learner: Any, digits: Any, trainer: Any) -> None:
    equal: list[bool] = []

    class Watched(HybridImages):
        @override
        def forward(self, x: Tensor, y: Tensor, index: Tensor, learner: Any) -> Tensor:
            negative = super().forward(x, y, index, learner)
            equal.append(torch.equal(negative, self.positives(x, y, learner)))
            return negative

    switch = SwitchNegatives({0: Watched(), 1: Mixture([Watched(1), Watched(2)], [1, 1])})
    model = learner(**UNLABELLED)
    trainer(max_epochs=2, callbacks=[switch]).fit(model, digits())
    assert equal == [False] * 10
    assert isinstance(model.negatives, Mixture)
