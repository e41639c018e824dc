"""Handwritten digits of scikit-learn: real data without files and without a download."""

from __future__ import annotations

import torch
from typing_extensions import override

from lightning_ff.data.base import ImageData, Images

TEST_IMAGES = 360


class Digits(ImageData):
    """The 1797 digits of 8 by 8 pixels (0..16) of ``sklearn.datasets.load_digits``.

    360 of them are the test set, always the same: those of scikit-learn's
    ``train_test_split(test_size=360, stratify=labels, random_state=0)``. ``root`` and ``download`` have no effect.

    >>> data = Digits(val_size=0)
    >>> data.setup("fit")
    >>> next(iter(data.train_dataloader())).image.shape
    torch.Size([128, 1, 8, 8])
    """

    classes = tuple("0123456789")
    input_shape = (1, 8, 8)
    pixel_max = 16.0
    mean = (0.3054,)
    std = (0.3761,)

    @override
    def read(self, train: bool) -> Images:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        digits = load_digits()
        images = torch.from_numpy(digits.images).to(torch.uint8).unsqueeze(1)
        labels = torch.from_numpy(digits.target).to(torch.int64)
        parts = train_test_split(range(len(labels)), test_size=TEST_IMAGES, stratify=digits.target, random_state=0)
        rows = torch.tensor(sorted(parts[0 if train else 1]))
        return images[rows], labels[rows]
