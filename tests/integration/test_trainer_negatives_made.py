"""Output of a sampler: errors if it does not fit, and pictures that do not change the run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from typing_extensions import override

from lightning_ff import AppendOneHot, NegativePictures, NegativeSampler, PairLoss, RandomShift, SymBa

Make = Callable[[Tensor], Any]


class Made(NegativeSampler):
    """Negatives, and positives, as functions of what they should be."""

    def __init__(self, negatives: Make, positives: Make = lambda x: x) -> None:
        super().__init__()
        self.made = positives, negatives

    @override
    def positives(self, x: Tensor, y: Tensor, learner: Any) -> Tensor:
        return self.made[0](learner.labels(x, y))

    @override
    def forward(self, x: Tensor, y: Tensor, index: Tensor, learner: Any) -> Tensor:
        return self.made[1](learner.labels(x, (y + 1) % 10))


class Margin(PairLoss):
    """A loss that pairs each negative with its positive."""

    @override
    def pair(self, positive: Tensor, negative: Tensor) -> Tensor:
        return F.relu(1 - positive + negative.view(-1, len(positive))).mean()


IMAGES = "return a tensor of shape (k N, 1, 8, 8)"
REFUSED: dict[str, tuple[NegativeSampler, dict[str, Any], type[Exception], str]] = {
    "no rows": (Made(lambda x: x[:0]), {}, ValueError, f"gave negatives of shape (0, 1, 8, 8): {IMAGES}"),
    "other features": (Made(lambda x: x[..., 2:]), {}, ValueError, f"gave negatives of shape (16, 1, 8, 6): {IMAGES}"),
    "flat": (Made(lambda x: x.flatten(1)), {}, ValueError, f"gave negatives of shape (16, 64): {IMAGES}"),
    "a number": (Made(lambda x: x.sum()), {}, ValueError, f"gave negatives of shape (): {IMAGES}"),
    "a list": (Made(lambda x: [x]), {}, TypeError, f"gave negatives that are a list: {IMAGES}"),
    "nothing": (Made(lambda x: None), {}, TypeError, f"gave negatives that are a NoneType: {IMAGES}"),
    "no code": (
        Made(lambda x: x[:, :64]),
        {"labels": AppendOneHot(1.0)},
        ValueError,
        "gave negatives of shape (16, 64): return a tensor of shape (k N, 74)",
    ),
    "positives": (
        Made(lambda x: x, lambda x: x[:, 0]),
        {},
        ValueError,
        "gave positives of shape (16, 8, 8): return a tensor of shape (N, 1, 8, 8)",
    ),
    "positives, a tuple": (
        Made(lambda x: x, lambda x: (x, x)),
        {},
        TypeError,
        "gave positives that are a tuple: return a tensor of shape (N, 1, 8, 8)",
    ),
    "no groups for SymBa": (
        Made(lambda x: x[:3]),
        {"loss": SymBa()},
        ValueError,
        "gave 3 negatives for 16 positives, of shape (3, 1, 8, 8): return (k 16, 1, 8, 8), k groups in the order of",
    ),
    "no groups for a loss of one's own": (
        Made(lambda x: torch.cat((x, x[:1]))),
        {"loss": Margin()},
        ValueError,
        "gave 17 negatives for 16 positives, of shape (17, 1, 8, 8): return (k 16, 1, 8, 8), k groups in the order of",
    ),
}


@pytest.mark.parametrize("pictured", [False, True], ids=["", "pictured"])
@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_by_name_and_shape(
    learner: Any, digits: Any, trainer: Any, case: str, pictured: bool
) -> None:
    sampler, arguments, kind, message = REFUSED[case]
    runner = trainer(max_epochs=1, callbacks=[NegativePictures()] if pictured else [])
    with pytest.raises(kind) as error:
        runner.fit(learner(negatives=sampler, **arguments), digits())
    assert type(error.value) is kind
    assert str(error.value).startswith(f"negatives=Made(seed=0) {message}")


@pytest.mark.parametrize("rows", [3, 17, 32])
def test_the_threshold_takes_any_number_of_negatives(learner: Any, digits: Any, trainer: Any, rows: int) -> None:
    targets = []

    class Some(NegativeSampler):
        @override
        def forward(self, x: Tensor, y: Tensor, index: Tensor, learner: Any) -> Tensor:
            targets.append(len(x))
            return learner.labels(x, (y + 1) % 10).repeat(2, 1, 1, 1)[:rows]

    model = learner(negatives=Some())
    runner = trainer(max_epochs=1)
    runner.fit(model, digits())
    assert targets == [16] * 5
    assert runner.global_step == 5


def test_convolutions_take_images_of_another_size(learner: Any, trainer: Any) -> None:
    blocks = [nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU())]
    data = DataLoader(TensorDataset(torch.rand(8, 1, 12, 12), torch.arange(8)), batch_size=4)
    sizes = []

    def smaller(x: Tensor) -> Tensor:
        sizes.append(tuple(x.shape))
        return x[..., 1:]

    runner = trainer(max_epochs=1)
    runner.fit(learner(blocks=blocks, negatives=Made(lambda x: x.flip(2))), data)
    assert runner.global_step == 2
    with pytest.raises(ValueError, match=r"negatives of shape \(4, 1, 12, 11\): return .* \(k N, 1, 12, 12\)"):
        trainer(max_epochs=1).fit(learner(blocks=blocks, negatives=Made(smaller)), data)
    assert sizes == [(4, 1, 12, 12)]


# Pictures


class Restless(NegativeSampler):
    """Draws from torch's own generator, and counts in a buffer and beside it."""

    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.tensor(0))
        self.seen: list[int] = []

    @override
    def forward(self, x: Tensor, y: Tensor, index: Tensor, learner: Any) -> Tensor:
        self.calls += 1
        self.seen.append(len(x))
        return learner.labels(torch.rand_like(x) * self.calls, y)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Tensor, Tensor]]:
    """Positives and negatives of every picture."""
    from lightning_ff.callbacks import pictures

    sides: list[tuple[Tensor, Tensor]] = []
    draw = pictures.pairs
    monkeypatch.setattr(pictures, "pairs", lambda *args: sides.append(args[:2]) or draw(*args))
    return sides


