"""Parts as plain data: described parts are rebuilt, weights-only, and others raise errors with their names."""

from __future__ import annotations

import io
from collections import OrderedDict
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import LambdaLR

from lightning_ff.blocks import Normalize
from lightning_ff.labels import AppendOneHot, LabelChannel, PixelOverlay, Unlabelled
from lightning_ff.negatives import AllWrongLabels, FixedPool, HardLabel, HybridImages, Mixture, WrongLabel
from lightning_ff.objectives import (
    AuxiliaryGoodness,
    CrossEntropy,
    LinearGoodness,
    LogSumExpMargin,
    MeanSquare,
    NormGoodness,
    OutputGoodness,
    PeerNormalization,
    SumSquare,
    SymBa,
    ThresholdLoss,
)
from lightning_ff.optim import CosineToEnd
from lightning_ff.readouts import (
    IntervalReadout,
    LastReadout,
    LinearReadout,
    MeanReadout,
    SoftmaxReadout,
    SumReadout,
)
from lightning_ff.spec import NotDescribable, describe, factory, is_spec, missing, part


class Gathers(nn.Module):
    """A part with parts, functions and plain values inside."""

    def __init__(self, parts: Any = (), by_name: Any = None, function: Any = None, size: Any = None) -> None:
        super().__init__()
        self.parts, self.by_name, self.function, self.size = parts, by_name, function, size


