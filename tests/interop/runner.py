"""Runs cells (a column, a row) and gathers what came of them."""

from __future__ import annotations

import os
import queue
import re
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

from tests.harness.brokers import Cluster, LocalFailure
from tests.interop import features as rows
from tests.interop.adapters import Client, DoesNotApply
from tests.interop.adapters_aiokafka import AiokafkaClient
from tests.interop.adapters_confluent import ConfluentClient
from tests.interop.adapters_java import JavaClient
from tests.interop.adapters_kafka_python import KafkaPythonClient
from tests.interop.adapters_kcat import KcatClient
from tests.interop.features import FEATURES, Scene
from tests.interop.tools import TOOLS, ToolScene

PASS, FAIL, NOT_APPLICABLE = "pass", "fail", "does not apply"
TOOLS_GROUP = "Kafka's tools"
CELL_TIMEOUT_S = 150.0
JAVA_LIBS = {"java-3.9": "ZKBROKER_KAFKA_LIBS", "java-4": "ZKBROKER_KAFKA4_LIBS"}
"""The variables that say where each version's jars are."""


class Cell(NamedTuple):
    column: str
    group: str
    row: str
    is_short: bool

    @property
    def label(self) -> str:
        return f"{self.column} / {self.group} / {self.row}"


class Outcome(NamedTuple):
    cell: Cell
    kind: str
    reason: str = ""
    seconds: float = 0.0


class Column(NamedTuple):
    name: str
    library: str


def _makers() -> dict[str, Callable[[str], Client]]:
    makers: dict[str, Callable[[str], Client]] = {
        client.name: client for client in (KcatClient, ConfluentClient, KafkaPythonClient, AiokafkaClient)
    }
    for name, variable in JAVA_LIBS.items():
        libs = os.environ.get(variable)
        if libs:
            makers[name] = lambda bootstrap, name=name, libs=libs: JavaClient(name, bootstrap, libs)  # type: ignore[misc]
    return makers


def all_cells() -> list[Cell]:
    makers = _makers()
    cells = [Cell(column, row.group, row.name, column in row.in_short) for row in FEATURES for column in makers]
    java = [column for column in JAVA_LIBS if column in makers]
    return cells + [Cell(column, TOOLS_GROUP, row.name, row.in_short == column) for row in TOOLS for column in java]


def chosen(pattern: str | None, *, is_short: bool = False) -> list[Cell]:
    """Those whose ``column / group / row`` matches."""
    return [
        cell
        for cell in all_cells()
        if (cell.is_short or not is_short) and (pattern is None or re.search(pattern, cell.label, re.IGNORECASE))
    ]


class Clients:
    """The clients of a run, each made when it is first needed."""

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        self._makers = _makers()
        self._made: dict[str, Client] = {}
        self._lock = threading.Lock()

    def get(self, name: str) -> Client:
        with self._lock:
            if name not in self._made:
                self._made[name] = self._makers[name](self._bootstrap)
            return self._made[name]

    def columns(self) -> list[Column]:
        return [Column(name, client.library) for name, client in self._made.items()]

    def close(self) -> None:
        for client in self._made.values():
            client.close()


@contextmanager
def clients_of(cluster: Cluster) -> Iterator[Clients]:
    clients = Clients(cluster.bootstrap)
    try:
        yield clients
    finally:
        clients.close()


def _work(cluster: Cluster, clients: Clients, cell: Cell) -> Callable[[], None]:
    client = clients.get(cell.column)
    name = rows.new_name(client, cell.row)
    if cell.group == TOOLS_GROUP:
        if not isinstance(client, JavaClient):
            raise LocalFailure(f"{cell.column} has no tools")
        row: Any = next(one for one in TOOLS if one.name == cell.row)
        return partial(row.run, ToolScene(cluster, client.server, name))
    row = next(one for one in FEATURES if one.name == cell.row)
    return partial(row.run, Scene(cluster, client, name))


def run_cell(cluster: Cluster, clients: Clients, cell: Cell) -> Outcome:
    """In a thread that is left behind if it hangs: a client that never returns fails its own cell only."""
    found: list[Outcome] = []
    began = time.monotonic()

    def run() -> None:
        try:
            _work(cluster, clients, cell)()
            found.append(Outcome(cell, PASS))
        except DoesNotApply as lack:
            found.append(Outcome(cell, NOT_APPLICABLE, str(lack)))
        except Exception as error:
            found.append(Outcome(cell, FAIL, _reason(error)))

    thread = threading.Thread(target=run, daemon=True, name=cell.label)
    thread.start()
    thread.join(CELL_TIMEOUT_S)
    seconds = time.monotonic() - began
    if not found:
        return Outcome(cell, FAIL, f"not over after {CELL_TIMEOUT_S:g} s", seconds)
    return found[0]._replace(seconds=seconds)


def _reason(error: BaseException) -> str:
    line = traceback.extract_tb(error.__traceback__)
    where = next((one for one in reversed(line) if "/interop/" in one.filename), line[-1])
    text = " ".join(str(error).split())[:700]
    return f"{type(error).__name__}: {text} ({where.filename.rpartition('/')[2]}:{where.lineno})"


def run_cells(
    cluster: Cluster, clients: Clients, cells: Sequence[Cell], jobs: int, told: Callable[[Outcome], None]
) -> list[Outcome]:
    """All of them, ``jobs`` at once, in the order given."""
    waiting: queue.SimpleQueue[Cell] = queue.SimpleQueue()
    for cell in cells:
        waiting.put(cell)
    outcomes: dict[Cell, Outcome] = {}
    lock = threading.Lock()

    def work() -> None:
        while True:
            try:
                cell = waiting.get_nowait()
            except queue.Empty:
                return
            outcome = run_cell(cluster, clients, cell)
            with lock:
                outcomes[cell] = outcome
                told(outcome)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [outcomes[cell] for cell in cells]
