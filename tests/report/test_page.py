"""The page of real runs: its numbers are those of their files, and it needs nothing beside it."""

from __future__ import annotations

import base64
import csv
import io
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger
from PIL import Image

from lightning_ff import ForwardForward
from lightning_ff.data import Digits
from lightning_ff.report import write_report
from tests.report.page_reader import Page, Table, read_page

DASH = "\u2013"


def values(run: Path, key: str) -> list[float]:
    """A column of a run's metrics, read without the package."""
    with (run / "metrics.csv").open(newline="") as file:
        return [float(row[key]) for row in csv.DictReader(file) if row.get(key)]


def written(numbers: list[float], decimals: int = 2) -> list[str]:
    """Mean and deviation as the page writes them."""
    return [f"{np.mean(numbers):.{decimals}f}", f"±\u2009{np.std(numbers, ddof=1):.{decimals}f}"]


def row_of(table: Table, name: str) -> list[str]:
    """Cells of a configuration's row, its letter and name left out."""
    (found,) = [row[1:] for row in table.rows if row[0].partition(" ")[2] == name]
    return found


# Numbers


def test_seeds_become_mean_and_deviation(page: Page, runs: Any) -> None:
    best = [100 * max(values(run, "val/acc")) for run in runs.seeds]
    last = [100 * values(run, "val/acc")[-1] for run in runs.seeds]
    assert best[0] != best[1]
    row = row_of(page.table("Accuracy of the networks"), "ff")
    assert row[0] == "2"
    assert row[3:7] == [*written(best), *written(last)]


def test_the_test_of_a_checkpoint_belongs_to_its_run(page: Page, runs: Any) -> None:
    tested = 100 * values(runs.tested, "test/acc")[0]
    table = page.table("Accuracy of the networks")
    assert table.rows[0][2] == "Test, last checkpoint"
    assert row_of(table, "ff")[1:3] == [f"{tested:.2f}", " n\u2009=\u20091"]
    assert "tested" not in " ".join(row[0] for row in page.table("The configurations").rows)


def test_a_run_of_another_method_stands_beside_them(page: Page, runs: Any) -> None:
    last = f"{100 * values(runs.backprop, 'val/acc')[-1]:.2f}"
    assert row_of(page.table("Accuracy of the networks"), "backprop")[1:7] == [DASH, "", last, "", last, ""]
    assert row_of(page.table("The configurations"), "backprop")[:3] == ["Backprop", "Digits", "1"]
    assert row_of(page.table("The configurations"), "ff")[:3] == ["ForwardForward", "Digits", "2"]


def test_a_run_that_broke_off_is_not_put_together_with_others(page: Page, runs: Any) -> None:
    assert values(runs.broken, "val/acc") == []
    row = row_of(page.table("Accuracy of the networks"), "ff, stopped early")
    assert row[:7] == ["1", DASH, "", DASH, "", DASH, ""]
    assert f"{runs.broken}: stopped in epoch 1 of 2" in page.text
    assert row[8] == DASH  # its time


def test_blocks(page: Page, runs: Any) -> None:
    table = page.table("Accuracy of each block")
    letters = [row[0].split()[0] for row in page.table("The configurations").rows[1:]]
    assert table.rows[0] == ["Block", *letters]
    assert row_of(page.table("The configurations"), "ff") == page.table("The configurations").rows[2][1:]
    for block in ("block00", "block01"):
        last = [100 * values(run, f"val/acc/{block}")[-1] for run in runs.seeds]
        assert table.row(block) == [DASH, *written(last), DASH]


def test_single_runs(page: Page, runs: Any) -> None:
    table = page.table("Single runs")
    for seed, run in enumerate(runs.seeds):
        row = table.row(str(run))
        assert row[0] == f"seed_everything {seed}, data.seed {seed}"
        assert row[1] == "2 of 2"
        assert row[3:5] == [f"{100 * max(values(run, 'val/acc')):.2f}", f"{100 * values(run, 'val/acc')[-1]:.2f}"]
        assert f"lightning-ff fit --config {run}/config.yaml" in page.text
        assert f"lightning-ff test --config {run}/config.yaml --ckpt_path {run}/checkpoints/last.ckpt" in page.text
    assert table.row(str(runs.broken))[1] == "1 of 2"


def test_training_time_is_that_between_files(page: Page, runs: Any) -> None:
    spans = [
        max(file.stat().st_mtime for file in (run / "checkpoints").iterdir()) - (run / "config.yaml").stat().st_mtime
        for run in runs.seeds
    ]
    seconds = round(float(np.mean(spans)), 1)
    shown = row_of(page.table("Accuracy of the networks"), "ff")[-1]
    minutes, rest = re.fullmatch(r"≈\u2009(?:(\d+)\xa0min\xa0)?([\d.]+)\xa0s", shown).groups()  # type: ignore[union-attr]
    assert 60 * int(minutes or 0) + float(rest) == pytest.approx(seconds, abs=0.51)


def test_a_copied_run_has_no_training_time(runs: Any, tmp_path: Path) -> None:
    copied = tmp_path / "copied" / "version_0"
    shutil.copytree(runs.seeds[0], copied, copy_function=shutil.copyfile)
    (copied / "config.yaml").write_bytes((runs.seeds[0] / "config.yaml").read_bytes())
    table = read_page(write_report([copied], tmp_path / "page.html")).table("Accuracy of the networks")
    assert row_of(table, "copied")[-1] == DASH


# Representations


