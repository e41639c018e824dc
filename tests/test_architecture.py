"""The package's architecture, read from its source: layers, circles, private names, lengths.

Faults that are known stand in lists that only shrink: a new fault fails, and so does one that is gone but still listed.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from functools import cache
from importlib.util import resolve_name
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = Path(__file__).parents[1] / "lightning_ff"
LONGEST = 400  # lines of a file

# Lowest first: a module imports its own layer and lower ones. A slash marks a package.
LAYERS = (
    "validate hashing spec trust batch target _torch figures/ augment",
    "objectives/ labels metrics/",
    "blocks/ readouts optim/",
    "stage build network segment",
    "negatives/ credit/",
    "sweep/",
    "_lightning loggers data/",
    "learner/",
    "cut/",
    "methods/ callbacks/ strategies/",
    "report/ cli/ matrix record __main__ __init__ _moved",
)
PLAIN = 6  # the layers up to this one are plain torch
LIGHTNING = {"lightning", "pytorch_lightning", "lightning_fabric"}

HOMES = {"_lightning.py", "_torch.py"}  # where private names of others stand
# Names with an underscore that the documentation of Python describes, so not private.
DOCUMENTED = {"_asdict", "_fields", "_make", "_replace"} | {"_exit", "_getframe"}  # named tuples; os and sys

# Known faults, which only shrink: by file, what a finding says after its line.
Known = dict[str, set[str]]
CIRCLES: Known = {}
UPWARD: Known = {}
NOT_PLAIN: Known = {}
PRIVATE: Known = {}
LONG: Known = {}
FOR_TYPES: Known = {}

Sources = dict[str, str]  # file's path within the package -> text
Check = Callable[[Sources], list[str]]


class Import(NamedTuple):
    """One alias of an import statement: its module, and the full name with the imported attribute, if any."""

    module: str
    full: str
    line: int
    typing: bool


parse = cache(ast.parse)


def for_typing(tree: ast.Module) -> set[ast.AST]:
    """All nodes that only a type checker runs."""
    tests = {"TYPE_CHECKING", "typing.TYPE_CHECKING"}
    guards = [node for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) in tests]
    return {node for guard in guards for statement in guard.body for node in ast.walk(statement)}


@cache
def imports(path: str, source: str) -> list[Import]:
    """All imports of a file, those within functions and for types included."""
    tree = parse(source)
    typing = for_typing(tree)
    folder = ".".join(("lightning_ff", *Path(path).parts[:-1]))
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [Import(alias.name, alias.name, node.lineno, node in typing) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = resolve_name("." * node.level + (node.module or ""), folder)
            found += [Import(module, f"{module}.{alias.name}", node.lineno, node in typing) for alias in node.names]
    return found


def as_file(sources: Sources, module: str) -> str | None:
    """The file that a module of the package is, a package being its ``__init__``."""
    top, *parts = module.split(".")
    inner = "/".join(parts)
    files = (f"{inner}.py", f"{inner}/__init__.py".lstrip("/"))
    return next((file for file in files if top == "lightning_ff" and file in sources), None)


def target(sources: Sources, path: str, each: Import) -> str | None:
    """The file of the package that an import loads.

    That is the submodule where the name is one, unless the package's ``__init__`` has the same name for another thing.
    Python runs the ``__init__`` of the folders above a submodule too; this is not counted, as no module can avoid it.
    """
    package, inner = as_file(sources, each.module), as_file(sources, each.full)
    if inner and package and inner != package:
        name = each.full.removeprefix(each.module)
        shadows = {own.full for own in imports(package, sources[package])} - {each.full}
        return package if any(full.endswith(name) for full in shadows) else inner
    return inner or package


def edges(sources: Sources) -> Iterator[tuple[str, str, int]]:
    """Importing file, imported file, line."""
    for path, source in sources.items():
        for each in imports(path, source):
            if (to := target(sources, path, each)) and to != path:
                yield path, to, each.line


def reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    """Nodes that are reachable from a node over at least one edge."""
    seen: set[str] = set()
    ahead = {start}
    while ahead:
        ahead = {to for path in ahead for to in graph[path]} - seen
        seen |= ahead
    return seen


def circles(sources: Sources) -> list[str]:
    """Modules that import one another, however far around: the first, the line of its import, the others."""
    lines = {(path, to): line for path, to, line in edges(sources)}
    graph = {path: {to for start, to in lines if start == path} for path in sources}
    reach = {path: reachable(graph, path) for path in graph}
    groups = {tuple(sorted(to for to in reach[path] if path in reach[to])) for path in graph} - {()}
    return [
        f"{first}:{min(lines[first, to] for to in graph[first] & {*others})}: {' '.join(others)}"
        for first, *others in sorted(groups)
    ]


def unit(path: str) -> str:
    """A file's name in `LAYERS`: a module of the root, or a package."""
    top, *rest = Path(path).parts
    return f"{top}/" if rest else top.removesuffix(".py")


