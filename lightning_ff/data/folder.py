"""Custom pictures, one folder per class.

Shapes: S pictures of a split, C channels, H = W = image_size.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn
from typing_extensions import override

from lightning_ff.data.base import ImageData, Images
from lightning_ff.data.loader import require
from lightning_ff.validate import check_int, check_number, check_type

EXTENSIONS = frozenset(
    {".png", ".jpg", ".jpeg", ".jfif", ".jpe", ".bmp", ".gif", ".ppm", ".pgm", ".pbm", ".tif", ".tiff", ".webp"}
)
# Whatever the name of a file, nothing else is decoded: for PostScript, Pillow would start another program.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP")
_VALIDATION = ("val", "valid", "validation")


class ImageFolder(ImageData):
    """Pictures in ``root/train/<class>/``, ``root/test/<class>/`` and, if there is one, ``root/val/<class>/``.

    Each is scaled to cover ``image_size`` by ``image_size`` pixels, cropped in the middle and kept in memory as uint8.
    16-bit pixels are scaled to 8 bits, and transparent pixels are put on white. Files with other extensions than those
    of pictures are left out, with a warning.

    Classes are the sorted names of the folders in ``train``; ``val`` and ``test`` may lack some of them. ``val`` may be
    named ``valid`` or ``validation``; without it, validation images are drawn from ``train``. Without a ``test`` folder
    there is no test run: ``validate`` measures on the validation images. ``scaling="standard"`` uses ImageNet's mean
    and std.

    Args:
        root: Folder that holds ``train`` and the others.
        image_size: Rows and columns of an image.
        channels: 3 for colour, 1 for grey.
        max_memory_gb: Largest size of all images in memory, in 10^9 bytes; raises before reading if exceeded.
        batch_size: Images of a training batch on each process.
        eval_batch_size: Images of a validation, test or prediction batch.
        val_size: Validation images, a stratified draw from ``train``: a share below 1, or a number of images. 0 means
            no validation. Without effect if there is a ``val`` folder.
        train_size: Training images of each class, for small-data runs. ``None`` means all.
        seed: Seed of the order in which training images are drawn.
        split_seed: Seed of the validation split and of ``train_size``, which do not change with ``seed``.
        scaling: ``unit`` scales pixels to 0..1, ``standard`` each channel to about mean 0 and standard deviation 1.
        drop_last: Leave out a last training batch that is smaller than ``batch_size``.
        held_out: Classes, by name or number, that training and validation must not see.
    """

    def __init__(
        self,
        root: str = "data",
        image_size: int = 64,
        channels: Literal[1, 3] = 3,
        max_memory_gb: float = 4.0,
        batch_size: int = 128,
        eval_batch_size: int = 512,
        val_size: float = 0.1,
        train_size: int | None = None,
        seed: int = 0,
        split_seed: int = 0,
        scaling: Literal["unit", "standard"] = "unit",
        drop_last: bool = False,
        held_out: Sequence[int | str] | None = None,
    ) -> None:
        check_type("root", root, (str, Path), "give a folder")
        check_int("image_size", image_size)
        check_int("channels", channels, "give 1 (grey) or 3 (colour)")
        check_number("max_memory_gb", max_memory_gb, "give a number of 10^9 bytes above 0", above=0)
        require(image_size >= 1, "image_size", image_size, "must be at least 1")
        require(channels in (1, 3), "channels", channels, "must be 1 (grey) or 3 (colour)")
        self.mean, self.std = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)) if channels == 3 else ((0.449,), (0.226,))
        self.input_shape = (channels, image_size, image_size)
        self.max_memory_gb = max_memory_gb
        super().__init__(
            root,
            batch_size,
            eval_batch_size,
            val_size,
            train_size,
            seed,
            split_seed,
            scaling,
            drop_last,
            False,
            held_out,
        )
        self.classes = self._classes("train")

    @override
    def read(self, train: bool) -> Images:
        return self._read("train" if train else "test")

    @override
    def read_validation(self) -> Images | None:
        split = self._validation
        return None if split is None else self._read(split)

    @property
    def _validation(self) -> str | None:
        """Name of the folder of validation pictures, if there is one."""
        return next((name for name in _VALIDATION if (Path(self.root) / name).is_dir()), None)

    def _classes(self, split: str) -> list[str]:
        """Return the sorted names of a split's class folders."""
        folder = Path(self.root) / split
        if not folder.is_dir():
            raise FileNotFoundError(f"ImageFolder: no folder '{folder}': root needs {split}/<class>/ with pictures.")
        names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
        if not names:
            raise FileNotFoundError(f"ImageFolder: no class folder in '{folder}': make one folder a class.")
        return names

    def _read(self, split: str) -> Images:
        self._check_classes(split)
        files = [self._files(split, name) for name in self.classes]
        for name, found in zip(self.classes, files, strict=True):
            if not found and split == "train":
                raise ValueError(f"ImageFolder: class {name!r} has no picture in '{Path(self.root) / split / name}'.")
        self._check_memory()
        labels = torch.arange(len(files)).repeat_interleave(torch.tensor([len(found) for found in files]))
        return decode([path for found in files for path in found], self.input_shape), labels

    def _files(self, split: str, name: str) -> list[Path]:
        """Return the pictures of a class, sorted, including subfolders."""
        folder = Path(self.root) / split / name
        files = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")]
        others = sorted({path.suffix for path in files if path.suffix.lower() not in EXTENSIONS})
        if others:
            rank_zero_warn(f"ImageFolder: files in '{folder}' that end in {', '.join(others)} are left out")
        return sorted(path for path in files if path.suffix.lower() in EXTENSIONS)

    def _check_classes(self, split: str) -> None:
        only = sorted(set(self._classes(split)) - set(self.classes))
        if only:
            raise ValueError(
                f"ImageFolder: '{split}' has the classes {only}, which 'train' lacks: give 'train' pictures "
                "of them, or remove them"
            )

    def _check_memory(self) -> None:
        count = sum(len(self._files(split, name)) for split in ("train", *_VALIDATION, "test") for name in self.classes)
        size = count * int(np.prod(self.input_shape)) / 1e9
        remedy = f"is less than the {size:.3g} GB that {count} images take: raise it or lower image_size or channels"
        require(size <= self.max_memory_gb, "max_memory_gb", self.max_memory_gb, remedy)


