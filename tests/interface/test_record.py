"""`lightning-ff record`: files of results against the runs they were made from, and runs that are refused."""

from __future__ import annotations

import csv
import json
import os
import platform
import shlex
import shutil
import statistics
import subprocess
import sys
import warnings
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch

import lightning_ff
from lightning_ff.__main__ import run as run_entry_point
from lightning_ff.cli import CLI, main
from lightning_ff.record import _without_folders, canonical, hash_of, read_results, record
from lightning_ff.report.files import ReportError

ROOT = Path(__file__).parents[2]
Command = Callable[..., CLI]
TINY = ("--model=ForwardForward", "--model.widths=[12,8]", "--model.optimizer=torch.optim.Adam", "--data=Digits",
        "--data.batch_size=200", "--trainer.log_every_n_steps=3", "--trainer.enable_model_summary=false")  # fmt: skip


def seeded(seed: int) -> tuple[str, ...]:
    return (f"--seed_everything={seed}", f"--data.seed={seed}")


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory, command: Command) -> Path:
    """Runs: two seeds of one configuration with a test, another rate, one that stops with an error, one that resumes.

    Their names are seed0, seed1, fast, broken and resumed.
    """
    root = tmp_path_factory.mktemp("record")
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setattr(sys, "argv", ["lightning-ff"])
        patch.chdir(root)
        patch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")

        def fit(name: str, *arguments: str) -> None:
            command("fit", *TINY, "--trainer.logger=CSVLogger", "--trainer.logger.save_dir=logs",
                    f"--trainer.logger.version={name}", *arguments)  # fmt: skip

        for seed in (0, 1):
            fit(
                f"seed{seed}",
                "--model.optimizer.lr=0.01",
                "--trainer.max_epochs=3",
                "--test_after_fit=true",
                *seeded(seed),
            )
        fit("fast", "--model.optimizer.lr=0.02", "--trainer.max_epochs=1")
        last = "logs/lightning_logs/seed0/checkpoints/last.ckpt"
        fit("resumed", "--model.optimizer.lr=0.01", "--trainer.max_epochs=4", f"--ckpt_path={last}", *seeded(0))
        with pytest.raises(lightning_ff.NonFiniteLoss):
            fit("broken", "--model.optimizer.lr=1e38", "--trainer.max_epochs=3")
    return root / "logs" / "lightning_logs"


@pytest.fixture
def copy(logs: Path, tmp_path: Path) -> Path:
    """A copy of the run with seed 0, to change."""
    return Path(shutil.copytree(logs / "seed0", tmp_path / "copy"))


def csv_rows(folder: Path) -> list[dict[str, str]]:
    """Cells of `metrics.csv` as written, without the empty ones."""
    with (folder / "metrics.csv").open(newline="") as file:
        return [{key: cell for key, cell in row.items() if cell} for row in csv.DictReader(file)]


def strict(file: Path) -> Any:
    """A JSON file that holds neither NaN nor infinity, with sorted keys."""
    found = json.loads(file.read_text(), parse_constant=lambda name: pytest.fail(f"{name} in {file}"))
    assert file.read_text() == json.dumps(found, indent=2, sort_keys=True) + "\n"
    return found


def recorded(*arguments: object) -> Any:
    """Content of the file that a record of runs writes into the folder of the test."""
    assert record([*map(str, arguments), "--output", "out.json"]) == 0
    return strict(Path("out.json"))


