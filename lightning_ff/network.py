"""LocalNetwork: blocks, label encoding and readout as one plain module that predicts.

Shapes: N samples, C classes, K blocks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from copy import deepcopy
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from lightning_ff.blocks.local_block import Activation, LocalBlock, first
from lightning_ff.build import Shapes, as_blocks, dry_run, evaluating, mode_of
from lightning_ff.labels import LabelEncoding
from lightning_ff.objectives import Mode
from lightning_ff.readouts import Readout
from lightning_ff.stage import Stage
from lightning_ff.validate import check_int, check_ints, check_number, check_type, copy_if_owned


class BlockOutput(NamedTuple):
    """Output of one block in a forward pass.

    Attributes:
        block: The block.
        h: Its activation.
        goodness: Its goodness `(N,)`, the mean of local values, or `(N, C)`, expanded by the class map;
            None if the block has none, or it was not measured.
        onwards: Input of the next block.
    """

    block: LocalBlock
    h: Activation
    goodness: Tensor | None
    onwards: Activation


class LocalNetwork(nn.Module):
    """An ordered list of blocks, with label encoding and readout; plain torch, no Trainer.

    Parts that depend on shapes (class heads, readouts, default thresholds) are built here by a dry run on zeros in
    eval mode, which does not change batch-norm statistics.

    Args:
        blocks: The blocks, in order.
        input_shape: Shape of one input, without the batch axis.
        num_classes: C.
        readout: Combines the blocks' scores or features.
        labels: Label encoding; pair mode needs one, class mode has none.
        input_normalization: Parameter-free module applied to the encoded input of the first block.
        scan_memory: Limit in MiB on the largest activation of a class scan; larger batches are scanned in chunks.

    Attributes:
        mode: "pair" or "class", from the blocks' goodness; where none has one, "pair" with a label encoding.
        names: Zero-padded names of the blocks: block00, block01, ...
        scored: Names of the blocks that have their own class scores.
        shapes: Output shapes of every block, without the batch axis.
        untrained: Indices of blocks that have not learned yet; a readout over the scores of all blocks leaves them out.
        stage: Which blocks are in this process; set by a strategy.

    Raises:
        ValueError: an argument does not fit the others; the message names it.
        TypeError: an argument is not of the annotated type.
    """

    def __init__(
        self,
        blocks: Iterable[LocalBlock],
        input_shape: Sequence[int],
        num_classes: int,
        readout: Readout,
        labels: LabelEncoding | None = None,
        input_normalization: nn.Module | None = None,
        scan_memory: float = 256.0,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(as_blocks(blocks))
        check_int("num_classes", num_classes)
        check_ints("input_shape", input_shape, "give the shape of one input, such as (1, 28, 28)")
        check_type("readout", readout, Readout, "give an instance, such as SumReadout()")
        if labels is not None:
            check_type("labels", labels, LabelEncoding, "give a label encoding, such as PixelOverlay()")
        self.input_shape = tuple(input_shape)
        self.num_classes = num_classes
        self.readout = readout = copy_if_owned(readout)
        self.labels = labels = None if labels is None else copy_if_owned(labels)
        if input_normalization is not None:
            check_type(
                "input_normalization", input_normalization, nn.Module, "give a module, such as Normalize(), or None"
            )
        self.input_normalization = input_normalization
        self.scan_memory = scan_memory
        digits = max(2, len(str(len(self.blocks) - 1)))
        self.names = [f"block{k:0{digits}d}" for k in range(len(self.blocks))]
        self.untrained: set[int] = set()
        self.stage = Stage()
        self.mode = self._check_mode()
        self.encoded_shape = labels.build(num_classes, self.input_shape) if labels else self.input_shape
        self.shapes = self._dry_run()
        self.exchange_readout(readout)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take the state of a pickle; the previous release had other names for some attributes."""
        old = {"placement": "stage", "waiting": "untrained"}
        renamed = {old.get(name, name): value for name, value in state.items()}
        nn.Module.__setstate__(self, {"_checked_shapes": {state["input_shape"]}, **renamed})

    @property
    def stack(self) -> list[LocalBlock]:
        """The blocks, in order."""
        return cast(list[LocalBlock], list(self.blocks))

    @property
    def owners(self) -> dict[str, nn.Module]:
        """Modules with their own optimizer, by its name: every block, and the readout."""
        return {**dict(zip(self.names, self.stack, strict=True)), "readout": self.readout}

    def exchange_readout(self, readout: Readout) -> None:
        """Replace the readout, after training too; one with parameters starts untrained.

        A learner has a method of the same name, which also creates new metrics.
        """
        check_type("readout", readout, Readout, "give an instance, such as SumReadout()")
        every = readout.needs == "features"
        if not every and all(block.goodness is None for block in self.stack):
            raise ValueError(f"readout={readout} combines goodness, and no block has one: use LinearReadout()")
        shapes = [s[0] for s, block in zip(self.shapes, self.stack, strict=True) if every or block.goodness is not None]
        readout.build(shapes, self.num_classes)
        self.readout = readout
        self.scored = self._scored_names()
        self._checked_shapes = {self.input_shape}

    def reset_heads(self, num_classes: int) -> None:
        """Reinitialise the class heads and the readout for another number of classes (class mode).

        Raises:
            ValueError: the network is in pair mode, or has fewer than two classes.
        """
        check_int("num_classes", num_classes)
        if self.labels is not None:
            raise ValueError(
                f"reset_heads(num_classes={num_classes}) is for class mode: labels={self.labels} is built in"
            )
        self.num_classes = num_classes
        self._check_mode()
        like = next(self.parameters())
        self.shapes = self._dry_run()
        self.exchange_readout(self.readout)
        self.to(like.device)

    def deploy(self) -> LocalNetwork:
        """A copy for inference: eval mode, no gradients, without losses and terms; `forward` returns `(N, C)`."""
        network = deepcopy(self).eval().requires_grad_(False)
        for block in network.stack:
            block.loss, block.terms = None, nn.ModuleList()
        return network

    def _scored_names(self) -> list[str]:
        """Names of the blocks that have their own class scores, in the order of `block_scores`."""
        if self.readout.needs == "scores":
            return [n for n, block in zip(self.names, self.stack, strict=True) if block.goodness is not None]
        if (indices := self.readout.indices) is not None:
            return [self.names[k] for k in indices]
        outputs = [torch.zeros(1, *shape[0]) for shape in self.shapes]
        return self.names[len(self.names) - len(self.readout.block_scores(outputs)) :]

    def _check_mode(self) -> Mode:
        if not len(self.blocks):
            raise ValueError("blocks=[]: give at least one block")
        if self.num_classes < 2:
            raise ValueError(f"num_classes={self.num_classes}: must be at least 2")
        if not self.input_shape or min(self.input_shape) < 1:
            raise ValueError(f"input_shape={self.input_shape}: give the shape of one input, every size at least 1")
        check_number("scan_memory", self.scan_memory, "give a positive number of MiB", above=0)
        mode = mode_of(self.stack, self.labels is not None)
        if (mode == "pair") != (self.labels is not None):
            want = "needs a label encoding, such as PixelOverlay()" if mode == "pair" else "takes no label encoding"
            raise ValueError(f"labels={self.labels}: {mode} mode {want}")
        return mode

    @torch.no_grad()
    def _dry_run(self) -> list[Shapes]:
        like = next((p for p in self.parameters() if p.is_floating_point()), torch.empty(0))
        x = self.normalize(torch.zeros(1, *self.encoded_shape, dtype=like.dtype, device=like.device))
        unchanged = self.labels is None and self.input_normalization is None
        blocks = dict(zip(self.names, self.stack, strict=True))
        return dry_run(blocks, x, self.input_shape, self.num_classes, self.mode, unchanged)

    # Inputs

    def check_input(self, image: Tensor) -> None:
        """Check inputs `(N, *input_shape)` before a pass; another shape is tested once, on zeros.

        Raises:
            TypeError: they are not of the weights' floating-point type.
            ValueError: the network cannot take inputs of this shape.
        """
        if image.dtype != torch.float32:
            self._check_dtype(image)
        shape = tuple(image.shape[1:])
        if shape in self._checked_shapes:
            return
        if shape != self.input_shape and sorted(shape) == sorted(self.input_shape):
            raise ValueError(
                f"inputs of shape {shape} are of another layout than input_shape={self.input_shape}: permute the axes, "
                "such as image.permute(0, 3, 1, 2) for channels in the last place"
            )
        try:
            self._predict_in_process(torch.zeros_like(image[:1]))
        except (RuntimeError, ValueError, IndexError) as error:
            raise ValueError(
                f"inputs of shape {shape} do not fit the network, built for input_shape={self.input_shape}: change one "
                f"of the two ({error})"
            ) from error
        self._checked_shapes.add(shape)

    def _check_dtype(self, image: Tensor) -> None:
        weight = next((p.dtype for p in self.parameters() if p.is_floating_point()), torch.float32)
        autocast = torch.is_autocast_enabled(image.device.type)
        if not image.is_floating_point() or (image.dtype != weight and not (autocast and image.dtype != torch.float64)):
            raise TypeError(
                f"inputs of type {image.dtype} do not fit weights of type {weight}: convert the data, such as "
                "image.float() / 255 for bytes, without / 255 for halves, or train with precision='64-true' for float64"
            )

    @torch.no_grad()
    def _predict_in_process(self, x: Tensor) -> Tensor:
        """Class scores in eval mode, by all blocks in this process, including those that other processes train."""
        stage, self.stage = self.stage, Stage()
        try:
            with evaluating(self):
                return self.combine(self.outputs(x))
        finally:
            self.stage = stage

    def normalize(self, x: Tensor) -> Tensor:
        """Normalise the encoded input, for the first block."""
        return x if self.input_normalization is None else self.input_normalization(x)

    def neutral_view(self, x: Tensor) -> Tensor:
        """First block's input in a feature readout's pass: plain inputs with the neutral label, if there are labels."""
        return self.normalize(self.labels.neutral(x) if self.labels is not None else x)

    # Passes without learning

    def run(
        self, x: Activation, start: int = 0, stop: int | None = None, measure: bool = True
    ) -> Iterator[BlockOutput]:
        """Run blocks one after another in their current mode; an output that is not kept is freed.

        Args:
            x: Input of the first of them, encoded and normalised.
            start: Index of the first block.
            stop: Index after the last block; None runs to the end.
            measure: Compute the goodness.
        """
        for block in self.stack[start:stop]:
            h, goodness = block(x, measure=measure)
            x = block.hand_over(h)
            yield BlockOutput(block, h, None if goodness is None else block.scores(goodness), x)

    def _run_stage(self, x: Activation, measure: bool = True) -> Iterator[BlockOutput]:
        """Run the blocks of this process: receive from the stage before, and send to the stage after."""
        stage = self.stage
        own = [k for k in range(len(self.blocks)) if stage.owns(k)]
        if not stage.is_first:
            x = stage.recv_forward().x
        for output in self.run(x, own[0], own[-1] + 1, measure):
            x = output.onwards
            yield output
        if not stage.is_last:
            stage.send_forward(x)

    def features(self, x: Tensor) -> list[Tensor]:
        """Activation of every block, `(N, ...)` each, for inputs `(N, *input_shape)` with the neutral label."""
        return [first(output.h) for output in self._run_stage(self.neutral_view(x), measure=False)]

    def normalized_features(self, x: Tensor) -> list[Tensor]:
        """Normalised output of every block, which are the features of a readout."""
        return [first(output.onwards) for output in self._run_stage(self.neutral_view(x), measure=False)]

    def goodness(self, x: Tensor) -> list[Tensor]:
        """Goodness of every block for encoded inputs: `(N,)` each in pair mode, `(N, C)` in class mode."""
        return [output.goodness for output in self._run_stage(self.normalize(x)) if output.goodness is not None]

    def observe(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """`normalized_features`, and the goodness of that view `(N,)` or `(N, C)` per block, in one pass."""
        features, goodness = [], []
        for output in self._run_stage(self.neutral_view(x)):
            features.append(first(output.onwards))
            goodness += [] if output.goodness is None else [output.goodness]
        return features, goodness

    def block_scores(self, x: Tensor) -> list[Tensor]:
        """Class scores `(N, C)` of each single block; in pair mode by a scan over all candidate labels."""
        if self.readout.needs == "features":
            return self.readout.block_scores(self.normalized_features(x))
        return self.scores(x)

    def scores(self, x: Tensor) -> list[Tensor]:
        """Goodness per class `(N, C)` of every block that measures it."""
        if self.labels is None:
            return self.goodness(x)
        parts = [self._scan(chunk) for chunk in x.split(self.scan_rows)]
        return parts[0] if len(parts) == 1 else [torch.cat(chunks) for chunks in zip(*parts, strict=True)]

    @property
    def scan_rows(self) -> int:
        """Samples per chunk of a class scan, so that its largest activation stays below `scan_memory`."""
        shapes = [self.encoded_shape, *(shape for of_block in self.shapes for shape in of_block)]
        widest = max(torch.Size(shape).numel() for shape in shapes)
        return max(1, int(self.scan_memory * 2**20 / (4 * widest * self.num_classes)))

    def _scan(self, x: Tensor) -> list[Tensor]:
        assert self.labels is not None
        return [g.view(self.num_classes, -1).T for g in self.goodness(self.labels.candidates(x))]

    def outputs(self, x: Tensor) -> list[Tensor]:
        """Inputs of the readout, one per block: class scores `(N, C)`, or features."""
        return self.normalized_features(x) if self.readout.needs == "features" else self.scores(x)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores `(N, C)` of inputs `(N, *input_shape)`."""
        outputs = self.stage.gather_outputs(self.outputs(x))
        scores: Tensor = self.stage.broadcast(None if outputs is None else self.combine(outputs))
        return scores

    def combine(self, outputs: list[Tensor]) -> Tensor:
        """Class scores `(N, C)` of the readout from its inputs, one per block."""
        if self.untrained and self.readout.takes_some:
            indices = [k for k, block in enumerate(self.stack) if block.goodness is not None]
            trained = [output for k, output in zip(indices, outputs, strict=True) if k not in self.untrained]
            outputs = trained or outputs
        return self.readout(outputs)

    def evaluating(self) -> AbstractContextManager[None]:
        """Context manager: eval mode for the network; restores the mode of every module."""
        return evaluating(self)
