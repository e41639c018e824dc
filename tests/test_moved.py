"""Old import paths, configurations and checkpoints work, with one warning that shows the new line.

The files in `tests/moved` were made with the code before the names moved, see `tests/moved/make.py`.
"""

from __future__ import annotations

import importlib
import json
import pickle
import random
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lightning_ff import ForwardForward, HybridImages, NegativeContext, WindowSchedule
from lightning_ff._moved import MOVED
from lightning_ff.cli import main
from lightning_ff.spec import part
from tests.moved.make import HERE, fit, resume, scores
from tests.test_architecture import imports, package

ROOT = Path(__file__).parents[1]
HYBRID = "lightning_ff.hybrid.HybridImages"
RUNS = ("line", "python")


@contextmanager
def moves() -> Iterator[list[warnings.WarningMessage]]:
    """The warnings about old paths; what Lightning says of short runs is not under test here."""
    found: list[warnings.WarningMessage] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield found
    found += [each for each in caught if each.category is FutureWarning and "is now" in str(each.message)]


def imported(path: str) -> Any:
    home, _, name = path.rpartition(".")
    return getattr(importlib.import_module(home), name)


def recorded(run: str, what: str) -> torch.Tensor:
    return torch.tensor(json.loads((HERE / "scores.json").read_text())[run][what])


def assert_recorded(model: torch.nn.Module, run: str, what: str) -> None:
    """Class scores are those of the old code; another processor may sum in another order."""
    torch.testing.assert_close(torch.tensor(scores(model)), recorded(run, what), rtol=1e-4, atol=1e-5)


# Import paths


@pytest.mark.parametrize("old", MOVED)
def test_an_old_path_warns_once_at_the_users_line_and_gives_the_same_object(old: str) -> None:
    home, _, name = old.rpartition(".")
    new_home, _, new_name = MOVED[old].rpartition(".")
    found: dict[str, Any] = {}
    with moves() as told:
        exec(compile(f"\nfrom {home} import {name}", "the_users.py", "exec"), found)
    (warning,) = told
    new = f"{old} is now {MOVED[old]}: write `from {new_home} import {new_name}`"
    assert str(warning.message) == f"{new}; the old path is removed in the next release"
    assert (warning.filename, warning.lineno) == ("the_users.py", 2)
    assert found[name] is imported(MOVED[old])


def test_every_name_of_the_old_release_is_there_or_said_to_be_gone() -> None:
    gone = set(re.findall(r"`(lightning_ff\.[\w.]+)`", section("Gone")))
    lacking = set()
    for old in (HERE / "names.txt").read_text().split():
        with moves() as told:
            try:
                imported(old)
            except (ImportError, AttributeError):
                lacking.add(old)
        assert bool(told) == (old in MOVED), old
    assert lacking == gone


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("import lightning_ff.strategies.shared", ModuleNotFoundError),
        ("import lightning_ff.stepping", ModuleNotFoundError),
        ("from lightning_ff.strategies import shared", ImportError),
        ("from lightning_ff.hybrid import Nothing", ImportError),
        ("from lightning_ff import Nothing", ImportError),
        ("import lightning_ff; lightning_ff.checks.fitting", AttributeError),
        ("import hybrid", ModuleNotFoundError),
    ],
)
def test_other_names_are_refused_as_ever(line: str, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"No module named|cannot import name|has no attribute"):
        exec(line)


@pytest.mark.parametrize(
    "line",
    [
        "import lightning_ff; got = lightning_ff.hybrid.HybridImages",
        "import lightning_ff.hybrid as old; got = old.HybridImages",
        "from lightning_ff import hybrid; got = hybrid.HybridImages",
        "import pkgutil; got = pkgutil.resolve_name('lightning_ff.hybrid.HybridImages')",
    ],
)
def test_a_module_that_is_gone_is_found_in_every_way(line: str) -> None:
    found: dict[str, Any] = {}
    with moves() as told:
        exec(line, found)
    assert (found["got"], len(told)) == (HybridImages, 1)


def test_a_star_import_brings_all_names_of_a_module_that_is_gone() -> None:
    found: dict[str, Any] = {}
    with moves() as told:
        exec("from lightning_ff.random import *", found)
    assert {name for name in found if name[0] != "_"} == {"hash_bits", "hash_uniform", "host_hash", "host_uniform"}
    assert len(told) == 4


def test_the_standard_library_is_not_hidden() -> None:
    old = importlib.import_module("lightning_ff.random")
    assert sys.modules["random"] is random is not old
    assert random.Random(0).random() == pytest.approx(0.8444218515)
    assert not hasattr(old, "Random")


def test_no_module_of_the_package_uses_an_old_path() -> None:
    gone = {old.rpartition(".")[0] for old in MOVED} - {module(path) for path in package()}
    for path, source in package().items():
        for each in imports(path, source):
            assert each.full not in MOVED, f"{path}:{each.line}"
            assert each.module not in gone, f"{path}:{each.line}"
    files = [file for folder in ("examples", "docs/examples") for file in (ROOT / folder).rglob("*.*")]
    for file in files:
        text = file.read_text() if file.suffix in (".py", ".yaml") else ""
        assert not [old for old in {*MOVED, *gone} if re.search(rf"\b{re.escape(old)}\b", text)], file


def module(path: str) -> str:
    """Dotted name of a file of the package."""
    return ".".join(("lightning_ff", *Path(path).with_suffix("").parts)).removesuffix(".__init__")


