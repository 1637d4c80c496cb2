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
    """Two tables, clients by feature and Kafka's tools by version; below them what each mark needs to be understood."""
    lines: list[str] = []
    notes: dict[str, int] = {}
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
                mark = "" if found is None else MARKS[found.kind]
                if found is not None and found.reason:
                    mark += f" {notes.setdefault(_note(found), len(notes) + 1)}"
                cells.append(mark)
            rows.append([row, *cells])
        lines += [*_table(["Tool" if is_tools else "", *(f"{name} ({libraries[name]})" for name in names)], rows), ""]
    if notes:
        lines += [f"✓ passes, ✗ fails, – the client has no such thing. {_notes(notes)}", ""]
    return "\n".join(lines)


def _note(outcome: Outcome) -> str:
    return outcome.reason


def _notes(notes: dict[str, int]) -> str:
    return " ".join(f"({number}) {text}." for text, number in notes.items())


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
