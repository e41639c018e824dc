"""`ff_ddp`: every process trains all blocks on its share of the batch; gradients are averaged block by block."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import timedelta
from typing import Any, Literal

import torch
from lightning.fabric.plugins import CheckpointIO, ClusterEnvironment
from lightning.pytorch import LightningModule
from lightning.pytorch.accelerators import Accelerator
from lightning.pytorch.plugins.precision import Precision
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn
from torch.distributed.constants import default_pg_timeout
from torch.optim import Optimizer
from typing_extensions import override

from lightning_ff._lightning import hooked
from lightning_ff.strategies.common import LocalStrategy
from lightning_ff.strategies.late import Settings, only_reads, settings, unseen, with_settings
from lightning_ff.strategies.placed import Placing
from lightning_ff.strategies.reduction import Average
from lightning_ff.strategies.shared import Near, SharedAverage, near


class LocalDDPStrategy(LocalStrategy, DDPStrategy):
    """Data parallelism for many local backwards: `Trainer(strategy="ff_ddp")`.

    The module is not wrapped. When the backward of a block ends, one message with its gradients is on its way, and the
    next block runs meanwhile; the block's step waits for it. Every gradient travels once per step, in as many messages
    as there are blocks. Between steps of accumulated gradients nothing travels.

    No block needs the next one's new weights, so a block's step is put off until it runs again (or weights are
    evaluated, saved, or the epoch ends): messages have the time of a whole sweep, and a process that was held up for a
    moment holds up no other. Weights are the same. Where something of your own might look at weights between two
    batches, with `step="block"` and with `16-mixed`, steps are made at once.

    Gradients and running statistics become means over processes. With batches of equal size and losses that are means
    over samples that is the run of one process on all of them; where a loss looks across the batch, such as that of
    peer normalisation, or a layer does, such as batch norm without `sync_batchnorm`, it is as in any data parallelism.
    A parameter that the loss of a process does not reach counts as 0 there. Processes need the same number of batches.
    A wish to stop (`max_time`, `trainer.should_stop`, SIGTERM) waits for the next log interval or end of an epoch.

    Args:
        compression: "bf16" sends gradients in half the bytes; None in their own type.
        shared_memory: Up to four processes of one machine without GPUs read each other's gradients in its memory (twice
            the size of the weights, and up to once more where a step may write to gradients), where the system (Linux)
            lets them; with False, or `compression`, they send messages as everywhere else.
        late_steps: Put steps off as above; with False they are made before a batch ends.
        process_group_backend: "nccl", "gloo" or another one of torch's; None goes by the device.
        timeout: Until a process that waits for the others gives up.
        start_method: How processes are started: "popen", "spawn", "fork" or "forkserver".
        accelerator: Set by the Trainer.
        parallel_devices: Set by the Trainer.
        cluster_environment: Where the processes run; None finds out.
        checkpoint_io: How checkpoints are written; None is Lightning's own way.
        precision_plugin: Set by the Trainer.

    Raises:
        ValueError: an argument is not one of its choices, or processes have different numbers of batches.
        TypeError: the module is no learner of this package.
    """

    def __init__(
        self,
        compression: Literal["bf16"] | None = None,
        shared_memory: bool = True,
        late_steps: bool = True,
        process_group_backend: str | None = None,
        timeout: timedelta = default_pg_timeout,
        start_method: Literal["popen", "spawn", "fork", "forkserver"] = "popen",
        accelerator: Accelerator | None = None,
        parallel_devices: list[torch.device] | None = None,
        cluster_environment: ClusterEnvironment | None = None,
        checkpoint_io: CheckpointIO | None = None,
        precision_plugin: Precision | None = None,
    ) -> None:
        if compression not in (None, "bf16"):
            raise ValueError(f"compression={compression!r}: choose 'bf16', or None")
        super().__init__(
            accelerator=accelerator,
            parallel_devices=parallel_devices,
            cluster_environment=cluster_environment,
            checkpoint_io=checkpoint_io,
            precision_plugin=precision_plugin,
            process_group_backend=process_group_backend,
            timeout=timeout,
            start_method=start_method,
        )
        self.compression, self.shared_memory, self.timeout = compression, shared_memory, timeout
        self.late_steps = late_steps
        self._near: Near | None = None
        self._averages: dict[str, Average] = {}
        self._flying: dict[str, list[Tensor]] = {}
        self._late: dict[str, Settings] = {}  # of the flying, those whose step was put off
        self._stepped: set[str] = set()
        self._holding = False
        self._unseen = False  # in the batch that runs
        self._placing: AbstractContextManager[Any] = nullcontext()
        self._places: dict[Tensor, Tensor] = {}  # where the backward that runs may lay gradients of parameters
        self._placed: dict[Tensor, Tensor] = {}  # and where it has
        self._moving: dict[str, tuple[list[Tensor], Average]] = {}  # running statistics of blocks that learn

    @override
    def configure_ddp(self) -> None:
        """Begin with equal weights; nothing is wrapped."""
        self.begin_equal()
        wanted = self.shared_memory and self.compression is None and self.root_device.type == "cpu"
        self._near = near(self._peers, self.timeout) if wanted else None

    @override
    def backward(self, closure_loss: Tensor, optimizer: Optimizer | None, *args: Any, **kwargs: Any) -> Tensor:
        if self._holding or self.copies == 1:
            return super().backward(closure_loss, optimizer, *args, **kwargs)
        learning = {name: self._learning(name) for name in self._owned(optimizer)}
        for name, parameters in learning.items():
            self._places.update(self._ahead(name, parameters))
        try:
            loss = super().backward(closure_loss, optimizer, *args, **kwargs)
            for name, parameters in learning.items():
                self._reduce(name, parameters)
        finally:
            self._places.clear()
            self._placed.clear()
        return loss

    @override
    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        self._unseen = self.copies > 1 and unseen(self.learner.trainer, self.learner)
        # gradients that lie in memory which is soon written again are shown to nobody
        with self._placing if self._unseen else nullcontext():
            return super().training_step(*args, **kwargs)

    def _ahead(self, name: str, parameters: list[Tensor]) -> Iterable[tuple[Tensor, Tensor]]:
        """Parameters of a block with the memory that their gradients may be laid into, if there is any."""
        average = self._averages.get(name)
        places = average.ahead(parameters) if self._unseen and isinstance(average, SharedAverage) else []
        return zip(parameters, places, strict=False)

    def _place_of(self, weight: Tensor) -> Tensor | None:
        """Where this backward may lay the gradient of a weight, if it is the first and no hook sees it."""
        if weight not in self._places or weight.grad is not None or hooked(weight):
            return None
        self._placed[weight] = self._places.pop(weight)
        return self._placed[weight]

    def _learning(self, name: str) -> list[Tensor]:
        return [p for p in self.learner.facade.parameters(name) if p.requires_grad]

    def _reduce(self, name: str, parameters: list[Tensor]) -> None:
        """Send a block's gradients off."""
        self._average(name).start([self._gradient(parameter) for parameter in parameters])
        self._flying[name] = parameters
        if name in self._moving:
            buffers, average = self._moving[name]
            average.start(buffers)
        for parameter in parameters:
            parameter.grad = None  # its memory, still in the cache, is the next block's

    def _gradient(self, parameter: Tensor) -> Tensor:
        """The gradient of a parameter, or its share in the mean where that was laid already."""
        placed = self._placed.pop(parameter, None)
        if placed is None:
            return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        # the layer may have run twice
        return placed if parameter.grad is None else placed.add_(parameter.grad, alpha=1 / self.copies)

    def _average(self, name: str) -> Average:
        if name not in self._averages:
            self._averages[name] = self._new_average(torch.bfloat16 if self.compression else None)
        return self._averages[name]

    def _new_average(self, compression: torch.dtype | None = None) -> Average:
        return SharedAverage(self._near, self._peers) if self._near else Average(self._peers, compression)

    def _owned(self, optimizer: Optimizer | None) -> list[str]:
        """Blocks whose gradients are complete with this backward."""
        name = None if optimizer is None else self.learner.facade.name_of(optimizer)
        return [*self.learner.facade.latest] if name is None else [name]

    @contextmanager
    @override
    def block_backward_sync(self) -> Iterator[None]:
        self._holding = True
        try:
            yield
        finally:
            self._holding = False

    @override
    def optimizer_step(
        self,
        optimizer: Optimizer,
        closure: Callable[[], Any],
        model: LightningModule | nn.Module | None = None,
        **kwargs: Any,
    ) -> Any:
        name = self.learner.facade.name_of(optimizer)
        if name in self._flying:
            self._land(name)
        elif name is None and self._flying:
            self._land_or_put_off()
        return super().optimizer_step(optimizer, closure, model, **kwargs)

    def _land_or_put_off(self) -> None:
        """At the end of a batch: what has to wait for its messages now, and what may step later."""
        facade, waits = self.learner.facade, self._may_wait()
        if not waits:
            self.settle()
        for name in [name for name in self._flying if name not in self._late]:
            held = settings(facade.inner[name])
            if waits and held is not None and name in self._stepped:
                self._late[name] = held
                facade.learned.pop(name)
            else:
                self._land(name)

    def _may_wait(self) -> bool:
        """Whether the next batch comes before anything looks at the weights."""
        trainer = self.learner.trainer
        return (
            self.late_steps
            and not trainer.is_last_batch
            and trainer.global_step + 1 != trainer.max_steps
            and getattr(self.precision_plugin, "scaler", None) is None
            and self._unseen
        )

    def _land(self, name: str) -> None:
        """Wait for a block's messages, and take what they say."""
        average = self._averages[name]
        own = not isinstance(average, SharedAverage) or self._only_reads(name)
        for parameter, gradient in zip(self._flying.pop(name), average.wait(), strict=True):
            # optimizers want a gradient that lies in memory as its parameter does
            kept = own and parameter.is_contiguous()
            parameter.grad = gradient if kept else torch.empty_like(parameter).copy_(gradient)
        if name in self._moving:
            buffers, average = self._moving[name]
            average.into(buffers)
        self._stepped.add(name)  # a scheduler wants its optimizer to have stepped before it

    def _only_reads(self, name: str) -> bool:
        """Whether a block's step, and all around it, leaves gradients as they are, which other processes read too."""
        clip, scaler = self.learner.gradient_clip_val, getattr(self.precision_plugin, "scaler", None)
        return self._unseen and clip is scaler is None and only_reads(self.learner.facade.inner[name])

    @override
    def settle(self, names: Iterable[str] | None = None) -> None:
        for name in [name for name in self._late if names is None or name in names]:
            optimizer = self.learner.facade.inner[name]
            # an evaluation may have asked, and the state of optimizers must not belong to its inference mode
            with torch.inference_mode(False):
                self._land(name)
                with with_settings(optimizer, self._late.pop(name)):
                    self.optimizer_step(optimizer, _nothing)
            optimizer.zero_grad(set_to_none=True)

    @override
    def lightning_module_state_dict(self) -> dict[str, Any]:
        self.settle()
        return super().lightning_module_state_dict()

    @override
    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        self.settle()
        return super().optimizer_state(optimizer)

    @override
    def on_train_start(self) -> None:
        super().on_train_start()
        learns = self.learner.facade.inner if self.copies > 1 else ()
        if self._near is not None:
            self._placing = Placing(self.learner.blocks, self._place_of, 1 / self.copies)
        self._moving = {
            name: (buffers, self._new_average()) for name, buffers in self._statistics.items() if name in learns
        }
        self._statistics = {name: buffers for name, buffers in self._statistics.items() if name not in learns}

    @override
    def on_train_end(self) -> None:
        super().on_train_end()
        self.settle()

    @override
    def on_exception(self, exception: BaseException) -> None:
        super().on_exception(exception)
        with suppress(RuntimeError):  # those that it would need may be gone
            self.settle()

    @override
    def teardown(self) -> None:
        self._flying.clear()
        self._late.clear()
        self._stepped.clear()
        self._moving.clear()
        self._averages.clear()
        self._placing = nullcontext()
        if self._near is not None:
            self._near.close()
            self._near = None
        super().teardown()


def _nothing() -> None:
    """The closure of a step whose gradients are there already."""
