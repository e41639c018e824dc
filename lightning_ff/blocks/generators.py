"""Random generators of Python and NumPy that a forward pass may draw from."""

from __future__ import annotations

import pickle
import random
from collections.abc import Iterable
from typing import Any

import numpy as np
from torch import nn

States = list[tuple[Any, Any]]
_HELD = (random.Random, np.random.Generator, np.random.RandomState)


def states(modules: Iterable[nn.Module]) -> States:
    """The global generators and those that modules hold as attributes, each with its state."""
    held = [value for module in modules for value in vars(module).values() if isinstance(value, _HELD)]
    return [(source, _state(source)) for source in (random, np.random, *held)]


def have_drawn(found: States) -> bool:
    """Whether a generator is no longer in the state that `states` found."""
    return any(pickle.dumps(_state(source)) != pickle.dumps(state) for source, state in found)


def restore(found: States) -> None:
    """Restore the states that `states` found."""
    for source, state in found:
        if isinstance(source, np.random.Generator):
            source.bit_generator.state = state
        else:
            (source.setstate if hasattr(source, "setstate") else source.set_state)(state)


def _state(source: Any) -> Any:
    if isinstance(source, np.random.Generator):
        return source.bit_generator.state
    return (source.getstate if hasattr(source, "getstate") else source.get_state)()
