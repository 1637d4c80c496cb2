"""The short version of ``bin/zkbroker-interop``: what each client is used for most, each of Kafka's tools once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.harness.brokers import Cluster
from tests.harness.zookeeper import ZooKeeperEnsemble
from tests.interop.__main__ import SETTINGS
from tests.interop.adapters import Record
from tests.interop.adapters_kcat import parse
from tests.interop.report import machine_readable, markdown
from tests.interop.runner import (
    FAIL,
    NOT_APPLICABLE,
    PASS,
    Cell,
    Clients,
    Column,
    Outcome,
    chosen,
    clients_of,
    run_cells,
)

pytestmark = pytest.mark.timeout(400)
JOBS = 3


@pytest.fixture(scope="module")
def outcomes(ensemble: ZooKeeperEnsemble, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Cell, Outcome]]:
    """All cells beside each other, because most of their time is waiting."""
    folder = tmp_path_factory.mktemp("interop")
    with Cluster(ensemble.connect_string, folder, overrides=SETTINGS) as cluster, clients_of(cluster) as clients:
        yield {one.cell: one for one in run_cells(cluster, clients, chosen(None, is_short=True), JOBS, lambda _: None)}


@pytest.mark.parametrize("cell", chosen(None, is_short=True), ids=lambda cell: cell.label)
def test_cell(outcomes: dict[Cell, Outcome], cell: Cell) -> None:
    outcome = outcomes[cell]
    assert outcome.kind == PASS, outcome.reason


def test_the_table() -> None:
    columns = [Column("one", "library 1"), Column("two", "library 2")]
    cells = {name: Cell(name, "records", "gzip", True) for name in ("one", "two")}
    outcomes = [Outcome(cells["one"], PASS), Outcome(cells["two"], NOT_APPLICABLE, "two has no gzip")]
    text = markdown(outcomes, columns).splitlines()
    assert text[:5] == ["||one (library 1)|two (library 2)|", "|---|---|---|", "|gzip|✓|–|", "", "–: two has no gzip."]
    outcomes[1] = Outcome(cells["two"], FAIL, "it is broken")
    text = markdown(outcomes, columns).splitlines()
    assert (text[2], text[-1]) == ("|gzip|✓|✗ 1|", "1. two / records / gzip: it is broken")
    assert '"outcome": "fail"' in machine_readable(outcomes, columns)


def test_a_cell_that_fails_says_where_and_is_none_of_the_others(ensemble: ZooKeeperEnsemble) -> None:
    class Nobody:
        bootstrap = "127.0.0.1:1"

    clients = Clients(Nobody.bootstrap)
    cell = Cell("kcat", "no group", "no row", False)
    [outcome] = run_cells(None, clients, [cell], 1, lambda _: None)  # type: ignore[arg-type]
    assert outcome.kind == FAIL
    assert "runner.py" in outcome.reason


def test_records_as_kcat_prints_them() -> None:
    text = b"0 7 1700 3 -1 a=b,c=NULL\nkey\n1 8 1800 -1 2 \n\n\n\n"
    first, second = parse(text)
    assert (first.partition, first.offset) == (0, 7)
    assert first.record == Record(None, b"key", (("a", b"b"), ("c", None)), 1700)
    assert (second.partition, second.record.value) == (1, b"\n\n")
