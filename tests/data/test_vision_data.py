"""Data sets read through torchvision: made-up files in the real formats, the real ones, and missing or damaged ones."""

from __future__ import annotations

import pickle
import struct
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import scipy.io
import torch
import torchvision.datasets
from lightning.pytorch import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel

from lightning_ff.data import CIFAR10, CIFAR100, MNIST, SVHN, FashionMNIST
from lightning_ff.data.vision import TorchvisionData

ALL: list[type[TorchvisionData]] = [MNIST, FashionMNIST, CIFAR10, CIFAR100, SVHN]
RNG = np.random.default_rng(0)


def write_idx(path: Path, array: np.ndarray[Any, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    header = struct.pack(f">I{array.ndim}I", 0x800 + array.ndim, *array.shape)
    path.write_bytes(header + array.astype(np.uint8).tobytes())


def write_mnist(root: Path, name: str) -> np.ndarray[Any, Any]:
    images = RNG.integers(0, 256, (40, 28, 28))
    for part, rows in (("train", slice(0, 30)), ("t10k", slice(30, 40))):
        write_idx(root / name / "raw" / f"{part}-images-idx3-ubyte", images[rows])
        write_idx(root / name / "raw" / f"{part}-labels-idx1-ubyte", np.arange(40)[rows] % 10)
    return images[:, None]


def write_cifar(root: Path, files: tuple[str, ...], key: str, labels: int) -> np.ndarray[Any, Any]:
    images = RNG.integers(0, 256, (len(files) - 1, 20, 3, 32, 32), dtype=np.uint8)
    for name, part in zip(files, images, strict=False):
        (root / name).parent.mkdir(exist_ok=True)
        content = {"data": part.reshape(20, -1), key: [number % labels for number in range(20)]}
        (root / name).write_bytes(pickle.dumps(content))
    (root / files[-1]).write_bytes(pickle.dumps({"label_names": [], "fine_label_names": []}))
    return images


@pytest.mark.parametrize("kind", [MNIST, FashionMNIST])
def test_idx_files_are_read_in_order(tmp_path: Path, kind: type[TorchvisionData]) -> None:
    images = write_mnist(tmp_path, kind.source)
    module = kind(root=str(tmp_path), val_size=0, batch_size=30)
    module.prepare_data()  # nothing is missing, so nothing is fetched
    for train, rows in ((True, slice(0, 30)), (False, slice(30, 40))):
        stored, labels = module.read(train)
        np.testing.assert_array_equal(stored.numpy(), images[rows])
        assert labels.tolist() == [number % 10 for number in range(40)[rows]]
    module.setup("fit")
    batch = next(iter(module.train_dataloader()))
    np.testing.assert_allclose(batch.image.numpy(), images[batch.index.numpy()] / 255, rtol=1e-6)


@pytest.mark.parametrize("scaling", ["unit", "standard"])
@pytest.mark.parametrize("kind", [MNIST, FashionMNIST])
def test_grey_images_in_three_channels(tmp_path: Path, kind: type[MNIST], scaling: Any) -> None:
    write_mnist(tmp_path, kind.source)
    grey, colour = (kind(str(tmp_path), colour=c, val_size=0, batch_size=30, scaling=scaling) for c in (False, True))
    assert colour.input_shape == (3, 28, 28)
    assert grey.input_shape == kind.input_shape == (1, 28, 28)
    assert colour.input_max == grey.input_max
    batches = []
    for module in (grey, colour):
        module.setup("fit")
        batches.append(next(iter(module.train_dataloader())).image)
    torch.testing.assert_close(batches[1], batches[0].repeat(1, 3, 1, 1))


@pytest.mark.parametrize(("kind", "key"), [(CIFAR10, "labels"), (CIFAR100, "fine_labels")])
def test_cifar_files_are_read_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[TorchvisionData], key: str
) -> None:
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    images = write_cifar(tmp_path, kind.files, key, 10)
    module = kind(root=str(tmp_path))
    stored, labels = module.read(train=True)
    assert stored.is_contiguous()
    np.testing.assert_array_equal(stored.numpy(), images[:-1].reshape(-1, 3, 32, 32))
    assert labels.tolist() == [number % 10 for number in range(20)] * (len(images) - 1)
    np.testing.assert_array_equal(module.read(train=False)[0].numpy(), images[-1])


def test_svhn_files_are_read_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchvision.datasets.SVHN, "_check_integrity", lambda _: True)
    images = RNG.integers(0, 256, (32, 32, 3, 30), dtype=np.uint8)
    labels = np.arange(30).reshape(-1, 1) % 10 + 1
    scipy.io.savemat(tmp_path / "train_32x32.mat", {"X": images, "y": labels})
    module = SVHN(root=str(tmp_path), val_size=0, download=False)
    module.setup("fit")  # needs no test file
    stored, numbers = module.read(train=True)
    np.testing.assert_array_equal(stored.numpy(), images.transpose(3, 2, 0, 1))
    assert numbers.tolist() == [(number + 1) % 10 for number in range(30)]
    assert numbers.dtype == torch.int64


