"""ImageData: splits, scaling, arguments; Digits; the command line."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.demos.boring_classes import BoringModel
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor
from typing_extensions import override

from lightning_ff.data import Batch, BatchLoader, Digits, ImageData
from lightning_ff.data.base import Images
from lightning_ff.data.split import draw_per_class, proportional, without


def whole(loader: BatchLoader | list[BatchLoader]) -> Batch:
    """Return all batches of a loader as one, by index."""
    assert isinstance(loader, BatchLoader)
    image, label, index = (torch.cat(parts) for parts in zip(*loader, strict=True))
    order = index.argsort()
    return Batch(image[order], label[order], index[order])


def fitted(module: ImageData) -> tuple[Batch, Batch]:
    module.setup("fit")
    return whole(module.train_dataloader()), whole(module.val_dataloader())


# --- splits ---------------------------------------------------------------------------------------------------------


def test_proportional_is_within_one_of_the_exact_share() -> None:
    counts = torch.tensor([5923, 6742, 1, 6131, 0])
    for size in (0, 1, 7, 1000, int(counts.sum())):
        quota = proportional(counts, size)
        assert int(quota.sum()) == size
        assert ((quota - counts * size / counts.sum()).abs() < 1).all()


def test_draws_are_nested_and_seeded() -> None:
    labels = torch.randint(0, 4, (500,), generator=torch.Generator().manual_seed(0))

    def draw(each: int, seed: int) -> set[int]:
        positions = draw_per_class(labels, torch.full((4,), each), torch.Generator().manual_seed(seed))
        assert labels[positions].bincount().tolist() == [each] * 4
        assert positions.tolist() == sorted(positions.tolist())
        return set(positions.tolist())

    assert draw(10, 1) < draw(50, 1)
    assert draw(10, 1) != draw(10, 2)
    assert without(5, torch.tensor([3, 0])).tolist() == [1, 2, 4]


def test_training_and_validation_are_disjoint_complete_and_stratified() -> None:
    train, val = fitted(Digits())
    assert (len(train.label), len(val.label)) == (1293, 144)
    assert sorted([*train.index.tolist(), *val.index.tolist()]) == list(range(1437))
    share = val.label.bincount() / (train.label.bincount() + val.label.bincount())
    assert share == pytest.approx(np.full(10, 0.1), abs=0.005)


def test_the_split_changes_with_split_seed_and_the_order_with_seed() -> None:
    def first(**arguments: int) -> tuple[list[int], list[int]]:
        module = Digits(**arguments)  # type: ignore[arg-type]
        module.setup("fit")
        order = next(iter(module.train_dataloader())).index.tolist()
        return order, whole(module.val_dataloader()).index.tolist()

    assert first() == first()
    assert first(seed=1)[0] != first()[0]
    assert first(seed=1)[1] == first()[1]
    assert first(split_seed=1)[1] != first()[1]


def test_an_index_names_the_same_image_in_every_split() -> None:
    stored, labels = Digits().read(train=True)
    for module in (Digits(), Digits(split_seed=3, val_size=700), Digits(train_size=20, seed=5)):
        for batch in fitted(module):
            assert torch.equal(batch.image * 16, stored[batch.index].float())
            assert torch.equal(batch.label, labels[batch.index])


def test_train_size_is_images_of_each_class_after_the_validation_split() -> None:
    small, val = fitted(Digits(train_size=20))
    smaller, same_val = fitted(Digits(train_size=5, seed=7))
    assert small.label.bincount().tolist() == [20] * 10
    assert smaller.label.bincount().tolist() == [5] * 10
    assert set(smaller.index.tolist()) < set(small.index.tolist())
    assert torch.equal(val.index, same_val.index)
    assert not set(small.index.tolist()) & set(val.index.tolist())
    other, _ = fitted(Digits(train_size=20, split_seed=1))
    assert not torch.equal(other.index, small.index)


@pytest.mark.parametrize(("val_size", "images"), [(0.25, 25), (1, 1), (30.0, 30), (0.014, 1)])
def test_val_size_is_a_share_or_a_number(fake: type[ImageData], val_size: float, images: int) -> None:
    train, val = fitted(fake(val_size=val_size))
    assert (len(train.label), len(val.label)) == (100 - images, images)


def test_a_validation_set_that_comes_with_the_data_is_used(fake: type[ImageData]) -> None:
    class Own(fake):  # type: ignore[valid-type, misc]
        @override
        def read_validation(self) -> Images:
            images, labels = self.read(train=False)
            return images[:7], labels[:7]

    train, val = fitted(Own())
    assert (len(train.label), val.index.tolist()) == (100, list(range(7)))


# --- scaling --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scaling", ["unit", "standard"])
def test_scaling_is_that_of_numpy(scaling: Any) -> None:
    class Colours(ImageData):
        classes = ("a", "b")
        input_shape = (3, 2, 2)
        mean = (0.5, 0.25, 0.125)
        std = (0.5, 0.3, 0.1)

        @override
        def read(self, train: bool) -> Images:
            images = torch.randint(0, 256, (40, 3, 2, 2), generator=torch.Generator().manual_seed(0)).byte()
            images[0] = 255
            return images, torch.arange(40) % 2

    module = Colours(val_size=0, scaling=scaling)
    module.setup("fit")
    batch = whole(module.train_dataloader())
    expected = module.read(True)[0].numpy() / 255
    if scaling == "standard":
        mean, std = (np.array(values).reshape(3, 1, 1) for values in (module.mean, module.std))
        expected = (expected - mean) / std
    np.testing.assert_allclose(batch.image.numpy(), expected, rtol=1e-6, atol=1e-6)
    assert module.input_max == pytest.approx(expected.max())
    assert module.input_max == (1.0 if scaling == "unit" else pytest.approx(8.75))


# --- Digits ---------------------------------------------------------------------------------------------------------


def test_digits_are_those_of_scikit_learn() -> None:
    module = Digits()
    assert (module.num_classes, module.input_shape, module.input_max) == (10, (1, 8, 8), 1.0)
    assert module.class_names == list("0123456789")
    module.setup("test")
    test = whole(module.test_dataloader())

    images, labels = load_digits(return_X_y=True)
    train_rows, test_rows = train_test_split(range(1797), test_size=360, stratify=labels, random_state=0)
    np.testing.assert_array_equal(test.image.flatten(1).numpy() * 16, images[sorted(test_rows)])
    np.testing.assert_array_equal(test.label.numpy(), labels[sorted(test_rows)])
    stored, _ = module.read(train=True)
    np.testing.assert_array_equal(stored.flatten(1).numpy(), images[sorted(train_rows)])


def test_digits_constants_are_those_of_the_training_set() -> None:
    images = Digits().read(train=True)[0].numpy() / 16
    assert Digits.mean == pytest.approx([images.mean()], abs=1e-4)
    assert Digits.std == pytest.approx([images.std()], abs=1e-4)


def test_the_digits_test_set_does_not_change_with_the_arguments() -> None:
    def test_set(**arguments: Any) -> Tensor:
        module = Digits(**arguments)
        module.setup("predict")
        return whole(module.predict_dataloader()).image

    assert torch.equal(test_set(), test_set(seed=3, split_seed=3, val_size=0.5, train_size=2))


# --- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size=0 must be at least 1"),
        ({"eval_batch_size": -2}, "eval_batch_size=-2 must be at least 1"),
        ({"val_size": -1}, "val_size=-1 must be a share in 0..1 or a whole number of images"),
        ({"val_size": 2.5}, "val_size=2.5 must be a share"),
        ({"val_size": float("nan")}, "val_size=nan: must be a share"),
        ({"val_size": float("inf")}, "val_size=inf: must be a share"),
        ({"train_size": 0}, "train_size=0 must be at least 1 image a class, or None for all"),
        ({"seed": -1}, "seed=-1 must be 0 or larger"),
        ({"split_seed": -1}, "split_seed=-1 must be 0 or larger"),
        ({"scaling": "none"}, "scaling='none' must be 'unit' or 'standard'"),
    ],
)
def test_bad_arguments_are_refused_at_construction(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Digits(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"val_size": 100}, "val_size=100 leaves none of 100 training images: lower it"),
        ({"val_size": 0.999}, "val_size=0.999 leaves none of 100 training images"),
        ({"val_size": 98}, "val_size=98 leaves no training image of class 'dog', which has 33: lower it"),
        ({"val_size": 0.001}, "val_size=0.001 is less than one of 100 training images: raise it, or give 0"),
        ({"train_size": 31}, "train_size=31 is more than the 30 images that are left of class 'cat': lower it or val"),
    ],
)
def test_sizes_that_do_not_fit_are_refused_at_setup(
    fake: type[ImageData], arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        fake(**arguments).setup("fit")


def test_a_batch_larger_than_the_data_with_drop_last_is_refused(fake: type[ImageData]) -> None:
    module = fake(batch_size=91, drop_last=True)
    module.setup("fit")
    with pytest.raises(ValueError, match="batch_size=91 is more than the 90 images of a process: lower it or set drop"):
        module.train_dataloader()


def test_standard_scaling_without_constants_is_refused(fake: type[ImageData]) -> None:
    with pytest.raises(ValueError, match="scaling='standard' needs mean and std, which Fake lacks: use 'unit'"):
        type("Fake", (fake,), {"mean": ()})(scaling="standard")


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        ((9, 1, 2, 2), [0] * 9, r"Fake read images of shape \(1, 2, 2\): input_shape must be that, not \(1, 2, 3\)"),
        ((9, 1, 2, 3), [0] * 8, "Fake read 9 images and 8 labels"),
        ((0, 1, 2, 3), [], "Fake read 0 images and 0 labels"),
        ((2, 1, 2, 3), [0, 3], "Fake read labels 0..3: they must be in 0..2"),
    ],
)
def test_images_that_do_not_fit_the_class_are_refused(
    fake: type[ImageData], images: tuple[int, ...], labels: list[int], message: str
) -> None:
    def read(self: ImageData, train: bool) -> Images:
        return torch.zeros(images, dtype=torch.uint8), torch.tensor(labels, dtype=torch.int64)

    with pytest.raises(ValueError, match=message):
        type("Fake", (fake,), {"read": read})().setup("test")


def test_a_loader_before_setup_is_refused() -> None:
    module = Digits()
    for name in ("train", "val"):
        with pytest.raises(RuntimeError, match=rf"Digits has not read its {name} images: call setup\('fit'\) first"):
            getattr(module, f"{name}_dataloader")()
    with pytest.raises(RuntimeError, match=r"Digits has not read its test images: call setup\('test'\) first"):
        module.test_dataloader()


# --- command line ---------------------------------------------------------------------------------------------------


class Linked(BoringModel):
    def __init__(self, num_classes: int, input_shape: tuple[int, int, int], input_max: float) -> None:
        super().__init__()
        self.linked = (num_classes, tuple(input_shape), input_max)


class Cli(LightningCLI):
    @override
    def add_arguments_to_parser(self, parser: Any) -> None:
        for name in ("num_classes", "input_shape", "input_max"):
            parser.link_arguments(f"data.{name}", f"model.{name}", apply_on="instantiate")


def test_the_command_line_builds_the_data_and_links_its_attributes() -> None:
    cli = Cli(
        Linked,
        ImageData,
        subclass_mode_data=True,
        run=False,
        save_config_callback=None,
        args=[
            "--data=Digits",
            "--data.batch_size=50",
            "--data.val_size=100",
            "--data.train_size=8",
            "--data.scaling=standard",
            "--data.drop_last=true",
            "--trainer.logger=false",
        ],
    )
    module = cli.datamodule
    assert isinstance(module, Digits)
    assert (module.batch_size, module.val_size, module.train_size, module.scaling) == (50, 100, 8, "standard")
    assert cli.model.linked == (10, (1, 8, 8), module.input_max)


def test_the_command_line_explains_every_argument(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        Cli(Linked, ImageData, subclass_mode_data=True, run=False, args=["--data.help", "Digits"])
    out = " ".join(capsys.readouterr().out.split())
    for words in (
        "Images of a training batch on each process",
        "Seed of the validation split",
        "Download missing files",
    ):
        assert words in out
