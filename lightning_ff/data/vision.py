"""Data sets of torchvision."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from typing_extensions import override

from lightning_ff.data.base import ImageData, Images
from lightning_ff.validate import check_flag

DAMAGE = (OSError, RuntimeError, ValueError, TypeError, LookupError, AssertionError, EOFError)
"""Errors that torchvision raises for missing or damaged files."""


class TorchvisionData(ImageData):
    """A data set of ``torchvision.datasets``, read as whole arrays.

    Attributes:
        source: Name of the class in ``torchvision.datasets``.
        files: Paths of its files under ``root``.
    """

    source: str
    files: tuple[str, ...]

    @abstractmethod
    def arrays(self, dataset: Any) -> Images:
        """Return the images and labels that a torchvision data set holds."""

    def open(self, train: bool, download: bool = False) -> Any:
        """Return the torchvision data set of a split."""
        from torchvision import datasets

        return getattr(datasets, self.source)(self.root, train=train, download=download)

    @override
    def prepare_data(self) -> None:
        """Download missing files; a Trainer calls this on one process only."""
        for train in (True, False):
            if self.download and self._missing():
                self._fetch(train)

    @override
    def read(self, train: bool) -> Images:
        try:
            return self.arrays(self.open(train))
        except DAMAGE as error:
            raise self._unreadable(error) from None

    @property
    def _folder(self) -> Path:
        return (Path(self.root) / self.files[0]).parent

    def _missing(self) -> list[str]:
        return [name for name in self.files if not (Path(self.root) / name).is_file()]

    def _fetch(self, train: bool) -> None:
        try:
            self.open(train, download=True)
        except (OSError, RuntimeError) as error:
            raise FileNotFoundError(
                f"{self.source} is not in '{self._folder}' and could not be downloaded ({_reason(error)}): check the"
                " network and the folder, or put the files of the data set there by hand."
            ) from None

    def _unreadable(self, error: Exception) -> Exception:
        missing = self._missing()
        if missing:
            return FileNotFoundError(
                f"{self.source} is not in '{self._folder}' (no '{Path(missing[0]).name}'): put the files of the data"
                " set there, or set download=True and let prepare_data(), which a Trainer calls, fetch them."
            )
        return RuntimeError(
            f"{self.source} in '{self._folder}' is damaged ({_reason(error)}): delete the folder's files and fetch"
            " them again with download=True, or put good ones there."
        )


def _reason(error: Exception) -> str:
    """Return the first sentence of the last line of a message, or the type of error if it has no message."""
    lines = str(error).strip().splitlines()
    return lines[-1].split(". ")[0].rstrip(".") if lines else type(error).__name__


class MNIST(TorchvisionData):
    """Handwritten digits, 60 000 for training and 10 000 for test, 28 by 28.

    Args:
        root: Folder of the data.
        colour: Repeat the grey images in three channels, for networks with RGB input.
        **kwargs: See :class:`ImageData`.
    """

    source = "MNIST"
    files = tuple(
        f"MNIST/raw/{part}"
        for part in (
            "train-images-idx3-ubyte",
            "train-labels-idx1-ubyte",
            "t10k-images-idx3-ubyte",
            "t10k-labels-idx1-ubyte",
        )
    )
    classes: Sequence[str] = tuple("0123456789")
    input_shape = (1, 28, 28)
    mean: tuple[float, ...] = (0.1307,)
    std: tuple[float, ...] = (0.3081,)

    def __init__(self, root: str = "data", colour: bool = False, **kwargs: Any) -> None:
        super().__init__(root, **kwargs)
        check_flag("colour", colour)
        if colour:
            self.input_shape, self.mean, self.std = (3, 28, 28), self.mean * 3, self.std * 3

    @override
    def arrays(self, dataset: Any) -> Images:
        return dataset.data.unsqueeze(1).expand(-1, self.input_shape[0], -1, -1), dataset.targets


class FashionMNIST(MNIST):
    """Pictures of clothes, 60 000 for training and 10 000 for test, 28 by 28; arguments as for :class:`MNIST`."""

    source = "FashionMNIST"
    files = tuple(name.replace("MNIST", "FashionMNIST") for name in MNIST.files)
    classes = (
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
    )  # fmt: skip
    mean = (0.2860,)
    std = (0.3530,)


class CIFAR10(TorchvisionData):
    """Colour pictures of ten classes, 50 000 for training and 10 000 for test, 32 by 32."""

    source = "CIFAR10"
    files: tuple[str, ...] = tuple(
        f"cifar-10-batches-py/{part}"
        for part in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta")
    )
    classes: Sequence[str] = (
        "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
    )  # fmt: skip
    input_shape = (3, 32, 32)
    mean: tuple[float, ...] = (0.4914, 0.4822, 0.4465)
    std: tuple[float, ...] = (0.2470, 0.2435, 0.2616)

    @override
    def arrays(self, dataset: Any) -> Images:
        images = torch.from_numpy(dataset.data).permute(0, 3, 1, 2).contiguous()
        return images, torch.tensor(dataset.targets)


class CIFAR100(CIFAR10):
    """Colour pictures of a hundred classes, 50 000 for training and 10 000 for test, 32 by 32."""

    source = "CIFAR100"
    files = ("cifar-100-python/train", "cifar-100-python/test", "cifar-100-python/meta")
    classes = (
        "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle", "bowl", "boy",
        "bridge", "bus", "butterfly", "camel", "can", "castle", "caterpillar", "cattle", "chair", "chimpanzee", "clock",
        "cloud", "cockroach", "couch", "crab", "crocodile", "cup", "dinosaur", "dolphin", "elephant", "flatfish",
        "forest", "fox", "girl", "hamster", "house", "kangaroo", "keyboard", "lamp", "lawn_mower", "leopard", "lion",
        "lizard", "lobster", "man", "maple_tree", "motorcycle", "mountain", "mouse", "mushroom", "oak_tree", "orange",
        "orchid", "otter", "palm_tree", "pear", "pickup_truck", "pine_tree", "plain", "plate", "poppy", "porcupine",
        "possum", "rabbit", "raccoon", "ray", "road", "rocket", "rose", "sea", "seal", "shark", "shrew", "skunk",
        "skyscraper", "snail", "snake", "spider", "squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank",
        "telephone", "television", "tiger", "tractor", "train", "trout", "tulip", "turtle", "wardrobe", "whale",
        "willow_tree", "wolf", "woman", "worm",
    )  # fmt: skip
    mean = (0.5071, 0.4865, 0.4409)
    std = (0.2673, 0.2564, 0.2762)


class SVHN(TorchvisionData):
    """House numbers in colour, 73 257 digits for training and 26 032 for test, 32 by 32."""

    source = "SVHN"
    files = ("train_32x32.mat", "test_32x32.mat")
    classes = tuple("0123456789")
    input_shape = (3, 32, 32)
    mean = (0.4377, 0.4438, 0.4728)
    std = (0.1980, 0.2010, 0.1970)

    @override
    def open(self, train: bool, download: bool = False) -> Any:
        from torchvision import datasets

        return datasets.SVHN(self.root, split="train" if train else "test", download=download)

    @override
    def arrays(self, dataset: Any) -> Images:
        return torch.from_numpy(dataset.data).contiguous(), torch.from_numpy(dataset.labels)