def test_a_picture_changes_nothing_and_shows_the_first_batch(
    learner: Any, digits: Any, trainer: Any, same: Any, drawn: list[tuple[Tensor, Tensor]], monkeypatch: Any
) -> None:
    models = [learner(negatives=Restless(), augment=RandomShift(1)) for _ in range(2)]
    stacked: list[Tensor] = []
    for model, callbacks in zip(models, ([], [NegativePictures(count=16)]), strict=True):
        normalize = model.network.normalize
        monkeypatch.setattr(
            model.network, "normalize", lambda x, normalize=normalize: stacked.append(x.clone()) or normalize(x)
        )
        torch.manual_seed(3)
        trainer(max_epochs=1, callbacks=callbacks).fit(model, digits())
    assert same(*models)
    assert [model.negatives.seen for model in models] == [[16] * 5] * 2
    assert [int(model.negatives.calls) for model in models] == [5, 5]
    ((positive, negative),) = drawn
    assert torch.equal(torch.cat((positive, negative)), stacked[0])


def test_a_resumed_run_draws_no_second_picture_and_a_new_fit_does(
    learner: Any, digits: Any, trainer: Any, tmp_path: Path, drawn: list[tuple[Tensor, Tensor]]
) -> None:
    def run(epochs: int, name: str, callback: NegativePictures, **arguments: Any) -> Any:
        runner = trainer(max_epochs=epochs, callbacks=[callback], logger=CSVLogger(tmp_path, name))
        runner.fit(learner(), digits(), **arguments)
        return runner

    used = NegativePictures(count=3)
    run(1, "first", used).save_checkpoint(tmp_path / "a.ckpt")
    for name, callback in {"new": NegativePictures(count=3), "used": used}.items():
        run(2, name, callback, ckpt_path=tmp_path / "a.ckpt")
        assert callback.done
    assert len(drawn) == 1
    run(1, "again", used)
    run(2, "more", NegativePictures(count=4), ckpt_path=tmp_path / "a.ckpt")
    assert [len(positive) for positive, _ in drawn] == [3, 3, 4]
    pictures = {path.parts[-5]: path.name for path in tmp_path.rglob("*.png")}
    assert pictures == {"first": "00000000.png", "again": "00000000.png", "more": "00000005.png"}


BATCHES: dict[str, tuple[Tensor, Tensor]] = {
    "a label above": (torch.rand(8, 1, 8, 8), torch.arange(8) + 5),
    "a label below": (torch.rand(8, 1, 8, 8), torch.arange(8) - 1),
    "labels no integers": (torch.rand(8, 1, 8, 8), torch.arange(8).float()),
    "other images": (torch.rand(8, 3, 8, 8), torch.arange(8)),
    "bytes": (torch.randint(0, 255, (8, 1, 8, 8), dtype=torch.uint8), torch.arange(8)),
}


@pytest.mark.parametrize("case", BATCHES)
def test_a_bad_batch_is_refused_as_without_the_picture(learner: Any, trainer: Any, case: str) -> None:
    messages = []
    for callbacks in ([], [NegativePictures()]):
        data = DataLoader(TensorDataset(*BATCHES[case]), batch_size=4, shuffle=False)
        with pytest.raises((ValueError, TypeError)) as error:
            trainer(max_epochs=1, callbacks=callbacks).fit(learner(), data)
        messages.append((type(error.value), str(error.value)))
    assert messages[0] == messages[1]
