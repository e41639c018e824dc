"""One optimizer per block behind one facade, and the same for schedulers.

The facade shares the inner optimizers' parameter groups and state, so that Lightning and torch see one ordinary
optimizer: counters, checkpoints, learning-rate monitor and finder all work.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_ff.optim.settings import check_kinds, plain, reconcile, warn_of
from lightning_ff.validate import check_type


class BlockOptimizers(Optimizer):
    """Facade over named optimizers: `step()` steps all optimizers with gradients, or the named ones.

    Args:
        optimizers: Name of the block to its optimizer, in order; none if nothing learns by gradients.

    Attributes:
        by_block: The optimizers by name.
        own_settings: Whether settings of this object, not those of a loaded state, count.

    Raises:
        ValueError: two optimizers hold the same parameter.
    """

    def __init__(self, optimizers: dict[str, Optimizer]) -> None:
        check_type("optimizers", optimizers, Mapping, "give optimizers by the name of the block")
        self.by_block = dict(optimizers)
        self.own_settings = False
        _check_disjoint(self.by_block)
        first = next(iter(self.by_block.values()), None)
        parameters = [p for o in self.by_block.values() for g in o.param_groups for p in g["params"]]
        super().__init__([{"params": parameters}], {} if first is None else first.defaults)
        for name, optimizer in self.by_block.items():
            for i, group in enumerate(optimizer.param_groups):
                group["name"] = name if len(optimizer.param_groups) == 1 else f"{name}/{i}"
        state: defaultdict[Tensor, Any] = defaultdict(dict)
        for optimizer in self.by_block.values():
            state.update(optimizer.state)
        self.state = state
        self.param_groups = [group for optimizer in self.by_block.values() for group in optimizer.param_groups]
        self._rates = [float(group["lr"]) for group in self.param_groups]
        self._share()

    def _share(self) -> None:
        groups = iter(self.param_groups)
        for optimizer in self.by_block.values():
            optimizer.__setstate__(
                {"state": self.state, "param_groups": [next(groups) for _ in optimizer.param_groups]}
            )

    def parameters(self, name: str) -> list[Tensor]:
        """Parameters of one of the optimizers."""
        return [p for group in self.by_block[name].param_groups for p in group["params"]]

    def owner(self, module: nn.Module) -> str | None:
        """Name of the optimizer that holds parameters of a module; None if none does."""
        ids = {id(p) for p in module.parameters()}
        return next((name for name in self.by_block if any(id(p) in ids for p in self.parameters(name))), None)

    def name_of(self, optimizer: Optimizer) -> str | None:
        """Name of one of the optimizers; None for the facade itself."""
        return next((name for name, own in self.by_block.items() if own is optimizer), None)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None, names: Iterable[str] | None = None) -> Any:
        """Step the named optimizers; None steps those with gradients."""
        result = None
        if closure is not None:
            with torch.enable_grad():
                result = closure()
        for name in self._with_gradients() if names is None else names:
            self.by_block[name].step()
        return result

    def zero_grad(self, set_to_none: bool = True, names: Iterable[str] | None = None) -> None:
        """Reset the gradients of the named optimizers; None resets all."""
        for name in self.by_block if names is None else names:
            self.by_block[name].zero_grad(set_to_none)

    def train(self, mode: bool = True) -> None:
        """Set the mode of optimizers whose weights differ between training and evaluation, as schedule-free ones."""
        for optimizer in self.by_block.values():
            switch = getattr(optimizer, "train" if mode else "eval", None)
            if callable(switch):
                switch()

    def eval(self) -> None:
        """Same as `train(False)`."""
        self.train(False)

    def _with_gradients(self) -> list[str]:
        return [n for n in self.by_block if any(p.grad is not None for p in self.parameters(n))]

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Raises after construction: no inner optimizer would step the new group."""
        if self.param_groups:
            raise RuntimeError(
                f"add_param_group({sorted(param_group)}): no block's optimizer would step the new parameters; let them "
                "require gradients before fit, so that the optimizer of their block holds them"
            )
        super().add_param_group(param_group)

    @property
    def kinds(self) -> dict[str, str]:
        """Class names of the optimizers."""
        return {name: type(optimizer).__name__ for name, optimizer in self.by_block.items()}

    def state_dict(self) -> dict[str, Any]:
        """State of all optimizers, their class names, and learning rates before any scheduler."""
        state = super().state_dict()
        state["param_groups"] = plain(state["param_groups"])  # a scheduler may have set NumPy's numbers
        return {**state, "kinds": self.kinds, "rates": list(self._rates)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the state, and share it and the groups with the inner optimizers.

        Settings, such as the learning rate, are those of the state, with a warning if they differ; with `own_settings`
        those of this object count.

        Raises:
            ValueError: the state is of other classes of optimizers.
        """
        check_kinds(self.kinds, state_dict.get("kinds", {}), "the optimizer")
        own = [dict(group) for group in self.param_groups]
        super().load_state_dict(state_dict)
        saved = state_dict.get("rates", self._rates)
        differences = reconcile(own, self.param_groups, self._rates, saved, self.own_settings)
        if not self.own_settings:
            self._rates = list(saved)
            warn_of(differences)
        self._share()

    def __getstate__(self) -> dict[str, Any]:
        """State for copying and pickling, with the inner optimizers, which torch's own state leaves out."""
        return {
            **super().__getstate__(),
            "by_block": self.by_block,
            "own_settings": self.own_settings,
            "_rates": self._rates,
        }

    def __repr__(self) -> str:
        rows = "\n".join(
            f"  {name}: {type(o).__name__}(lr={o.param_groups[0]['lr']})" for name, o in self.by_block.items()
        )
        return f"{type(self).__name__}(\n{rows}\n)"


def _check_disjoint(optimizers: dict[str, Optimizer]) -> None:
    owner: dict[Tensor, str] = {}
    for name, optimizer in optimizers.items():
        for group in optimizer.param_groups:
            for p in group["params"]:
                if p in owner:
                    raise ValueError(
                        f"a parameter of shape {tuple(p.shape)} belongs to {owner[p]} and to {name}: shared weights "
                        "break locality; give every block its own"
                    )
                owner[p] = name
