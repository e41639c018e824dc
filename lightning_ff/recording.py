"""Recording: what a learner logs, checks and saves around its training steps."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelSummary
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from typing_extensions import Self, override

from lightning_ff import checks, configure
from lightning_ff._lightning import batches_seen, trainer_of
from lightning_ff.evaluation import Evaluation
from lightning_ff.negatives import NegativeSampler, load_state
from lightning_ff.sweep import SweepResult

_SAMPLES = 32  # of all processes together
_PLAIN = (str, int, bool, float, type(None))


class WholeFileIO(TorchCheckpointIO):
    """Lightning's own reader and writer of checkpoints, which reads a file only after it was found to be whole."""

    @override
    def load_checkpoint(self, path: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        checks.checkpoint(path)
        return super().load_checkpoint(path, *args, **kwargs)


class Recording(Evaluation):
    """Loss and accuracy from sums kept on the device, read at log intervals; checkpoints that hold good weights."""

    negatives: NegativeSampler | None = None
    own_negatives: NegativeSampler | None = None
    held_out: tuple[int, ...] = ()

    def __init__(self) -> None:
        super().__init__()
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._rng: dict[str, Any] = {}
        self._gradients: dict[str, Tensor] = {}
        self._steps_now = True
        self._fixed: set[str] = set()

    @override
    def __setattr__(self, name: str, value: Any) -> None:
        if name != "negatives":
            # Lightning notes dozens of plain values a batch, each of which torch would look for in its registries
            plain = type(value) in _PLAIN and name in self.__dict__
            return object.__setattr__(self, name, value) if plain else super().__setattr__(name, value)
        # no submodule: weights load whatever the sampler, and averaged weights leave out what it holds
        object.__setattr__(self, "own_negatives", value)
        object.__setattr__(self, "negatives", value)

    def install_negatives(self, sampler: NegativeSampler) -> None:
        """Use a sampler of a callback, which saves what it holds; the next fit begins with the learner's own again."""
        checks.sampler(sampler, self.network)
        if sampler.needs_scores and not self.network.placement.complete:
            raise ValueError(
                f"negatives={sampler} need the scores of all blocks before the first one learns, and these are in "
                "several processes: use WrongLabel(), or strategy='ff_ddp'"
            )
        dtype = next((p.dtype for p in self.parameters()), torch.float32)
        # of precision='64-true' or 'bf16-true'; mixed precision and '32-true' leave modules as they are
        object.__setattr__(self, "negatives", sampler.to(self.device, None if dtype == torch.float32 else dtype))

    def _record(self, result: SweepResult, image: Tensor, label: Tensor) -> None:
        for name, loss in result.losses.items():
            self._sums[name] = self._sums[name] + loss if name in self._sums else loss
            self._counts[name] = self._counts.get(name, 0) + 1
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every and (batches_seen(self.trainer) + 1) % every == 0:
            self._log_interval(image, label)

    def _log_interval(self, image: Tensor, label: Tensor) -> None:
        few = max(1, _SAMPLES // getattr(self.trainer.strategy, "copies", self.trainer.world_size))
        with torch.no_grad():
            hits = (self(image[:few]).argmax(1) == label[:few]).float().mean()
        placement = self.network.placement
        placement.meet()
        means = self._over_processes({**placement.gather(self._means()), "acc": float(hits)})
        checks.finite(means)
        for name, value in self._named(means).items():
            self.log(name, value, prog_bar=name in ("train/loss", "train/acc"))

    def _named(self, means: dict[str, float]) -> dict[str, float]:
        """Means as they are logged."""
        losses = {name: value for name, value in means.items() if name != "acc"}
        whole = sum(value for name, value in losses.items() if name != "readout")
        each = {f"train/loss/{name}": value for name, value in losses.items() if name != "network"}
        return {"train/loss": whole, **each, "train/acc": means["acc"]}

    def _over_processes(self, values: dict[str, float]) -> dict[str, float]:
        """Means over all processes, in one message; none where all of them have the same values."""
        if getattr(self.trainer.strategy, "copies", self.trainer.world_size) == 1:
            return values
        own = torch.tensor([*values.values()], dtype=torch.float32, device=self.device)
        means: Tensor = self.trainer.strategy.reduce(own, reduce_op="mean")
        return dict(zip(values, means.tolist(), strict=True))

    def _means(self) -> dict[str, float]:
        """Mean losses since the last call; stops the run when one is not finite."""
        if not self._sums:
            return {}
        means = torch.stack([self._sums[name] / self._counts[name] for name in self._sums]).tolist()
        named = dict(zip(self._sums, means, strict=True))
        self._sums, self._counts = {}, {}
        return named

    @override
    def setup(self, stage: str) -> None:
        checks.negatives(self)  # type: ignore[arg-type]
        self.held_out = checks.held_out(self.trainer.datamodule, self.network.num_classes)  # type: ignore[attr-defined]
        labels = self.network.labels
        if labels is not None and not bool(labels.known):
            maximum = getattr(self.trainer.datamodule, "input_max", None)  # type: ignore[attr-defined]
            if maximum is None:
                rank_zero_info("labels are written with 1.0: these data name no input_max, and on_value=None")
            labels.fix(1.0 if maximum is None else float(maximum))

    @override
    def configure_callbacks(self) -> list[Callback]:
        from lightning_ff.callbacks.summary import BlockSummary

        if self.trainer.state.fn == "fit":
            checks.trainer(self, self.trainer)  # type: ignore[arg-type]
            self.negatives = self.own_negatives
        strategy = self.trainer.strategy
        if type(strategy.checkpoint_io) is TorchCheckpointIO:
            strategy.checkpoint_io = WholeFileIO()
        plain = [c for c in self.trainer.callbacks if isinstance(c, ModelSummary)]  # type: ignore[attr-defined]
        return [BlockSummary()] if plain and not isinstance(plain[0], BlockSummary) else []

    @override
    def on_fit_start(self) -> None:
        self._sums, self._counts = {}, {}
        if not self.trainer.ckpt_path:
            self._rng, self._gradients = {}, {}
            self.network.waiting = set()
        if self.negatives is not None:
            self.install_negatives(self.negatives)
            rank_zero_info(f"negatives: {self.negatives}")

    @override
    def on_train_start(self) -> None:
        configure.tell_length(self)  # type: ignore[arg-type]
        checks.fitted(self)  # type: ignore[arg-type]
        if not self.trainer.fit_loop.epoch_loop.batch_progress.current.ready:
            self._gradients = {}  # of batches before the epoch began again
        for name, gradient in self._gradients.items():
            parameter = self.get_parameter(name)
            parameter.grad = gradient.to(parameter.device)
        if self._rng:
            torch.set_rng_state(self._rng["cpu"].cpu())
            if "cuda" in self._rng and torch.cuda.is_available():
                torch.cuda.set_rng_state(self._rng["cuda"].cpu())
        self._rng, self._gradients = {}, {}

    @override
    def on_fit_end(self) -> None:
        self._check_sums()

    def _check_sums(self) -> None:
        checks.finite({name: float(value) for name, value in self._sums.items()})

    @override
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._check_sums()
        checks.finite_weights(self)  # type: ignore[arg-type]
        for name in self._fixed:  # a subclass that chooses an argument itself cannot be given it when it is loaded
            checkpoint.get(self.CHECKPOINT_HYPER_PARAMS_KEY, {}).pop(name, None)
        if self.own_negatives is not None and (held := self.own_negatives.state_dict()):
            checkpoint["negatives"] = held
        if self.network.waiting:
            checkpoint["waiting"] = sorted(self.network.waiting)
        checkpoint["rng"] = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            checkpoint["rng"]["cuda"] = torch.cuda.get_rng_state(self.device)
        if not self._steps_now and self.trainer.world_size == 1:  # of several processes, each has its own
            pending = {name: p.grad for name, p in self.named_parameters() if p.grad is not None}
            checkpoint["gradients"] = pending

    @override
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.network.waiting = set(checkpoint.get("waiting", ()))
        trainer = trainer_of(self)
        resumes = trainer is not None and trainer.state.fn == "fit"
        if self.own_negatives is not None and "negatives" in checkpoint:
            load_state(self.own_negatives, checkpoint["negatives"], strict=resumes)
        if resumes:
            self._rng, self._gradients = checkpoint.get("rng", {}), checkpoint.get("gradients", {})

    @classmethod
    @override
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, **kwargs: Any) -> Self:
        """Load weights and arguments; a network given as an object has to be given again (`network=...`)."""
        checks.checkpoint(checkpoint_path)
        try:
            return super().load_from_checkpoint(checkpoint_path, *args, **kwargs)
        except TypeError:  # of a missing argument; checkpoints of the command line hold the network's description
            checks.given_again(cls, kwargs)
            raise
