"""The built package: its contents and metadata, and that it runs without a checkout."""

from __future__ import annotations

import ast
import importlib.metadata
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from email.message import Message
from email.parser import Parser
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import lightning_ff
from lightning_ff.cli import main
from tests.fork_server import interpreter

ROOT = Path(__file__).parents[1]
DISTRIBUTION = {"PIL": "pillow", "sklearn": "scikit-learn", "yaml": "pyyaml"}  # where it is not the module's name
THROUGH_LIGHTNING = {"jsonargparse", "wandb"}  # its command line and its logger import them
OPTIONAL = {"tensorboard"}  # where it is installed, reports read its files


def build(source: Path, folder: Path, target: str) -> Path:
    """Build one distribution of a source tree into a folder."""
    line = [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(folder)]
    subprocess.run(line, cwd=source, check=True, capture_output=True)
    (built,) = folder.iterdir()
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    return zipfile.ZipFile(build(ROOT, tmp_path_factory.mktemp("wheel"), "wheel"))


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked source distribution."""
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(build(ROOT, tmp_path_factory.mktemp("sdist"), "sdist")) as archive:
        archive.extractall(folder)
    (top,) = folder.iterdir()
    return top


@pytest.fixture(scope="module")
def site(wheel: zipfile.ZipFile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked wheel: what an installation puts into site-packages."""
    folder = tmp_path_factory.mktemp("site")
    wheel.extractall(folder)
    return folder


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> Message:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    return Parser().parsestr(wheel.read(name).decode())


@pytest.fixture(scope="module")
def core(metadata: Message) -> dict[str, Requirement]:
    """The requirements without an extra, by canonical name."""
    requirements = map(Requirement, metadata.get_all("Requires-Dist", []))
    return {canonicalize_name(r.name): r for r in requirements if "extra" not in str(r.marker)}


def sources() -> set[str]:
    """The package's files as the repository has them."""
    files = (ROOT / "lightning_ff").rglob("*")
    kinds = (".py", ".css")
    return {file.relative_to(ROOT).as_posix() for file in files if file.suffix in kinds or file.name == "py.typed"}


def test_the_wheel_holds_the_package_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    info = f"lightning_ff-{lightning_ff.__version__}.dist-info"
    about = {f"{info}/{name}" for name in ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE")}
    assert set(wheel.namelist()) == sources() | about
    assert {"lightning_ff/py.typed", "lightning_ff/report/style.css"} <= sources()


def test_the_sdist_holds_examples_and_tests_and_builds_the_same_wheel(
    sdist: Path, wheel: zipfile.ZipFile, tmp_path: Path
) -> None:
    for name in ("README.md", "LICENSE", "CHANGELOG.md", "examples/digits.yaml", "examples/demo.py", "Makefile"):
        assert (sdist / name).read_bytes() == (ROOT / name).read_bytes(), name
    ours = {path.relative_to(ROOT) for path in (ROOT / "tests").rglob("*.py")}
    assert {path.relative_to(sdist) for path in (sdist / "tests").rglob("*.py")} == ours
    again = zipfile.ZipFile(build(sdist, tmp_path / "again", "wheel"))
    assert {name: again.read(name) for name in again.namelist()} == {
        name: wheel.read(name) for name in wheel.namelist()
    }


def test_metadata(metadata: Message, wheel: zipfile.ZipFile) -> None:
    assert metadata["Name"] == "lightning-ff"
    assert metadata["Version"] == lightning_ff.__version__
    assert metadata["Requires-Python"] == ">=3.10"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert set(metadata.get_all("Provides-Extra", [])) == {"dev", "docs", "onnx", "tensorboard", "test"}
    (name,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    assert wheel.read(name).decode().split("\n")[:2] == [
        "[console_scripts]",
        "lightning-ff = lightning_ff.__main__:run",
    ]


def test_malicious_lightning_wheels_are_refused(core: dict[str, Requirement]) -> None:
    allowed = core["lightning"].specifier
    assert [v for v in ("2.6.1", "2.6.2", "2.6.3", "2.6.4", "3.0.0") if v in allowed] == ["2.6.1", "2.6.4"]


def test_every_dependency_has_a_lower_bound(core: dict[str, Requirement]) -> None:
    assert [name for name, r in core.items() if not any(s.operator == ">=" for s in r.specifier)] == []


def test_dependencies_are_what_the_package_imports(core: dict[str, Requirement]) -> None:
    modules: set[str] = set()
    for name in filter(lambda name: name.endswith(".py"), sources()):
        for node in ast.walk(ast.parse((ROOT / name).read_text())):
            if isinstance(node, ast.Import):
                modules |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                modules.add(node.module.partition(".")[0])
    foreign = modules - set(sys.stdlib_module_names) - {"lightning_ff"}
    needed = {canonicalize_name(DISTRIBUTION.get(name, name)) for name in foreign - OPTIONAL}
    assert needed | THROUGH_LIGHTNING == set(core)


def test_public_names_are_complete_sorted_and_documented() -> None:
    names = lightning_ff.__all__
    assert names == sorted(set(names), key=lambda name: (not name.isupper(), name))  # as the linter has them
    public = {n for n, v in vars(lightning_ff).items() if not n.startswith("_") and not isinstance(v, ModuleType)}
    assert public == set(names)
    assert [name for name in names if not (getattr(lightning_ff, name).__doc__ or "").strip()] == []


@pytest.fixture(scope="module")
def installed(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Starts Python with the package of the wheel and not that of the checkout."""
    modules = ("lightning_ff.cli", "lightning_ff.matrix", "lightning_ff.report.command")
    with interpreter(tmp_path_factory.mktemp("installed"), site, modules) as python:
        yield python


def run(python: str, folder: Path, *line: str) -> str:
    """Output of a module that is run in a folder."""
    done = subprocess.run([python, "-m", *line], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_help_from_an_empty_folder(installed: str, tmp_path: Path) -> None:
    text = run(installed, tmp_path, "lightning_ff", "--help")
    assert text.startswith("usage: lightning-ff ")
    assert all(word in text for word in ("{fit,validate,test,predict}", "--config", "--version"))
    assert list(tmp_path.iterdir()) == []


def test_the_console_script_trains_in_an_empty_folder(site: Path, installed: str, tmp_path: Path) -> None:
    """As an installed script does, the result of the entry point is passed to `sys.exit`: None ends with success."""
    (entry,) = importlib.metadata.Distribution.at(next(site.glob("*.dist-info"))).entry_points
    module, _, function = entry.value.partition(":")
    code = f"""
import importlib.metadata, sys
import lightning_ff
from {module} import {function}
print(lightning_ff.__file__, importlib.metadata.version("lightning-ff"), lightning_ff.__version__)
sys.exit({function}())
"""
    (tmp_path / "script.py").write_text(code)
    arguments = ["--model=ForwardForward", "--model.widths=[8]", "--data=Digits", "--trainer.accelerator=cpu"]
    short = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=2", "--trainer.log_every_n_steps=1"]
    text = run(installed, tmp_path, "script", "fit", *arguments, *short)
    version = lightning_ff.__version__
    assert text.splitlines()[0].split() == [f"{site}/lightning_ff/__init__.py", version, version]
    (metrics,) = tmp_path.rglob("metrics.csv")
    assert "train/loss/block00" in metrics.read_text()
    assert run(installed, tmp_path, "script", "report", "logs").endswith("report  report.html\n")
    assert "<style>" in (tmp_path / "report.html").read_text()


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert (ended.value.code, capsys.readouterr().out) == (0, f"lightning-ff {lightning_ff.__version__}\n")
