"""ImageFolder: custom pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.demos.boring_classes import BoringModel
from PIL import Image

from lightning_ff.data import ImageData, ImageFolder

RNG = np.random.default_rng(0)


def draw(root: Path, split: str, name: str, numbers: range, size: int = 8, suffix: str = "png") -> list[Any]:
    folder = root / split / name
    folder.mkdir(parents=True, exist_ok=True)
    pictures = [RNG.integers(0, 256, (size, size, 3), dtype=np.uint8) for _ in numbers]
    for number, picture in zip(numbers, pictures, strict=True):
        Image.fromarray(picture).save(folder / f"{number:03}.{suffix}")
    return pictures


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for split, count in (("train", 10), ("test", 3)):
        for name in ("cat", "ant", "bee"):
            draw(tmp_path, split, name, range(count))
    return tmp_path


def make(root: Path, **arguments: Any) -> ImageFolder:
    return ImageFolder(str(root), **{"image_size": 8, **arguments})


def test_pictures_are_read_in_sorted_order(tmp_path: Path) -> None:
    ants = draw(tmp_path, "train", "ant", range(4))
    cats = draw(tmp_path, "train", "cat", range(2, 5), suffix="BMP") + draw(tmp_path, "train", "cat/more", range(2))
    (tmp_path / "train" / ".cache").mkdir()
    (tmp_path / "train" / "ant" / "notes.txt").write_text("not a picture")
    (tmp_path / "train" / "ant" / "._000.png").write_bytes(b"not one either")

    module = make(tmp_path, val_size=0)
    assert (module.num_classes, module.input_shape, module.class_names) == (2, (3, 8, 8), ["ant", "cat"])
    with pytest.warns(UserWarning, match=r"files in '.*ant' that end in \.txt are left out"):
        images, labels = module.read(train=True)
    assert images.dtype == torch.uint8
    np.testing.assert_array_equal(images.numpy(), np.stack(ants + cats).transpose(0, 3, 1, 2))
    assert labels.tolist() == [0] * 4 + [1] * 5
    (tmp_path / "train" / "ant" / "notes.txt").unlink()
    module.setup("fit")
    batch = next(iter(module.train_dataloader()))
    np.testing.assert_allclose(batch.image.numpy(), images[batch.index].numpy() / 255, rtol=1e-6)
    assert module.val_dataloader() == []


def test_pictures_are_scaled_to_cover_and_cropped_in_the_middle(tmp_path: Path) -> None:
    picture = np.zeros((10, 40, 3), dtype=np.uint8)
    picture[:, 15:25] = 200  # the middle 10 by 10
    (tmp_path / "train" / "a").mkdir(parents=True)
    Image.fromarray(picture).save(tmp_path / "train" / "a" / "wide.png")
    images, _ = make(tmp_path, image_size=5).read(train=True)
    assert images.shape == (1, 3, 5, 5)
    assert (images[..., 1:-1] == 200).all()


def test_grey_and_colour(root: Path) -> None:
    grey = make(root, channels=1, scaling="standard")
    assert grey.input_shape == (1, 8, 8)
    with Image.open(root / "train" / "ant" / "000.png") as picture:
        np.testing.assert_array_equal(grey.read(True)[0][0, 0].numpy(), np.asarray(picture.convert("L")))
    assert grey.input_max == pytest.approx((1 - 0.449) / 0.226)
    assert make(root, scaling="standard").input_max == pytest.approx((1 - 0.406) / 0.225)


def test_turned_pictures_are_put_upright(tmp_path: Path) -> None:
    (tmp_path / "train" / "a").mkdir(parents=True)
    picture = Image.fromarray(RNG.integers(0, 256, (8, 8, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    picture.save(tmp_path / "train" / "a" / "turned.png", exif=exif)
    images, _ = make(tmp_path).read(train=True)
    np.testing.assert_array_equal(images[0].permute(1, 2, 0).numpy(), np.asarray(picture)[::-1, ::-1])


def test_validation_comes_from_its_folder_or_else_from_train(root: Path) -> None:
    module = make(root, val_size=6)
    module.setup("fit")
    val = module.val_dataloader()
    assert not isinstance(val, list)
    assert (len(val.index), len(module.train_dataloader().index)) == (6, 24)

    for name in ("cat", "ant", "bee"):
        draw(root, "val", name, range(2))
    module = make(root, val_size=6)
    module.setup("fit")
    val = module.val_dataloader()
    assert not isinstance(val, list)
    assert (val.index.tolist(), len(module.train_dataloader().index)) == (list(range(6)), 30)


def test_fit_does_not_open_test_pictures(root: Path) -> None:
    (root / "test" / "ant" / "000.png").write_bytes(b"damaged")
    module = make(root)
    module.setup("fit")
    with pytest.raises(
        RuntimeError, match=r"^ImageFolder: '.*test/ant/000.png' cannot be read .*: replace or remove it"
    ):
        module.setup("test")


# --- errors ---------------------------------------------------------------------------------------------------------


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no folder '.*/train': root needs train/<class>/ with pictures"):
        make(tmp_path)
    (tmp_path / "train").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no class folder in '.*/train': make one folder a class"):
        make(tmp_path)


def test_no_test_folder(tmp_path: Path) -> None:
    draw(tmp_path, "train", "a", range(5))
    module = make(tmp_path, val_size=0)
    module.setup("fit")
    with pytest.raises(FileNotFoundError, match=r"no folder '.*/test': root needs test/<class>/ with pictures"):
        module.setup("test")


def test_an_empty_class(root: Path) -> None:
    (root / "train" / "dog").mkdir()
    with pytest.raises(ValueError, match=r"class 'dog' has no picture in '.*train/dog'"):
        make(root).setup("fit")


def test_classes_that_differ(root: Path) -> None:
    (root / "test" / "ant").rename(root / "moved")
    for path in (root / "test" / "bee").iterdir():
        path.unlink()
    module = make(root)
    module.setup("test")
    assert torch.cat([batch.label for batch in module.test_dataloader()]).tolist() == [2] * 3  # of cat alone
    draw(root, "test", "yak", range(1))
    with pytest.raises(ValueError, match=r"'test' has the classes \['yak'\], which 'train' lacks"):
        make(root).setup("test")


@pytest.mark.parametrize("name", ["valid", "validation"])
def test_other_names_of_the_validation_folder(root: Path, name: str) -> None:
    draw(root, name, "ant", range(2))
    module = make(root)
    module.setup("fit")
    loader: Any = module.val_dataloader()
    assert len(loader.images) == 2
    assert len(module.train_dataloader().images) == 30


def pixels(root: Path, picture: Image.Image, file: str, **arguments: Any) -> list[int]:
    """Values of the one grey row of a picture."""
    folder = root / "train" / "a"
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    picture.save(folder / file, **arguments)
    images, _ = make(root, channels=1, image_size=4).read(train=True)
    return [int(value) for value in images[0, 0, 0]]


def test_pictures_that_are_not_8_bit(tmp_path: Path) -> None:
    row = np.tile(np.array([0, 257, 128 * 257, 65535], dtype=np.uint16), (4, 1))
    assert pixels(tmp_path, Image.fromarray(row), "a.png") == [0, 1, 128, 255]
    assert pixels(tmp_path, Image.fromarray(row), "a.tif") == [0, 1, 128, 255]
    alpha = np.tile(np.array([0, 85, 170, 255], dtype=np.uint8), (4, 1))
    glyph = Image.fromarray(np.stack((np.zeros_like(alpha), alpha), -1), "LA")  # black ink, drawn in alpha
    assert pixels(tmp_path, glyph, "a.png") == [255, 170, 85, 0]
    palette = Image.fromarray(alpha // 85, "P")
    palette.putpalette([0, 0, 0, 80, 80, 80, 160, 160, 160, 240, 240, 240])
    assert pixels(tmp_path, palette, "a.gif", transparency=0) == [255, 80, 160, 240]
    with pytest.raises(RuntimeError, match="its pixels are floating-point numbers, of no known range"):
        pixels(tmp_path, Image.fromarray(row.astype(np.float32)), "a.tiff")


def test_other_names_of_jpeg_files(tmp_path: Path) -> None:
    folder = tmp_path / "train" / "a"
    folder.mkdir(parents=True)
    for name in ("a.jfif", "b.jpe", "c.JPG"):
        Image.new("L", (8, 8), 99).save(folder / name, format="JPEG")
    images, _ = make(tmp_path, channels=1).read(train=True)
    assert images.shape[0] == 3
    assert (images == 99).all()


@pytest.mark.parametrize(
    ("kind", "content"), [("EPS", None), ("PostScript", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n")]
)
def test_programs_named_as_pictures_are_not_decoded(tmp_path: Path, kind: str, content: bytes | None) -> None:
    """Pillow would start Ghostscript for them, where that is installed."""
    folder = tmp_path / "train" / "a"
    folder.mkdir(parents=True)
    if content is None:
        Image.new("RGB", (8, 8)).save(folder / "a.png", format="EPS")
    else:
        (folder / "a.png").write_bytes(content)
    with Image.open(folder / "a.png") as opened:
        assert opened.format == "EPS"
    with pytest.raises(RuntimeError, match=r"a.png' cannot be read \(cannot identify image file"):
        make(tmp_path).read(train=True)


def test_a_decompression_bomb_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw(tmp_path, "train", "a", range(1), size=64)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 64 // 3)  # as small as a test can be
    with pytest.raises(RuntimeError, match=r"000.png' cannot be read \(Image size \(4096 pixels\) exceeds limit"):
        make(tmp_path).read(train=True)


def test_links_that_form_a_circle_are_followed_once(tmp_path: Path) -> None:
    draw(tmp_path, "train", "a", range(2))
    (tmp_path / "train" / "a" / "again").symlink_to(tmp_path / "train" / "a", target_is_directory=True)
    images, _ = make(tmp_path, val_size=0).read(train=True)
    assert len(images) in (2, 4)  # Python before 3.13 follows a link once


def test_a_damaged_picture(root: Path) -> None:
    path = root / "train" / "bee" / "004.png"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(RuntimeError, match=r"train/bee/004.png' cannot be read \(.*\): replace or remove it") as caught:
        make(root).setup("fit")
    assert caught.value.__suppress_context__


def test_more_than_fits_in_memory_is_refused_before_anything_is_read(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightning_ff.data.folder.decode", None)
    module = make(root, max_memory_gb=7e-6)
    message = r"max_memory_gb=7e-06 is less than the 7.49e-06 GB that 39 images take: raise it or lower image_size"
    with pytest.raises(ValueError, match=message):
        module.setup("fit")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_size": 0}, "image_size=0 must be at least 1"),
        ({"channels": 2}, r"channels=2 must be 1 \(grey\) or 3 \(colour\)"),
        ({"batch_size": 0}, "batch_size=0 must be at least 1"),
    ],
)
def test_bad_arguments(root: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(root, **arguments)


def test_the_command_line(root: Path) -> None:
    arguments = [f"--data.root={root}", "--data.image_size=4", "--data.channels=1", "--data.val_size=0.2"]
    cli = LightningCLI(
        BoringModel,
        ImageData,
        subclass_mode_data=True,
        run=False,
        save_config_callback=None,
        args=["--data=ImageFolder", *arguments],
    )
    assert isinstance(cli.datamodule, ImageFolder)
    assert cli.datamodule.input_shape == (1, 4, 4)
    assert cli.datamodule.val_size == 0.2
