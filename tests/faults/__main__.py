"""``zkbroker-torture``: break a real cluster in every way while clients write and read, and see what is lost."""

from __future__ import annotations

import argparse
import logging
import random
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.faults.arena import Arena, ArenaSettings
from tests.faults.catalogue import catalogue
from tests.faults.checker import Verdict, check
from tests.faults.history import BadHistory, Recorder, read_history
from tests.faults.report import write_report
from tests.faults.torture import FaultKind, Torture, TortureSettings
from tests.harness.brokers import LocalFailure
from tests.harness.zookeeper import ZooKeeperMissing
from zkbroker.cli._namespaces import NotAllowed

PROG = "zkbroker-torture"
DESCRIPTION = """\
Start a ZooKeeper ensemble of three and some brokers on this machine, let producers and consumers work, and break the
cluster in one way after the other. Everything that clients tried, were told and read is recorded and judged: a record
that was acknowledged with acks=all must be there in the end, once, in order, and as it was read before.

Each fault is followed by waiting until all replicas are in sync again; then the next one comes. The faults' order is
shuffled by the seed, and none comes twice before all have come once. The line of a fault shows how long it was held,
how many records were acknowledged from it to the next one and how many of those were lost, the longest time in which
some partition acknowledged nothing, and how long after the fault's end all replicas were in sync.
"""
EXAMPLES = """\
examples:
  ten minutes of everything:
    zkbroker-torture --minutes 10
  one kind of fault again and again, and the history kept:
    zkbroker-torture --minutes 5 --faults kill-leader,kill-controller --history history.jsonl
  judge a history again:
    zkbroker-torture --check history.jsonl

Network faults need root, iproute2 and iptables (network namespaces are made and removed); the full disk needs root to
mount one. Without them those faults are left out, and the first lines say why.

exit status: 0 nothing was violated; 1 something was; 2 wrong usage, or the cluster did not start.
"""


def positive(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise ValueError
    return value


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROG, description=DESCRIPTION, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--minutes", type=positive, default=10.0, metavar="N", help="begin no more faults after so long (default 10)"
    )
    parser.add_argument("--faults", metavar="A,B,...", help="only these (default: all; see --list-faults)")
    parser.add_argument("--list-faults", action="store_true", help="print the faults and what they do")
    parser.add_argument("--seed", type=int, metavar="N", help="of the faults' order and victims (default: random)")
    parser.add_argument("--brokers", type=int, default=3, choices=range(3, 8), help="how many (default 3)")
    parser.add_argument(
        "--records-per-second", type=positive, default=150.0, metavar="N", help="with acks=all (default 150)"
    )
    parser.add_argument(
        "--session-timeout", type=positive, default=3.0, metavar="SECONDS", help="of the brokers (default 3)"
    )
    parser.add_argument(
        "--away", type=positive, default=60.0, metavar="SECONDS", help="how long a whole ensemble is away (default 60)"
    )
    parser.add_argument(
        "--override", action="append", default=[], metavar="KEY=VALUE", help="a setting for all brokers; repeatable"
    )
    parser.add_argument("--history", type=Path, metavar="FILE", help="write the history there, one JSON object a line")
    parser.add_argument("--logs", type=Path, metavar="FOLDER", help="copy the brokers' logs there in the end")
    parser.add_argument("--check", type=Path, metavar="FILE", help="run nothing: judge the history in this file")
    return parser


def say(text: str) -> None:
    print(text, flush=True)


def choose(parser: argparse.ArgumentParser, names: str | None) -> list[FaultKind]:
    known = catalogue()
    if names is None:
        return list(known.values())
    chosen = [name.strip() for name in names.split(",") if name.strip()]
    unknown = [name for name in chosen if name not in known]
    if unknown or not chosen:
        parser.error(f"unknown fault: {', '.join(unknown) or names!r} (see --list-faults)")
    return [known[name] for name in chosen]


def schedule(faults: Sequence[FaultKind], seconds: float, dice: random.Random) -> Iterator[FaultKind]:
    """All of them in a random order, again and again, until the time is over; the first one in any case."""
    deadline = time.monotonic() + seconds
    while True:
        for fault in dice.sample(list(faults), len(faults)):
            yield fault
            if time.monotonic() > deadline:
                return


def possible(arena: Arena, faults: Sequence[FaultKind]) -> list[FaultKind]:
    """Those that this machine allows; says which are left out, and why."""
    reasons = {"network": arena.no_network, "disk": arena.no_disk}
    left_out: dict[tuple[str, str], list[str]] = {}
    for fault in faults:
        reason = reasons.get(fault.needs)
        if reason is not None:
            left_out.setdefault((fault.needs, reason), []).append(fault.name)
    for (needs, reason), names in left_out.items():
        say(f"left out, for want of a {needs} ({reason}): {', '.join(names)}")
    return [fault for fault in faults if reasons.get(fault.needs) is None]


def torture(arguments: argparse.Namespace, faults: list[FaultKind], overrides: dict[str, str]) -> Verdict | None:
    """None: none of the faults can be had here."""
    seed = random.SystemRandom().randrange(2**32) if arguments.seed is None else arguments.seed
    settings = ArenaSettings(
        brokers=arguments.brokers,
        session_ms=int(arguments.session_timeout * 1000),
        disk_mib=32 + int(8 * arguments.minutes),
        overrides=overrides,
    )
    recorder = Recorder(arguments.history)
    try:
        with Arena(settings) as arena:
            faults = possible(arena, faults)
            if not faults:
                return None
            say(f"seed {seed}, {arguments.brokers} brokers, session timeout {arguments.session_timeout:g} s")
            run = Torture(
                arena,
                TortureSettings(
                    seed,
                    per_second=arguments.records_per_second,
                    partitions=max(TortureSettings(seed).partitions, arguments.brokers),
                    away_s=arguments.away,
                ),
                recorder,
                say,
            )
            try:
                return run.run(schedule(faults, arguments.minutes * 60, run.dice))
            finally:
                if arguments.logs is not None:
                    arena.keep_logs(arguments.logs)
    finally:
        recorder.close()


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser()
    arguments = parser.parse_args(argv)
    if arguments.list_faults:
        for fault in catalogue().values():
            say(f"{fault.name:<20} {fault.meaning}{f' (needs a {fault.needs} of its own)' if fault.needs else ''}")
        return 0
    try:
        if arguments.check is not None:
            verdict: Verdict | None = check(read_history(arguments.check))
        else:
            faults = choose(parser, arguments.faults)
            overrides = dict(one.split("=", 1) for one in arguments.override if "=" in one)
            if len(overrides) != len(arguments.override):
                parser.error("--override wants KEY=VALUE")
            # kazoo tells of each connection that a fault breaks; the verdict does not depend on them.
            logging.getLogger("kazoo").addHandler(logging.NullHandler())
            # Everything is taken down in order after a SIGTERM, too.
            signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
            verdict = torture(arguments, faults, overrides)
    except (OSError, BadHistory, LocalFailure, NotAllowed, TimeoutError, ZooKeeperMissing) as error:
        print(f"{PROG}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{PROG}: interrupted", file=sys.stderr)
        return 130
    if verdict is None:
        print(f"{PROG}: none of these faults can be had here", file=sys.stderr)
        return 2
    say(write_report(verdict))
    return 1 if verdict.violations else 0


if __name__ == "__main__":
    sys.exit(main())
