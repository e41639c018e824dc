"""Stateless random numbers: integer hashes of (seed, epoch, index), the same on every device and process."""

from __future__ import annotations

from torch import Tensor

_MASK = (1 << 64) - 1
_ODD1, _ODD2, _STEP = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 0x9E3779B97F4A7C15


def _host_mix(z: int) -> int:
    """One round of splitmix64."""
    z = (z ^ (z >> 30)) * _ODD1 & _MASK
    z = (z ^ (z >> 27)) * _ODD2 & _MASK
    return z ^ (z >> 31)


def host_hash(*key: int) -> int:
    """64 hashed bits of a few integers, computed on the host."""
    state = 0
    for part in key:
        state = _host_mix((state + part + _STEP) & _MASK)
    return state


def host_uniform(*key: int) -> float:
    """A number in [0, 1) from a few integers, computed on the host, without a device sync.

    Example::

        >>> round(host_uniform(0, 1), 4) == round(host_uniform(0, 1), 4)
        True
    """
    return (host_hash(*key) >> 11) / (1 << 53)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _shift(z: Tensor, bits: int) -> Tensor:
    """Logical right shift of int64; torch's own shift is arithmetic."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def hash_bits(index: Tensor, seed: int, epoch: int) -> Tensor:
    """62 hashed, non-negative bits for every entry of an int64 tensor (splitmix64 of the index and a hashed key).

    Args:
        index: Any shape, int64.
        seed: Seed.
        epoch: Second part of the key.

    Returns:
        int64, the shape of `index`.
    """
    z = index * _signed(_STEP) + _signed(host_hash(seed, epoch))
    z = (z ^ _shift(z, 30)) * _signed(_ODD1)
    z = (z ^ _shift(z, 27)) * _signed(_ODD2)
    return _shift(z ^ _shift(z, 31), 2)


def hash_uniform(index: Tensor, seed: int, epoch: int) -> Tensor:
    """A float32 number in (0, 1) for every entry of an int64 tensor."""
    # 23 bits and the half fit a float32 exactly; with 24 the largest would round up to 1
    return (hash_bits(index, seed, epoch) >> 39).float().add_(0.5).mul_(2.0**-23)
