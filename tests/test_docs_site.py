"""The documentation's pages: their commands parse, their names and links exist, the site builds without warnings."""

from __future__ import annotations

import importlib.util
import os
import pkgutil
import re
import shlex
import subprocess
import sys
from html.parser import HTMLParser
from itertools import chain
from pathlib import Path
from urllib.parse import urlparse

import pytest
import yaml

import lightning_ff
import lightning_ff.data
from lightning_ff.cli import main
from lightning_ff.matrix import planned
from lightning_ff.record import parser as record_parser
from lightning_ff.report.command import parser as report_parser
from tests.command_line import print_config

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
EXAMPLES = DOCS / "examples"
PAGES = sorted(DOCS.rglob("*.md"))
# Lightning's warnings about the machine, short runs and its own interface are not tested here.
pytestmark = pytest.mark.filterwarnings("ignore:::lightning")


def fences(page: Path) -> list[tuple[str, str]]:
    """Language and text of every fenced block of a page."""
    found = re.findall(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```", page.read_text(), re.MULTILINE | re.DOTALL)
    return [(kind, text.replace(f"\n{indent}", "\n").removeprefix(indent).strip()) for indent, kind, text in found]


def prose(page: Path) -> str:
    """A page without its fenced blocks and inline code."""
    text = re.sub(r"^( *)```.*?^\1```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"(?<!\[)`[^`\n]*`(?!\])", "", text)


def slug(heading: str) -> str:
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower())


def commands() -> list[str]:
    """Every command of this package that a page shows."""
    lines = chain.from_iterable(
        text.replace("\\\n", " ").splitlines() for page in PAGES for kind, text in fences(page) if kind == "bash"
    )
    return sorted({line for line in lines if re.match(r"(lightning-ff|python -m lightning_ff) ", line)})


def identifiers() -> list[str]:
    """Every object on the pages of the reference."""
    pages = (DOCS / "api").glob("*.md")
    return [name for page in pages for name in re.findall(r"^::: (\S+)", page.read_text(), re.MULTILINE)]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like a checkout in which the digits have been trained."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("examples", "docs"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "my_parts.yaml").symlink_to(EXAMPLES / "my_parts.yaml")
    ran = folder / "logs/digits/version_0"
    ran.mkdir(parents=True)
    (ran / "config.yaml").symlink_to(ROOT / "examples/digits.yaml")
    return folder


