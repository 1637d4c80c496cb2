"""The run's table: for README, for machines, for people who watch."""

from __future__ import annotations

import json
from collections.abc import Sequence

from tests.interop.runner import FAIL, NOT_APPLICABLE, PASS, TOOLS_GROUP, Cell, Column, Outcome

MARKS = {PASS: "✓", FAIL: "✗", NOT_APPLICABLE: "–"}


def line(outcome: Outcome) -> str:
    reason = f": {outcome.reason}" if outcome.reason else ""
    return f"{outcome.kind:<15}{outcome.seconds:6.1f} s  {outcome.cell.label}{reason}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return ["|" + "|".join(one) + "|" for one in (head, ["---"] * len(head), *rows)]


def markdown(outcomes: Sequence[Outcome], columns: Sequence[Column]) -> str:
    """Two tables, clients by feature and Kafka's tools by version; below them what clients lack, and why cells fail."""
    lines: list[str] = []
    failures: list[str] = []
    by_place = {(one.cell.column, one.cell.group, one.cell.row): one for one in outcomes}
    libraries = {column.name: column.library for column in columns}
    for is_tools in (False, True):
        part = [one for one in outcomes if (one.cell.group == TOOLS_GROUP) == is_tools]
        if not part:
            continue
        names = list(dict.fromkeys(one.cell.column for one in part))
        rows = []
        for group, row in dict.fromkeys((one.cell.group, one.cell.row) for one in part):
            cells = []
            for name in names:
                found = by_place.get((name, group, row))
                cells.append("" if found is None else _mark(found, failures))
            rows.append([row, *cells])
        head = ["Tool" if is_tools else "", *(_title(name, libraries[name]) for name in names)]
        lines += [*_table(head, rows), ""]
    lacks = dict.fromkeys(one.reason for one in outcomes if one.kind == NOT_APPLICABLE)
    if lacks:
        lines += [f"–: {'; '.join(lacks)}.", ""]
    lines += [f"{number}. {reason}" for number, reason in enumerate(failures, 1)]
    return "\n".join(lines)


def _title(name: str, library: str) -> str:
    """The library's name is left out where it is the client's, too."""
    return library if library.startswith(f"{name} ") else f"{name} ({library})"


def _mark(outcome: Outcome, failures: list[str]) -> str:
    if outcome.kind != FAIL:
        return MARKS[outcome.kind]
    failures.append(f"{outcome.cell.label}: {outcome.reason}")
    return f"{MARKS[FAIL]} {len(failures)}"


def machine_readable(outcomes: Sequence[Outcome], columns: Sequence[Column]) -> str:
    def place(cell: Cell) -> dict[str, str]:
        return {"client": cell.column, "group": cell.group, "feature": cell.row}

    rows = [
        {**place(one.cell), "outcome": one.kind, "reason": one.reason, "seconds": round(one.seconds, 2)}
        for one in outcomes
    ]
    clients = {column.name: column.library for column in columns}
    return json.dumps({"clients": clients, "cells": rows}, indent=2)


def summary(outcomes: Sequence[Outcome]) -> str:
    counts = {kind: sum(one.kind == kind for one in outcomes) for kind in MARKS}
    return ", ".join(f"{count} {kind}" for kind, count in counts.items())
