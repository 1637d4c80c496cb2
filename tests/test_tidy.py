"""The rules of the house that a program can check: imports, purity, sizes, what is left lying about."""

from __future__ import annotations

import ast
import configparser
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "zkbroker"
LINES_MAX = 500
# What each package may import of zkbroker besides itself (the table of ARCHITECTURE.md).
MAY_IMPORT: dict[str, set[str]] = {
    "model": set(),
    "records": {"model"},
    "partition": {"model"},
    "controller": {"model"},
    "zookeeper": {"model"},
    "coordinator": {"model", "records"},
    "log": {"model", "records", "partition"},
    "replication": {"model", "records"},
    "kafka": {"model", "records"},
    "web": {"model", "records"},
    "broker": {
        *("model", "records", "partition", "controller", "zookeeper", "coordinator"),
        *("log", "replication", "kafka", "web"),
    },
}
IMPURE = {"twisted", "kazoo", "os", "time", "random", "asyncio", "threading"}
PURE = ("partition", "controller", "coordinator", "replication/codec.py")
# Library → the only place that may know it.
ONLY_IN = {
    "kazoo": ("zookeeper/session.py", "zookeeper/kazoo_link.py", "cli/"),
    "kio": ("kafka/",),
    "confluent_kafka": ("cli/",),
}
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def relative(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def module_name(path: Path) -> str:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return name.removesuffix(".__init__")


def imports(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every imported module, and for ``from x import y`` also x.y, which may be one."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module, node.lineno
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


@functools.cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


def is_pure(path: Path) -> bool:
    name = relative(path)
    return any(name == place or name.startswith(f"{place}/") for place in PURE)


def test_there_is_something_to_check() -> None:
    assert len(modules()) > 30


@pytest.mark.parametrize("path", modules(), ids=relative)
def test_imports(path: Path) -> None:
    name = relative(path)
    package = name.split("/")[0] if "/" in name else ""
    wrong = []
    for imported, line in imports(parse(path)):
        top, _, rest = imported.partition(".")
        other = rest.split(".")[0]
        is_package = top == "zkbroker" and other != "" and (PACKAGE / other).is_dir()
        if is_package and package in MAY_IMPORT and other != package and other not in MAY_IMPORT[package]:
            wrong.append(f"{name}:{line} {package} must not import {other}")
        if is_pure(path) and top in IMPURE:
            wrong.append(f"{name}:{line} is pure and must not import {top}")
        if top in ONLY_IN and not any(name == place or name.startswith(place) for place in ONLY_IN[top]):
            wrong.append(f"{name}:{line} {top} belongs in {' and '.join(ONLY_IN[top])} only")
    assert not wrong, "\n".join(sorted(set(wrong)))


def _module_level(tree: ast.Module) -> Iterator[ast.stmt]:
    """Statements that run at import, also those below if and try, without ``if TYPE_CHECKING``."""
    waiting: list[ast.stmt] = list(tree.body)
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        for field in ("body", "orelse", "finalbody"):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                waiting.extend(child for child in getattr(node, field, []) if isinstance(child, ast.stmt))


@pytest.mark.parametrize("path", modules(), ids=relative)
def test_no_reactor_at_module_level(path: Path) -> None:
    """Importing the reactor installs one: only the entry point may, in a function, after it chose which."""
    found = [
        f"{relative(path)}:{node.lineno}"
        for node in _module_level(parse(path))
        if isinstance(node, ast.Import | ast.ImportFrom)
        and any(name == "twisted.internet.reactor" for name, _ in imports(node))
    ]
    assert not found, f"reactor imported at module level: {found}"


@pytest.mark.parametrize("path", modules(), ids=relative)
def test_no_print_and_no_assert_outside_tools(path: Path) -> None:
    if relative(path).startswith("cli/"):
        return
    wrong = []
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            wrong.append(f"{relative(path)}:{node.lineno} print(): the broker logs through its log function")
        if isinstance(node, ast.Assert):
            wrong.append(f"{relative(path)}:{node.lineno} assert vanishes under -O: raise InvariantViolation")
    assert not wrong, "\n".join(wrong)


def test_files_are_short() -> None:
    places = [*modules(), *sorted((ROOT / "tests").rglob("*.py"))]
    long = [
        f"{path.relative_to(ROOT)}: {count} lines"
        for path in places
        if (count := len(path.read_text().splitlines())) > LINES_MAX
    ]
    assert not long, f"over {LINES_MAX} lines, split them: {long}"


def test_nothing_is_left_unfinished() -> None:
    places = [*modules(), *sorted((ROOT / "tests").rglob("*.py")), *sorted((ROOT / "bin").iterdir())]
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in places
        if path != Path(__file__).resolve()
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if UNFINISHED.search(line)
    ]
    assert not found, f"marks of unfinished work: {found}"


def test_every_limit_says_why() -> None:
    """A constant of model/limits.py has a comment above it or a docstring below it."""
    path = PACKAGE / "model" / "limits.py"
    lines = path.read_text().splitlines()
    body = parse(path).body
    bare = []
    constants = 0
    for position, node in enumerate(body):
        if not isinstance(node, ast.Assign | ast.AnnAssign):
            continue
        constants += 1
        after = body[position + 1] if position + 1 < len(body) else None
        is_documented = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
        is_commented = lines[node.lineno - 2].lstrip().startswith("#") or "#" in lines[node.end_lineno - 1]  # type: ignore[operator]
        if not (is_documented or is_commented):
            bare.append(f"limits.py:{node.lineno}")
    assert constants > 0
    assert not bare, f"limits without a reason: {bare}"


def test_no_module_is_dead() -> None:
    """Every module is imported by another one, is a console script, or is started with -m."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    scripts = setup["options.entry_points"]["console_scripts"]
    started = {line.partition("=")[2].partition(":")[0].strip() for line in scripts.splitlines() if line.strip()}
    used: set[str] = set()
    for path in modules():
        own = module_name(path)
        used.update(name for name, _ in imports(parse(path)) if name != own)
    dead = [
        relative(path)
        for path in modules()
        if path.name != "__init__.py"
        and module_name(path) not in used | started
        # started with python -m
        and '__name__ == "__main__"' not in path.read_text()
    ]
    assert not dead, f"imported by nobody: {dead}"


def test_console_scripts_have_their_bin() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    names = [
        line.partition("=")[0].strip()
        for line in setup["options.entry_points"]["console_scripts"].splitlines()
        if line.strip()
    ]
    assert names
    missing = [name for name in names if not (ROOT / "bin" / name).exists()]
    assert not missing, f"no script in bin/ for {missing}"