def edit(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


# What a file holds


def test_values_are_those_of_metrics_csv_with_their_rows(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert record([str(logs / "seed0")]) == 0
    (file,) = Path("results").iterdir()
    seeds = "data.seed=0, data.split_seed=0, seed_everything=0"
    assert capsys.readouterr().out == f"{file}: added the run with {seeds}, 1 in total\n"
    result = strict(file)
    assert file.name == f"ForwardForward_Digits_{result['hash'][:8]}.json"
    (run,) = result["runs"]
    rows = csv_rows(logs / "seed0")
    validations = [row for row in rows if "val/acc" in row]
    (test,) = (row for row in rows if "test/acc" in row)
    best = max(validations, key=lambda row: float(row["val/acc"]))
    assert len(validations) == 3
    expected = {"last": (validations[-1], "val/"), "best": (best, "val/"), "test": (test, "test/")}
    for kind, (row, prefix) in expected.items():
        cells = {key: cell for key, cell in row.items() if key.startswith(prefix)}
        assert {key: str(value) for key, value in run["values"][kind].items()} == cells
        assert f"{prefix}acc" in cells
        assert f"{prefix}loss" in cells
    kept = [row for row in rows if row in (validations[-1], best, test)]
    assert [{key: str(value) for key, value in row.items()} for row in run["rows"]] == kept


def test_a_run_is_described_by_what_it_wrote_itself(logs: Path) -> None:
    (run,) = recorded(logs / "seed1")["runs"]
    words = shlex.split(run["command"])
    assert words[:3] == ["lightning-ff", "fit", "--model=ForwardForward"]
    assert words[-2:] == ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
    git = ["git", "-C", str(ROOT)]
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    changed = subprocess.run(
        [*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=False
    ).stdout
    assert run["git"] == {"commit": head or None, "dirty": bool(changed) if head else None}
    assert run["versions"] == {
        "lightning": lightning.__version__,
        "lightning-ff": lightning_ff.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    assert run["seeds"] == {"data.seed": 1, "data.split_seed": 0, "seed_everything": 1}
    assert (run["hardware"]["cores"], run["hardware"]["gpu"]) == (os.cpu_count(), None)
    assert run["hardware"]["cpu"]
    assert (run["threads"], run["processes"]) == (torch.get_num_threads(), 1)
    assert run["resumed_from"] is None
    written = json.loads((logs / "seed1" / "run.json").read_text())
    assert written == {key: run[key] for key in written}
    assert run["start"] < run["end"]
    between = (logs / "seed1" / "checkpoints" / "last.ckpt").stat().st_mtime - (
        logs / "seed1" / "config.yaml"
    ).stat().st_mtime
    assert between / 60 - 0.002 < run["minutes"] < 5


def test_a_resumed_run_counts_the_minutes_before(logs: Path) -> None:
    before = json.loads((logs / "seed0" / "run.json").read_text())["minutes"]
    run = json.loads((logs / "resumed" / "run.json").read_text())
    assert run["resumed_from"] == "logs/lightning_logs/seed0/checkpoints/last.ckpt"
    assert before < run["minutes"] < before + 5


# The configuration


def test_configurations_that_differ_only_in_seeds_have_one_hash(logs: Path) -> None:
    one = recorded(logs / "seed0")
    Path("out.json").unlink()
    other = recorded(logs / "seed1")
    assert one["configuration"] == other["configuration"]
    text = json.dumps(one["configuration"], sort_keys=True, separators=(",", ":"))
    assert one["hash"] == other["hash"] == sha256(text.encode()).hexdigest()
    assert one["configuration"]["model"]["init_args"]["optimizer"] == {
        "class_path": "torch.optim.Adam",
        "init_args": {**one["configuration"]["model"]["init_args"]["optimizer"]["init_args"], "lr": 0.01},
    }
    assert not {"logs", "seed0", "data.root"} & set(text.split('"'))
    Path("out.json").unlink()
    assert recorded(logs / "fast")["hash"] != one["hash"]


def test_what_is_left_out_of_a_configuration() -> None:
    config = {
        "seed_everything": 3,
        "ckpt_path": "a.ckpt",
        "checkpoint": {"dirpath": "x", "monitor": "val/acc"},
        "predictions": {"path": "x"},
        "trainer": {
            "default_root_dir": "x",
            "logger": {"init_args": {"save_dir": "x"}},
            "max_epochs": 2,
            "devices": None,
        },
        "model": {"class_path": "m.Net", "init_args": {"negatives": {"class_path": "n.W", "init_args": {"seed": 1}}}},
        "data": {"class_path": "d.Set", "init_args": {"root": "x", "download": True, "split_seed": 1, "size": (1,)}},
    }
    expected = {
        "trainer": {"max_epochs": 2},
        "model": {"class_path": "m.Net", "init_args": {"negatives": {"class_path": "n.W"}}},
        "data": {"class_path": "d.Set", "init_args": {"size": "(1,)"}},
    }
    assert canonical(config) == expected
    assert canonical([1.5, True, None, float("inf"), "a"]) == [1.5, True, None, "inf", "a"]
    other = {"class_path": "other.Set", "init_args": {"size": "(1,)"}}
    assert hash_of({**expected, "data": other}) != hash_of(expected)
    assert hash_of(dict(reversed(expected.items()))) == hash_of(expected)


# Several runs


def test_seeds_are_merged_with_mean_and_deviation(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recorded(logs / "seed1")
    result = recorded(logs / "seed0")
    assert capsys.readouterr().out.splitlines()[1].endswith("seed_everything=0, 2 in total")
    assert [run["seeds"]["seed_everything"] for run in result["runs"]] == [0, 1]
    for kind, key in (("best", "val/acc"), ("last", "val/loss"), ("test", "test/acc"), ("test", "test/acc/block00")):
        values = [run["values"][kind][key] for run in result["runs"]]
        found = result["statistics"][kind][key]
        assert found["count"] == 2
        assert found["mean"] == pytest.approx(statistics.mean(values), rel=1e-12)
        assert found["deviation"] == pytest.approx(statistics.stdev(values), rel=1e-9)
    assert result["runs"][0]["values"]["test"]["test/acc"] != result["runs"][1]["values"]["test"]["test/acc"]

    before = Path("out.json").read_bytes()
    assert recorded(logs / "seed1", logs / "seed0") == result
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()] == ["replaced", "replaced"]
    assert Path("out.json").read_bytes() == before


def test_a_folder_above_several_runs_gives_a_file_per_configuration(logs: Path, tmp_path: Path) -> None:
    for name in ("seed0", "seed1", "fast"):
        shutil.copytree(logs / name, tmp_path / "all" / name)
    assert record(["all"]) == 0
    found = {file.name: strict(file) for file in Path("results").iterdir()}
    assert sorted(len(result["runs"]) for result in found.values()) == [1, 2]
    assert {name[-13:-5] for name in found} == {result["hash"][:8] for result in found.values()}
    (one,) = (result for result in found.values() if len(result["runs"]) == 1)
    values = one["statistics"]["best"]["val/acc"]
    assert values == {"count": 1, "deviation": None, "mean": one["runs"][0]["values"]["best"]["val/acc"]}
    assert one["statistics"]["test"] == {}


def test_nan_becomes_null_and_the_best_row_is_that_of_the_monitored_metric(copy: Path) -> None:
    (copy / "metrics.csv").write_text(
        "epoch,step,val/acc,val/loss\n0,3,nan,2.0\n1,7,0.25,1e-05\n2,11,0.5,inf\n3,15,0.5,4\n4,19,0.125,\n"
    )
    result = recorded(copy)
    (run,) = result["runs"]
    assert run["values"]["best"] == {"val/acc": 0.5, "val/loss": None}
    assert run["values"]["last"] == {"val/acc": 0.125, "val/loss": 4}
    assert run["values"]["test"] == {}
    assert [row["step"] for row in run["rows"]] == [11, 15, 19]
    assert result["statistics"]["best"]["val/loss"] == {"count": 0, "deviation": None, "mean": None}
    assert result["statistics"]["last"]["val/loss"] == {"count": 1, "deviation": None, "mean": 4.0}

    config = copy / "config.yaml"
    text = config.read_text()
    assert "  monitor: val/acc\n" in text
    config.write_text(text.replace("monitor: val/acc", "monitor: val/loss").replace("mode: max", "mode: min"))
    edit(copy / "run.json", lambda run: run.update(config_hash=sha256(config.read_bytes()).hexdigest()))
    (run,) = recorded(copy)["runs"]
    assert run["values"]["best"] == {"val/acc": 0.25, "val/loss": 1e-05}


# What is refused


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (shutil.rmtree, "copy: no such folder; give a run's log directory"),
    "no metrics": (lambda run: (run / "metrics.csv").unlink(), "copy has no metrics.csv: fit with a CSVLogger"),
    "no configuration": (lambda run: (run / "config.yaml").unlink(), "copy has no config.yaml: give the folder"),
    "no run.json": (lambda run: (run / "run.json").unlink(), "copy has no run.json: fit it with this version"),
    "YAML": (lambda run: (run / "config.yaml").write_text("a: ["), "copy: config.yaml cannot be read"),
    "changed": (lambda run: (run / "config.yaml").write_text("a: 1"), "config.yaml was changed after the run started"),
    "cut row": (lambda run: (run / "metrics.csv").write_text("step,val/acc\n1,.5\n2"), "damaged (could not convert"),
    "long row": (lambda run: (run / "metrics.csv").write_text("step,val/acc\n1,.5,3\n"), "metrics.csv is damaged"),
    "text": (lambda run: (run / "metrics.csv").write_text("step,val/acc\n1,good\n"), "string to float: 'good'"),
    "empty": (lambda run: (run / "metrics.csv").write_text(""), "metrics.csv has no row with a step"),
    "no step": (lambda run: (run / "metrics.csv").write_text("val/acc\n1\n"), "metrics.csv has no row with a step"),
    "not text": (lambda run: (run / "metrics.csv").write_bytes(b"step,val/acc\n1,\xff\n"), "metrics.csv is damaged"),
    "not validated": (lambda run: (run / "metrics.csv").write_text("step,a\n1,1\n"), "has no val/ or test/ metric"),
    "JSON": (lambda run: (run / "run.json").write_text("{"), "run.json is no JSON (Expecting property name"),
    "other JSON": (lambda run: (run / "run.json").write_text("[]"), "run.json must hold command, config_hash, end"),
    "not finished": (lambda run: edit(run / "run.json", lambda run: run.update(end=None)), "copy is not finished"),
}  # fmt: skip


def refusal(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The error message of a record that must fail, without its beginning."""
    capsys.readouterr()
    assert record([*map(str, arguments)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert printed.err.startswith("lightning-ff record: error: ")
    return printed.err.partition("error: ")[2]


@pytest.mark.parametrize("name", REFUSED)
def test_a_run_with_missing_or_damaged_files_is_refused(
    name: str, copy: Path, logs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage, message = REFUSED[name]
    damage(copy)
    assert message in refusal(capsys, logs / "seed1", copy)
    assert not Path("results").exists()


def test_a_run_that_stopped_with_an_error_is_refused(
    logs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = Path(shutil.copytree(logs / "broken", tmp_path / "broken"))
    assert json.loads((broken / "run.json").read_text())["end"] is None
    (broken / "metrics.csv").touch()
    assert "broken is not finished" in refusal(capsys, broken)


def test_files_that_are_not_of_this_configuration_are_not_overwritten(
    logs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = recorded(logs / "seed0")
    key = hash_of(canonical({}))
    for arguments in ([logs / "fast", "-o", "out.json"], [logs / "seed0", logs / "fast", "--output", "out.json"]):
        message = refusal(capsys, *arguments)
        assert f"--output out.json is for configuration {result['hash'][:8]}, and " in message
        assert "give another file, or leave out --output" in message
    assert strict(Path("out.json")) == result
    assert f"--output {tmp_path} is a folder" in refusal(capsys, logs / "seed0", "--output", tmp_path)

    again = (logs / "seed0", "--output", "out.json")
    edit(Path("out.json"), lambda found: found["runs"][0]["values"]["test"].update({"test/acc": 1.0}))
    assert "out.json was changed since lightning-ff record wrote it" in refusal(capsys, *again)
    Path("out.json").write_text(json.dumps({**result, "runs": [{**result["runs"][0], "note": "by hand"}]}))
    assert "out.json was changed" in refusal(capsys, *again)
    Path("out.json").write_text(json.dumps({**result, "hash": key}))
    assert "out.json was changed" in refusal(capsys, *again)
    Path("out.json").write_text("no")
    assert "out.json is no JSON" in refusal(capsys, *again)
    Path("out.json").write_text(json.dumps({"a": 1}))
    assert "out.json must hold configuration, hash, runs, statistics" in refusal(capsys, *again)


# The command and the repository's results


def test_the_entry_point_hands_record_on(
    logs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["lightning-ff", "record", str(logs / "seed0"), "-o", "new/folder/file.json"])
    with pytest.raises(SystemExit) as stop:
        run_entry_point()
    assert stop.value.code == 0
    assert read_results(Path("new/folder/file.json")) == strict(Path("new/folder/file.json"))
    monkeypatch.setattr(sys, "argv", ["lightning-ff"])
    capsys.readouterr()
    for call, usage in ((record, "RUN [RUN ...]"), (main, "lightning-ff record RUN [RUN ...]")):
        with pytest.raises(SystemExit):
            call(["--help"])
        assert usage in " ".join(capsys.readouterr().out.split())


def test_every_file_of_results_in_the_repository_is_as_the_tool_writes_it() -> None:
    assert (ROOT / "results" / "README.md").is_file()
    for file in sorted((ROOT / "results").iterdir()):
        assert file.name == "README.md" or file.suffix == ".json", file
        if file.suffix == ".json":
            assert read_results(file) == strict(file)
            for run in read_results(file)["runs"]:
                cells = [(key, value) for row in run["rows"] for key, value in row.items()]
                assert all(pair in cells for found in run["values"].values() for pair in found.items()), file


def test_a_file_that_the_tool_did_not_write_is_found(tmp_path: Path) -> None:
    file = tmp_path / "made_up.json"
    file.write_text(json.dumps({"configuration": {}, "hash": hash_of({}), "runs": [{}], "statistics": {}}))
    with pytest.raises(ReportError, match="was changed since"):
        read_results(file)


def test_a_command_names_no_folders_of_a_machine(tmp_path: Path) -> None:
    (tmp_path / "repository" / ".git").mkdir(parents=True)
    config = tmp_path / "repository" / "examples" / "a.yaml"
    command = f"lightning-ff fit --config {config} --data.root={tmp_path}/data --model.widths [8,9]"
    expected = "lightning-ff fit --config examples/a.yaml --data.root=data --model.widths [8,9]"
    assert _without_folders(command) == expected
