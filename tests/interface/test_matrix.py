"""`lightning-ff matrix`: runs of a file are made, skipped, resumed, and compared on a page."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from lightning_ff.matrix import MatrixError, Run, make, matrix, planned
from lightning_ff.record import record
from tests.command_line import print_config

ROOT = Path(__file__).parents[2]
DOCS, EMERGENT = ROOT / "docs" / "examples", ROOT / "examples" / "emergent"

SMALL = {
    "model": {"class_path": "ForwardForward", "init_args": {"widths": [12, 8]}},
    "data": {"class_path": "Digits", "init_args": {"batch_size": 200}},
    "trainer": {"accelerator": "cpu", "max_epochs": 2, "log_every_n_steps": 3, "enable_model_summary": False},
}


def write(folder: Path, **file: Any) -> Path:
    (folder / "small.yaml").write_text(yaml.safe_dump(SMALL))
    (folder / "matrix.yaml").write_text(yaml.safe_dump({"output": "logs/m", **file}))
    return folder / "matrix.yaml"


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def values(folder: Path, key: str) -> dict[int, float]:
    return {int(row["step"]): float(row[key]) for row in rows(folder) if row.get(key)}


def test_runs_are_planned_from_the_file(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        seeds=[0, 3],
        arguments={"trainer.max_epochs": 1},
        runs={
            "a": {"config": "small.yaml"},
            "b": {"config": "small.yaml", "seeds": [5], "arguments": {"model.widths": [4, 4], "data.held_out": ["3"]}},
        },
    )
    runs = planned(file, ["--data.root", "x"])
    assert [(run.name, run.seed, str(run.folder)) for run in runs] == [
        ("a", 0, "logs/m/a/seed0"),
        ("a", 3, "logs/m/a/seed3"),
        ("b", 5, "logs/m/b/seed5"),
    ]
    given = dict(zip(runs[2].arguments[::2], runs[2].arguments[1::2], strict=True))
    assert given["--model.widths"] == "[4, 4]"
    assert given["--data.held_out"] == '["3"]'
    assert (given["--trainer.max_epochs"], given["--data.seed"], given["--data.root"]) == ("1", "5", "x")
    assert json.loads(given["--trainer.logger"])["init_args"] == {"save_dir": "logs/m", "name": "b", "version": "seed5"}


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ({}, "give output"),
        ({"runs": {"a": {}}}, "runs.a needs config"),
        ({"runs": {"a": {"config": "none.yaml"}}}, "there is no file"),
        ({"runs": {"a": {"config": "small.yaml", "set": {}}}}, "unknown key 'set'"),
        ({"runs": {"a": {"config": "small.yaml"}}, "seed": 1}, "unknown key 'seed'"),
        ({"runs": {}}, "no run to make"),
        ({"runs": {"a": {"config": "small.yaml"}}, "seeds": []}, "no run to make"),
        ({"runs": {"a": {"config": "small.yaml", "seeds": 3}}}, "seeds=3 must be a list"),
        ({"runs": {"a": {"config": "small.yaml", "seeds": ["x"]}}}, "whole numbers, not 'x'"),
        ({"runs": {"a": {"config": "small.yaml", "seeds": [0, 1, 0]}}}, "has one twice"),
        ({"runs": {"a": {"config": "small.yaml", "seeds": [-1]}}}, "seeds must be 0 or larger, not -1"),
        *(
            ({"runs": {name: {"config": "small.yaml"}}}, "is that of a folder in output: give one without slashes")
            for name in ("../../x", "/tmp/x", "a/b", "..", ".", "", "a\\b")
        ),
    ],
)
def test_bad_files(tmp_path: Path, file: dict[str, Any], message: str) -> None:
    with pytest.raises(MatrixError, match=message):
        planned(write(tmp_path, **file))


@pytest.mark.parametrize(
    "file",
    [pytest.param(file, id=file.stem) for file in (DOCS / "matrix.yaml", *sorted(EMERGENT.glob("matrix_*.yaml")))],
)
def test_the_files_of_examples_and_docs_plan_runs_that_the_command_line_takes(
    file: Path, examples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if file.parent == DOCS:  # it names digits.yaml beside it
        shutil.copy(examples / "digits.yaml", tmp_path)
        file = Path(shutil.copy(file, tmp_path))
    runs = planned(file)
    assert len({run.folder for run in runs}) == len(runs) >= 3
    for run in {run.name: run for run in runs}.values():
        with pytest.raises(SystemExit) as end:
            print_config("fit", *run.arguments)
        assert end.value.code == 0
        config = yaml.safe_load(capsys.readouterr().out)
        assert config["trainer"]["logger"]["init_args"]["name"] == run.name
        given = yaml.safe_load(file.read_text())
        for key, value in {**given.get("arguments", {}), **given["runs"][run.name].get("arguments", {})}.items():
            part, name = key.split(".")
            got = {**config[part], **config[part].get("init_args", {})}[name]
            if name == "terms":
                got, value = ([term["init_args"]["weight"] for term in terms] for terms in (got, value))
            assert got == value


def test_a_missing_file_is_said_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert matrix([str(tmp_path / "none.yaml")]) == 2
    assert capsys.readouterr().err.startswith("lightning-ff matrix: error: ")


@pytest.mark.usefixtures("forked_python")
def test_runs_are_made_once_resumed_where_they_broke_off_and_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(
        tmp_path,
        runs={"good": {"config": "small.yaml"}, "bad": {"config": "small.yaml", "arguments": {"model.widths": [0]}}},
    )
    assert matrix([str(file)]) == 1
    said = capsys.readouterr().out
    assert "good seed 0 ... finished in" in said
    assert "bad seed 0 ... failed, see logs/m/bad/seed0/output.log" in said
    assert "widths=[0]" in Path("logs/m/bad/seed0/output.log").read_text()
    good = Path("logs/m/good/seed0")
    assert len(values(good, "test/acc")) == 1
    assert "good" in Path("logs/m/report.html").read_text()
    whole = rows(good)

    assert matrix([str(file)]) == 1
    assert "good seed 0 ... done before" in capsys.readouterr().out

    # as if it had been interrupted after the first epoch
    broken = Path("logs/m/broken/seed0")
    short = write(tmp_path, runs={"broken": {"config": "small.yaml"}})
    arguments = [*planned(short)[0].arguments, "--trainer.max_epochs", "1"]
    subprocess.run([sys.executable, "-m", "lightning_ff", "fit", *arguments], check=True, capture_output=True)
    assert matrix([str(short)]) == 0
    assert "went on and finished in" in capsys.readouterr().out
    assert list(broken.glob("metrics*")) == [broken / "metrics.csv"]
    for key in ("train/loss", "val/acc", "test/acc"):
        assert list(values(broken, key).values())[-1] == pytest.approx(list(values(good, key).values())[-1], abs=1e-6)
    assert len(values(broken, "val/acc")) == 2
    assert [row["epoch"] for row in whole if row["val/acc"]] == ["0", "1"]

    assert record(["logs/m"]) == 0
    assert [line.split(": ")[1].split()[0] for line in capsys.readouterr().out.splitlines()] == ["added", "replaced"]
    (file,) = Path("results").iterdir()
    (entry,) = json.loads(file.read_text())["runs"]
    assert entry["values"]["test"]["test/acc"] == values(good, "test/acc").popitem()[1]
    resumed = json.loads((broken / "run.json").read_text())
    assert resumed["resumed_from"] == str(broken / "checkpoints" / "last.ckpt")

    changed = write(tmp_path, runs={"good": {"config": "small.yaml", "arguments": {"trainer.max_epochs": 3}}})
    assert matrix([str(changed)]) == 2
    assert "was made with other arguments" in capsys.readouterr().err


def test_a_damaged_mark_of_a_finished_run_is_named(tmp_path: Path) -> None:
    run = Run("a", 0, tmp_path / "a" / "seed0", [])
    run.folder.mkdir(parents=True)
    (run.folder / "finished.json").write_text('["--con')
    with pytest.raises(MatrixError, match=r"finished.json is damaged \(.*\): remove it, and the run is resumed"):
        make(run)
