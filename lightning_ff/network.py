"""LocalNetwork: blocks, label encoding and readout as one plain module that predicts.

Shapes: N samples, C classes, K blocks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import cast

import torch
from torch import Tensor, nn

from lightning_ff.blocks.channels import channel_axis, watching
from lightning_ff.blocks.local_block import Activation, LocalBlock, first
from lightning_ff.labels import LabelEncoding
from lightning_ff.objectives import Mode, Term
from lightning_ff.readouts import Readout
from lightning_ff.sweep import Placement
from lightning_ff.validate import check_int, check_ints, check_number, check_type, copy_if_owned


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode for a module, put back afterwards submodule by submodule."""
    training = [part for part in module.modules() if part.training]
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True


class LocalNetwork(nn.Module):
    """An ordered list of blocks and what is needed to predict with them; plain torch, no Trainer.

    Parts that depend on shapes (class heads, readouts, default thresholds) are built here by a dry run on zeros in
    eval mode, which leaves batch-norm statistics alone.

    Args:
        blocks: The blocks, in order.
        input_shape: Shape of one input, without the batch axis.
        num_classes: C.
        readout: Joins the blocks' answers.
        labels: Label encoding; pair mode needs one, class mode has none.
        input_normalization: Parameter-free module applied to the encoded input of the first block.
        scan_memory: Bound in MiB on the widest activation of a class scan; larger batches are scanned in chunks.

    Attributes:
        mode: "pair" or "class", from the blocks' goodness.
        names: Zero-padded names of the blocks: block00, block01, ...
        scored: Names of the blocks that have class scores of their own.
        shapes: Output shapes of every block, without the batch axis.
        waiting: Places of blocks that have not begun to learn; a readout over the scores of all blocks leaves them out.

    Raises:
        ValueError: any of these does not fit the others; the message names the argument.
        TypeError: any of these is not what its annotation says.
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
        self.blocks = nn.ModuleList(_local(blocks))
        check_int("num_classes", num_classes)
        check_ints("input_shape", input_shape, "give the shape of one input, such as (1, 28, 28)")
        check_type("readout", readout, Readout, "give an instance, such as SumReadout()")
        if labels is not None:
            check_type("labels", labels, LabelEncoding, "give a label encoding, such as PixelOverlay()")
        self.input_shape = tuple(input_shape)
        self.num_classes = num_classes
        self.readout = readout = copy_if_owned(readout)
        self.labels = labels = None if labels is None else copy_if_owned(labels)
        self.input_normalization = input_normalization
        self.scan_memory = scan_memory
        digits = max(2, len(str(len(self.blocks) - 1)))
        self.names = [f"block{k:0{digits}d}" for k in range(len(self.blocks))]
        self.waiting: set[int] = set()
        self.placement = Placement()
        self.mode = self._check_mode()
        self.encoded_shape = labels.build(num_classes, self.input_shape) if labels else self.input_shape
        self.shapes = self._dry_run()
        self.exchange_readout(readout)

    @property
    def stack(self) -> list[LocalBlock]:
        """The blocks, in order."""
        return cast(list[LocalBlock], list(self.blocks))

    def exchange_readout(self, readout: Readout) -> None:
        """Join the blocks' answers in another way, after training too; one that learns begins untrained.

        A learner has a method of the same name, which makes its metrics anew.
        """
        check_type("readout", readout, Readout, "give an instance, such as SumReadout()")
        heard = readout.needs == "features"
        answering = [heard or block.goodness is not None for block in self.stack]
        shapes = [s[0] for s, answers in zip(self.shapes, answering, strict=True) if answers]
        readout.build(shapes, self.num_classes)
        self.readout = readout
        self.scored = self._scored()

    def reset_heads(self, num_classes: int) -> None:
        """Draw anew, for other classes, what depends on them: class heads and readout (class mode).

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
        """A copy for inference: eval mode, no gradients, without losses and terms; `forward` gives `(N, C)`."""
        network = deepcopy(self).eval().requires_grad_(False)
        for block in network.stack:
            block.loss, block.terms = None, nn.ModuleList()
        return network

    def _scored(self) -> list[str]:
        """Names of the blocks that have class scores of their own, in the order of `block_scores`."""
        if self.readout.needs == "scores":
            return [n for n, block in zip(self.names, self.stack, strict=True) if block.goodness is not None]
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
        modes = {block.goodness.mode for block in self.stack if block.goodness is not None}
        if len(modes) != 1:
            found = f"goodness of modes {sorted(modes)}" if modes else "no goodness at all"
            raise ValueError(f"blocks have {found}: give every block one of the same mode, 'pair' or 'class'")
        mode: Mode = modes.pop()
        if (mode == "pair") != (self.labels is not None):
            want = "needs a label encoding, such as PixelOverlay()" if mode == "pair" else "takes no label encoding"
            raise ValueError(f"labels={self.labels}: {mode} mode {want}")
        return mode

    @torch.no_grad()
    def _dry_run(self) -> list[tuple[torch.Size, ...]]:
        """Send zeros through, build what depends on shapes, and record every block's output shapes."""
        kind = next((p for p in self.parameters() if p.is_floating_point()), torch.empty(0))
        x: Activation = self.normalize(torch.zeros(1, *self.encoded_shape, dtype=kind.dtype, device=kind.device))
        shapes = []
        for name, block in zip(self.names, self.stack, strict=True):
            with watching(block.layers) as seen:
                h = self._try(name, block, x)
            shape = first(h).shape[1:]
            block.place_channels(first(h), channel_axis(first(h).shape, seen))
            if block.goodness is not None:
                self._measure(name, block, shape)
            for term in cast(Iterable[Term], block.terms):
                term.build(shape)
            shapes.append(tuple(entry.shape[1:] for entry in ((h,) if isinstance(h, Tensor) else h)))
            x = block.hand_over(h)
        return shapes

    def _try(self, name: str, block: LocalBlock, x: Activation) -> Activation:
        """A block's output for an input of the dry run, which it must leave as it is."""
        entries = (x,) if isinstance(x, Tensor) else x
        before = [entry._version for entry in entries]
        try:
            with evaluating(block):
                h, _ = block(x, measure=False)
        except (RuntimeError, TypeError, ValueError) as error:
            raise ValueError(
                f"{name} cannot take its input of shape {tuple(first(x).shape[1:])} "
                f"(input_shape={self.input_shape}): {self._tokens(block, x) or error}"
            ) from error
        if not all(isinstance(entry, Tensor) for entry in (h if isinstance(h, tuple) and h else [h])):
            raise ValueError(
                f"{name} gives a {type(h).__name__}, and a block gives a tensor (N, ...) or a tuple of tensors, the "
                "activation first: wrap what gives it in a module that returns the tensor alone"
            )
        if before != [entry._version for entry in entries]:
            raise ValueError(
                f"{name} changes its input in place, which is the activation of the block before or the data: let it "
                "begin with an operation that does not, such as nn.ReLU(inplace=False)"
            )
        return h

    def _tokens(self, block: LocalBlock, x: Activation) -> str | None:
        """What to do where a block fails on its input and runs on whole numbers, as an embedding does."""
        if not (isinstance(x, Tensor) and x.is_floating_point()):
            return None
        try:
            with evaluating(block):
                block(x.long(), measure=False)
        except Exception:
            return None
        unchanged = self.labels is None and self.input_normalization is None
        wrap = ", or wrap the embedding in a module that gets them as floats and calls x.long()" if unchanged else ""
        what = f"it takes whole numbers, and its input is of type {x.dtype}"
        return f"{what}; embed tokens before, outside the network{wrap}"

    def _measure(self, name: str, block: LocalBlock, shape: torch.Size) -> None:
        """Build a block's goodness for its output's shape, tell the loss its scale, and check what it gives."""
        assert block.goodness is not None
        h = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
        block.goodness.build(block.standard(h).shape[1:], self.num_classes)
        try:
            with evaluating(block):
                g = block.measure(h)
            if block.loss is not None and block.goodness.mode == "pair":
                block.loss.bind(block.unit(shape))
        except (RuntimeError, TypeError, ValueError, IndexError) as error:
            raise ValueError(
                f"goodness={block.goodness} of {name} cannot take an activation of shape {tuple(shape)}: {error}"
            ) from error
        wanted = (2,) if block.goodness.mode == "pair" else (2, self.num_classes)
        if tuple(g.shape) != wanted:
            raise ValueError(
                f"goodness={block.goodness} of {name} maps 2 samples of {tuple(shape)} to {tuple(g.shape)}: "
                f"{block.goodness.mode} mode needs {wanted}, "
                + ("one number per sample" if len(wanted) == 1 else "one number per sample and class")
            )
        if block.goodness.mode == "pair" and block.goodness_from == "normalized" and torch.allclose(g[0], g[1]):
            raise ValueError(
                f"goodness_from='normalized' of {name}: with normalization={block.normalization} every activation has "
                f"the same goodness={block.goodness}, so nothing could be learned; use goodness_from='raw'"
            )

    def normalize(self, x: Tensor) -> Tensor:
        """The encoded input as the first block gets it."""
        return x if self.input_normalization is None else self.input_normalization(x)

    def view(self, x: Tensor) -> Tensor:
        """A batch of plain inputs as a feature readout sees it: with the neutral label, or as it is."""
        return self.normalize(self.labels.neutral(x) if self.labels is not None else x)

    def features(self, x: Tensor) -> list[Tensor]:
        """Activation of every block, `(N, ...)` each, for inputs `(N, *input_shape)` with the neutral label."""
        return [first(h) for _, h, _ in self._run(self.view(x), measure=False)]

    def handed_over(self, x: Tensor) -> list[Tensor]:
        """What every block hands on, normalised: the features a readout gets."""
        return [first(block.hand_over(h)) for block, h, _ in self._run(self.view(x), measure=False)]

    def goodness(self, x: Tensor) -> list[Tensor]:
        """Goodness of every block for encoded inputs: `(N,)` each in pair mode, `(N, C)` in class mode."""
        return [g for _, _, g in self._run(self.normalize(x)) if g is not None]

    def observe(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """`handed_over`, and the goodness of that view `(N,)` or `(N, C)` per block that has one, in one pass."""
        handed, goodness = [], []
        for block, h, g in self._run(self.view(x)):
            handed.append(first(block.hand_over(h)))
            goodness += [] if g is None else [g]
        return handed, goodness

    def _run(self, x: Activation, measure: bool = True) -> Iterator[tuple[LocalBlock, Activation, Tensor | None]]:
        """Each block here in turn with its activation and goodness; an activation that nobody keeps is freed."""
        x, stack = self.placement.enter(x), self.stack
        for k in self.placement.mine(len(stack)):
            block = stack[k]
            h, g = block(x, measure=measure)
            yield block, h, g
            x = block.hand_over(h)
        self.placement.leave(x)

    def block_scores(self, x: Tensor) -> list[Tensor]:
        """Class scores `(N, C)` of each block on its own; in pair mode by a scan over all candidate labels."""
        if self.readout.needs == "features":
            return self.readout.block_scores(self.handed_over(x))
        return self.scores(x)

    def scores(self, x: Tensor) -> list[Tensor]:
        """Goodness per class `(N, C)` of every block that measures it."""
        if self.labels is None:
            return self.goodness(x)
        parts = [self._scan(chunk) for chunk in x.split(self.scan_rows)]
        return parts[0] if len(parts) == 1 else [torch.cat(chunks) for chunks in zip(*parts, strict=True)]

    @property
    def scan_rows(self) -> int:
        """Samples per chunk of a class scan, so that its widest activation stays under `scan_memory`."""
        shapes = [self.encoded_shape, *(shape for of_block in self.shapes for shape in of_block)]
        widest = max(torch.Size(shape).numel() for shape in shapes)
        return max(1, int(self.scan_memory * 2**20 / (4 * widest * self.num_classes)))

    def _scan(self, x: Tensor) -> list[Tensor]:
        assert self.labels is not None
        return [g.view(self.num_classes, -1).T for g in self.goodness(self.labels.candidates(x))]

    def outputs(self, x: Tensor) -> list[Tensor]:
        """What the readout needs of every block: class scores `(N, C)`, or features."""
        return self.handed_over(x) if self.readout.needs == "features" else self.scores(x)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores `(N, C)` of inputs `(N, *input_shape)`."""
        outputs = self.placement.collect(self.outputs(x))
        scores: Tensor = self.placement.share(None if outputs is None else self.join(outputs))
        return scores

    def join(self, outputs: list[Tensor]) -> Tensor:
        """Class scores `(N, C)` from what the readout needs of every block."""
        if self.waiting and self.readout.takes_some:
            places = [k for k, block in enumerate(self.stack) if block.goodness is not None]
            begun = [output for k, output in zip(places, outputs, strict=True) if k not in self.waiting]
            outputs = begun or outputs
        return self.readout(outputs)


def _local(blocks: Iterable[LocalBlock]) -> list[LocalBlock]:
    check_type("blocks", blocks, Iterable, "give a list of LocalBlock")
    listed = list(blocks)
    for i, block in enumerate(listed):
        check_type(f"blocks[{i}]", block, LocalBlock, "wrap the layers, LocalBlock(layers, goodness, loss)")
    return listed
