"""Lightning data modules over images in memory, and their loader."""

from lightning_ff.data.base import ImageData
from lightning_ff.data.batch import Batch
from lightning_ff.data.digits import Digits
from lightning_ff.data.folder import ImageFolder
from lightning_ff.data.loader import BatchLoader
from lightning_ff.data.vision import CIFAR10, CIFAR100, MNIST, SVHN, FashionMNIST

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "MNIST",
    "SVHN",
    "Batch",
    "BatchLoader",
    "Digits",
    "FashionMNIST",
    "ImageData",
    "ImageFolder",
]
