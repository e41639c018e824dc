"""The documentation's examples run and do what the pages describe."""

from __future__ import annotations

import re
import runpy
import sys
from collections.abc import Callable, Iterator
from functools import partialmethod
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer, callbacks, seed_everything
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_ff import ForwardForward, MixNegatives, Mixture, Pairs
from lightning_ff.cli import CLI, main
from lightning_ff.data import Digits
from tests.benchmarks.estimate import Job, backprop_ddp, ff_ddp, ff_pipeline, find_unused

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
EXAMPLES = DOCS / "examples"
Run = Callable[[str], dict[str, Any]]
# Lightning's warnings about the machine, short runs and choices of the scripts are not tested here.
pytestmark = pytest.mark.filterwarnings("ignore:::lightning")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Run a script of docs/examples in an empty folder; returns its variables."""
    seed_everything(0)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    yield lambda name: runpy.run_path(str(EXAMPLES / name))
    for name in ("my_parts", "my_method"):
        sys.modules.pop(name, None)


def fit(*arguments: str) -> CLI:
    return main(["fit", *arguments, "--trainer.enable_progress_bar", "false"])


# The examples


def test_quickstart(run: Run, tmp_path: Path) -> None:
    ran = run("quickstart.py")
    assert ran["trainer"].callback_metrics["test/acc"] > 0.8
    assert [tuple(h.shape) for h in ran["activations"]] == [(360, 200), (360, 200)]
    torch.testing.assert_close(ran["scores"], sum(ran["per_block"]))
    assert list(tmp_path.glob("lightning_logs/version_0/checkpoints/*.ckpt"))


def test_own_goodness_and_loss_by_hand(run: Run) -> None:
    parts = run("my_parts.py")
    h = torch.tensor([[[1.0, -3.0], [2.0, 0.0]], [[0.0, 0.0], [1.0, 0.0]]])
    assert parts["TopK"](k=2)(h).tolist() == [6.5, 0.5]
    assert parts["TopK"](k=10)(h).tolist() == [3.5, 0.25]
    loss = parts["Margin"](margin=2.0)
    positive, negative = torch.tensor([5.0, 1.0]), torch.tensor([1.0, 0.5, 4.0, 3.0])
    assert loss.pair(positive, negative).item() == pytest.approx((0 + 1.5 + 1 + 4) / 4)
    loss.bind(0.5)
    assert loss.pair(positive, negative).item() == pytest.approx((0 + 0.5 + 0 + 3) / 4)


def test_own_sampler_term_and_readout_by_hand(run: Run) -> None:
    parts = run("my_parts.py")
    learner = ForwardForward(10, (1, 8, 8), widths=[4], negatives=parts["NeighbourLabel"](seed=3))
    image, label, index = torch.rand(200, 1, 8, 8), torch.arange(200) % 10, torch.arange(200)
    negative = learner.negatives(image, label, index, learner.sampler_context)
    wrong = negative.flatten(1)[:, :10].argmax(1)
    assert set(((wrong - label) % 10).tolist()) == {1, 9}
    assert torch.equal(learner.negatives(image[50:], label[50:], index[50:], learner.sampler_context), negative[50:])
    h = torch.tensor([[1.0, -2.0], [0.0, 3.0]])
    assert parts["ActivityL1"](weight=0.1)(h, h, Pairs(1)).item() == pytest.approx(0.15)
    assert parts["DepthWeighted"](base=3.0)([h, h, h]).tolist() == (13 * h).tolist()


def test_own_parts_train_alike_from_python_and_from_yaml(run: Run, tmp_path: Path) -> None:
    seed_everything(0)
    ran = run("use_my_parts.py")
    assert ran["trainer"].callback_metrics["val/acc"] > 0.5
    cli = fit("--config", str(EXAMPLES / "my_parts.yaml"))
    ours, theirs = ran["model"].state_dict(), cli.model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    for trainer in (ran["trainer"], cli.trainer):
        loaded = ForwardForward.load_from_checkpoint(trainer.checkpoint_callback.best_model_path)
        assert (loaded.blocks[1].goodness.k, loaded.blocks[1].loss.margin) == (12, 2.0)
        assert (loaded.negatives.seed, loaded.network.readout.base) == (0, 2.0)
        assert loaded.blocks[0].terms[0].weight == 0.001


def test_a_fitted_goodness_needs_one_epoch(run: Run) -> None:
    ran = run("closed_form.py")
    assert ran["trainer"].callback_metrics["val/acc"] > 0.95
    assert ran["trainer"].optimizers[0].param_groups == []


def test_blocks_that_reconstruct_their_inputs(run: Run) -> None:
    ran = run("reconstruction.py")
    assert ran["trainer"].callback_metrics["val/acc"] > 0.85
    assert all(block.goodness is None and block.loss is None for block in ran["model"].blocks)


def test_own_method(run: Run, tmp_path: Path) -> None:
    cli = fit("--config", str(EXAMPLES / "my_method.yaml"), "--model.alpha", "2")
    assert type(cli.model).__name__ == "ConvForwardForward"
    assert cli.model.blocks[1].loss.alpha == 2.0
    assert cli.trainer.callback_metrics["val/acc"] > 0.2
    kind = run("my_method.py")["ConvForwardForward"]
    own = kind(10, (1, 8, 8), channels=[16, 32], alpha=2.0, gradient_clip_val=5.0)
    trainer = Trainer(max_epochs=1)
    trainer.fit(own, Digits(batch_size=50))
    for learner, by in ((cli.model, cli.trainer), (own, trainer)):
        loaded = type(learner).load_from_checkpoint(by.checkpoint_callback.best_model_path)
        assert [tuple(block.layers[0].weight.shape) for block in loaded.blocks] == [(16, 2, 3, 3), (32, 16, 3, 3)]
        assert loaded.blocks[1].loss.alpha == 2.0
    assert loaded.gradient_clip_val == 5.0


def test_class_mode(run: Run) -> None:
    ran = run("class_mode.py")
    assert ran["trainer"].callback_metrics["val/acc"] > 0.6
    prototypes = ran["Prototypes"]()
    prototypes.build(torch.Size([2]), 2)
    prototypes.prototypes.data = torch.tensor([[0.0, 0.0], [2.0, 4.0]])
    assert prototypes(torch.tensor([[2.0, 0.0]])).tolist() == [[-2.0, -8.0]]


@pytest.mark.parametrize(("script", "segments"), [("methods/bwbpf.py", 3), ("methods/trgl.py", 2)])
def test_methods_with_auxiliary_classifiers(run: Run, script: str, segments: int) -> None:
    ran = run(script)
    assert ran["trainer"].callback_metrics["val/acc"] > 0.3
    assert len(ran["model"].segmentation.every) == segments


def test_own_network_keeps_its_weights(run: Run) -> None:
    ran = run("own_network.py")
    assert ran["trainer"].callback_metrics["val/acc"] > 0.3
    network, model = ran["network"], ran["model"]
    assert model.blocks[1].layers[0] is network[2]
    trained = {name: weight.clone() for name, weight in network.state_dict().items()}
    for weight in network.parameters():
        nn.init.zeros_(weight)
    ForwardForward.load_from_checkpoint(ran["path"], blocks=[network[:2], network[2:]])
    assert all(torch.equal(weight, trained[name]) for name, weight in network.state_dict().items())


def test_dict_loader_gives_the_index_that_a_tuple_loader_lacks(run: Run) -> None:
    ran = run("dict_loader.py")
    assert ran["trainer"].current_epoch == 2
    assert type(ran["model"].negatives).__name__ == "FixedPool"
    data = ran["MyDigits"]()
    without = DataLoader(TensorDataset(data.images, data.labels), batch_size=50)
    with pytest.raises(ValueError, match="index"):
        Trainer(max_epochs=1).fit(ran["model"], without)


def test_negatives_change(run: Run) -> None:
    ran = run("negatives.py")
    mixture = ran["model"].negatives
    assert isinstance(mixture, Mixture)
    pool, hard = mixture.samplers
    assert (type(pool).__name__, pool.draw, type(hard).__name__) == ("FixedPool", 2, "HardLabel")
    assert mixture.weights == [0.75, 0.25]


def test_mixed_negatives_from_yaml(run: Run) -> None:
    cli = fit(
        *("--config", str(ROOT / "examples/digits.yaml"), "--config", str(EXAMPLES / "mixed_negatives.yaml")),
        *("--trainer.max_epochs", "3", "--trainer.limit_train_batches", "2", "--model.widths=[8]"),
    )
    assert any(isinstance(callback, MixNegatives) for callback in cli.trainer.callbacks)
    assert cli.model.negatives.weights == pytest.approx([0.9, 0.1])


def test_unsupervised(run: Run) -> None:
    ran = run("unsupervised.py")
    assert ran["trainer"].callback_metrics["val/acc"] > 0.5
    assert list(ran["model"].local_optimizers.by_block) == ["block00", "block01", "readout"]
    assert [linear.in_features for linear in ran["model"].network.readout.linear] == [100]


def test_training(run: Run) -> None:
    ran = run("training.py")
    assert ran["path"].endswith("last.ckpt")
    assert torch.load(ran["path"], weights_only=True)["epoch"] == 5
    assert (ran["trainer"].global_step, ran["longer"].global_step) == (52, 78)
    assert (ran["trainer"].current_epoch, ran["longer"].current_epoch) == (4, 6)
    facade = ran["model"].local_optimizers
    kinds = {name: type(optimizer).__name__ for name, optimizer in facade.by_block.items()}
    assert kinds == {"block00": "Adam", "block01": "Adam", "readout": "AdamW"}
    assert all(group["lr"] == pytest.approx(0, abs=1e-9) for group in facade.param_groups)
    assert "lr-BlockOptimizers/block00" in ran["trainer"].callback_metrics


def test_tools(run: Run) -> None:
    ran = run("tools.py")
    assert 1e-8 < ran["model"].new_lr == ran["model"].lr < 1
    assert torch.equal(ran["scores"], ran["model"](ran["images"][:3]))


@pytest.mark.skipif(not hasattr(callbacks, "EMAWeightAveraging"), reason="Lightning has it from 2.6 on")
def test_averaged_weights(run: Run) -> None:
    averaged = run("averaging.py")["model"]
    seed_everything(0)
    plain = ForwardForward(10, (1, 8, 8), widths=[64, 64])
    begun = [weight.clone() for weight in plain.parameters()]
    Trainer(max_epochs=2).fit(plain, Digits(batch_size=50))
    moved = [
        sum(float((weight - start).detach().norm()) for weight, start in zip(model.parameters(), begun, strict=True))
        for model in (averaged, plain)
    ]
    assert 0 < moved[0] < moved[1]  # an average over training lags behind the final weights


def test_compiled_blocks_keep_their_names(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    # tracing is what can fail here; the default backend also needs a C++ compiler, and a minute
    monkeypatch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend="eager"))
    ran = run("compiled.py")
    assert all(block._compiled_call_impl is not None for block in ran["model"].blocks)
    assert ran["model"].state_dict().keys() == ForwardForward(10, (1, 8, 8), widths=[64, 64]).state_dict().keys()


def test_greedy_schedule_trains_block_after_block(run: Run) -> None:
    ran = run("greedy.py")
    facade = ran["model"].local_optimizers
    steps = {name: int(facade.state[facade.parameters(name)[0]]["step"]) for name in facade.by_block}
    assert steps == {"block00": 2 * 26, "block01": 2 * 26}


def test_the_packages_own_greedy_schedule(run: Run) -> None:
    ran = run("schedule.py")
    facade = ran["model"].local_optimizers
    steps = {name: int(facade.state[facade.parameters(name)[0]]["step"]) for name in facade.by_block}
    assert steps == {"block00": 3 * 26, "block01": 3 * 26}
    assert ran["trainer"].current_epoch == 6


def test_pictures_and_logger_of_ones_own(run: Run) -> None:
    logger = run("own_pictures.py")["logger"]
    assert set(logger.pictures) == {("negatives", 0), ("weights", 26)}
    assert any("val/acc" in metrics for _, metrics in logger.metrics)


def test_every_script_is_run_above() -> None:
    here = Path(__file__).parent
    source = "".join(file.read_text() for file in (*here.glob("test_docs*.py"), here / "interface" / "test_matrix.py"))
    assert [file.name for file in EXAMPLES.iterdir() if file.is_file() and f'"{file.name}"' not in source] == []


def test_home_page_says_where_the_demo_puts_things(run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    demo = runpy.run_path(str(ROOT / "examples" / "demo.py"), run_name="demo")["demo"]
    demo(["--model.widths=[8]", "--trainer.max_epochs", "1", "--trainer.enable_progress_bar", "false"])
    (block,) = re.findall(r"^```text\n(.*?)^```", (DOCS / "index.md").read_text(), re.MULTILINE | re.DOTALL)
    assert block.splitlines()
    printed = capfd.readouterr().out.splitlines()
    assert [line for line in block.splitlines() if line not in printed] == []


def test_conv_net(run: Run) -> None:
    made = run("conv_net.py")
    assert made["scores"].shape == (64, 10)
    assert len(made["moved"].blocks) == 10
    trained, begun = made["model"].model.state_dict(), made["moved"].model.state_dict()
    assert all(torch.equal(begun[name], trained[name]) for name in begun if not name.startswith("fc."))
    assert list(made["moved"].network.scored) == [f"block{k:02d}" for k in range(4, 10)]
    loaded = torch.export.load("resnet18.pt2").module()
    torch.testing.assert_close(loaded(made["images"][:1]), made["model"](made["images"][:1]))


def test_the_page_of_processes_shows_what_the_estimate_prints() -> None:
    page = (DOCS / "processes.md").read_text()
    rows = re.findall(r"^\| (\d+) \| (\d+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", page, re.M)
    assert len(rows) == 6
    for processes, samples, *shown in rows:
        job = Job(rows=int(samples))
        estimates = [estimate(job, int(processes)) for estimate in (ff_ddp, find_unused, backprop_ddp, ff_pipeline)]
        assert shown == [f"{value:.2f}" for value in estimates]


def test_class_prototypes(run: Run) -> None:
    """A method of a goodness alone, in at most 25 lines."""
    ran = run("prototypes.py")
    assert ran["trainer"].callback_metrics["test/acc"] > 0.95
    text = (EXAMPLES / "prototypes.py").read_text().partition("start:all]\n")[2].partition("# --8<--")[0]
    assert len([line for line in text.splitlines() if line]) <= 25
    h = torch.tensor([[3.0, 4.0]])
    goodness = ran["Prototypes"]()
    goodness.build(torch.Size((2,)), 1)
    goodness.prototypes = nn.Parameter(torch.zeros(1, 2))
    assert goodness(h).tolist() == [[-5.0]]


# The pages of methods

PAGES = sorted((DOCS / "methods").glob("*.md"))


@pytest.mark.parametrize("page", [page for page in PAGES if page.stem != "index"], ids=lambda page: page.stem)
def test_a_method_page_runs_and_names_what_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    model = runpy.run_path(str(EXAMPLES / "methods" / f"{page.stem}.py"))["model"]
    assert model(torch.zeros(2, *model.network.input_shape)).shape == (2, 10)
    for config in re.findall(r"--config (examples/\S+?\.yaml)", text):
        assert (ROOT / config).is_file()
    assert f"[`{type(model).__name__}`]({page.name})" in (DOCS / "methods" / "index.md").read_text(encoding="utf-8")
