"""Probes and connections between layers on the page, and the number of epochs where a test follows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightning_ff.report import write_report
from tests.report.page_reader import read_page

DASH = "\u2013"
HEAD = "epoch,step,train/loss,test/acc,test/probe/input,test/probe/block00,test/probe_unseen/block00\n"


def test_probes_are_shown_by_layer_with_the_image_itself_first(folder: Callable[..., Path], tmp_path: Path) -> None:
    folder("logs/a/version_0", metrics_csv=HEAD + "0,1,.5,,,,\n1,2,,.9,.7,.85,.6\n", config_yaml="seed_everything: 0\n")
    folder("logs/a/version_1", metrics_csv=HEAD + "0,1,.5,,,,\n1,2,,.9,.7,.95,.8\n", config_yaml="seed_everything: 1\n")
    folder("logs/b/version_0", metrics_csv="epoch,step,train/loss,val/probe/block01\n0,1,.5,\n0,1,,.4\n")
    page = read_page(write_report([tmp_path / "logs"], tmp_path / "page.html"))
    table = page.table("Accuracy of a logistic regression on each layer")
    assert [row[0] for row in table.rows[1:]] == ["the image itself", "block00", "block01"]
    assert table.row("the image itself") == ["70.0", "±\u20090.0", DASH]
    assert table.row("block00") == ["90.0", f"±\u2009{100 * np.std([0.85, 0.95], ddof=1):.1f}", DASH]
    assert table.row("block01") == [DASH, "", "40.0"]
    unseen = page.table("Balanced accuracy of telling a class that was held out")
    assert unseen.rows[1:] == [["block00", "70.0", f"±\u2009{100 * np.std([0.6, 0.8], ddof=1):.1f}"]]
    drawn = [attributes["alt"] for tag, attributes in page.tags if tag == "img"]
    assert [alt for alt in drawn if alt and "probe" in alt] == ["Bars of the accuracy of the probe by layer"]
    assert "Bars of the balanced accuracy, held-out class by layer" in drawn


def test_connections_between_layers_that_follow_each_other(
    folder: Callable[..., Path], statistics: dict[str, Any], store: Any, tmp_path: Path
) -> None:
    weight = np.array([[1.0, -2.0, 0.5, 3.0], [0.5, 1.0, -1.0, 0.0], [-4.0, 2.0, 2.0, -1.0]], dtype=np.float32)
    after = np.array([[1, 0, 0], [0, 1, 1], [0, 0, 0]], dtype=bool)
    copied = ("count", "hoyer", "treves_rolls", "active_fraction", "dead_units")
    second = {f"block01/{key}": statistics[f"block00/{key}"] for key in copied}
    statistics |= second | {"layers": np.array(["block00", "block01"]), "block01/members": after}
    statistics["block01/weight"] = weight
    run = folder(metrics_csv="step,epoch,train/loss\n1,0,0.5\n")
    store(run, "test", statistics)
    page = read_page(write_report([run], tmp_path / "page.html"))

    before, mean = statistics["block00/members"], statistics["block00/mean"]
    between = np.array([[weight[np.ix_(a, b)].mean() if a.any() else np.nan for b in before] for a in after])
    own = np.nanmean(np.diag(between))
    other = np.nanmean(between[~np.eye(3, dtype=bool)])
    excited, inhibited = mean @ np.maximum(weight, 0).T, mean @ np.maximum(-weight, 0).T
    ratios = [
        np.mean([inhibited[c, rows[c]].sum() / excited[c, rows[c]].sum() for c in range(3) if rows[c].any()])
        for rows in (after, ~after)
    ]
    want = [100 * (weight < 0).mean(), own, other, *ratios]
    shown = [float(cell.replace("\u2212", "-")) for cell in page.table("Weights from one layer").row("block01")]
    assert shown == pytest.approx(want, abs=0.05)
    assert shown[1:3] == pytest.approx(want[1:3], abs=5e-5)


@pytest.mark.parametrize(
    ("rows", "epochs"),
    [
        ("0,9,1.0,\n1,19,1.0,\n2,20,,.9\n", "2"),  # two epochs, then a test
        ("0,9,1.0,\n1,19,1.0,\n", "2"),
        ("0,9,1.0,\n3,40,,.9\n", "3"),  # later epochs logged nothing
    ],
)
def test_a_test_at_the_end_is_no_epoch(folder: Callable[..., Path], tmp_path: Path, rows: str, epochs: str) -> None:
    run = folder(metrics_csv="epoch,step,train/loss,test/acc\n" + rows)
    page = read_page(write_report([run], tmp_path / "page.html"))
    table = page.table("Accuracy of the networks")
    assert dict(zip(table.rows[0], table.rows[1], strict=False))["Epochs"] == epochs
