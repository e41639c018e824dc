"""Old import paths, which work until the next release with a `FutureWarning`.

`MOVED` is their one table. This file imports nothing of the package: a name is looked up when it is asked for.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

MOVED = {
    "lightning_ff.Placement": "lightning_ff.stage.Stage",
    "lightning_ff.callbacks.base.logs_now": "lightning_ff._lightning.ends_interval",
    "lightning_ff.callbacks.cache.OutputCache": "lightning_ff.sweep.store.OutputCache",
    "lightning_ff.callbacks.summary.BlockSummary": "lightning_ff.callbacks.BlockSummary",
    "lightning_ff.callbacks.summary.block_table": "lightning_ff.learner.summary.block_table",
    "lightning_ff.callbacks.windows.Window": "lightning_ff.sweep.schedule.Window",
    "lightning_ff.callbacks.windows.Windows": "lightning_ff.sweep.Windows",
    "lightning_ff.callbacks.windows.checked_windows": "lightning_ff.sweep.schedule.checked_windows",
    "lightning_ff.checks.CorruptCheckpoint": "lightning_ff.learner.CorruptCheckpoint",
    "lightning_ff.checks.NonFiniteLoss": "lightning_ff.sweep.NonFiniteLoss",
    "lightning_ff.checks.checkpoint": "lightning_ff.learner.resume.check_file",
    "lightning_ff.checks.choices": "lightning_ff.learner.checks.check_choices",
    "lightning_ff.checks.factories": "lightning_ff.learner.checks.check_factories",
    "lightning_ff.checks.finite": "lightning_ff.sweep.finite.check_losses",
    "lightning_ff.checks.finite_weights": "lightning_ff.sweep.finite.check_state",
    "lightning_ff.checks.fitted": "lightning_ff.learner.checks.check_readout",
    "lightning_ff.checks.given_again": "lightning_ff.learner.checks.check_given_again",
    "lightning_ff.checks.held_out": "lightning_ff.learner.checks.held_out",
    "lightning_ff.checks.labels": "lightning_ff.learner.checks.check_labels",
    "lightning_ff.checks.negatives": "lightning_ff.learner.checks.check_negatives",
    "lightning_ff.checks.one_loader": "lightning_ff.learner.checks.check_one_loader",
    "lightning_ff.checks.pairs": "lightning_ff.negatives.pairs.check_pairs",
    "lightning_ff.checks.parts": "lightning_ff.learner.checks.check_parts",
    "lightning_ff.checks.sampler": "lightning_ff.negatives.check_sampler",
    "lightning_ff.checks.trainer": "lightning_ff.learner.checks.check_trainer",
    "lightning_ff.configure.default_negatives": "lightning_ff.negatives.default_sampler",
    "lightning_ff.configure.fallback_index": "lightning_ff.negatives.pairs.fallback_index",
    "lightning_ff.configure.optimizers": "lightning_ff.optim.make_optimizers",
    "lightning_ff.configure.pairs": "lightning_ff.negatives.pairs",
    "lightning_ff.configure.rate": "lightning_ff.optim.default_rate",
    "lightning_ff.configure.remember": "lightning_ff.learner.hparams.remember",
    "lightning_ff.configure.remember_instead": "lightning_ff.learner.hparams.remember_instead",
    "lightning_ff.configure.schedulers": "lightning_ff.learner.schedulers.make_schedulers",
    "lightning_ff.configure.segments": "lightning_ff.sweep.make_segments",
    "lightning_ff.configure.tell_length": "lightning_ff.learner.schedulers.set_length",
    "lightning_ff.evaluation.MeanLoss": "lightning_ff.learner.evaluator.MeanLoss",
    "lightning_ff.hybrid.HybridImages": "lightning_ff.negatives.HybridImages",
    "lightning_ff.hybrid.blurred_masks": "lightning_ff.negatives.blurred_masks",
    "lightning_ff.kinds.Part": "lightning_ff.validate.Part",
    "lightning_ff.kinds.kind": "lightning_ff.validate.check_type",
    "lightning_ff.kinds.number": "lightning_ff.validate.check_number",
    "lightning_ff.kinds.own": "lightning_ff.validate.copy_if_owned",
    "lightning_ff.kinds.sizes": "lightning_ff.validate.check_ints",
    "lightning_ff.kinds.whole": "lightning_ff.validate.check_int",
    "lightning_ff.learner.Objective": "lightning_ff.sweep.Objective",
    "lightning_ff.methods.backbone.backbone": "lightning_ff.cut.backbone",
    "lightning_ff.methods.backbone.classifier": "lightning_ff.cut.backbone.classifier",
    "lightning_ff.methods.backbone.load": "lightning_ff.cut.backbone.load",
    "lightning_ff.methods.cautions.check_extra": "lightning_ff.cut.check_extra",
    "lightning_ff.methods.cautions.check_output": "lightning_ff.cut.check_output",
    "lightning_ff.methods.cautions.check_segments": "lightning_ff.cut.check_segments",
    "lightning_ff.methods.cautions.warn_of_one_block": "lightning_ff.cut.cautions.warn_of_one_block",
    "lightning_ff.methods.cautions.warn_of_still": "lightning_ff.cut.cautions.warn_of_still",
    "lightning_ff.methods.cut_network.CutNetworkLearner": "lightning_ff.cut.CutNetworkLearner",
    "lightning_ff.methods.cut_network.cut_network": "lightning_ff.cut.cut_network",
    "lightning_ff.methods.cut_network.loss_for": "lightning_ff.cut.loss_for",
    "lightning_ff.negatives.Learner": "lightning_ff.negatives.NegativeContext",
    "lightning_ff.random.hash_bits": "lightning_ff.hashing.hash_bits",
    "lightning_ff.random.hash_uniform": "lightning_ff.hashing.hash_uniform",
    "lightning_ff.random.host_hash": "lightning_ff.hashing.host_hash",
    "lightning_ff.random.host_uniform": "lightning_ff.hashing.host_uniform",
    "lightning_ff.recording.WholeFileIO": "lightning_ff.learner.resume.WholeFileIO",
    "lightning_ff.report.series.EVENTS": "lightning_ff.report.events.EVENTS",
    "lightning_ff.report.series.METRICS": "lightning_ff.report.readers.METRICS",
    "lightning_ff.report.series.number": "lightning_ff.report.readers.number",
    "lightning_ff.report.series.read_csv": "lightning_ff.report.readers.read_csv",
    "lightning_ff.report.series.read_metrics": "lightning_ff.report.readers.read_metrics",
    "lightning_ff.strategies.lifeline.Lifeline": "lightning_ff.strategies.failure_detector.FailureDetector",
    "lightning_ff.strategies.link.Link": "lightning_ff.strategies.p2p.P2P",
    "lightning_ff.strategies.link.Message": "lightning_ff.strategies.p2p.Message",
    "lightning_ff.strategies.meeting.Meeting": "lightning_ff.strategies.stop_sync.StopSync",
    "lightning_ff.strategies.stage.SameOrder": "lightning_ff.strategies.pipeline_stage.SameOrder",
    "lightning_ff.strategies.stage.Stage": "lightning_ff.strategies.pipeline_stage.PipelineStage",
    "lightning_ff.sweep.Arrived": "lightning_ff.stage.Received",
    "lightning_ff.sweep.Placement": "lightning_ff.stage.Stage",
}

_MODULES = {old.rpartition(".")[0] for old in MOVED}  # gone, or still there
_PACKAGES = {module.rpartition(".")[0] for module in _MODULES} - {""}


def moved(module: str) -> Callable[[str], Any]:
    """The `__getattr__` of a module: finds names that have left it, and modules of it that are gone."""

    def find(name: str) -> Any:
        old = f"{module}.{name}"
        if old in _MODULES:
            return import_module(old)
        if old not in MOVED:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        home, _, new = MOVED[old].rpartition(".")
        # `from package import name` first asks whether the package has the name, and then takes it
        if "importlib._bootstrap" not in sys._getframe(1).f_code.co_filename:
            text = f"{old} is now {MOVED[old]}: write `from {home} import {new}`"
            warnings.warn(f"{text}; the old path is removed in the next release", FutureWarning, stacklevel=2)
        return getattr(import_module(home), new)

    return find


class _Finder(MetaPathFinder, Loader):
    """Finds the modules that are gone: asked last, it gets what is not on disk."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname in _MODULES else None

    def exec_module(self, module: ModuleType) -> None:
        """Leave the module empty but for the names that are looked up in the table."""
        name = module.__name__
        names = [old.rpartition(".")[2] for old in MOVED if old.rpartition(".")[0] == name]
        vars(module).update(__getattr__=moved(name), __all__=names)


def install() -> None:
    """Make the old paths importable, in the modules that are imported by now too."""
    sys.meta_path.append(_Finder())
    for name in (_MODULES | _PACKAGES) & sys.modules.keys():
        vars(sys.modules[name]).setdefault("__getattr__", moved(name))
