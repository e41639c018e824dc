"""Base class of all data modules: splits, scaling and loaders over images in memory.

Shapes: S stored images of a split, C channels, H rows, W columns.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from typing_extensions import override

from lightning_ff._lightning import epoch_is_over, restart_epoch
from lightning_ff.data import scaling as scales
from lightning_ff.data.loader import BatchLoader, generator, require
from lightning_ff.data.split import draw_per_class, proportional, without
from lightning_ff.validate import check_flag, check_int, check_number, check_type

Images = tuple[Tensor, Tensor]
"""Images ``(S, C, H, W)``, uint8, and their class numbers ``(S,)``, int64."""


class _Split(NamedTuple):
    """Stored images, their labels, and the indices of the split (``None``: all)."""

    images: Tensor
    labels: Tensor
    rows: Tensor | None = None


class _TrainerLoader(BatchLoader):
    """Uses the epoch of its Trainer, and says of its data what a learner needs to know, also without the data module.

    The epoch that Lightning passes to samplers is ``current_epoch + 1`` after it resumes a run with ``max_steps`` from
    the end of an epoch, or from an epoch that ``max_steps`` ended early.
    """

    trainer: Trainer | None = None
    held_out_classes: Sequence[int] = ()
    input_max: float | None = None

    @override
    def set_epoch(self, epoch: int) -> None:
        super().set_epoch(epoch if self.trainer is None else self.trainer.current_epoch)

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue at the saved batch; restart the epoch if the global batch size has changed."""
        ours, theirs = self._identity()["batch_size"], state_dict.get("batch_size")
        super().load_state_dict({**state_dict, "batch_size": ours if self.trainer else theirs})
        if self.trainer is None or theirs == ours:
            return
        if epoch_is_over(self.trainer, len(self)):
            self._position = len(self)
        else:
            restart_epoch(self.trainer)
            self._position, self._resuming = 0, False
            rank_zero_warn(
                f"the checkpoint was made after {state_dict['position']} batches of {theirs} in epoch"
                f" {state_dict['epoch']}, and batches of all processes together now have {ours}: the epoch starts again"
            )


