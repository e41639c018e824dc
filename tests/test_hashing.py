"""The stateless random numbers against splitmix64 written out in plain Python, and their statistics."""

from __future__ import annotations

import pytest
import torch

from lightning_ff.hashing import hash_bits, hash_uniform, host_hash, host_uniform

WORD = 1 << 64
GOLDEN, FIRST, SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))]


def splitmix64(state: int) -> int:
    """First output of the generator when it starts from `state`."""
    z = (state + GOLDEN) % WORD
    z = (z ^ z >> 30) * FIRST % WORD
    z = (z ^ z >> 27) * SECOND % WORD
    return z ^ z >> 31


def unmix(value: int) -> int:
    """The state whose first output is `value`: every step of splitmix64 undone."""

    def unshift(z: int, bits: int) -> int:
        out = z
        for _ in range(64 // bits):
            out = z ^ out >> bits
        return out

    z = unshift(value, 31) * pow(SECOND, -1, WORD) % WORD
    z = unshift(z, 27) * pow(FIRST, -1, WORD) % WORD
    return (unshift(z, 30) - GOLDEN) % WORD


def key(seed: int, epoch: int) -> int:
    return splitmix64(splitmix64(seed % WORD) + epoch)


def bits(index: int, seed: int, epoch: int) -> int:
    """Expected `hash_bits`: the generator's output after `index` steps from the hashed key, without two bits."""
    return splitmix64(key(seed, epoch) + (index - 1) * GOLDEN) >> 2


def index_of(value: int, seed: int, epoch: int) -> int:
    """The index, as int64, whose 64 hashed bits are `value`."""
    index = ((unmix(value) - key(seed, epoch)) * pow(GOLDEN, -1, WORD) + 1) % WORD
    return index - WORD if index >> 63 else index


def test_the_reference_is_the_published_generator() -> None:
    assert [splitmix64(n * GOLDEN) for n in range(3)] == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert splitmix64(1234567) == 6457827717110365317
    assert unmix(splitmix64(987654321)) == 987654321


@pytest.mark.parametrize("parts", [(0,), (7,), (0, 0), (1, 0), (0, 1), (3, 5, 8), (-1, 2), (1 << 63, 4), (WORD - 1,)])
def test_host_hash_chains_splitmix64_over_its_parts(parts: tuple[int, ...]) -> None:
    state = 0
    for part in parts:
        state = splitmix64((state + part) % WORD)
    assert host_hash(*parts) == state
    assert host_uniform(*parts) == (state >> 11) / 2**53


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("seed", "epoch"), [(0, 0), (0, 1), (1, 0), (123, 45), (-3, 2)])
def test_hash_bits_are_those_of_the_reference(seed: int, epoch: int, device: str) -> None:
    indexes = [*range(40), 2**20, 2**44 + 7, 2**62, 2**63 - 1, -1, -(2**63)]
    got = hash_bits(torch.tensor(indexes, device=device), seed, epoch)
    assert got.tolist() == [bits(index, seed, epoch) for index in indexes]


def test_hash_bits_keep_the_shape_and_stay_non_negative() -> None:
    index = torch.arange(-5000, 5000).view(100, 100)
    got = hash_bits(index, 9, 9)
    assert got.shape == index.shape
    assert got.dtype == torch.int64
    assert int(got.min()) >= 0
    assert int(got.max()) < 2**62
    assert torch.equal(got, hash_bits(index.flatten(), 9, 9).view(100, 100))
    assert len(got.unique()) == index.numel()


def test_every_bit_is_set_half_of_the_time_and_flips_with_every_other() -> None:
    index = torch.arange(20_000)
    words = hash_bits(index, 0, 0)
    planes = (words.unsqueeze(1) >> torch.arange(62)) & 1
    spread = 5 * 0.5 / 20_000**0.5
    assert float((planes.float().mean(0) - 0.5).abs().max()) < spread
    for flipped in (0, 1, 7, 31, 62):
        other = hash_bits(index ^ (1 << flipped), 0, 0)
        changed = ((words ^ other).unsqueeze(1) >> torch.arange(62)) & 1
        assert float((changed.float().mean(0) - 0.5).abs().max()) < spread


@pytest.mark.parametrize("device", DEVICES)
def test_uniform_numbers_fill_the_interval_evenly(device: str) -> None:
    n, cells = 200_000, 100
    u = hash_uniform(torch.arange(n, device=device), 4, 2).cpu()
    assert u.dtype == torch.float32
    counts = torch.histc(u, cells, 0.0, 1.0)
    chi_square = float(((counts - n / cells) ** 2 / (n / cells)).sum())
    assert 54.0 < chi_square < 161.0  # 99 degrees of freedom: both tails below 1e-4
    after = hash_uniform(torch.arange(1, n + 1), 4, 2)
    epoch = hash_uniform(torch.arange(n), 4, 3)
    for other in (after, epoch):
        correlation = float(torch.corrcoef(torch.stack((u, other)))[0, 1])
        assert abs(correlation) < 5 / n**0.5


def test_host_numbers_fill_the_interval_evenly() -> None:
    n = 20_000
    u = torch.tensor([host_uniform(3, 1, batch) for batch in range(n)], dtype=torch.float64)
    counts = torch.histc(u, 50, 0.0, 1.0)
    assert 20.0 < float(((counts - n / 50) ** 2 / (n / 50)).sum()) < 96.0  # 49 degrees of freedom


@pytest.mark.parametrize("value", [0, WORD - 1])
def test_uniform_numbers_never_reach_the_ends_of_the_interval(value: int) -> None:
    """The logarithm of the number, and of minus that, is taken: 0 and 1 would become infinite."""
    index = torch.tensor([index_of(value, 5, 6)])
    assert int(hash_bits(index, 5, 6)) == value >> 2
    u = hash_uniform(index, 5, 6)
    assert 0.0 < float(u) < 1.0
    assert torch.isfinite(torch.log(-torch.log(u))).all()


def test_nothing_touches_the_global_generators() -> None:
    before = torch.get_rng_state()
    hash_uniform(torch.arange(10), 0, 0)
    host_uniform(1, 2, 3)
    assert torch.equal(torch.get_rng_state(), before)
