"""Targets: what they hold, and the errors and warnings that parts of the old form get."""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_ff import Backprop, ForwardForward, Labels, LocalLoss, NegativeContext, NegativeSampler, Pairs, Term
from lightning_ff.data import Digits
from lightning_ff.target import plain, rows

SHAPE = (1, 8, 8)


def fit(model: Any, batches: int = 2) -> Trainer:
    quiet: dict[str, Any] = dict.fromkeys(("logger", "enable_progress_bar", "enable_checkpointing"), False)
    trainer = Trainer(accelerator="cpu", max_epochs=1, limit_train_batches=batches, limit_val_batches=0, **quiet)
    trainer.fit(model, Digits(batch_size=20, train_size=10))
    return trainer


# Values


def test_rows_and_plain() -> None:
    x, label = torch.arange(5.0), torch.tensor([1, 0, 2, 1, 1])
    assert rows(x, Pairs(3)).tolist() == [0.0, 1.0, 2.0]
    assert rows(x, Labels(label)) is x
    assert plain(Pairs(3)) == 3
    assert plain(Labels(label)) is label
    with pytest.raises(TypeError, match=r"target=3: give Pairs\(positives\) or Labels\(label\)"):
        rows(x, 3)  # type: ignore[arg-type]


def test_targets_are_values() -> None:
    label = torch.tensor([1, 0])
    labels = Labels(label)
    assert (Pairs(3) == Pairs(3), Pairs(3) == Pairs(4), hash(Pairs(3)) == hash(Pairs(3))) == (True, False, True)
    assert (labels == labels, labels == Labels(label), labels in {labels}) == (True, False, True)
    assert torch.equal(copy.deepcopy(labels).label, label)
    for target, name in ((Pairs(3), "positives"), (labels, "label")):
        with pytest.raises(AttributeError):
            setattr(target, name, 1)
    with pytest.raises(AttributeError, match="'Labels' object has no attribute 'nothing'"):
        labels.nothing  # noqa: B018


# Lines of the old form


PAIRS: dict[str, Callable[[Tensor, Any], Any]] = {
    "goodness[:target]": lambda g, target: g[:target],
    "goodness[target:]": lambda g, target: g[target:],
    "int(target)": lambda g, target: int(target),
    "range(target)": lambda g, target: list(range(target)),
}
LABELS: dict[str, tuple[Callable[[Tensor, Any], Any], str]] = {
    "cross_entropy": (lambda g, target: F.cross_entropy(g, target), "cross_entropy(goodness, target.label)"),
    "one_hot": (lambda g, target: F.one_hot(target, 3), "one_hot(goodness, target.label)"),
    "unsqueeze": (lambda g, target: g.gather(1, target.unsqueeze(1)), "target.label.unsqueeze"),
    "[:, None]": (lambda g, target: g.gather(1, target[:, None]), "target.label[...]"),
    "shape": (lambda g, target: target.shape, "target.label.shape"),
    "index": (lambda g, target: g[torch.arange(4), target], "target.label"),
    "tensor ==": (lambda g, target: g.argmax(1) == target, "target.label == ..."),
    "== number": (lambda g, target: target == 2, "target.label == ..."),
}


@pytest.mark.parametrize("line", PAIRS)
def test_a_number_of_positives_is_refused_with_the_new_line(line: str) -> None:
    with pytest.raises(TypeError, match=re.escape("write goodness[: target.positives] in place of goodness[:target]")):
        PAIRS[line](torch.zeros(6), Pairs(3))


@pytest.mark.parametrize("line", LABELS)
def test_a_tensor_of_labels_is_refused_with_the_new_line(line: str) -> None:
    run, new = LABELS[line]
    with pytest.raises((TypeError, AttributeError), match=re.escape(f"no longer a tensor: write {new} in place of")):
        run(torch.randn(4, 3), Labels(torch.tensor([0, 2, 1, 1])))


@pytest.mark.parametrize("line", [lambda g, t: len(g) - t, lambda g, t: g / t, lambda g, t: g.split(t)])
def test_other_uses_of_a_number_of_positives_are_errors(line: Callable[[Tensor, Any], Any]) -> None:
    with pytest.raises(TypeError, match="Pairs"):
        line(torch.zeros(6), Pairs(3))


# Parts of the old form, in a run


class OldPairLoss(LocalLoss):
    mode = "pair"

    def forward(self, goodness: Tensor, target: Any) -> Tensor:
        return F.softplus(goodness[target:]).mean() + F.softplus(-goodness[:target]).mean()


class NewPairLoss(LocalLoss):
    mode = "pair"

    def forward(self, goodness: Tensor, target: Any) -> Tensor:
        return F.softplus(goodness[target.positives :]).mean() + F.softplus(-goodness[: target.positives]).mean()


