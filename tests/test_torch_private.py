"""torch's private names that the package uses exist and behave as expected.

That no other file has such a name is tested in `tests/test_architecture.py`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ChainedScheduler, ConstantLR, LinearLR, SequentialLR, StepLR

from lightning_ff import _torch

BASES = {
    _torch.BatchNormBase: [nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm],
    _torch.NormBase: [
        *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm),
        *(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d),
    ],
    _torch.DropoutBase: [
        *(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d),
        *(nn.AlphaDropout, nn.FeatureAlphaDropout),
    ],
    _torch.ConvBase: [
        *(nn.Conv1d, nn.Conv2d, nn.Conv3d),
        *(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
    ],
}


@pytest.mark.parametrize(("base", "kinds"), BASES.items())
def test_a_base_is_of_its_kinds_of_layers_alone(base: type[nn.Module], kinds: list[type[nn.Module]]) -> None:
    public = {kind for name, kind in vars(nn).items() if isinstance(kind, type) and not name.startswith("Lazy")}
    assert {kind for kind in public if issubclass(kind, base)} == {*kinds}


def test_a_batch_norm_that_does_not_track_leaves_its_running_statistics() -> None:
    norm, x = nn.BatchNorm1d(3), torch.arange(6.0).view(2, 3)
    assert isinstance(norm, _torch.NormBase)
    norm.track_running_stats = False
    batch = norm(x)
    assert norm.running_mean.tolist() == [0, 0, 0]
    norm.track_running_stats = True
    assert torch.equal(norm(x), batch)
    assert norm.running_mean.tolist() == pytest.approx([0.15, 0.25, 0.35])


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_tensors_that_share_memory_have_one_storage_key(device: str) -> None:
    whole, other = torch.zeros(4, device=device), torch.zeros(4, device=device)
    assert _torch.storage_key(whole) == _torch.storage_key(whole[2:]) == _torch.storage_key(whole.view(2, 2).detach())
    assert _torch.storage_key(whole) != _torch.storage_key(other)


def test_a_change_in_place_counts_in_the_version_of_all_views() -> None:
    changed = torch.zeros(2)
    view, before = changed[1:], _torch.version(changed)
    changed.relu_()
    assert _torch.version(changed) == _torch.version(view) == before + 1
    view.add_(1)
    assert _torch.version(changed) == before + 2
    changed.relu()
    assert _torch.version(changed) == before + 2


class Buffered(nn.Module):
    """Has every type of member, some that are None."""

    def __init__(self) -> None:
        super().__init__()
        self.child, self.none = nn.BatchNorm1d(2), None
        self.register_module("no_child", None)
        self.weight = nn.Parameter(torch.ones(2))
        self.register_parameter("bias", None)
        self.register_buffer("kept", torch.zeros(1))
        self.register_buffer("empty", None)
        self.register_buffer("passing", torch.zeros(1), persistent=False)


def test_a_compiled_module_is_noticed() -> None:
    module = nn.Linear(2, 2)
    assert _torch.is_compiled(torch.compile(module))  # type: ignore[arg-type]
    assert not _torch.is_compiled(module)


def test_own_buffers_are_there_to_read_and_to_write() -> None:
    module = Buffered()
    held = _torch.buffers_of(module)
    assert list(held) == ["kept", "empty", "passing"]
    assert held["empty"] is None
    held["kept"] = torch.ones(1)
    assert module.kept is held["kept"]
    assert module.state_dict()["kept"] == 1
    module.empty = torch.ones(3)
    assert held["empty"] is module.empty


def test_members_are_shared_and_the_giver_stays_as_it_was() -> None:
    giver, view = Buffered(), nn.Module()
    before = {key: value.clone() for key, value in giver.state_dict().items()}
    view.add_module("whole", giver)
    _torch.share_members(view, giver)
    assert view.child is giver.child
    assert view.no_child is view.bias is view.empty is None
    assert view.weight is giver.weight
    assert (view.kept is giver.kept, view.passing is giver.passing) == (True, True)
    assert [name for name, _ in view.named_children()] == ["whole", "child"]
    assert set(view.state_dict()) == {*before, *(f"whole.{key}" for key in before)}
    view.register_buffer("more", torch.zeros(1), persistent=False)
    view.register_parameter("other", nn.Parameter(torch.zeros(1)))
    assert giver.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[key]) for key, value in giver.state_dict().items())
    assert "more" not in dict(giver.named_buffers())


def test_the_leaves_of_nested_results() -> None:
    class Result(NamedTuple):
        first: Tensor
        rest: list[Tensor]

    a, b, c, d = torch.arange(4.0)
    leaves = _torch.tree_leaves({"x": (a, [b]), "y": Result(c, [d]), "z": None})
    assert [float(leaf) for leaf in leaves if isinstance(leaf, Tensor)] == [0, 1, 2, 3]


def test_combining_schedulers_say_what_is_inside_and_when_it_begins() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 0.1)
    first, second, third = StepLR(optimizer, 1), ConstantLR(optimizer), LinearLR(optimizer)
    joined = SequentialLR(optimizer, [first, second, third], [3, 5])
    assert _torch.combined_schedulers(joined) == [(first, 0), (second, 3), (third, 5)]
    chained = ChainedScheduler([joined, first])
    assert _torch.combined_schedulers(chained) == [(joined, 0), (first, 0)]
    assert _torch.combined_schedulers(first) == []
    assert _torch.combined_schedulers(torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)) == []


def private(tree: ast.Module) -> Iterator[str]:
    """Private names that a file imports, takes from an object or spells."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
        elif isinstance(node, ast.Attribute):
            names = [node.attr]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names = [node.value] if node.value.isidentifier() else []
        else:
            names = []
        yield from (name for name in names if name.startswith("_") and not name.startswith("__"))


def test_every_private_name_is_tested_here() -> None:
    tree = ast.parse(Path(_torch.__file__).read_text())
    assert {*private(tree)} == {
        *("_BatchNorm", "_NormBase", "_DropoutNd", "_ConvNd"),
        *("_buffers", "_modules", "_non_persistent_buffers_set", "_parameters"),
        *("_cdata", "_orig_mod", "_version", "_pytree", "_milestones", "_schedulers"),
    }
    tests = Path(__file__).read_text()
    assert [name for name in _torch.__all__ if f"_torch.{name}" not in tests] == []


def test_the_home_of_private_names_needs_torch_alone() -> None:
    tree = ast.parse(Path(_torch.__file__).read_text())
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {str(name).split(".")[0] for name in imported} == {"__future__", "torch"}
    assert not any(isinstance(node, ast.Import) for node in ast.walk(tree))
