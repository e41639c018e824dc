"""Numbers of layers from a file written by hand, and files that are broken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lightning_ff.metrics import null_jaccard
from lightning_ff.report import write_report
from lightning_ff.report.numbers import fixed
from lightning_ff.report.representations import Representation, read_representation
from lightning_ff.report.runs import read_run
from tests.report.page_reader import Page, read_page

ROW = "epoch,step,test/acc\n0,9,0.5\n"


@pytest.fixture
def made(folder: Callable[..., Path], statistics: dict[str, Any], store: Any) -> Path:
    run = folder(metrics_csv=ROW)
    store(run, "test", statistics)
    return run


@pytest.fixture
def page(made: Path, tmp_path: Path) -> Page:
    return read_page(write_report([made], tmp_path / "page.html"))


def test_layer_values_are_means_over_samples_of_the_seen_classes(page: Page) -> None:
    """Hoyer (1 * .2 + 3 * .6) / 4; Treves-Rolls of the one class that has it; active (1 * .5 + 3 * .25) / 4."""
    table = page.table("Sparsity of each layer")
    assert table.rows[0] == ["Layer", "Units", "Hoyer", "Treves\u2013Rolls", "Active, per cent", "Dead units"]
    assert table.row("block00") == ["4", "0.500", "0.100", "31.2", "1"]
    assert table.caption.startswith("A made: Sparsity of each layer, mean over the correctly classified samples of")


def test_ensembles_are_those_of_the_seen_classes(page: Page) -> None:
    """Sizes 2 and 3 of 4 units, one unit of 4 in both, none in neither."""
    table = page.table("Ensembles of the classes by the definition leave_one_out k=1")
    assert table.row("block00") == ["4", "2.5", "2.0", "3.0", "62.5", "0.250", "1.0", "0.0"]
    sizes = page.table("block00: units in the ensemble")
    assert [row[0] for row in sizes.rows[1:]] == ["cat", "dog", "<owl>"]
    assert [row[1] for row in sizes.rows[1:]] == ["2", "3", "1"]
    assert "held out of training: <owl> (label given to their images: neutral)" in page.text


def test_the_ensemble_of_a_class_held_out(page: Page, statistics: dict[str, Any]) -> None:
    """One unit of 4: shares it with cat (1 of 2), not with dog; by chance .5 * 1/2 and .75 * 1/3; no other class."""
    assert "Images of <owl> are most often taken for cat, dog." in page.text
    kept = torch.from_numpy(statistics["block00/activations"]), torch.from_numpy(statistics["label"])
    shuffled = null_jaccard(*kept, 3, 1.0, 20).nanmean(0)[2, :2].nanmean()
    row = page.table("The ensemble of a class held out of training").row("block00")
    assert row == ["<owl>", "1.0", "25.0", "0.250", "NaN", "0.250", fixed(float(shuffled), 3)]


def test_accuracy_by_class(page: Page) -> None:
    assert [row[1] for row in page.table("Accuracy by class").rows[1:]] == ["50.00", "75.00", "25.00"]


def test_two_seeds_have_mean_and_deviation(
    made: Path, folder: Callable[..., Path], statistics: dict[str, Any], store: Any, tmp_path: Path
) -> None:
    other = folder("logs/made/version_1", metrics_csv=ROW)
    statistics["block00/hoyer"] = np.array([0.4, 0.7, 0.9])
    statistics["block00/members"] = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]], dtype=bool)
    store(other, "test", statistics)
    for run in (made, other):
        (run / "config.yaml").write_text(f"seed_everything: {run.name[-1]}\n")
    page = read_page(write_report([tmp_path / "logs"], tmp_path / "page.html"))
    hoyer = [(0.2 + 3 * 0.6) / 4, (0.4 + 3 * 0.7) / 4]
    shown = page.table("Sparsity of each layer").row("block00")
    assert shown[1:3] == [f"{np.mean(hoyer):.3f}", f"±\u2009{np.std(hoyer, ddof=1):.3f}"]
    ensembles = page.table("Ensembles of the classes by").row("block00")
    assert ensembles[1:3] == [f"{np.mean([2.5, 1.0]):.1f}", f"±\u2009{np.std([2.5, 1.0], ddof=1):.1f}"]
    assert ensembles[9:11] == [f"{np.mean([0.25, 0.0]):.3f}", f"±\u2009{np.std([0.25, 0.0], ddof=1):.3f}"]
    cat = page.table("block00: units in the ensemble").row("cat")
    assert cat == ["1.5", f"±\u2009{np.std([2, 1], ddof=1):.1f}"]


def test_the_test_comes_before_the_validation_and_growth_from_all_epochs(
    made: Path, statistics: dict[str, Any], store: Any, tmp_path: Path
) -> None:
    store(made, "val", {**statistics, "block00/dead_units": np.array(3)})
    for epoch in (9, 4, 10):
        store(made, f"val-epoch={epoch:03d}", statistics)
    run = read_run(made)
    assert run.representation is not None
    assert (run.representation.stage, run.representation.layers["block00"].dead_units) == ("test", 1)
    assert list(run.growth()) == [4, 9, 10]
    alts = [a["alt"] for tag, a in read_page(write_report([made], tmp_path / "p.html")).tags if tag == "img"]
    assert "Sizes of ensembles over training" in alts
    (made / "representations/test.npz").unlink()
    page = read_page(write_report([made], tmp_path / "q.html"))
    assert "samples of the validation" in page.table("Sparsity of each layer").caption
    assert page.table("Sparsity of each layer").row("block00")[-1] == "3"


def test_a_layer_that_is_dead_is_not_a_number(
    made: Path, statistics: dict[str, Any], store: Any, tmp_path: Path
) -> None:
    dead = {key: np.full(3, np.nan) for key in ("block00/hoyer", "block00/treves_rolls")}
    empty = {"block00/members": np.zeros((3, 4), bool), "block00/mean": np.zeros((3, 4))}
    store(made, "test", {**statistics, **dead, **empty})
    page = read_page(write_report([made], tmp_path / "page.html"))
    assert page.table("Sparsity of each layer").row("block00")[1:3] == ["NaN", "NaN"]
    assert page.table("Ensembles of the classes by").row("block00") == [
        "4", "0.0", "0.0", "0.0", "0.0", "NaN", "0.0", "4.0"
    ]  # fmt: skip


@pytest.mark.parametrize("change", ["text", "cut", "lacks", "shape", "pickle"])
def test_a_file_that_cannot_be_read_is_a_note(
    made: Path, statistics: dict[str, Any], store: Any, tmp_path: Path, change: str
) -> None:
    file = made / "representations" / "test.npz"
    if change == "text":
        file.write_text("nothing")
    elif change == "cut":
        file.write_bytes(file.read_bytes()[:200])
    elif change == "lacks":
        del statistics["block00/members"]
        store(made, "test", statistics)
    elif change == "shape":
        store(made, "test", {**statistics, "block00/hoyer": np.ones(2)})
    else:
        store(made, "test", {**statistics, "classes": np.array([{}, {}, {}], dtype=object)})
    page = read_page(write_report([made], tmp_path / "page.html"))
    assert "representations/test.npz cannot be read: " in page.text
    assert not [table for table in page.tables if "Sparsity" in table.caption]


def test_only_what_is_asked_for_is_read(made: Path) -> None:
    read = read_representation(made / "representations" / "test.npz")
    assert isinstance(read, Representation)
    assert read.array("block00/weight") is None
    assert read.array("block00/activations").shape == (4, 4)  # type: ignore[union-attr]


def test_logged_sparsity_stands_in_for_stored(folder: Callable[..., Path], tmp_path: Path) -> None:
    keys = [f"val/{name}/block00" for name in ("sparsity", "treves_rolls", "active_fraction", "dead_units")]
    run = folder(metrics_csv=f"epoch,step,{','.join(keys)}\n0,9,0.125,0.25,0.5,7\n")
    table = read_page(write_report([run], tmp_path / "page.html")).table("Sparsity of each layer")
    assert table.row("block00") == ["\u2013", "0.125", "0.250", "50.0", "7"]
    assert "as logged, mean over all samples of the test or validation" in table.caption
