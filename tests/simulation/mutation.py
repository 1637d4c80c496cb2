"""Switching a rule of the product off: edits of its source, applied in this process only, undone at the end.

A mutant says which text of which function becomes what. So it is exactly the product's own code less one rule, and an
edit whose text is not there any more fails by name instead of quietly testing nothing.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import linecache
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple


class StaleEdit(Exception):
    """The product's source changed: the edit does not fit it any more."""


class Edit(NamedTuple):
    """In the source of ``where`` (``module:function`` or ``module:Class.method``, without ``zkbroker.``) ``old``, which
    stands there exactly once, becomes ``new``. White space at the ends of lines and indentation of the whole function
    do not count; an empty ``old`` puts ``new`` at the beginning of the body."""

    where: str
    old: str
    new: str


class Mutant(NamedTuple):
    """One rule that data depends on, switched off."""

    name: str
    rule: str
    """The rule, and where it stands: a section of kafka-semantics.md, a KIP or KAFKA issue."""
    edits: tuple[Edit, ...]
    profile: str = "default"
    """Under which faults it is hunted."""


def located(where: str) -> tuple[Any, str, Any]:
    """(owner, attribute, function) of ``module:Class.method``. Raises StaleEdit."""
    module_name, _, path = where.partition(":")
    try:
        owner: Any = importlib.import_module(f"zkbroker.{module_name}")
        *outer, name = path.split(".")
        for part in outer:
            owner = getattr(owner, part)
        found = inspect.getattr_static(owner, name)
    except (ImportError, AttributeError) as error:
        raise StaleEdit(f"{where} is not there any more: {error}") from None
    return owner, name, found


def _source_of(function: Any) -> str:
    plain = function.fget if isinstance(function, property) else inspect.unwrap(function)
    if isinstance(plain, staticmethod | classmethod):
        plain = plain.__func__
    return textwrap.dedent(inspect.getsource(plain))


def edited(edits: Sequence[Edit]) -> Any:
    """What the function that all ``edits`` are about becomes. Raises StaleEdit."""
    where = edits[0].where
    owner, name, found = located(where)
    source = _source_of(found)
    for edit in edits:
        if not edit.old:
            source = _with_first_statement(source, edit.new)
            continue
        count = source.count(edit.old)
        if count != 1:
            raise StaleEdit(f"{where}: {edit.old!r} stands there {count} times, not once")
        source = source.replace(edit.old, edit.new)
    module = sys.modules[owner.__name__ if inspect.ismodule(owner) else owner.__module__]
    space: dict[str, Any] = {}
    filename = f"<mutant of {where}>"
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    # The module's own names, live: a mutant sees what else is patched.
    exec(compile("from __future__ import annotations\n" + source, filename, "exec"), module.__dict__, space)
    return space[name]


def _with_first_statement(source: str, statement: str) -> str:
    """Put ``statement`` at the beginning of the function's body."""
    first = ast.parse(source).body[0]
    if not isinstance(first, ast.FunctionDef):
        raise StaleEdit(f"no function: {source!r}")
    lines = source.splitlines(keepends=True)
    start = first.body[0].lineno - 1
    indented = textwrap.indent(textwrap.dedent(statement).strip("\n") + "\n", "    ")
    return "".join(lines[:start]) + indented + "".join(lines[start:])


def _holders(owner: Any, name: str, found: Any) -> Iterator[tuple[Any, str]]:
    """Who has the function under a name: its owner, and for a function of a module whoever imported it by name."""
    yield owner, name
    if not inspect.ismodule(owner):
        return
    for module_name, module in sorted(sys.modules.items()):
        if module is not owner and module_name.startswith("zkbroker."):
            yield from ((module, key) for key, value in list(vars(module).items()) if value is found)


@contextmanager
def applied(mutant: Mutant) -> Iterator[None]:
    """The product runs without the mutant's rule, for objects that are made meanwhile."""
    with ExitStack() as undo:
        for where in dict.fromkeys(edit.where for edit in mutant.edits):
            owner, name, found = located(where)
            replacement = edited([edit for edit in mutant.edits if edit.where == where])
            for holder, key in list(_holders(owner, name, found)):
                undo.callback(_setter(holder, key, found))
                setattr(holder, key, replacement)
        yield


def _setter(holder: Any, key: str, value: Any) -> Callable[[], None]:
    return lambda: setattr(holder, key, value)
