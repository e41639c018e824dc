"""The command line: its output files, agreement of its subcommands, and a repeated run from its own files."""

from __future__ import annotations

import csv
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor

from lightning_ff import ForwardForward, LocalLearner
from lightning_ff.cli import CLI, main

Command = Callable[..., CLI]
TINY = ("--model=ForwardForward", "--model.widths=[16,16]", "--data=Digits", "--trainer.log_every_n_steps=4")


def digits_test_set() -> tuple[Tensor, Tensor]:
    """The held-out digits, read without the package."""
    digits = load_digits()
    _, rows = train_test_split(range(1797), test_size=360, stratify=digits.target, random_state=0)
    rows = sorted(rows)
    return torch.tensor(digits.images[rows]).float() / 16, torch.tensor(digits.target[rows])


def plain_scores(checkpoint: Path, images: Tensor) -> list[Tensor]:
    """Goodness of every class `(N, 10)` per block of the digits example, in plain torch from a checkpoint."""
    weights = torch.load(checkpoint, weights_only=True)["state_dict"]

    def rms(x: Tensor) -> Tensor:
        return x / (x.square().mean(1, keepdim=True) + 1e-8).sqrt()

    scores: list[list[Tensor]] = [[], []]
    for label in range(10):
        code = torch.zeros(len(images), 10)
        code[:, label] = 3.0
        x = rms(torch.cat((images.flatten(1), code), 1))
        for k in (0, 1):
            name = f"network.blocks.{k}.layers.1"
            h = torch.relu(x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"])
            scores[k].append(h.square().mean(1))
            x = rms(h)
    return [torch.stack(block, 1) for block in scores]


def plain_accuracy(checkpoint: Path) -> dict[str, float]:
    """Test accuracy of the digits example and of its blocks, from the checkpoint's weights alone."""
    images, labels = digits_test_set()
    blocks = plain_scores(checkpoint, images)
    answers = {"test/acc": sum(blocks), "test/acc/block00": blocks[0], "test/acc/block01": blocks[1]}
    return {name: float((s.argmax(1) == labels).float().mean()) for name, s in answers.items()}  # type: ignore[union-attr]


def error_of(capsys: pytest.CaptureFixture[str], command: Command, *arguments: object) -> str:
    """Error message of the parser for wrong arguments; it must exit with 2."""
    with pytest.raises(SystemExit) as stop:
        command(*arguments)
    assert stop.value.code == 2
    return capsys.readouterr().err.partition("error: ")[2]


# What a run leaves behind


def test_fit_writes_its_results_into_the_run_folder_and_nothing_else(trained: Any) -> None:
    files = {str(file.relative_to(trained.run)) for file in trained.folder.rglob("*") if file.is_file()}
    best = {file for file in files if re.fullmatch(r"checkpoints/best-epoch=00[01]\.ckpt", file)}
    assert len(best) == 1
    assert files - best == {
        "checkpoints/last.ckpt",
        "config.yaml",
        "figures/goodness/00000052.png",
        "figures/negatives/00000000.png",
        "hparams.yaml",
        "metrics.csv",
        "run.json",
    }


def test_metrics_csv_holds_the_documented_keys(trained: Any, read_metrics: Any) -> None:
    blocks = ("block00", "block01")
    expected = {"epoch", "train/loss", "train/acc", "val/loss", "val/acc"}
    expected |= {f"{key}/{block}" for key in ("train/loss", "val/acc") for block in blocks}
    expected |= {f"goodness/{side}/{block}" for side in ("pos", "neg", "separation") for block in blocks}
    metrics = read_metrics(trained.run / "metrics.csv")
    assert set(metrics) == expected
    assert [step for step, _ in metrics["train/loss"]] == [19, 39]
    assert [step for step, _ in metrics["val/acc"]] == [25, 51]


def test_fit_prints_where_its_results_lie(trained: Any) -> None:
    report = dict(re.split(r"\s{2,}", line) for line in trained.output.splitlines() if "logs/digits/version_0" in line)
    assert {name: (trained.folder / path).exists() for name, path in report.items()} == {
        "last checkpoint": True,
        "best checkpoint": True,
        "metrics": True,
        "pictures": True,
        "configuration": True,
    }
    assert trained.folder / report["last checkpoint"] == trained.last


def test_fit_prints_no_warnings_or_tips_of_others(trained: Any) -> None:
    assert "`Trainer.fit` stopped: `max_epochs=2` reached." in trained.errors
    assert not re.findall(r".*(?:site-packages|Warning|Tip:|deprecated).*", trained.errors)


def test_nothing_is_left_by_a_fast_dev_run(command: Command, examples: Path, tmp_path: Path) -> None:
    for subcommand in ("fit", "validate", "test", "predict"):
        command(subcommand, "--config", examples / "digits.yaml", "--trainer.fast_dev_run=1")
    assert list(tmp_path.iterdir()) == []


def test_without_a_logger_of_ones_own_results_go_to_csv_below_logs(command: Command, tmp_path: Path) -> None:
    cli = command("fit", *TINY, "--trainer.max_epochs=1")
    assert [path.name for path in tmp_path.iterdir()] == ["logs"]
    assert {path.name for path in tmp_path.glob("logs/lightning_logs/version_0/*")} == {
        "checkpoints", "config.yaml", "hparams.yaml", "metrics.csv", "run.json",
    }  # fmt: skip
    assert Path(cli.trainer.log_dir or "") == Path("logs/lightning_logs/version_0")


def test_another_logger_inherits_nothing_from_the_default_one(command: Command) -> None:
    one_batch = (*TINY, "--trainer.fast_dev_run=1")
    cli = command("fit", *one_batch, "--trainer.logger=TensorBoardLogger", "--trainer.logger.save_dir=x")
    arguments = vars(cli.config.fit.trainer.logger.init_args)
    assert (arguments["save_dir"], arguments["name"], arguments["version"]) == ("x", "lightning_logs", None)
    cli = command("fit", *one_batch, "--trainer.logger=WandbLogger")
    assert cli.config.fit.trainer.logger.init_args.name is None


def test_last_checkpoint_is_the_last_epoch_and_best_the_best(
    command: Command, read_metrics: Any, tmp_path: Path
) -> None:
    """Whatever the metric says, and between two validations too."""
    rarely = ("--trainer.max_epochs=5", "--trainer.check_val_every_n_epoch=2")
    cli = command("fit", *TINY, *rarely, "--model.optimizer=SGD", "--model.optimizer.lr=0")
    checkpoints = {path.name: torch.load(path, weights_only=True) for path in tmp_path.rglob("*.ckpt")}
    assert set(checkpoints) == {"best-epoch=001.ckpt", "last.ckpt"}
    assert (checkpoints["last.ckpt"]["epoch"], checkpoints["last.ckpt"]["global_step"]) == (4, 55)
    accuracy = [value for _, value in read_metrics(next(tmp_path.rglob("metrics.csv")))["val/acc"]]
    assert len(accuracy) == 2
    assert accuracy[0] == accuracy[1]  # the later one was not better
    test = cli.trainer.test(cli.model, datamodule=cli.datamodule, ckpt_path="last", verbose=False)
    assert str(cli.trainer.ckpt_path).endswith("last.ckpt")
    assert "test/acc" in test[0]


# Subcommands agree with the checkpoint


def test_test_prints_and_logs_the_accuracy_of_the_checkpoint(
    trained: Any, in_shell: Any, examples: Path, tmp_path: Path, read_metrics: Any
) -> None:
    done: subprocess.CompletedProcess[str] = in_shell(
        tmp_path, "test", "--config", examples / "digits.yaml", "--ckpt_path", trained.last
    )
    assert done.returncode == 0, done.stderr
    expected = plain_accuracy(trained.last)
    assert expected["test/acc"] > 0.8
    assert f"test accuracy      {expected['test/acc']:.4f}\n" in done.stdout
    assert f"tested checkpoint  {trained.last}\n" in done.stdout
    logged = read_metrics(tmp_path / "logs" / "digits" / "version_0" / "metrics.csv")
    assert {key: logged[key][0][1] for key in expected} == pytest.approx(expected, abs=1e-6)
    assert set(logged) == {*expected, "epoch", "test/loss"}


def test_validate_agrees_with_the_last_validation_of_fit(
    trained: Any, command: Command, examples: Path, read_metrics: Any
) -> None:
    cli = command("validate", "--config", examples / "digits.yaml", "--ckpt_path", trained.last)
    fitted = {key: series[-1][1] for key, series in read_metrics(trained.run / "metrics.csv").items() if "val/" in key}
    assert {key: float(value) for key, value in cli.trainer.callback_metrics.items()} == fitted


def test_predict_writes_the_model_s_own_predictions(
    trained: Any, command: Command, examples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command("predict", "--config", examples / "digits.yaml", "--ckpt_path", trained.last, "--data.eval_batch_size=100")
    file = tmp_path / "logs" / "digits" / "version_0" / "predictions.csv"
    assert f"predictions  {file.relative_to(tmp_path)}\n" in capsys.readouterr().out
    with file.open(newline="") as rows:
        header, *table = csv.reader(rows)
    assert header == ["index", "prediction", *(f"score{c}" for c in range(10))]
    assert [int(row[0]) for row in table] == list(range(360))
    labels, scores = [int(row[1]) for row in table], torch.tensor([[float(v) for v in row[2:]] for row in table])

    images, truth = digits_test_set()
    model = ForwardForward.load_from_checkpoint(trained.last)
    own = torch.cat([model(chunk) for chunk in images.unsqueeze(1).split(100)])
    assert torch.equal(scores, own)
    assert labels == own.argmax(1).tolist()
    plain = sum(plain_scores(trained.last, images))
    assert isinstance(plain, Tensor)
    torch.testing.assert_close(scores, plain, rtol=1e-5, atol=1e-5)
    assert (torch.tensor(labels) == truth).float().mean() > 0.8


def test_predictions_go_where_one_says(trained: Any, command: Command, examples: Path, tmp_path: Path) -> None:
    file = tmp_path / "here" / "answers.csv"
    command("predict", "--config", examples / "digits.yaml", "--ckpt_path", trained.last, "--predictions.path", file)
    assert len(file.read_text().splitlines()) == 361


def test_checkpoint_loads_weights_only_with_equal_outputs(command: Command) -> None:
    cli = command("fit", *TINY, "--trainer.max_epochs=1", "--model.loss=SymBa", "--model.loss.alpha=2.5")
    images = torch.rand(7, 1, 8, 8)
    (last,) = Path().rglob("last.ckpt")
    torch.load(last, weights_only=True)
    loaded = ForwardForward.load_from_checkpoint(last)
    assert torch.equal(loaded(images), cli.model(images))
    assert loaded.blocks[1].loss.alpha == 2.5  # type: ignore[union-attr]


# A run can be repeated


def test_printed_configuration_is_a_fixed_point(
    command: Command, examples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = []
    for file in (examples / "digits.yaml", tmp_path / "printed.yaml"):
        with pytest.raises(SystemExit) as stop:
            command("fit", "--config", file, "--print_config")
        assert not stop.value.code
        printed.append(capsys.readouterr().out)
        (tmp_path / "printed.yaml").write_text(printed[0])
    assert printed[0] == printed[1]
    assert yaml.safe_load(printed[0])["model"]["init_args"]["widths"] == [500, 500]


def test_saved_configuration_runs_again_to_the_same_metrics(trained: Any, command: Command, tmp_path: Path) -> None:
    cli = command("fit", "--config", trained.run / "config.yaml")
    again = tmp_path / "logs" / "digits" / "version_0"
    assert (again / "metrics.csv").read_bytes() == (trained.run / "metrics.csv").read_bytes()
    weights = torch.load(trained.last, weights_only=True)["state_dict"]
    assert all(torch.equal(value, weights[key]) for key, value in cli.model.state_dict().items())
    saved = [yaml.safe_load((run / "config.yaml").read_text()) for run in (trained.run, again)]
    assert saved[0] == saved[1]


def test_another_seed_gives_other_weights(command: Command) -> None:
    first, same, other = (command("fit", *TINY, "--trainer.max_epochs=1", f"--seed_everything={s}") for s in (3, 3, 4))
    weights = [cli.model.state_dict()["network.blocks.0.layers.1.weight"] for cli in (first, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_a_stopped_run_goes_on_from_its_last_checkpoint(command: Command, tmp_path: Path) -> None:
    straight = command("fit", *TINY, "--trainer.max_epochs=3")
    command("fit", *TINY, "--trainer.max_epochs=2")
    last = tmp_path / "logs" / "lightning_logs" / "version_1" / "checkpoints" / "last.ckpt"
    resumed = command("fit", *TINY, "--trainer.max_epochs=3", "--ckpt_path", last)
    assert resumed.trainer.global_step == straight.trainer.global_step == 33
    weights = straight.model.state_dict()
    assert all(torch.equal(value, weights[key]) for key, value in resumed.model.state_dict().items())
    assert torch.load(last, weights_only=True)["epoch"] == 1  # the run that was stopped keeps its own


def test_help_is_the_manual_of_a_class(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--model.help=ForwardForward"])
    assert not stop.value.code
    text = " ".join(capsys.readouterr().out.split())
    assert "Units of each fully connected layer. (type: Optional[Sequence[int]], default: null)" in text
    assert "Factory of one optimizer per block, called with the block's parameters." in text


# Wrong arguments


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (
            ["--model.widdths=[8]"],
            ["--model.widdths", "ForwardForward has no argument 'widdths' (did you mean widths?)"],
        ),
        (["--model.loss=Symbaa"], ["--model.loss=Symbaa", "did you mean SymBa?"]),
        (["--data=Digitz"], ["--data=Digitz", "did you mean Digits?"]),
        (["--trainer.epochs_max=3"], ["trainer.epochs_max"]),
        (["--model.step=both"], ["--model.step=both", "choose one of batch, block"]),
        (["--config=nowhere.yaml"], ["File does not exist", "nowhere.yaml"]),
    ],
)
def test_unknown_names_end_with_2_and_are_named(
    command: Command, capsys: pytest.CaptureFixture[str], wrong: list[str], said: list[str]
) -> None:
    message = error_of(capsys, command, "fit", *TINY, *wrong)
    assert [word for word in said if word not in message] == [], message


def test_unknown_key_in_a_file_is_named(
    command: Command, examples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = yaml.safe_load((examples / "digits.yaml").read_text())
    config["trainer"]["max_epoch"] = 3
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(config))
    assert "trainer.max_epoch" in error_of(capsys, command, "fit", "--config", tmp_path / "wrong.yaml")


def test_model_and_data_are_asked_for(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert "fit.model" in error_of(capsys, command, "fit")
    assert "fit.data" in error_of(capsys, command, "fit", *TINY[:2])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--model.widths=[0]"], "widths=[0]: give one number of units per layer, each at least 1"),
        (["--model.loss=SymBa", "--model.loss.alpha=-1"], "alpha=-1.0: must be above 0"),
        (["--data.batch_size=0"], "batch_size=0 must be at least 1"),
        (["--model.step=block", "--model.backward=summed"], "step='block' needs a backward per block"),
    ],
)
def test_a_value_that_a_part_refuses_is_told_in_the_part_s_own_words(
    command: Command, wrong: list[str], message: str
) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        command("fit", *TINY, *wrong)


def test_any_network_can_be_described(command: Command, tmp_path: Path) -> None:
    """A LocalLearner of blocks given in YAML; its checkpoint loads without giving the network again."""
    block = {"goodness": "MeanSquare", "loss": {"class_path": "ThresholdLoss", "init_args": {"threshold": 0.7}}}
    layers = [("torch.nn.Flatten", {}), ("torch.nn.Linear", {"in_features": 64, "out_features": 5})]
    network = {
        "input_shape": [1, 8, 8], "num_classes": 10, "labels": "PixelOverlay", "readout": "LastReadout",
        "blocks": [
            {"class_path": "LocalBlock", "init_args": {"layers": {"class_path": name, "init_args": arguments}, **block}}
            for name, arguments in layers
        ],
    }  # fmt: skip
    learner = {"network": {"class_path": "LocalNetwork", "init_args": network}}
    model = {"class_path": "LocalLearner", "init_args": learner}
    (tmp_path / "network.yaml").write_text(yaml.safe_dump({"model": model, "data": "Digits"}))
    cli = command("fit", "--config", "network.yaml", "--trainer.max_epochs=1", "--trainer.log_every_n_steps=4")
    loaded = LocalLearner.load_from_checkpoint(next(Path().rglob("last.ckpt")))
    images = torch.rand(3, 1, 8, 8)
    assert torch.equal(loaded(images), cli.model(images))
    assert loaded.blocks[1].loss.threshold == 0.7  # type: ignore[union-attr]
    assert cli.model.local_optimizers.by_block.keys() == {"block01"}