def test_sparsity_is_that_of_the_monitor_s_table(page: Page, runs: Any) -> None:
    """Against the CSV file that the monitor writes beside the arrays."""
    with (runs.tested / "representations/test.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["layer"] == "block01"]
    count, hoyer = (np.array([float(row[key]) for row in rows]) for key in ("count", "hoyer"))
    known = ~np.isnan(hoyer)
    mean = (count * hoyer)[known].sum() / count[known].sum()
    table = page.table("Sparsity of each layer")
    assert "the correctly classified samples of the test" in table.caption
    assert table.row("block01")[:2] == ["12", f"{mean:.3f}"]
    sizes = np.array([int(row["ensemble_size"]) for row in rows])
    ensembles = page.table("Ensembles of the classes")
    assert "leave_one_out k=1" in ensembles.caption
    shown = ensembles.row("block01")
    assert shown[:6:2] == [shown[0], " n\u2009=\u20091", " n\u2009=\u20091"]
    assert [shown[1], shown[3], shown[5]] == [f"{number:.1f}" for number in (sizes.mean(), sizes.min(), sizes.max())]


def test_pictures_are_drawn_from_the_arrays(page: Page) -> None:
    alts = [attributes["alt"] or "" for tag, attributes in page.tags if tag == "img"]
    kinds = ["Activations, ff", "Mean activity of block00", "Dissimilarity of classes, ff", "Weights of ff"]
    kinds += ["block00 to block01", "Units shared by ensembles of block01", "Bars of Hoyer", "Bars of the sizes"]
    for said in kinds:
        assert any(said in alt for alt in alts), said
    assert any(alt.startswith("goodness of ") for alt in alts)


# Configuration


def test_differences_come_first_and_the_whole_file_follows(page: Page, runs: Any) -> None:
    table = page.table("Settings in which the configurations differ")
    assert table.row("model") == ["Backprop", "ForwardForward", "ForwardForward"]
    assert table.row("trainer.max_epochs") == ["1", "2", "2"]
    assert not [row for row in table.rows if "seed" in row[0] or "logger" in row[0]]
    text = (runs.seeds[0] / "config.yaml").read_text()
    assert yaml.safe_load(text)["model"]["class_path"] in page.text
    assert text in page.text


# The document


def test_the_page_needs_nothing_beside_it(page: Page) -> None:
    tags = [tag for tag, _ in page.tags]
    assert not {"script", "link", "iframe", "object", "embed"} & set(tags)
    for tag, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "href"):
                assert (value or "").startswith(("#", "data:image/")), (tag, value)
    assert "url(" not in page.style
    assert "@import" not in page.style
    (policy,) = [each["content"] for tag, each in page.tags if tag == "meta" and "http-equiv" in each]
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_every_picture_is_whole(page: Page) -> None:
    assert len(page.images) > 8
    for source in page.images:
        head, _, data = source.partition(",")
        assert head == "data:image/png;base64"
        with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
            assert np.asarray(picture.convert("L")).std() > 0


def test_contents_lead_to_every_section(page: Page) -> None:
    sections = [attributes["id"] for tag, attributes in page.tags if tag == "section"]
    assert [a["href"] for tag, a in page.tags if tag == "a"] == [f"#{section}" for section in sections]
    assert sections == [
        *("configurations", "accuracy", "training", "sparsity", "ensembles", "pictures", "configuration", "runs")
    ]


# Other runs


def test_a_run_from_python(tmp_path: Path) -> None:
    """Without a configuration, in a folder of its own name: the arguments are known, the data are not."""
    logger = CSVLogger(tmp_path, name="mine")
    trainer = Trainer(
        max_epochs=1, accelerator="cpu", logger=logger, limit_train_batches=2, limit_val_batches=1,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False, log_every_n_steps=1,
    )  # fmt: skip
    trainer.fit(ForwardForward(10, (1, 8, 8), [8]), Digits())
    page = read_page(write_report([tmp_path], tmp_path / "page.html"))
    assert row_of(page.table("The configurations"), "mine")[:3] == ["ForwardForward", DASH, "1"]
    accuracy = f"{100 * float(trainer.callback_metrics['val/acc']):.2f}"
    assert row_of(page.table("Accuracy of the networks"), "mine")[1:6] == [DASH, accuracy, accuracy, "1", DASH]
    assert "made from Python" in page.text
    assert "widths:" in page.text


def test_a_folder_without_metrics_says_so(folder: Any, tmp_path: Path) -> None:
    made = folder(config_yaml="model: {class_path: lightning_ff.ForwardForward}\n")
    page = read_page(write_report([made], tmp_path / "page.html"))
    assert f"{made}: no readable metrics: neither metrics.csv nor TensorBoard events" in page.text
    assert row_of(page.table("Accuracy of the networks"), "made")[1:] == [DASH] * 5
    assert "Training" not in page.text.split("What is compared")[0]


def test_more_configurations_than_fit_across(folder: Any, tmp_path: Path) -> None:
    """Tables turn round: each configuration becomes a row, and its settings a part."""
    for i in range(8):
        folder(f"logs/many{i}/version_0", config_yaml=f"model:\n  class_path: a.B\n  init_args: {{alpha: {i}}}\n",
               metrics_csv=f"epoch,step,test/acc,test/acc/block00\n0,9,0.5,0.{i}\n")  # fmt: skip
    page = read_page(write_report([tmp_path / "logs"], tmp_path / "page.html"))
    blocks = page.table("Accuracy of each block")
    assert [row[1] for row in blocks.rows] == ["block00", *(f"{10 * i}.00" for i in range(8))]
    settings = page.table("Settings in which")
    assert [row for row in settings.rows if row[0] == "model.alpha"] == [["model.alpha", str(i)] for i in range(8)]
