"""Links between folders: tests of checkpoints, and runs that resume others."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lightning_ff.report.linking import link
from lightning_ff.report.measures import by_checkpoint, of_test, validation
from lightning_ff.report.runs import Run
from lightning_ff.report.series import Metrics, Series


def trained(folder: str, epochs: int, planned: int, start: int = 0, ckpt_path: str | None = None) -> Run:
    """A run that validated every ten steps: its accuracy is the step over 100."""
    steps = [10 * k for k in range(start + 1, start + epochs + 1)]
    series = {
        "train/loss": Series.of((step, 1 / step) for step in steps),
        "val/acc": Series.of((step, step / 100) for step in steps),
        "epoch": Series.of((step, step / 10 - 1) for step in steps),
    }
    config = {"trainer": {"max_epochs": planned}, "ckpt_path": ckpt_path}
    return Run(Path(folder), Metrics("metrics.csv", series), config)


def test_of(folder: str, ckpt_path: str | None, accuracy: float) -> Run:
    """A run of `lightning-ff test`."""
    series = {"test/acc": Series.of([(0, accuracy)]), "epoch": Series.of([(0, 0)])}
    return Run(Path(folder), Metrics("metrics.csv", series), {"ckpt_path": ckpt_path})


test_of.__test__ = False  # type: ignore[attr-defined]


def test_tests_of_checkpoints_are_no_runs_of_their_own() -> None:
    run = trained("logs/a/version_0", 3, 3)
    last = test_of("logs/a/version_1", "logs/a/version_0/checkpoints/last.ckpt", 0.5)
    best = test_of("logs/b/version_0", "logs/a/version_0/checkpoints/best-epoch=001.ckpt", 0.75)
    assert link([best, run, last]) == [run]
    assert [name for name, _ in run.measured] == ["last", "best-epoch=001"]
    assert list(by_checkpoint(run)) == ["last", "best"]
    assert (of_test(run, "acc"), of_test(run, "acc", "best"), of_test(run, "acc", "")) == (0.5, 0.75, None)
    assert validation(run, "acc") == 0.3


def test_a_checkpoint_is_looked_up_from_every_folder_above() -> None:
    """The path was relative to where the test was started, the report is made elsewhere; or both were moved."""
    run, other = trained("/data/x/logs/a/version_0", 3, 3), trained("/data/y/logs/a/version_0", 3, 3)
    relative = test_of("/data/x/logs/t/version_0", "logs/a/version_0/checkpoints/last.ckpt", 0.5)
    moved = test_of("/data/y/logs/t/version_0", "/elsewhere/logs/a/version_0/checkpoints/last.ckpt", 0.25)
    assert link([run, other, relative, moved]) == [run, other]
    assert (of_test(run, "acc"), of_test(other, "acc")) == (0.5, 0.25)


def test_a_test_whose_run_is_not_there_stays() -> None:
    run = trained("logs/a/version_0", 3, 3)
    others = [
        test_of("logs/t/version_0", "logs/b/version_0/checkpoints/last.ckpt", 0.5),
        test_of("logs/t/version_1", None, 0.5),
        test_of("logs/t/version_2", "weights.ckpt", 0.5),
    ]
    assert link([run, *others]) == [run, *others]
    assert of_test(run, "acc") is None


def test_last_is_that_of_the_only_run_beside_it(tmp_path: Path) -> None:
    (tmp_path / "a/version_0/checkpoints").mkdir(parents=True)
    (tmp_path / "a/version_0/checkpoints/last.ckpt").touch()
    run, test = trained(f"{tmp_path}/a/version_0", 3, 3), test_of(f"{tmp_path}/a/version_1", "last", 0.5)
    assert link([run, test]) == [run]
    assert of_test(run, "acc") == 0.5


def test_a_run_that_goes_on_has_the_steps_of_the_one_that_broke_off() -> None:
    broken = trained("logs/a/version_0", 4, 6)
    more = trained("logs/a/version_1", 3, 6, start=3, ckpt_path="logs/a/version_0/checkpoints/last.ckpt")
    assert link([broken, more]) == [more]
    assert more.earlier is broken
    assert more.series["val/acc"].steps.tolist() == [10, 20, 30, 40, 50, 60]
    np.testing.assert_allclose(more.series["val/acc"].values, np.arange(1, 7) / 10)
    assert (more.epochs, more.broke_off) == (6, False)


def test_a_finished_run_stays_beside_the_one_that_goes_on_from_it() -> None:
    done = trained("logs/a/version_0", 3, 3)
    longer = trained("logs/a/version_1", 2, 5, start=3, ckpt_path="logs/a/version_0/checkpoints/last.ckpt")
    assert link([done, longer]) == [done, longer]
    assert longer.series["val/acc"].steps.tolist() == [10, 20, 30, 40, 50]
    assert done.series["val/acc"].steps.tolist() == [10, 20, 30]


def test_a_chain_of_runs_is_joined_once() -> None:
    first = trained("logs/a/version_0", 2, 6)
    second = trained("logs/a/version_1", 2, 6, start=2, ckpt_path="logs/a/version_0/checkpoints/last.ckpt")
    third = trained("logs/a/version_2", 2, 6, start=4, ckpt_path="logs/a/version_1/checkpoints/last.ckpt")
    assert link([third, second, first]) == [third]
    assert third.series["train/loss"].steps.tolist() == [10, 20, 30, 40, 50, 60]