def decode(paths: list[Path], shape: tuple[int, int, int]) -> torch.Tensor:
    """Read pictures into memory with a pool of threads.

    Args:
        paths: The S files.
        shape: ``(C, H, W)`` to resize them to.

    Returns:
        Images, uint8, shape ``(S, C, H, W)``.
    """
    images = np.empty((len(paths), *shape), dtype=np.uint8)

    def write(number: int) -> None:
        images[number] = _pixels(paths[number], shape)

    with ThreadPoolExecutor() as pool:
        for _ in pool.map(write, range(len(paths))):
            pass
    return torch.from_numpy(images)


def _pixels(path: Path, shape: tuple[int, int, int]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    from PIL import Image, ImageOps

    channels, height, width = shape
    try:
        with Image.open(path, formats=FORMATS) as opened:
            image = _eight_bits(ImageOps.exif_transpose(opened)).convert("RGB" if channels == 3 else "L")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # of damaged files
        raise RuntimeError(f"ImageFolder: '{path}' cannot be read ({error}): replace or remove it.") from None
    image = ImageOps.fit(image, (width, height), Image.Resampling.BILINEAR)
    return np.asarray(image, dtype=np.uint8).reshape(height, width, channels).transpose(2, 0, 1)


def _eight_bits(image: Any) -> Any:
    """A picture with 8 bits a channel and without transparency.

    Raises:
        ValueError: its pixels are floating-point numbers.
    """
    from PIL import Image

    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers, of no known range")
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image).clip(0, 65535) / 257).round().astype(np.uint8))
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "La", "RGBa"):
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image
