"""Which folders count as runs, and files in them that are odd or broken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from lightning_ff.report.files import ReportError, find_runs, read_pictures, read_yaml
from lightning_ff.report.runs import read_run

ROW = "epoch,step,train/loss\n0,0,0.5\n"


def test_every_folder_with_metrics_below_counts_once_in_the_order_of_numbers(
    folder: Callable[..., Path], tmp_path: Path
) -> None:
    made = [folder(f"logs/a/version_{k}", metrics_csv=ROW) for k in (10, 2, 0)]
    other = folder("logs/b/seed1", metrics_csv=ROW)
    folder("logs/a/version_3", config_yaml="a: 1\n")  # nothing measured
    assert find_runs([tmp_path / "logs"]) == [made[2], made[1], made[0], other]
    assert find_runs([other, tmp_path / "logs" / "a", made[0]]) == [other, made[2], made[1], made[0]]


def test_a_run_is_itself_though_others_lie_below(folder: Callable[..., Path]) -> None:
    outer = folder("logs/a", metrics_csv=ROW)
    folder("logs/a/version_0", metrics_csv=ROW)
    assert find_runs([outer]) == [outer]


def test_a_run_without_metrics_counts_where_it_is_given(folder: Callable[..., Path]) -> None:
    made = folder("logs/a/version_0", config_yaml="a: 1\n")
    assert find_runs([made]) == [made]
    with pytest.raises(ReportError, match="logs holds no run"):
        find_runs([made.parents[1]])


def test_yaml_with_python_in_it_is_read_and_not_run(folder: Callable[..., Path], tmp_path: Path) -> None:
    text = (
        "shape: !!python/tuple [1, 8]\nkind: !!python/name:torch.optim.Adam ''\n"
        f"harm: !!python/object/apply:os.mkdir ['{tmp_path}/made']\npath: !!python/object:pathlib.Path {{a: 1}}\n"
    )
    notes: list[str] = []
    values, read = read_yaml(folder(hparams_yaml=text) / "hparams.yaml", notes)
    assert values == {"shape": [1, 8], "kind": "torch.optim.Adam", "harm": [f"{tmp_path}/made"], "path": {"a": 1}}
    assert (read, notes) == (text, [])
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("text", ["a: [1, 2", "a: b: c", "\t", "- 1\n- 2\n", "*x"])
def test_yaml_that_cannot_be_read_is_a_note(folder: Callable[..., Path], text: str) -> None:
    run = read_run(folder(config_yaml=text, metrics_csv=ROW))
    assert (run.config, len(run.notes)) == ({}, 1)
    assert run.notes[0].startswith("config.yaml ")
    assert "\n" not in run.notes[0]


def test_the_latest_picture_of_every_key(folder: Callable[..., Path]) -> None:
    run = folder()
    for key, step, color in (("wall/block00", 9, "red"), ("wall/block00", 10, "blue"), ("goodness", 100, "green")):
        file = run / "figures" / key / f"{step}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 2), color).save(file)
    whole = (run / "figures/goodness/100.png").read_bytes()
    (run / "figures/goodness/200.png").write_bytes(whole[:40])
    notes: list[str] = []
    found = read_pictures(run, notes)
    assert {key: step for key, (step, _) in found.items()} == {"wall/block00": 10, "goodness": 100}
    assert found["wall/block00"][1] == (run / "figures/wall/block00/10.png").read_bytes()
    assert notes == ["figures/goodness/200.png is no picture that can be shown"]