@pytest.mark.parametrize("kind", ALL)
def test_attributes_are_there_after_construction_and_need_no_files(kind: type[TorchvisionData]) -> None:
    module = kind(root="/nowhere", scaling="standard")
    classes = 100 if kind is CIFAR100 else 10
    assert module.num_classes == len(set(module.class_names)) == classes
    assert module.input_shape == ((1, 28, 28) if kind in (MNIST, FashionMNIST) else (3, 32, 32))
    assert 1.5 < module.input_max < 3.5


def test_class_names_are_those_of_torchvision() -> None:
    assert FashionMNIST().class_names == torchvision.datasets.FashionMNIST.classes
    assert CIFAR100().class_names == sorted(CIFAR100().class_names)


# --- missing and damaged --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ALL)
def test_missing_files_without_download_are_one_sentence(tmp_path: Path, kind: type[TorchvisionData]) -> None:
    module = kind(root=str(tmp_path), download=False)
    module.prepare_data()
    folder = (tmp_path / kind.files[0]).parent
    for stage in ("fit", "test"):
        with pytest.raises(FileNotFoundError) as caught:
            module.setup(stage)
        assert str(caught.value) == (
            f"{kind.source} is not in '{folder}' (no '{Path(kind.files[0]).name}'): put the files of the data set"
            " there, or set download=True and let prepare_data(), which a Trainer calls, fetch them."
        )
        assert caught.value.__suppress_context__


@pytest.mark.parametrize("kind", ALL)
def test_missing_files_without_a_network_are_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[TorchvisionData]
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise URLError("no network here")

    monkeypatch.setattr("urllib.request.urlopen", fail)
    trainer = Trainer(
        accelerator="cpu", logger=False, max_epochs=1, enable_checkpointing=False, enable_progress_bar=False
    )
    with pytest.raises(FileNotFoundError) as caught:
        trainer.fit(BoringModel(), kind(root=str(tmp_path)))
    folder = (tmp_path / kind.files[0]).parent
    assert str(caught.value) == (
        f"{kind.source} is not in '{folder}' and could not be downloaded (<urlopen error no network here>): check the"
        " network and the folder, or put the files of the data set there by hand."
    )
    assert caught.value.__suppress_context__


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def overwrite(path: Path) -> None:
    path.write_bytes(b"<html>404</html>")


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut, overwrite, empty])
@pytest.mark.parametrize("number", [0, 1])
def test_a_damaged_mnist_file_is_one_sentence(tmp_path: Path, damage: Any, number: int) -> None:
    write_mnist(tmp_path, "MNIST")
    damage(tmp_path / MNIST.files[number])
    with pytest.raises(
        RuntimeError, match=r"^MNIST in '.*MNIST/raw' is damaged \(.*\): delete .* download=True"
    ) as caught:
        MNIST(root=str(tmp_path)).setup("fit")
    assert caught.value.__suppress_context__
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", [CIFAR10, CIFAR100, SVHN])
def test_a_file_with_another_check_sum_is_one_sentence(tmp_path: Path, kind: type[TorchvisionData]) -> None:
    for name in kind.files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"not this")
    module = kind(root=str(tmp_path), download=False)
    with pytest.raises(
        RuntimeError, match=rf"^{kind.source} in '.*' is damaged \(Dataset not found or corrupted\): dele"
    ):
        module.setup("fit")


# --- real files -----------------------------------------------------------------------------------------------------


@pytest.mark.realdata
@pytest.mark.parametrize("kind", [MNIST, FashionMNIST, CIFAR10])
def test_real_data_is_that_of_torchvision(real_root: str, kind: type[TorchvisionData]) -> None:
    module = kind(root=real_root, scaling="standard", download=False)
    module.setup("fit")
    module.setup("test")
    train, val, test = module.train_dataloader(), module.val_dataloader(), module.test_dataloader()
    assert not isinstance(val, list)
    stored = 50_000 if kind is CIFAR10 else 60_000
    assert (len(train.index), len(val.index), len(test.index)) == (stored * 9 // 10, stored // 10, 10_000)

    theirs = getattr(torchvision.datasets, kind.source)(real_root, train=True, download=False)
    assert module.class_names == list(theirs.classes) or kind is MNIST
    batch = next(iter(train))
    for image, label, index in list(zip(*batch, strict=True))[:5]:
        picture, number = theirs[int(index)]
        pixels = np.asarray(picture).reshape(*module.input_shape[1:], -1).transpose(2, 0, 1) / 255
        mean, std = (np.array(values).reshape(-1, 1, 1) for values in (module.mean, module.std))
        np.testing.assert_allclose(image.numpy(), (pixels - mean) / std, atol=1e-5)
        assert int(label) == number

    pixels = module.read(train=True)[0].numpy() / 255
    assert pixels.mean((0, 2, 3)) == pytest.approx(module.mean, abs=1e-4)
    assert pixels.std((0, 2, 3)) == pytest.approx(module.std, abs=1e-4)
    assert max(float(batch.image.max()) for batch in test) <= module.input_max + 1e-5
