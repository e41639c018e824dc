"""Groups of runs with one configuration: settings that may differ in a group, and those that distinguish groups."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightning_ff.report.grouping import differences, group
from lightning_ff.report.numbers import Stat, fixed
from lightning_ff.report.runs import Run, read_run
from lightning_ff.report.series import Metrics, Series
from lightning_ff.report.settings import ABSENT, flat, seeds


def config(seed: int = 0, version: int | str | None = None, **arguments: Any) -> dict[str, Any]:
    """A configuration of the command line, in the form in which it is saved."""
    logger = {
        "class_path": "lightning.pytorch.loggers.CSVLogger",
        "init_args": {"save_dir": "logs", "version": version},
    }
    trainer = {"max_epochs": 2, "logger": logger, "callbacks": None}
    model = {"class_path": "lightning_ff.ForwardForward", "init_args": {"widths": [8], "negatives": {
        "class_path": "lightning_ff.WrongLabel", "init_args": {"seed": seed}}, **arguments}}  # fmt: skip
    data = {"class_path": "lightning_ff.data.Digits", "init_args": {"seed": seed, "split_seed": seed}}
    return {"seed_everything": seed, "trainer": trainer, "model": model, "data": data, "ckpt_path": None}


def run(folder: str, config: dict[str, Any] | None = None, hparams: dict[str, Any] | None = None) -> Run:
    return Run(Path(folder), config=config or {}, hparams=hparams or {})


def test_seeds_and_places_do_not_tell_configurations_apart() -> None:
    same = [run(f"logs/a/version_{seed}", config(seed, seed)) for seed in (1, 0, 2)]
    other = run("logs/b/version_0", config(0, loss="SymBa"))
    (first, second) = group([*same, other])
    assert [each.folder.name for each in first.runs] == ["version_0", "version_1", "version_2"]
    assert (first.letter, first.name, second.letter, second.name) == ("A", "a", "B", "b")
    assert differences([first, second]) == [("model.loss", [ABSENT, "SymBa"])]
    assert seeds(other) == {
        "seed_everything": 0, "model.negatives.seed": 0, "data.seed": 0, "data.split_seed": 0
    }  # fmt: skip


def test_null_is_as_good_as_nothing() -> None:
    """A run of a version that did not have the setting yet is the same."""
    assert len(group([run("logs/a/version_0", config()), run("logs/a/version_1", config(held_out=None))])) == 1


def test_groups_of_one_name_are_named_by_what_differs() -> None:
    made = group([run(f"logs/a/version_{k}", config(alpha=alpha, dropout=k % 2)) for k, alpha in enumerate((1, 2, 3))])
    assert [each.name for each in made] == ["a, alpha 1", "a, alpha 2", "a, alpha 3"]


def test_a_run_that_broke_off_stands_alone() -> None:
    whole, broken = run("logs/a/version_0", config()), run("logs/a/version_1", config(1))
    whole.metrics = Metrics("csv", {"epoch": Series.of([(9, 1)]), "train/loss": Series.of([(9, 1)])})
    broken.metrics = Metrics("csv", {"epoch": Series.of([(4, 0)]), "train/loss": Series.of([(4, 1)])})
    assert [each.name for each in group([whole, broken])] == ["a", "a, stopped early"]
    broken.config["trainer"]["callbacks"] = [{"class_path": "lightning.pytorch.callbacks.EarlyStopping"}]
    assert not broken.broke_off


def test_runs_from_python_are_put_together_by_arguments_in_a_folder_of_their_own_name() -> None:
    named = [run(f"logs/mine/version_{seed}", None, {"widths": [8], "seed": seed}) for seed in (0, 1)]
    unnamed = [run(f"lightning_logs/version_{seed}", None, {"widths": [8], "seed": seed}) for seed in (0, 1)]
    bare = [run(f"logs/bare/version_{seed}") for seed in (0, 1)]
    assert [len(each.runs) for each in group([*named, *unnamed, *bare])] == [2, 1, 1, 1, 1]
    other = run("logs/other/version_0", None, {"widths": [8], "seed": 0})
    assert len(group([*named, other])) == 2


def test_versions_with_names_are_named_by_their_logger() -> None:
    """As `lightning-ff matrix` lays them out: output/name/seed0."""
    made = [config(seed, f"seed{seed}") for seed in (0, 1)]
    for each in made:
        each["trainer"]["logger"]["init_args"]["name"] = "ff"
    (both,) = group([run(f"logs/m/ff/seed{seed}", each) for seed, each in enumerate(made)])
    assert (both.name, len(both.runs)) == ("ff", 2)
    assert group([run("logs/mine", config())])[0].name == "mine"


def test_a_run_that_the_matrix_did_not_see_finished_broke_off(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("epoch,step,train/loss\n1,9,0.5\n")
    assert not read_run(tmp_path).broke_off
    (tmp_path / "output.log").touch()
    assert read_run(tmp_path).broke_off
    (tmp_path / "finished.json").touch()
    assert not read_run(tmp_path).broke_off


def test_letters_go_on_after_z() -> None:
    made = group([run(f"logs/a{k}/version_0", config(alpha=k)) for k in range(28)])
    assert [made[k].letter for k in (0, 25, 26, 27)] == ["A", "Z", "AA", "AB"]


def test_lists_of_parts_are_flat_by_the_names_of_their_classes() -> None:
    parts = [{"class_path": "x.Shift", "init_args": {"pixels": 1}}, {"class_path": "x.Flip"}, {"class_path": "x.Flip"}]
    assert flat({"augment": parts, "widths": [8, 8], "empty": {}}) == {
        "augment.Shift": "Shift", "augment.Shift.pixels": 1, "augment.Flip": "Flip", "augment.Flip#2": "Flip",
        "widths": [8, 8], "empty": {},
    }  # fmt: skip


def test_statistics_over_runs() -> None:
    values = [0.25, 0.5, 1.0]
    stat = Stat.of([*values, None, float("nan")])
    assert (stat.mean, stat.deviation) == (pytest.approx(np.mean(values)), pytest.approx(np.std(values, ddof=1)))
    assert (stat.count, stat.runs, stat.missing) == (3, 5, True)
    assert Stat.of([None, None]) == Stat(None, None, 0, 2)
    assert np.isnan(Stat.of([float("nan")]).mean or 0)
    assert Stat.of([0.5]) == Stat(0.5, None, 1, 1)
    assert stat.times(100).deviation == pytest.approx(100 * np.std(values, ddof=1))
    assert [fixed(value, 1) for value in (-0.04, -0.06, float("inf"), 1e9)] == ["0.0", "\u22120.1", "∞", "1000000000.0"]


def test_names_take_the_settings_that_separate() -> None:
    """The first two that differ go together, and tell nothing apart that one of them does not."""
    rows = [("a", "x", 1), ("a", "x", 2), ("b", "y", 1), ("b", "y", 2)]
    made = group([run(f"logs/a/version_{k}", config(first=a, second=b, third=c)) for k, (a, b, c) in enumerate(rows)])
    assert [each.name for each in made] == [
        "a, first a, third 1", "a, first a, third 2", "a, first b, third 1", "a, first b, third 2"
    ]  # fmt: skip