def layer(path: str) -> int | None:
    """The layer of a file, counted from 1."""
    name = unit(path)
    return next((i for i, names in enumerate(LAYERS, 1) if name in names.split()), None)


def upward(sources: Sources) -> list[str]:
    """Imports of a higher layer, and modules that are in none."""
    homeless = [f"{path}:1: in no layer" for path in sources if layer(path) is None]
    return homeless + [
        f"{path}:{line}: {to}" for path, to, line in edges(sources) if (layer(path) or 99) < (layer(to) or 0)
    ]


def not_plain(sources: Sources) -> list[str]:
    """Imports of Lightning in the layers that are plain torch."""
    return [
        f"{path}:{each.line}: {each.full}"
        for path, source in sources.items()
        for each in imports(path, source)
        if (layer(path) or 99) <= PLAIN and each.module.split(".")[0] in LIGHTNING
    ]


def is_private(name: str) -> bool:
    return name.startswith("_") and name != "_" and not (name.startswith("__") and name.endswith("__"))


def defined(tree: ast.Module) -> Iterator[str]:
    """Names of functions, classes, their attributes and fields, those of instances, and of the module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and is_own(node.value):
            yield node.attr
        if isinstance(node, ast.Module | ast.ClassDef):
            fields = [statement for statement in node.body if isinstance(statement, ast.Assign | ast.AnnAssign)]
            leaves = [leaf for field in fields for leaf in ast.walk(field)]
            yield from (leaf.id for leaf in leaves if isinstance(leaf, ast.Name) and isinstance(leaf.ctx, ast.Store))


def is_own(base: ast.expr) -> bool:
    """Whether an expression is ``self``, ``cls`` or ``super()``."""
    return ast.unparse(base) in {"self", "cls", "super()"}


def accessed(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and name of attributes taken from what is not the own class, spelled or by `getattr` and its kin."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and not is_own(node.value):
            yield node.lineno, node.attr
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in {"getattr", "setattr", "hasattr", "delattr"}:
            base, name = node.args[:2]
            if isinstance(name, ast.Constant) and isinstance(name.value, str) and not is_own(base):
                yield node.lineno, name.value


def private(sources: Sources) -> list[str]:
    """Private names of others, imported or accessed outside of the two files for them.

    Types are not known: a name that the package defines anywhere counts as its own wherever it is accessed.
    """
    own = {name for source in sources.values() for name in defined(parse(source))} | DOCUMENTED
    found = []
    for path in sorted(sources.keys() - HOMES):
        foreign = [each for each in imports(path, sources[path]) if not f"{each.full}.".startswith("lightning_ff.")]
        names = [(each.line, name) for each in foreign for name in each.full.split(".")]
        names += [(line, name) for line, name in accessed(parse(sources[path])) if name not in own]
        found += [f"{path}:{line}: {name}" for line, name in sorted(set(names)) if is_private(name)]
    return found


def long(sources: Sources) -> list[str]:
    """Files that are too long."""
    lines = {path: len(source.splitlines()) for path, source in sources.items()}
    return [f"{path}:{count}: too many lines" for path, count in lines.items() if count > LONGEST]


def for_types(sources: Sources) -> list[str]:
    """Imports of the learner that only a type checker runs."""
    return [
        f"{path}:{each.line}: {each.full}"
        for path, source in sources.items()
        for each in imports(path, source)
        if each.typing and f"{each.full}.".startswith("lightning_ff.learner.")
    ]


CHECKS = [(circles, CIRCLES), (upward, UPWARD), (not_plain, NOT_PLAIN), (private, PRIVATE), (long, LONG)]
CHECKS += [(for_types, FOR_TYPES)]


@cache
def package() -> Sources:
    return {file.relative_to(PACKAGE).as_posix(): file.read_text("utf-8") for file in sorted(PACKAGE.rglob("*.py"))}


@pytest.mark.parametrize(("check", "known"), CHECKS)
def test_the_package_has_no_fault_but_the_known_ones(check: Check, known: Known) -> None:
    gone = {(path, what) for path, names in known.items() for what in names}
    new = []
    for finding in check(package()):
        path, _, what = finding.split(":", 2)
        gone.discard((path, what.strip()))
        if what.strip() not in known.get(path, ()):
            new.append(finding)
    assert not new, f"{check.__name__}: new faults in lightning_ff/:\n" + "\n".join(new)
    assert not gone, f"{check.__name__}: no longer a fault, remove it from the list: {sorted(gone)}"


CLEAN = {
    "__init__.py": "from lightning_ff.blocks import mlp\nfrom lightning_ff.learner import Learner",
    "_lightning.py": "from lightning.pytorch import _graveyard\n_graveyard._x",
    "blocks/__init__.py": "from lightning_ff.blocks.mlp import mlp",
    "blocks/mlp.py": "import torch\nfrom lightning_ff.spec import Spec\ndef mlp(): torch.nn\n" + "#\n" * 397,
    "learner/__init__.py": "from lightning_ff.learner.module import Learner",
    "learner/module.py": "import lightning\nclass Learner:\n def f(self, o): self._a = self._b, o._a, o._replace()",
    "spec.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n from lightning_ff.batch import Batch",
    "batch.py": "from torch.utils import data\n_limit = 1\ndef f(x): return x._limit, x.__dict__, getattr(x, 'y')",
}

FAULTY: list[tuple[Check, Sources, list[str]]] = [
    (
        circles,
        {
            "a.py": "\nimport lightning_ff.b",
            "b.py": "def f():\n from lightning_ff import c",
            "c.py": "if TYPE_CHECKING:\n from .a import A",
            "d.py": "from lightning_ff.a import A",
        },
        ["a.py:2: b.py c.py"],
    ),
    (  # `__init__` has a function by the name of a submodule
        circles,
        {
            "p/__init__.py": "from .f import f\nfrom . import g",
            "p/f.py": "from . import g",
            "p/g.py": "from . import f",
        },
        ["p/__init__.py:1: p/f.py p/g.py"],
    ),
    (upward, {"labels.py": "from lightning_ff.blocks import mlp", "blocks/mlp.py": ""}, ["labels.py:1: blocks/mlp.py"]),
    (upward, {"misc/a.py": "", "stage.py": "", "sweep/a.py": ""}, ["misc/a.py:1: in no layer"]),
    (not_plain, {"sweep/a.py": "def f():\n import lightning.pytorch"}, ["sweep/a.py:2: lightning.pytorch"]),
    (not_plain, {"batch.py": "from pytorch_lightning import T"}, ["batch.py:1: pytorch_lightning.T"]),
    (private, {"a.py": "from torch.nn import _A\nimport torch._b.c"}, ["a.py:1: _A", "a.py:2: _b"]),
    (private, {"a.py": "self._a, f(x)._b", "b.py": "\nhasattr(x, '_c')"}, ["a.py:1: _b", "b.py:2: _c"]),
    (long, {"a.py": "#\n" * 401, "b.py": "#\n" * 400}, ["a.py:401: too many lines"]),
    (for_types, {"a.py": "if TYPE_CHECKING:\n from lightning_ff import learner"}, ["a.py:2: lightning_ff.learner"]),
    (
        for_types,
        {"a.py": "if typing.TYPE_CHECKING:\n import lightning_ff.learner.x"},
        ["a.py:2: lightning_ff.learner.x"],
    ),
]


@pytest.mark.parametrize(("check", "sources", "findings"), FAULTY)
def test_a_fault_is_found(check: Check, sources: Sources, findings: list[str]) -> None:
    assert check(sources) == findings


@pytest.mark.parametrize("check", [check for check, _ in CHECKS])
def test_a_clean_tree_has_no_fault(check: Check) -> None:
    assert check(CLEAN) == []


def test_text_files_are_opened_as_utf_8() -> None:
    """Not by the platform's own encoding."""
    lacking = []
    for path, text in package().items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                name, keywords = node.func.attr, {keyword.arg for keyword in node.keywords}
                mode = str(node.args[0].value) if node.args and isinstance(node.args[0], ast.Constant) else ""
                opens = name == "open" and (mode in ("r", "w", "a", "x") or "newline" in keywords)
                if (name in ("read_text", "write_text") or opens) and "encoding" not in keywords:
                    lacking.append(f"{path}:{node.lineno}")
    assert lacking == []
