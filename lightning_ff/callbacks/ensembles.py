"""Category-specific ensembles at the end of validations and tests: values, files and pictures."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix
from typing_extensions import override

from lightning_ff._lightning import callbacks_of
from lightning_ff.callbacks.ensemble_files import class_names, draw, save, summary, weights
from lightning_ff.callbacks.representations import LabelPolicy, Units, layers_of, unseen
from lightning_ff.callbacks.watching import RepresentationCallback
from lightning_ff.learner import LocalLearner
from lightning_ff.metrics import (
    ClassSamples,
    ClassStatistics,
    kolmogorov_smirnov_ensemble,
    leave_one_out_ensemble,
    quantile_median_ensemble,
)
from lightning_ff.validate import check_flag, check_int, check_number, check_text

Definition = Literal["leave_one_out", "quantile_median", "kolmogorov_smirnov"]
_PARAMETER = {"leave_one_out": ("k", 1.0), "quantile_median": ("quantile", 0.9), "kolmogorov_smirnov": ("level", 0.05)}


class EnsembleMonitor(RepresentationCallback):
    """Find the units that respond to each class, and how classes share them (arXiv 2305.18353, public protocol).

    In pair mode it uses images with their own label written in. It writes `representations/<stage>.npz`, from which
    every picture can be redrawn, and `<stage>.csv` into the run's folder, with "val" or "test" for `<stage>`. It logs
    the pictures and `<stage>/ensemble/<measure>/<layer>`: `sparsity` (Hoyer's), `size` (mean over classes, in units),
    `jaccard` (mean over pairs of classes), `shared` (units in more than one ensemble) and `dead_units`.

    Args:
        layers: Paths of modules; None is every block of a learner but a classifier.
        definition: Units of an ensemble are those whose mean activity exceeds that of the others ("leave_one_out"),
            whose median exceeds a quantile of all ("quantile_median"), or whose distribution differs from the others'
            ("kolmogorov_smirnov"). The last two need samples.
        parameter: k, the quantile, or the level; None is 1, 0.9 or 0.05.
        only_correct: Leave misclassified samples out; samples of classes held out of training are kept.
        every_n_epochs: Epochs between validations that are measured; 0 measures none. Tests always are.
        samples: Samples of each class whose activations are kept, selected by index; 0 keeps none.
        label_policy: Label written into images of classes that training has not seen: the "true" one, which training
            has not seen either, the "neutral" or the "predicted" one.
        units: "all" values of a layer are its units, or its "channels", averaged over positions.
        pictures: Draw pictures.
        scores: Path of the module that returns class scores, for a LightningModule that is not a learner; None uses all
            samples, which needs only_correct=False.

    Raises:
        ValueError: an argument is out of range, does not fit another, or a path names no module.
        TypeError: an argument is not of the annotated type.
    """

    def __init__(
        self,
        layers: list[str] | None = None,
        definition: Definition = "leave_one_out",
        parameter: float | None = None,
        only_correct: bool = True,
        every_n_epochs: int = 10,
        samples: int = 100,
        label_policy: LabelPolicy = "true",
        units: Units = "all",
        pictures: bool = True,
        scores: str | None = None,
    ) -> None:
        super().__init__(layers, every_n_epochs, units)
        if not isinstance(definition, str) or definition not in _PARAMETER:
            raise ValueError(f"definition={definition!r}: choose one of {', '.join(_PARAMETER)}")
        check_flag("only_correct", only_correct)
        check_flag("pictures", pictures)
        check_text("scores", scores, "give the path of a module, or None")
        if label_policy not in ("true", "neutral", "predicted"):
            raise ValueError(f"label_policy={label_policy!r}: choose 'true', 'neutral' or 'predicted'")
        check_int("samples", samples)
        if samples < 0:
            raise ValueError(f"samples={samples}: must be 0 or more")
        if parameter is not None:
            check_number("parameter", parameter, "give a number of 0 or more, or None", least=0)
        if definition != "leave_one_out" and samples == 0:
            raise ValueError(f"definition={definition!r} needs samples, and samples=0 keeps none: raise it")
        self.definition = definition
        self.parameter = _PARAMETER[definition][1] if parameter is None else parameter
        self.only_correct = only_correct
        self.samples = samples
        self.label_policy = label_policy
        self.pictures = pictures
        self.scores = scores
        self._hook: Any = None
        self._prediction: Tensor | None = None
        self.begin()

    @override
    def begin(self) -> None:
        self._statistics: dict[str, ClassStatistics] = {}
        self._kept: dict[str, ClassSamples] = {}
        self._confusion: MulticlassConfusionMatrix | None = None

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if stage == "predict" or self._hook is not None:
            return
        monitors = [each for each in callbacks_of(trainer) if isinstance(each, EnsembleMonitor)]
        if len(monitors) > 1:
            raise ValueError(
                f"{len(monitors)} EnsembleMonitor would write the same files: give one, and test again for another"
            )
        scores_module: Any = None
        if self.scores is not None:
            scores_module = layers_of(pl_module, [self.scores])[self.scores]
        elif isinstance(pl_module, LocalLearner):
            scores_module = pl_module.network.readout
        elif self.only_correct:
            raise ValueError(
                f"only_correct=True needs the class scores of {type(pl_module).__name__}: name the module that returns "
                "them, such as scores='head', or use only_correct=False"
            )
        if scores_module is not None:
            self._hook = scores_module.register_forward_hook(self._save_prediction)

    def _save_prediction(self, module: Any, inputs: Any, output: Tensor) -> None:
        self._prediction = output.detach().argmax(1)

    @override
    def _remove(self) -> None:
        super()._remove()
        if self._hook is not None:
            self._hook.remove()
        self._hook = self._prediction = None

    @override
    def answers(self, label: Tensor) -> Tensor:
        return label if self._prediction is None else self._prediction

    @override
    def see(
        self,
        trainer: Trainer,
        module: LightningModule,
        found: dict[str, Tensor],
        label: Tensor,
        index: Tensor,
    ) -> None:
        prediction = self.answers(label)
        if self._confusion is None:
            classes = class_names(trainer, module)
            self._confusion = MulticlassConfusionMatrix(len(classes), validate_args=False).to(label.device)
        self._confusion.update(prediction, label)
        rows = (prediction == label) | unseen(module, label) if self.only_correct else torch.ones_like(label).bool()
        for name, h in found.items():
            if name not in self._statistics:
                device = torch.device("cpu") if h.device.type == "mps" else h.device  # which has no float64
                sizes = (self._confusion.num_classes, h.shape[1])
                self._statistics[name] = ClassStatistics(*sizes).to(device)
                if self.samples:
                    self._kept[name] = ClassSamples(*sizes, self.samples).to(device)
            seen = self._statistics[name]
            chosen = [values[rows].to(seen.device) for values in (h, label, index)]
            seen.update(*chosen[:2])
            if self.samples:
                self._kept[name].update(*chosen)

    @override
    def end(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self._confusion is None:
            return
        data = self._data(trainer, pl_module)
        values = summary(data)
        pl_module.log_dict({f"{stage}/{key}": value for key, value in values.items() if value == value}, sync_dist=True)
        if trainer.is_global_zero:
            save(trainer, stage, data)
            if self.pictures:
                draw(trainer, stage, data)

    def _data(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, np.ndarray]:
        """Contents of the file, from all processes."""
        assert self._confusion is not None
        confusion = self._confusion.compute().double()
        accuracies = {"confusion": confusion.long(), "accuracy": confusion.diagonal() / confusion.sum(1)}
        held_out = pl_module.held_out if isinstance(pl_module, LocalLearner) else ()
        data: dict[str, Any] = {
            "classes": np.array(class_names(trainer, pl_module)),
            **(accuracies if self._hook is not None else {}),  # unknown without class scores
            "layers": np.array([*self._statistics]),
            "definition": np.array(f"{self.definition} {_PARAMETER[self.definition][0]}={self.parameter:g}"),
            "samples": np.array("correct" if self.only_correct else "all"),
            "seen": np.array([c not in held_out for c in range(len(confusion))]),
            "label_policy": np.array(self.label_policy if held_out else ""),
        }
        for name, statistics in self._statistics.items():
            computed = statistics.compute()
            data |= {f"{name}/{key}": value for key, value in computed.items()}
            kept = self._kept[name].compute() if self.samples else {}
            data[f"{name}/members"] = self._members(computed["mean"], kept)
            if kept:
                data |= {"label": kept["label"], "index": kept["index"], f"{name}/activations": kept["h"]}
            data |= weights(self.recorder.layers[name], name)  # type: ignore[union-attr]
        return {key: value.cpu().numpy() if isinstance(value, Tensor) else value for key, value in data.items()}

    def _members(self, mean: Tensor, kept: dict[str, Tensor]) -> Tensor:
        """Ensembles `(C, U)`; empty for a class without samples."""
        if self.definition == "leave_one_out":
            return leave_one_out_ensemble(mean.nan_to_num(0.0), self.parameter)
        find = quantile_median_ensemble if self.definition == "quantile_median" else kolmogorov_smirnov_ensemble
        members = torch.zeros(mean.shape, dtype=torch.bool, device=mean.device)
        for c in range(len(mean)):
            h = kept["h"][kept["label"] == c]
            if len(h):
                members[c] = find(h, self.parameter)
        return members