class ImageData(LightningDataModule, ABC):
    """Images in memory for training, validation, test and prediction.

    A subclass sets its classes and shape, and defines how to read a split:

    >>> class Noise(ImageData):
    ...     classes = ("dark", "light")
    ...     input_shape = (1, 4, 4)
    ...
    ...     def read(self, train: bool) -> Images:
    ...         return torch.randint(0, 256, (20, 1, 4, 4)).byte(), torch.arange(20) % 2
    >>> data = Noise(batch_size=8, val_size=4)
    >>> data.setup("fit")
    >>> [tuple(batch.image.shape) for batch in data.train_dataloader()]
    [(8, 1, 4, 4), (8, 1, 4, 4)]

    Training and validation use the training set; the test set is read only for test and prediction.

    Attributes:
        classes: Name of each class, set by the subclass.
        input_shape: Shape ``(C, H, W)`` of an image, set by the subclass.
        pixel_max: Largest stored pixel.
        mean: Mean of each channel, pixels in 0..1; needed for ``scaling="standard"``.
        std: Standard deviation of each channel, likewise.

    Args:
        root: Folder of the data.
        batch_size: Images of a training batch on each process.
        eval_batch_size: Images of a validation, test or prediction batch.
        val_size: Validation images, a stratified draw from the training set: a share below 1, or a number of images.
            0 means no validation.
        train_size: Training images of each class, for small-data runs, drawn after the validation split. ``None`` means
            all.
        seed: Seed of the order in which training images are drawn.
        split_seed: Seed of the validation split and of ``train_size``, which do not change with ``seed``.
        scaling: ``unit`` scales pixels to 0..1, ``standard`` each channel to mean 0 and standard deviation 1.
        drop_last: Leave out a last training batch that is smaller than ``batch_size``.
        download: Download missing files, if torchvision can.
        held_out: Classes, by name or number, that training and validation must not see: no image of them, and no
            negative with their label. The test set has them.
    """

    classes: Sequence[str]
    input_shape: tuple[int, int, int]
    pixel_max: float = 255.0
    mean: Sequence[float] = ()
    std: Sequence[float] = ()

    def __init__(
        self,
        root: str = "data",
        batch_size: int = 128,
        eval_batch_size: int = 512,
        val_size: float = 0.1,
        train_size: int | None = None,
        seed: int = 0,
        split_seed: int = 0,
        scaling: Literal["unit", "standard"] = "unit",
        drop_last: bool = False,
        download: bool = True,
        held_out: Sequence[int | str] | None = None,
    ) -> None:
        super().__init__()
        check_type("root", root, (str, Path), "give a folder")
        check_flag("drop_last", drop_last)
        check_flag("download", download)
        self.root = str(root)
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.val_size, self.train_size = val_size, train_size
        self.seed, self.split_seed = seed, split_seed
        self.scaling = scaling
        self.drop_last, self.download = drop_last, download
        self.held_out = held_out
        self._splits: dict[str, _Split] = {}
        self._check_arguments()

    @abstractmethod
    def read(self, train: bool) -> Images:
        """Return the images and labels of the training set, or else of the test set, in stored order."""

    def read_validation(self) -> Images | None:
        """Return the data's own validation set, if any; ``val_size`` is then ignored."""
        return None

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @property
    def class_names(self) -> list[str]:
        """Name of each class."""
        return list(self.classes)

    @property
    def held_out_classes(self) -> list[int]:
        """Indices of the classes that training does not see, ascending.

        Raises:
            ValueError: there is no such class.
        """
        return sorted({self._class(entry) for entry in self.held_out or ()})

    def _class(self, entry: int | str) -> int:
        names = self.class_names
        if entry in names:
            return names.index(str(entry))
        if not isinstance(entry, int) or isinstance(entry, bool) or not 0 <= entry < len(names):
            raise ValueError(f"held_out={self.held_out}: there is no class {entry!r}, choose of {', '.join(names)}")
        return entry

    @property
    def input_max(self) -> float:
        """Largest value that a scaled pixel can have."""
        if self.scaling == "unit":
            return 1.0
        return max((1 - mean) / std for mean, std in zip(self.mean, self.std, strict=True))

    @override
    def setup(self, stage: str) -> None:
        if stage in ("fit", "validate") and "train" not in self._splits:
            self._setup_train()
        if stage in ("test", "predict") and "test" not in self._splits:
            self._splits["test"] = _Split(*self._checked(self.read(train=False)))

    @override
    def train_dataloader(self) -> BatchLoader:
        # overfit_batches needs the same batches in each epoch; Lightning sets that for a torch DataLoader only
        shuffle = self.trainer is None or not self.trainer.overfit_batches  # type: ignore[attr-defined]
        return self._loader("train", self.batch_size, shuffle=shuffle, drop_last=self.drop_last, even=True)

    @override
    def val_dataloader(self) -> BatchLoader | list[BatchLoader]:
        if "train" in self._splits and "val" not in self._splits:
            return []
        return self._loader("val", self.eval_batch_size)

    @override
    def test_dataloader(self) -> BatchLoader:
        return self._loader("test", self.eval_batch_size)

    @override
    def predict_dataloader(self) -> BatchLoader:
        return self._loader("test", self.eval_batch_size)

    def _loader(
        self, name: str, batch_size: int, shuffle: bool = False, drop_last: bool = False, even: bool = False
    ) -> BatchLoader:
        if name not in self._splits:
            stage = "test" if name == "test" else "fit"
            raise RuntimeError(f"{type(self).__name__} has not read its {name} images: call setup({stage!r}) first.")
        rank, world_size = self._process()
        loader = _TrainerLoader(
            *self._splits[name],
            batch_size=batch_size,
            shuffle=shuffle,
            seed=self.seed,
            drop_last=drop_last,
            scale=self._scale(),
            rank=rank,
            world_size=world_size,
            even=even,
        )
        loader.trainer = self.trainer
        loader.held_out_classes, loader.input_max = self.held_out_classes, self.input_max
        return loader

    def _process(self) -> tuple[int, int]:
        """Return the index of this process's share of the data, and the number of shares, from the strategy."""
        share = None if self.trainer is None else self.trainer.distributed_sampler_kwargs
        return (share["rank"], share["num_replicas"]) if share else (0, 1)

    def _scale(self) -> scales.Affine:
        if self.scaling == "unit":
            return scales.unit(self.pixel_max)
        return scales.standard(self.pixel_max, self.mean, self.std)

    def _setup_train(self) -> None:
        images, labels = self._checked(self.read(train=True))
        own = self.read_validation()
        if own is not None:
            kept, of_kept = self._checked(own)
            self._splits["val"] = _Split(kept, of_kept, self._seen(of_kept, torch.arange(len(of_kept))))
        train, val = self._split(labels, self._val_images(len(labels)) if own is None else 0)
        if len(val):
            self._splits["val"] = _Split(images, labels, self._seen(labels, val))
        self._splits["train"] = _Split(images, labels, self._seen(labels, train))

    def _seen(self, labels: Tensor, rows: Tensor) -> Tensor:
        """Rows whose class is not held out."""
        held_out = torch.tensor(self.held_out_classes, dtype=labels.dtype)
        return rows[~torch.isin(labels[rows], held_out)]

    def _split(self, labels: Tensor, val_images: int) -> Images:
        """Return the indices of training and of validation images, each ascending."""
        counts = labels.bincount(minlength=self.num_classes)
        quota = proportional(counts, val_images)
        val = draw_per_class(labels, quota, generator(self.split_seed, 0))
        train = without(len(labels), val)
        self._check_split(counts, counts - quota)
        if self.train_size is not None:
            each = torch.full_like(quota, self.train_size)
            train = train[draw_per_class(labels[train], each, generator(self.split_seed, 1))]
        return train, val

    def _val_images(self, n: int) -> int:
        """Return the number of validation images out of ``n`` training images."""
        size = round(self.val_size * n) if self.val_size < 1 else int(self.val_size)
        enough = size > 0 or self.val_size == 0
        require(enough, "val_size", self.val_size, f"is less than one of {n} training images: raise it, or give 0")
        require(size < n, "val_size", self.val_size, f"leaves none of {n} training images: lower it")
        return size

    def _check_split(self, counts: Tensor, left: Tensor) -> None:
        for name, all_, rest in zip(self.classes, counts.tolist(), left.tolist(), strict=True):
            remedy = f"leaves no training image of class {name!r}, which has {all_}: lower it"
            require(rest > 0 or all_ == 0, "val_size", self.val_size, remedy)
            remedy = f"is more than the {rest} images that are left of class {name!r}: lower it or val_size"
            require(self.train_size is None or self.train_size <= rest, "train_size", self.train_size, remedy)

    def _checked(self, images_and_labels: Images) -> Images:
        """Check images and labels against ``input_shape`` and ``classes``."""
        images, labels = images_and_labels
        name, shape = type(self).__name__, tuple(images.shape[1:])
        if shape != self.input_shape:
            raise ValueError(f"{name} read images of shape {shape}: input_shape must be that, not {self.input_shape}.")
        if len(images) != len(labels) or len(labels) == 0:
            raise ValueError(f"{name} read {len(images)} images and {len(labels)} labels: give one label an image.")
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= self.num_classes:
            raise ValueError(f"{name} read labels {low}..{high}: they must be in 0..{self.num_classes - 1}.")
        return images, labels

    def _check_arguments(self) -> None:
        for name in ("batch_size", "eval_batch_size", "seed", "split_seed"):
            check_int(name, getattr(self, name))
        if self.held_out is not None and (isinstance(self.held_out, str) or not isinstance(self.held_out, Sequence)):
            raise TypeError(f"held_out={self.held_out!r}: give a list of classes, by name or number, or None")
        if hasattr(self, "classes"):  # not yet set by ImageFolder
            self.held_out_classes  # noqa: B018  raises for an unknown class
        for name in ("batch_size", "eval_batch_size"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "must be at least 1")
        for name in ("seed", "split_seed"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "must be 0 or larger")
        val, remedy = self.val_size, "must be a share in 0..1 or a whole number of images, 0 for no validation"
        check_number("val_size", val, remedy)
        require(0 <= val < 1 or (val >= 1 and float(val).is_integer()), "val_size", val, remedy)
        if self.train_size is not None:
            check_int("train_size", self.train_size, "give a whole number of images a class, or None for all")
        small = self.train_size is None or self.train_size >= 1
        require(small, "train_size", self.train_size, "must be at least 1 image a class, or None for all")
        require(self.scaling in ("unit", "standard"), "scaling", self.scaling, "must be 'unit' or 'standard'")
        known = self.scaling == "unit" or bool(self.mean)
        require(known, "scaling", self.scaling, f"needs mean and std, which {type(self).__name__} lacks: use 'unit'")