@pytest.mark.slow
def test_the_whole_package_imports_without_a_warning() -> None:
    code = """
import pkgutil, sys, warnings
warnings.filterwarnings("error", ".*is now", FutureWarning)
import lightning_ff
from lightning_ff._moved import MOVED
names = [info.name for info in pkgutil.walk_packages(lightning_ff.__path__, "lightning_ff.")]
for name in names:
    name.endswith("__main__") or __import__(name)
print(len(names), {old.rpartition(".")[0] for old in MOVED} & sys.modules.keys() <= {"lightning_ff", *names})
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    count, clean = done.stdout.split()
    assert (int(count) > 100, clean) == (True, "True")


# Class paths, pickles


def test_a_class_path_of_a_checkpoint() -> None:
    with moves() as told:
        sampler = part({"class_path": HYBRID, "init_args": {"blurs": 3}})
    assert (type(sampler), sampler.blurs, len(told)) == (HybridImages, 3, 1)


def test_pickled_parts_and_networks() -> None:
    with moves() as told:
        sampler = torch.load(HERE / "sampler.pt", weights_only=False)
        network = torch.load(HERE / "network.pt", weights_only=False)
    assert [str(each.message).partition(" ")[0] for each in told] == [HYBRID, "lightning_ff.sweep.Placement"]
    assert_recorded(network, "python", "loaded")
    x, y, index = torch.rand(5, 1, 8, 8), torch.arange(5), torch.arange(5)
    made = [each(x, y, index, NegativeContext(network)) for each in (sampler, HybridImages(seed=3, blurs=2))]
    assert torch.equal(*made)
    again = pickle.loads(pickle.dumps(network))
    assert (again.untrained, again.untrained is network.untrained) == ({1}, False)


# Configurations and checkpoints of the old release


@pytest.mark.parametrize("run", RUNS)
def test_an_old_checkpoint_loads(run: str) -> None:
    with moves() as told:
        model = ForwardForward.load_from_checkpoint(HERE / f"{run}.ckpt")
    assert {str(each.message).partition(" ")[0] for each in told} == {HYBRID}
    assert_recorded(model, run, "loaded")


@pytest.mark.parametrize("run", RUNS)
def test_an_old_run_goes_on_as_it_would_have(run: str) -> None:
    with moves():
        model = resume(run)
    assert model.trainer.current_epoch == 2
    assert_recorded(model, run, "resumed")
    assert float((recorded(run, "resumed") - recorded(run, "loaded")).abs().max()) > 0.01


def test_an_old_configuration_trains_and_tests(tmp_path: Path) -> None:
    with moves() as told:
        cli = main(["fit", f"--config={HERE / 'config.yaml'}"])
    assert {str(each.message).partition(" ")[0] for each in told} == {
        HYBRID,
        "lightning_ff.callbacks.summary.BlockSummary",
    }
    assert any(isinstance(each, WindowSchedule) for each in cli.trainer.callbacks)
    assert_recorded(cli.model, "line", "loaded")
    assert (tmp_path / "logs/lightning_logs/version_0/checkpoints/last.ckpt").is_file()
    with moves():
        cli = main(["test", f"--config={HERE / 'config.yaml'}", f"--ckpt_path={HERE / 'line.ckpt'}"])
    assert_recorded(cli.model, "line", "loaded")
    assert "test/acc" in cli.trainer.callback_metrics


def test_a_part_that_is_given_again_is_saved_under_its_new_path(tmp_path: Path) -> None:
    with moves():
        trainer, _ = fit(1)
        model = ForwardForward.load_from_checkpoint(HERE / "python.ckpt", negatives=HybridImages(blurs=2))
        trainer.strategy.connect(model)
        trainer.save_checkpoint(tmp_path / "new.ckpt")
    saved = torch.load(tmp_path / "new.ckpt", weights_only=True)["hyper_parameters"]
    assert saved["negatives"]["class_path"] == "lightning_ff.negatives.hybrid.HybridImages"


# Documentation


def section(heading: str) -> str:
    """Text of a section of the page about old names."""
    return (ROOT / "docs/moving.md").read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def test_the_page_lists_every_old_path() -> None:
    rows = re.findall(r"^\| `(lightning_ff\.[\w.]+)` \| `(lightning_ff\.[\w.]+)` \|", section("Import paths"), re.M)
    assert dict(rows) == MOVED
    assert len(rows) == len(MOVED)


def test_the_page_names_attributes_that_exist() -> None:
    with moves():
        _, learner = fit(1)
    having = {
        "learner": learner,
        "network": learner.network,
        "block": learner.blocks[0],
        "context": learner.sampler_context,
    }
    page = "".join(map(section, ("Negative samplers", "Learners", "Networks and blocks")))
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| `")]
    for row in rows:
        for name, path in re.findall(rf"`({'|'.join(having)})\.([\w.]+)", row[1]):
            found = having[name]
            for attribute in path.split("."):
                found = getattr(found, attribute)
    assert len(rows) > 20


def test_the_page_comes_last_in_the_guide() -> None:
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    assert [*config["nav"][0]["Guide"][-1].values()] == ["moving.md"]


def test_the_fixtures_are_of_the_old_code() -> None:
    assert f"class_path: {HYBRID}\n" in (HERE / "config.yaml").read_text()
    for run in RUNS:
        given = torch.load(HERE / f"{run}.ckpt", weights_only=True)["hyper_parameters"]
        assert given["negatives"]["class_path"] == HYBRID
