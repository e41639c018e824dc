"""torchvision's models with auxiliary classifiers, by name, without them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.utils.data import DataLoader
from torchvision.models import googlenet, inception_v3

from lightning_ff import ScalableForwardForward
from lightning_ff.methods import backbone
from tests.methods.class_runs import quiet, weights


def test_googlenet_is_cut_trained_and_loaded(tmp_path: Path) -> None:
    source = googlenet(num_classes=1000, aux_logits=True, init_weights=False)
    torch.save(source.state_dict(), tmp_path / "published.pth")
    model = ScalableForwardForward("googlenet", 3, (3, 32, 32), weights=str(tmp_path / "published.pth"))
    assert len(model.blocks) == 13
    own, given = weights(model.model), weights(source)
    assert {name for name in given if name not in own} == {name for name in given if name.startswith("aux")}
    assert all(torch.equal(own[name], given[name]) for name in own if not name.startswith("fc."))
    batch = (torch.randn(2, 3, 32, 32), torch.tensor([0, 2]))
    quiet().fit(model, DataLoader([batch], batch_size=None))  # type: ignore[arg-type]
    moved = weights(model.model)
    assert not torch.equal(moved["conv1.conv.weight"], own["conv1.conv.weight"])
    assert not torch.equal(moved["fc.weight"], own["fc.weight"])


def test_inception_is_loaded_without_its_auxiliary_classifier(tmp_path: Path) -> None:
    source = inception_v3(num_classes=3, aux_logits=True, init_weights=False)
    torch.save(source.state_dict(), tmp_path / "published.pth")
    own = weights(backbone("inception_v3", 3, (3, 75, 75), str(tmp_path / "published.pth")))
    given = {name: value for name, value in weights(source).items() if not name.startswith("AuxLogits.")}
    assert len(given) < len(source.state_dict())
    assert own.keys() == given.keys()
    assert all(torch.equal(own[name], given[name]) for name in own)
