"""``python -m tests.fuzz``: hostile requests against a broker for as long as it is told to."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.fuzz.siege import Found, Siege, complaints
from tests.harness.brokers import Cluster, LocalFailure
from tests.harness.zookeeper import ZooKeeperEnsemble, ZooKeeperMissing

PROG = "tests.fuzz"
ELEMENTS = 40_000
SETTINGS = {
    "queued.max.request.bytes": 8 << 20,
    "socket.request.max.bytes": 8 << 20,
    "offsets.topic.num.partitions": 2,
    "group.min.session.timeout.ms": 1,
    "group.initial.rebalance.delay.ms": 0,
    "auto.create.topics.enable": "true",
}


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"python -m {PROG}", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, metavar="N", help="how long (default 60)")
    parser.add_argument("--seed", type=int, metavar="N", help="of the requests (default: random; printed)")
    parser.add_argument("--broker", metavar="HOST:PORT", help="this one, instead of a cluster of one made for it")
    parser.add_argument("--memory-mib", type=int, default=200, help="by which the broker may grow (default 200)")
    parser.add_argument("--log", type=Path, metavar="FILE", help="copy the broker's log there")
    return parser


def siege(host: str, port: int, pid: int | None, arguments: argparse.Namespace, seed: int) -> None:
    with Siege(host, port, seed, pid) as attack:
        longest_s = attack.strike_heavily(ELEMENTS)
        print(f"{ELEMENTS} elements in requests of every API: a friend waited {longest_s:.2f} s at most", flush=True)
        began = time.monotonic()
        tally = attack.run(arguments.seconds)
        print(f"{tally} in {time.monotonic() - began:.0f} s", flush=True)
        if tally.grown_bytes > arguments.memory_mib << 20:
            raise Found(f"the broker has grown by {tally.grown_bytes >> 20} MiB")


def run(arguments: argparse.Namespace) -> None:
    seed = random.SystemRandom().randrange(2**32) if arguments.seed is None else arguments.seed
    print(f"seed {seed}", flush=True)
    if arguments.broker:
        host, _, port = arguments.broker.rpartition(":")
        siege(host, int(port), None, arguments, seed)
        return
    with (
        tempfile.TemporaryDirectory(prefix="zkbroker-fuzz-") as folder,
        ZooKeeperEnsemble(1) as ensemble,
        Cluster(ensemble.connect_string, Path(folder), 1, SETTINGS) as cluster,
    ):
        cluster.create_topic("fuzz", 3, 1)
        broker = cluster.brokers[1]
        try:
            siege("127.0.0.1", broker.port, broker.pid, arguments, seed)
        finally:
            log = broker.log_text()
            if arguments.log:
                arguments.log.write_text(log)
        found = complaints(log)
        if found:
            raise Found(f"{len(found)} complaints in the broker's log, the first: {found[:5]}")


def main(argv: Sequence[str] | None = None) -> int:
    arguments = make_parser().parse_args(argv)
    try:
        run(arguments)
    except Found as found:
        print(f"{PROG}: {found}", file=sys.stderr)
        return 1
    except (OSError, LocalFailure, ZooKeeperMissing) as error:
        print(f"{PROG}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