@pytest.mark.parametrize("command", commands())
def test_commands_parse(
    command: str, checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(checkout)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    arguments = shlex.split(command)
    arguments = arguments[arguments.index("-m") + 2 :] if "-m" in arguments else arguments[1:]
    if arguments[0] == "report":
        assert report_parser().parse_args(arguments[1:]).runs
        return
    if arguments[0] == "record":
        assert record_parser().parse_args(arguments[1:]).runs
        return
    if arguments[0] == "matrix":
        assert planned(Path(arguments[1]), arguments[2:])
        return
    with pytest.raises(SystemExit) as exit_:
        print_config(*arguments)
    assert exit_.value.code in (0, None)
    assert yaml.safe_load(capsys.readouterr().out)["model"]["class_path"]


@pytest.mark.parametrize("name", ["loggers.yaml", "mixed_negatives.yaml"])
def test_files_name_the_command_they_are_for(
    name: str, checkout: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(checkout)
    first = (EXAMPLES / name).read_text().splitlines()[0]
    cli = main([*shlex.split(first)[1:], "--trainer.fast_dev_run", "true", "--model.widths=[8]"])
    assert cli.trainer.global_step == 1


def test_the_sweep_runs(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(checkout)
    sweep = yaml.safe_load((ROOT / "examples/wandb_sweep.yaml").read_text())
    parameters = sweep["parameters"].items()
    chosen = {name: given.get("value", given.get("values", [given.get("min")])[0]) for name, given in parameters}
    arguments = [f"--{name}={value}" for name, value in chosen.items()]
    command = [
        part for word in sweep["command"] for part in (arguments if word == "${args}" else [word]) if "${" not in part
    ]
    cli = main([*command, "--trainer.fast_dev_run", "true"])
    assert cli.model.blocks[0].loss.alpha == chosen["model.init_args.loss.init_args.alpha"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_code_on_a_page_is_included_from_files_that_are_tested(page: Path) -> None:
    for kind, text in fences(page):
        assert kind in ("python", "yaml", "bash", "text"), f"{page.name}: a fence of kind {kind!r}"
        if kind in ("bash", "text"):
            continue
        include = re.fullmatch(r'--8<-- "([\w./]+?)(?::(\w+))?"', text)
        assert include, f"{page.name}: {text}"
        file = EXAMPLES / include[1] if (EXAMPLES / include[1]).exists() else ROOT / include[1]
        assert file.exists(), f"{page.name}: {text}"
        assert include[2] is None or f"[start:{include[2]}]" in file.read_text(), f"{page.name}: {text}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_links_of_a_page_lead_somewhere(page: Path) -> None:
    text = prose(page)
    known = set(identifiers())
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if urlparse(target).scheme:
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.is_file(), f"{page.name}: {target}"
        headings = re.findall(r"^#+ (.+)$", there.read_text(), re.MULTILINE) if anchor else []
        assert not anchor or anchor in map(slug, headings), f"{page.name}: {target}"
    for name in re.findall(r"\]\[([\w.]+)\]", text):
        assert name in known or name.rpartition(".")[0] in known, f"{page.name}: {name} is not in the reference"
        assert pkgutil.resolve_name(name) is not None


def test_every_public_name_is_in_the_reference() -> None:
    public = {f"lightning_ff.{name}" for name in lightning_ff.__all__}
    public |= {f"lightning_ff.data.{name}" for name in lightning_ff.data.__all__}
    names = identifiers()
    assert public - set(names) == set()
    assert sorted(names) == sorted(set(names))
    for name in names:
        assert pkgutil.resolve_name(name).__doc__, name


def test_every_page_is_in_the_navigation() -> None:
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    listed = [page for part in config["nav"] for pages in part.values() for entry in pages for page in entry.values()]
    assert sorted(listed) == sorted(str(page.relative_to(DOCS)) for page in PAGES)


# The site


class Links(HTMLParser):
    """What a page of the site loads, where it links to, and its anchors."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(page.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        self.loads += [values[name] for name in ("src", "srcset", "poster") if name in values]
        if "href" in values:
            (self.loads if tag == "link" else self.links).append(values["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    lacking = [name for name in ("mkdocs", "material", "mkdocstrings_handlers") if not importlib.util.find_spec(name)]
    if lacking:
        pytest.skip(f"the site is built with the extra 'docs', of which {', '.join(lacking)} is not installed")
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    assert "WARNING" not in built.stderr
    return folder


def test_site_loads_nothing_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) == len(PAGES) + 1  # and 404.html
    for page in pages:
        elsewhere = [target for target in Links(page).loads if urlparse(target).netloc]
        assert elsewhere == [], page.name
    sheets = "".join(sheet.read_text() for sheet in site.rglob("*.css"))
    assert re.findall(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//[^)\"']+", sheets) == []


def test_links_of_the_site_lead_somewhere(site: Path) -> None:
    pages = {page: Links(page) for page in site.rglob("*.html") if page.name != "404.html"}
    for page, found in pages.items():
        for target in found.links:
            url = urlparse(target)
            if url.scheme or url.netloc:
                continue
            there = (page.parent / url.path).resolve() if url.path else page
            there = there / "index.html" if there.is_dir() else there
            assert there.exists(), f"{page.relative_to(site)}: {target}"
            if url.fragment and there in pages:
                assert url.fragment in pages[there].anchors | {"__toc"}, f"{page.relative_to(site)}: {target}"


def test_docstrings_have_become_markdown(site: Path) -> None:
    text = (site / "api/learner/index.html").read_text() + (site / "api/data/index.html").read_text()
    for left in ("Example::", ":class:", ":func:", ":meth:", "&gt;&gt;&gt; data = Noise(batch_size=8, val_size=4)\n"):
        assert left not in re.sub(r"<details.*?</details>", "", text, flags=re.DOTALL), left
    assert "sklearn.datasets.load_digits" in text
