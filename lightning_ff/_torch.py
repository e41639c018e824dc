"""The only file that uses private names of torch; `tests/test_torch_private.py` fails if one changes."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.dropout import _DropoutNd
from torch.optim.lr_scheduler import LRScheduler, SequentialLR
from torch.utils._pytree import tree_leaves

__all__ = [
    "BatchNormBase",
    "ConvBase",
    "DropoutBase",
    "NormBase",
    "buffers_of",
    "combined_schedulers",
    "is_compiled",
    "share_members",
    "storage_key",
    "tree_leaves",
    "version",
]

BatchNormBase = _BatchNorm  # of all batch norms
NormBase = _NormBase  # of batch and instance norms, which may have running statistics
DropoutBase = _DropoutNd  # of all dropouts
ConvBase = _ConvNd  # of convolutions, transposed ones too


def storage_key(tensor: Tensor) -> int:
    """Key of a tensor's storage, equal for tensors that share memory, also on the meta device."""
    key: int = tensor.untyped_storage()._cdata
    return key


def is_compiled(module: nn.Module) -> bool:
    """Whether a module is made by `torch.compile`, around an original one."""
    return hasattr(module, "_orig_mod")


def version(tensor: Tensor) -> int:
    """Number of in-place changes of a tensor."""
    return tensor._version


def buffers_of(module: nn.Module) -> dict[str, Tensor | None]:
    """A module's own buffers by name, to read and to write.

    `named_buffers(recurse=False)` leaves out those that are None.
    """
    return module._buffers


def share_members(module: nn.Module, other: nn.Module) -> None:
    """Give a module the submodules, parameters and buffers of another, under their names there."""
    module._modules.update(other._modules)
    module._parameters.update(other._parameters)
    module._buffers.update(other._buffers)
    module._non_persistent_buffers_set |= other._non_persistent_buffers_set


def combined_schedulers(scheduler: object) -> list[tuple[LRScheduler, int]]:
    """The schedulers inside a combined scheduler of torch, each with its first step; empty for others."""
    inner = getattr(scheduler, "_schedulers", [])
    starts = [0, *scheduler._milestones] if isinstance(scheduler, SequentialLR) else [0] * len(inner)
    return list(zip(inner, starts, strict=True))