class OldTerm(Term):
    def forward(self, x: Tensor, h: Tensor, target: Any) -> Tensor:
        return h[:target].abs().mean()


class NewTerm(Term):
    def forward(self, x: Tensor, h: Tensor, target: Any) -> Tensor:
        return rows(h, target).abs().mean()


class OldClassLoss(LocalLoss):
    def forward(self, goodness: Tensor, target: Any) -> Tensor:
        return F.cross_entropy(goodness, target)


class NewClassLoss(LocalLoss):
    def forward(self, goodness: Tensor, target: Any) -> Tensor:
        return F.cross_entropy(goodness, target.label)


def pair_learner(**parts: Any) -> ForwardForward:
    torch.manual_seed(0)
    return ForwardForward(10, SHAPE, widths=[6, 5], **parts)


def class_learner(loss: LocalLoss) -> Backprop:
    return Backprop(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), num_classes=10, input_shape=SHAPE, loss=loss)


SLICE = re.escape("write goodness[: target.positives] in place of goodness[:target]")


@pytest.mark.parametrize("parts", [{"loss": OldPairLoss()}, {"terms": [OldTerm()]}], ids=["loss", "term"])
def test_a_run_with_a_part_of_the_old_form_is_told_the_new_line(parts: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=SLICE):
        fit(pair_learner(**parts))


def test_a_run_with_a_class_loss_of_the_old_form_is_told_the_new_line() -> None:
    with pytest.raises(TypeError, match=re.escape("write cross_entropy(goodness, target.label) in place of")):
        fit(class_learner(OldClassLoss()))


@pytest.mark.parametrize(
    "make",
    [lambda: pair_learner(loss=NewPairLoss(), terms=[NewTerm()]), lambda: class_learner(NewClassLoss())],
    ids=["pair", "class"],
)
def test_the_new_line_trains(make: Callable[[], Any]) -> None:
    model = make()
    before = copy.deepcopy(model.state_dict())
    assert "train/loss" in fit(model).callback_metrics
    assert any(not torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(value.isfinite().all() for value in model.state_dict().values())


# Samplers of the old form


class OldSampler(NegativeSampler):
    """Asks the learner for all that a sampler could ask."""

    def forward(self, x: Tensor, y: Tensor, index: Tensor, learner: Any) -> Tensor:  # type: ignore[override]
        scores = torch.stack(learner.block_scores(x)).sum(0) + learner.forward(x)
        assert scores.shape == (len(x), learner.num_classes)
        assert learner.held_out == ()
        shift = 1 + (learner.current_epoch + learner.batch_number) % (learner.num_classes - 1)
        return learner.labels(x, (y + shift) % learner.num_classes)


class NewSampler(NegativeSampler):
    def forward(self, x: Tensor, y: Tensor, index: Tensor, context: NegativeContext) -> Tensor:
        shift = 1 + (context.epoch + context.batch) % (context.num_classes - 1)
        return context.labels(x, (y + shift) % context.num_classes)


OLD_NAMES = {
    "batch_number": "context.batch",
    "block_scores": "context.network.block_scores",
    "current_epoch": "context.epoch",
    "forward": "context.scores",
}


def test_a_sampler_of_the_old_form_trains_with_warnings() -> None:
    old, new = pair_learner(negatives=OldSampler()), pair_learner(negatives=NewSampler())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(old)
    fit(new)
    told = [str(each.message) for each in caught if each.category is FutureWarning and each.filename == __file__]
    for name, line in OLD_NAMES.items():
        assert len([text for text in told if f"write {line} for learner.{name}, which is removed" in text]) == 2, name
    assert len(told) == 2 * len(OLD_NAMES)
    for a, b in zip(old.parameters(), new.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", OLD_NAMES)
def test_an_old_name_of_a_context_is_the_new_one(name: str) -> None:
    model = pair_learner().eval()
    context, x = NegativeContext(model.network, epoch=3, batch=4, held_out=(7,)), torch.rand(5, *SHAPE)
    with pytest.warns(FutureWarning, match=re.escape(f"write {OLD_NAMES[name]} for learner.{name}")):
        found = getattr(context, name)
    expected = {
        "batch_number": lambda: 4,
        "block_scores": lambda: model.block_scores(x),
        "current_epoch": lambda: 3,
        "forward": lambda: model(x),
    }[name]()
    torch.testing.assert_close(found(x) if callable(found) else found, expected)


def test_other_names_of_a_learner_are_refused() -> None:
    with pytest.raises(AttributeError, match="'NegativeContext' object has no attribute 'trainer'"):
        NegativeContext(pair_learner().network).trainer  # noqa: B018