class Forgets(nn.Module):
    """Keeps its argument under another name."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.breadth = width


class Variadic(nn.Module):
    def __init__(self, **options: int) -> None:
        super().__init__()
        self.options = options


class Owner:
    @classmethod
    def make(cls) -> None:
        """A callable that is not at the top level of its module."""


def halve(epoch: int, base: float = 0.5) -> float:
    return base**epoch


PARTS = [
    SumSquare(),
    MeanSquare(),
    NormGoodness(1),
    NormGoodness("inf"),
    LinearGoodness(bias=False, max_features=8),
    ThresholdLoss(),
    ThresholdLoss(2.5),
    SymBa(alpha=3.0),
    CrossEntropy(temperature=0.5, label_smoothing=0.1),
    LogSumExpMargin(temperature=2.0),
    AuxiliaryGoodness(kernel_size=3, bias=False),
    OutputGoodness(),
    PeerNormalization(0.1, 0.8),
    PixelOverlay(),
    PixelOverlay(on_value=3.0),
    AppendOneHot(on_value=2.0),
    LabelChannel(on_value=2.0, seed=5),
    Unlabelled(),
    WrongLabel(seed=3),
    FixedPool(seed=3, draw=7),
    HardLabel(seed=1, fraction=0.5, start_epoch=4),
    AllWrongLabels(),
    HybridImages(seed=2, blurs=9),
    SumReadout(skip_first=True),
    SoftmaxReadout(skip_first=True),
    LastReadout(),
    MeanReadout(blocks=[0, -1], softmax=True),
    IntervalReadout(softmax=True),
    LinearReadout(skip_first=False, view="positive", blocks=[-1], pool=2),
    Normalize("l2", eps=0.1),
    nn.Dropout(0.3),
]


def through_a_file(plain: Any) -> Any:
    """As a checkpoint goes: weights only."""
    buffer = io.BytesIO()
    torch.save(plain, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


@pytest.mark.parametrize("original", PARTS, ids=str)
def test_every_part_comes_back_with_its_arguments(original: nn.Module) -> None:
    plain = describe(original)
    assert plain["class_path"] == f"{type(original).__module__}.{type(original).__qualname__}"
    rebuilt = part(through_a_file(plain))
    assert type(rebuilt) is type(original)
    for name in plain["init_args"]:
        assert getattr(rebuilt, name) == getattr(original, name)
    assert describe(rebuilt) == plain


def test_every_argument_of_the_parts_above_is_once_not_its_default() -> None:
    """Else a description that loses an argument would pass."""
    for kind in {type(original) for original in PARTS} - {nn.Dropout}:
        default = describe(kind())["init_args"]
        given = [describe(original)["init_args"] for original in PARTS if type(original) is kind]
        for name, value in default.items():
            assert any(arguments[name] != value for arguments in given), (kind, name)


def test_a_threshold_that_was_filled_in_is_described_as_it_was_given() -> None:
    loss = ThresholdLoss()
    loss.bind(500.0)
    assert describe(loss)["init_args"] == {"threshold": None}


def test_parts_inside_parts_come_back() -> None:
    inner = Mixture([HardLabel(1, 0.5), AllWrongLabels()], [1.0, 2.0])
    original = Mixture([WrongLabel(3), inner], [0.25, 0.75], seed=9)
    rebuilt = part(through_a_file(describe(original)))
    assert describe(rebuilt) == describe(original)
    assert isinstance(rebuilt.samplers[1].samplers[0], HardLabel)
    assert rebuilt.samplers[1].samplers[0].fraction == 0.5
    assert (rebuilt.weights, rebuilt.samplers[1].weights, rebuilt.seed) == ([0.25, 0.75], [1.0, 2.0], 9)


def test_lists_and_names_inside_a_part() -> None:
    original = Gathers([[SymBa(2.0)], None, "x", 1.5], {"a": SymBa(3.0), "b": [4]}, None, (2, 3))
    rebuilt = part(through_a_file(describe(original)))
    (inner,), *plain = rebuilt.parts
    assert inner.alpha == 2.0
    assert plain == [None, "x", 1.5]
    assert rebuilt.by_name["a"].alpha == 3.0
    assert rebuilt.by_name["b"] == [4]
    assert rebuilt.size == [2, 3]


def test_lists_of_parts_and_other_values() -> None:
    rebuilt = part([describe(SymBa(2.0)), 5, [describe(SumSquare())]])
    assert rebuilt[0].alpha == 2.0
    assert rebuilt[1] == 5
    assert isinstance(rebuilt[2][0], SumSquare)
    sampler = WrongLabel()
    assert part(sampler) is sampler
    assert part(None) is None
    assert part({"block00": 1}) == {"block00": 1}
    assert isinstance(part({"class_path": "lightning_ff.WrongLabel"}), WrongLabel)


@pytest.mark.parametrize(
    "value", [None, True, False, 3, -2.5, "text", [], [1, [2.0, "a"]], {"a": {"b": [None]}}, float("inf")], ids=str
)
def test_plain_values_are_their_own_description(value: Any) -> None:
    assert describe(value) == value
    assert type(describe(value)) is type(value)


def test_collections_and_numbers_become_plain() -> None:
    assert describe((1, (2, 3))) == [1, [2, 3]]
    plain = describe(OrderedDict(a=np.float64(0.5), b=np.int64(3), c=np.float32(0.25)))
    assert type(plain) is dict
    assert plain == {"a": 0.5, "b": 3, "c": 0.25}
    assert [type(v) for v in plain.values()] == [float, int, float]
    assert through_a_file(plain) == plain


@pytest.mark.parametrize("given", [Adam, partial(Adam, lr=0.25, betas=(0.5, 0.6)), partial(SGD, lr=0.1, momentum=0.9)])
def test_factories_come_back(given: Any) -> None:
    made = factory(through_a_file(describe(given)))
    weight = torch.zeros(1, requires_grad=True)
    rebuilt, original = made([weight]), given([weight])
    assert type(rebuilt) is type(original)
    for key, value in original.param_groups[0].items():
        got = rebuilt.param_groups[0][key]
        assert (tuple(got) if isinstance(got, list) and key == "betas" else got) == value
    assert factory(given) is given


def test_a_factory_with_parts_and_functions_inside() -> None:
    made = factory(through_a_file(describe(partial(Gathers, parts=[SymBa(2.0)], function=halve))))()
    assert made.parts[0].alpha == 2.0
    assert made.function is halve
    optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=8.0)
    scheduler = factory(through_a_file(describe(partial(LambdaLR, lr_lambda=halve))))(optimizer)
    assert isinstance(scheduler, LambdaLR)
    optimizer.step()
    scheduler.step()
    assert scheduler.get_last_lr() == [4.0]


def test_functions_inside_a_part_are_not_called() -> None:
    rebuilt = part(through_a_file(describe(Gathers([halve, partial(halve, base=0.1)], function=halve))))
    assert rebuilt.function is halve
    assert rebuilt.parts[0](3) == 0.125
    assert rebuilt.parts[1](1) == 0.1


def test_a_scheduler_that_ends_with_the_run() -> None:
    plain = describe(partial(CosineToEnd, flat=0.5, end=0.1))
    assert plain == {"class_path": "lightning_ff.optim.schedulers.CosineToEnd", "init_args": {"flat": 0.5, "end": 0.1}}
    scheduler = factory(plain)(SGD([torch.zeros(1, requires_grad=True)], lr=1.0))
    assert (scheduler.flat, scheduler.end, scheduler.total) == (0.5, 0.1, None)


class Inner:
    class Nested(nn.Module):
        pass


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (lambda p: Adam(p), "<lambda>.*cannot be imported by name: put it at the top level of a module"),
        (partial(lambda p: Adam(p)), "cannot be imported by name"),
        (Owner.make, "cannot be imported by name"),
        (Inner.Nested(), "cannot be imported by name"),
        (partial(Gathers, [1]), "a partial with positional arguments; name them"),
        (Forgets(3), "Forgets does not keep its argument 'width' as an attribute"),
        (Variadic(a=3), "Variadic does not keep its argument 'options' as an attribute"),
        (nn.Sequential(nn.ReLU()), "Sequential does not keep its argument 'args' as an attribute"),
        (nn.Linear(2, 2), "Tensor"),
        (torch.zeros(2), "Tensor"),
        ({"a": [Forgets(3)]}, "Forgets does not keep"),
        (Mixture([WrongLabel()], [1.0]).samplers, "ModuleList"),
        ({1, 2}, "set"),
        (b"bytes", "bytes"),
    ],
)
def test_what_cannot_be_described_is_named(value: Any, message: str) -> None:
    with pytest.raises(NotDescribable, match=message):
        describe(value)


def test_a_class_made_in_a_function_or_a_script_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Local(nn.Module):
        pass

    with pytest.raises(NotDescribable, match="cannot be imported by name"):
        describe(Local())
    monkeypatch.setattr(Forgets, "__module__", "__main__")
    with pytest.raises(NotDescribable, match="cannot be imported by name"):
        describe(Forgets)


def test_what_was_missing_says_so_when_it_is_needed() -> None:
    plain = {"class_path": "lightning_ff.spec.missing", "init_args": {"what": "a lambda"}}
    with pytest.raises(ValueError, match=r"not saved in the checkpoint \(a lambda\): give it again"):
        part(plain)
    stand_in = factory(plain)
    with pytest.raises(ValueError, match="a lambda"):
        stand_in([torch.zeros(1)])
    with pytest.raises(ValueError, match="x"):
        missing(what="x")


@pytest.mark.parametrize("path", ["no_such_module.Part", "torch.nn.NoSuchPart", "NoDots", ""])
def test_paths_that_lead_nowhere_are_named(path: str) -> None:
    for build in (part, factory):
        with pytest.raises(ValueError, match=f"class_path='{path}' cannot be imported: "):
            build({"class_path": path})


def test_is_spec() -> None:
    assert is_spec({"class_path": "a.B"})
    others: list[Any] = [{}, {"init_args": {}}, "class_path", ["class_path"], None, SumSquare()]
    assert not any(is_spec(value) for value in others)


class Typed(nn.Module):
    def __init__(self, kind: object) -> None:
        super().__init__()
        self.kind = kind


@pytest.mark.parametrize("kind", [torch.float32, nn.ReLU])
def test_types_as_arguments_are_refused(kind: object) -> None:
    with pytest.raises(NotDescribable):
        describe(Typed(kind))
