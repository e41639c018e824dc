"""A run's folder as one object: metrics, configuration, pictures, representations, checkpoints."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from lightning_ff.report.files import CONFIG, HPARAMS, RUN, is_picture, read_pictures, read_yaml
from lightning_ff.report.readers import METRICS, read_metrics
from lightning_ff.report.representations import Representation, read_representation
from lightning_ff.report.series import Metrics, Series

_STAGES = ("test", "validate", "val")


@dataclass
class Run:
    """Contents of a run's folder."""

    folder: Path  # as given
    metrics: Metrics = field(default_factory=Metrics)
    config: dict[str, Any] = field(default_factory=dict)  # of the command line; empty for a run from Python
    config_text: str = ""
    hparams: dict[str, Any] = field(default_factory=dict)  # arguments of the learner
    hparams_text: str = ""
    pictures: dict[str, tuple[int, bytes]] = field(default_factory=dict)  # the latest of every key: step, bytes
    representations: dict[str, Path] = field(default_factory=dict)  # files by name, as `test`, `validate-epoch=059`
    notes: list[str] = field(default_factory=list)  # what could not be read
    measured: list[tuple[str, Run]] = field(default_factory=list)  # `test` and `validate` of checkpoints, by checkpoint
    earlier: Run | None = None  # the run that this one resumes
    failed: bool = False  # whether `lightning-ff matrix` has started it and it did not finish

    @property
    def trained(self) -> bool:
        """Whether it trained, or, without any metrics, may have."""
        logged = any(key.startswith("train/") for key in self.series)  # not in epochs shorter than the log interval
        return not self.series or logged or (self.folder / "checkpoints").is_dir() or (self.folder / RUN).is_file()

    @property
    def series(self) -> dict[str, Series]:
        """Metrics over steps, by key."""
        return self.metrics.series

    def last(self, key: str) -> float | None:
        """The value logged last, if there is one."""
        return self.series[key].last if key in self.series else None

    def best(self, key: str) -> float | None:
        """The highest value since all blocks have started to learn, if there is one."""
        if key not in self.series:
            return None
        series, since = self.series[key], self.series[key].steps >= self.begun
        return Series(series.steps[since], series.values[since]).best

    @property
    def begun(self) -> int:
        """First step at which all blocks that ever learn have started: 0 unless some start later than others."""
        prefix = "train/loss/block"
        first = {int(series.steps[0]) for key, series in self.series.items() if key.startswith(prefix)}
        return max(first) if len(first) > 1 else 0

    @property
    def epochs(self) -> int | None:
        """Number of epochs that were started: a test at the end is logged with the next epoch."""
        if "epoch" not in self.series or not self.trained:
            return None
        learning = [series.steps.max() for key, series in self.series.items() if key.startswith(("train/", "val/"))]
        epoch = self.series["epoch"]
        begun = epoch.values[epoch.steps <= max(learning, default=-1)] + 1
        return int(max(begun.max(initial=0), epoch.values.max()))

    @property
    def planned(self) -> int | None:
        """Number of epochs in the configuration, if set."""
        epochs = self._trainer_flags.get("max_epochs")
        return epochs if isinstance(epochs, int) and epochs > 0 else None

    @property
    def broke_off(self) -> bool:
        """Whether it failed, or started fewer epochs than configured without a setting that ends it earlier."""
        given = self._trainer_flags
        ended = given.get("max_time") is not None or given.get("max_steps", -1) not in (-1, None)
        ended = ended or "EarlyStopping" in str(given.get("callbacks"))
        short = self.epochs is not None and self.planned is not None and self.epochs < self.planned
        return self.failed or (short and not ended)

    @property
    def _trainer_flags(self) -> dict[str, Any]:
        trainer = self.config.get("trainer")
        return trainer if isinstance(trainer, dict) else {}

    @cached_property
    def seconds(self) -> tuple[float | None, bool]:
        """Training time, and whether it is only known from modification times of files."""
        if not self.trained:
            return None, False
        guessed = self.metrics.seconds is None
        own = _from_files(self.folder) if guessed else self.metrics.seconds
        if self.earlier is None or own is None:
            return own, guessed
        before, before_guessed = self.earlier.seconds
        return (None if before is None else own + before), guessed or before_guessed

    @cached_property
    def representation(self) -> Representation | None:
        """Representations of the test, else of the validation; of the run itself, else of its checkpoints."""
        every = [run.representations for run in (self, *(other for _, other in self.measured))]
        files = [found[stage] for stage in _STAGES for found in every if stage in found]
        return next((read for file in files if isinstance(read := read_representation(file), Representation)), None)

    def growth(self) -> dict[int, Representation]:
        """Representations of every epoch with a measured validation during training."""
        found = {}
        for name, file in self.representations.items():
            stage, _, number = name.partition("-epoch=")
            if stage in _STAGES and number.isdigit() and isinstance(read := read_representation(file), Representation):
                found[int(number)] = read
        return dict(sorted(found.items()))


def read_run(folder: Path) -> Run:
    """Read a run's folder; errors are added to its notes."""
    notes: list[str] = []
    metrics = read_metrics(folder)
    config, config_text = read_yaml(folder / CONFIG, notes)
    hparams, hparams_text = read_yaml(folder / HPARAMS, notes)
    if not hparams_text and metrics.hparams:
        hparams, hparams_text = metrics.hparams, yaml.safe_dump(metrics.hparams)
    shown = {key: picture for key, picture in metrics.pictures.items() if is_picture(picture[1])}
    pictures = {**shown, **read_pictures(folder, notes)}
    files = {file.stem: file for file in sorted((folder / "representations").glob("*.npz"))}
    read = [read_representation(files[stage]) for stage in _STAGES if stage in files]
    notes = [*metrics.notes, *notes, *(reason for reason in read if isinstance(reason, str))]
    failed = (folder / "output.log").is_file() and not (folder / "finished.json").is_file()
    return Run(folder, metrics, config, config_text, hparams, hparams_text, pictures, files, notes, failed=failed)


def _from_files(folder: Path) -> float | None:
    """Seconds from the configuration to the last checkpoint; None if another file is older than the configuration."""
    kept = [file for file in folder.rglob("*") if file.is_file() and file.name not in (CONFIG, HPARAMS, RUN)]
    written = {file: file.stat().st_mtime for file in kept}
    checkpoints = [when for file, when in written.items() if file.suffix == ".ckpt"]
    if not checkpoints or not (folder / CONFIG).is_file() or not (folder / METRICS).is_file():
        return None
    start = (folder / CONFIG).stat().st_mtime
    return max(checkpoints) - start if start < min(written.values()) else None  # not below: it was copied or rewritten
