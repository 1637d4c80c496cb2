"""``zkbroker-interop``: real clients and Kafka's own tools against a cluster, and the table of what works."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.harness.brokers import Cluster, LocalFailure
from tests.harness.zookeeper import ZooKeeperEnsemble, ZooKeeperMissing
from tests.interop.report import line, machine_readable, markdown, summary
from tests.interop.runner import FAIL, JAVA_LIBS, chosen, clients_of, run_cells

PROG = "zkbroker-interop"
DESCRIPTION = """\
Start a ZooKeeper ensemble and three brokers on this machine, and let real clients and Kafka's own command-line tools
do what people do with them: every codec, keys, headers, nulls, records of 1 MB, timestamps, seeks, idempotence, groups
that rebalance, administration. A cell (client and feature) passes, fails with a reason, or does not apply.
"""
EXAMPLES = """\
examples:
  everything, and the table for README:
    zkbroker-interop --markdown
  one client; one feature of all; two tools:
    zkbroker-interop -k kcat
    zkbroker-interop -k 'three members'
    zkbroker-interop -k 'TopicCommand|LogDirs'
  the same against Apache Kafka 3.9.1, to see whether a failure is the broker's:
    zkbroker-interop --kafka -k 'seeks'

exit status: 0 nothing failed; 1 something did; 2 wrong usage, or the cluster did not start.
"""


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROG, description=DESCRIPTION, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-k", metavar="PATTERN", help="only cells whose 'client / group / feature' matches")
    parser.add_argument("--short", action="store_true", help="only what bin/test runs")
    parser.add_argument("--list", action="store_true", help="print the cells and run none")
    parser.add_argument("--markdown", action="store_true", help="print the table at the end; progress goes to stderr")
    parser.add_argument("--json", action="store_true", help="print the outcomes as JSON at the end")
    parser.add_argument("--jobs", type=int, default=3, metavar="N", help="cells at once (default 3)")
    parser.add_argument("--kafka", action="store_true", help="brokers of Apache Kafka 3.9.1 instead of zkbroker's")
    parser.add_argument("--logs", type=Path, metavar="FOLDER", help="keep the brokers' folders there")
    return parser


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def run(arguments: argparse.Namespace) -> int:
    cells = chosen(arguments.k, is_short=arguments.short)
    if arguments.list:
        for cell in cells:
            print(cell.label)
        return 0
    if not cells:
        _say(f"{PROG}: nothing matches {arguments.k!r}")
        return 2
    for column, variable in JAVA_LIBS.items():
        if not os.environ.get(variable):
            _say(f"{column} is left out: {variable} is not set")
    with tempfile.TemporaryDirectory(prefix="zkbroker-interop-") as temporary, ZooKeeperEnsemble(1) as ensemble:
        folder = arguments.logs or Path(temporary)
        cluster = Cluster(ensemble.connect_string, folder, kafka=arguments.kafka, overrides=SETTINGS)
        with cluster, clients_of(cluster) as clients:
            outcomes = run_cells(cluster, clients, cells, arguments.jobs, lambda one: _say(line(one)))
            columns = clients.columns()
    if arguments.markdown:
        print(markdown(outcomes, columns))
    if arguments.json:
        print(machine_readable(outcomes, columns))
    _say(summary(outcomes))
    return 1 if any(one.kind == FAIL for one in outcomes) else 0


SETTINGS = {"group.initial.rebalance.delay.ms": 0, "offsets.topic.num.partitions": 5, "message.max.bytes": 2_000_000}


def main(argv: Sequence[str] | None = None) -> int:
    arguments = make_parser().parse_args(argv)
    logging.getLogger("kazoo").addHandler(logging.NullHandler())
    for name in ("kafka", "aiokafka"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        return run(arguments)
    except (OSError, LocalFailure, TimeoutError, ZooKeeperMissing) as error:
        _say(f"{PROG}: {error}")
        return 2
    except KeyboardInterrupt:
        _say(f"{PROG}: interrupted")
        return 130


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)  # a client's thread that hangs must not keep the command from ending
