"""``zkbroker-server-start CONF``: run one broker in the foreground until SIGTERM or Ctrl-C."""

from __future__ import annotations

import argparse
import faulthandler
import inspect
import logging
import os
import random
import signal
import sys
import threading
import time
import traceback
from typing import TYPE_CHECKING, Any

from zkbroker import __version__
from zkbroker.model.errors import StartError

if TYPE_CHECKING:
    from zkbroker.model.config import BrokerConfig

EPILOG = """\
examples:
  zkbroker-server-start conf/broker-1.yaml
  zkbroker-server-start conf/broker-1.yaml --override log.dirs=/var/lib/zkbroker --override num.partitions=3
  ZKBROKER_LOG_DIRS=/data zkbroker-server-start conf/broker-1.yaml

The configuration holds Kafka's property names; conf/CONFIGURATION.md lists them all. The broker logs to standard
error and ends on SIGTERM or Ctrl-C with a controlled shutdown: its partitions get other leaders first.
exit status: 0 after a controlled shutdown, 1 when it cannot start or go on, 2 for a wrong command line."""

SESSION_CLOSE_S_MAX = 2.0
"""How long closing a session left by a crash may take; after it, waiting for its expiry is the other way."""

OTHER_THREADS = 6
"""Of the pool, for checkpoints, deletions and look-ups of names; besides those that each log folder may take."""

LAST_WORDS_S_MAX = 1.0
"""How long the watchdog tries to say why it ends the process."""


def log(line: str) -> None:
    """One line to standard error, with the time to the millisecond."""
    now = time.time()
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now))
    print(f"{stamp},{int(now * 1000) % 1000:03d} {line}", file=sys.stderr, flush=True)


def _route_other_loggers() -> None:
    """Send what packages say through ``logging`` and Twisted's logger to the same lines; kazoo's chatter stays out."""
    from twisted.logger import LogLevel, formatEvent, globalLogBeginner

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text = record.getMessage()
            if record.exc_info:
                text += "\n" + logging.Formatter().formatException(record.exc_info)
            log(text)

    def observe(event: dict[str, Any]) -> None:
        level = event.get("log_level", LogLevel.info)
        # Twisted's loggers obey the levels of Python's of the same name: those are what DescribeConfigs shows.
        namespace = logging.getLogger(event.get("log_namespace", "twisted"))
        if not namespace.isEnabledFor(logging.getLevelNamesMapping()[level.name.upper()]):
            return
        text = formatEvent(event)
        if "log_failure" in event:
            text += "\n" + event["log_failure"].getTraceback()
        log(text)

    logging.basicConfig(level=logging.INFO, handlers=[Lines()])
    logging.getLogger("kazoo").setLevel(logging.ERROR)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    observers: list[Any] = [observe]
    globalLogBeginner.beginLoggingTo(observers, redirectStandardIO=False, discardBuffer=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="zkbroker-server-start",
        description="Run one zkbroker broker in the foreground.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("config", metavar="CONF", help="the broker's configuration, YAML or Java properties")
    parser.add_argument(
        "--override",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="a setting that takes the place of the file's; may be given several times",
    )
    parser.add_argument("--version", action="version", version=f"zkbroker {__version__}")
    return parser


def _install_reactor() -> Any:
    """uvloop with its own sockets where it is installed, else (or with ZKBROKER_REACTOR=epoll) Twisted's choice."""
    if os.environ.get("ZKBROKER_REACTOR", "uvloop") == "uvloop":
        try:
            from twisted.internet.main import installReactor

            from zkbroker.broker.loop_reactor import LoopReactor

            installReactor(LoopReactor())
        except ImportError:
            pass
    from twisted.internet import reactor

    return reactor


def _boot_id() -> str | None:
    """Linux names each boot of the machine; in a container too it is the machine's. None elsewhere."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip() or None
    except OSError:
        return None


def main(argv: list[str] | None = None) -> int:
    """Run the broker; returns the exit status."""
    arguments = _parser().parse_args(argv)
    try:
        from zkbroker.broker.config_file import load_broker_config

        config = load_broker_config(arguments.config, arguments.override, os.environ)
    except StartError as error:
        print(f"zkbroker-server-start: {error}", file=sys.stderr)
        return 1
    return run(config)


def run(config: BrokerConfig) -> int:
    """Start the reactor with one broker in it; returns the exit status when the broker has ended."""
    from zkbroker.broker import pressure

    # Where hypothesis is installed kio makes strategies of it at import: a broker needs none, and in a folder without
    # hypothesis' cache that takes seconds, in which a request that waits for the import stops the reactor.
    sys.modules["hypothesis"] = None  # type: ignore[assignment]
    pressure.raise_limits()
    pressure.keep_freed_memory()
    reactor = _install_reactor()
    from twisted.internet.threads import deferToThreadPool

    from zkbroker.broker.clocks import SystemClock
    from zkbroker.broker.lifecycle import Broker
    from zkbroker.broker.watchdog import Watchdog, is_in_file, shut_sockets
    from zkbroker.log.disk import Disk
    from zkbroker.log.lanes import JOBS_AT_ONCE
    from zkbroker.zookeeper.leftover import close_session
    from zkbroker.zookeeper.session import KazooSession

    pressure.tune_reactor()
    # So many that disks which hang leave some: a system call that does not return keeps its thread.
    reactor.suggestThreadPoolSize(JOBS_AT_ONCE * len(config.log_dirs) + OTHER_THREADS)
    _route_other_loggers()
    status = {"code": 0}
    clock = SystemClock()

    def ended(reason: str | None) -> None:
        if reason is not None:
            log(f"ending: {reason}")
            status["code"] = 1
        if reactor.running:
            reactor.stop()

    def fatal(event: str, error: BaseException) -> None:
        # What happens after a broken invariant is not to be trusted: no clean-up, no clean-shutdown mark.
        log(f"FATAL {event}: {error}\n" + "".join(traceback.format_exception(error)))
        os._exit(1)

    def gave_up(reason: str) -> None:
        # First of all, for a thread that hangs in the kernel keeps them open even when the process has ended.
        shut_sockets()

        def tell() -> None:
            log(f"FATAL watchdog: {reason}; every thread's stack, the reactor's last:")
            faulthandler.dump_traceback(file=sys.stderr, all_threads=True)

        # Standard error may be a file on the disk that hangs.
        teller = threading.Thread(target=tell, daemon=True)
        teller.start()
        teller.join(LAST_WORDS_S_MAX)
        os._exit(1)

    watchdog = Watchdog(
        session_timeout_s=config.get_int("zookeeper.session.timeout.ms") / 1000,
        monotonic=clock.monotonic,
        gave_up=gave_up,
        stall_s=config.get_int("log.dir.stall.ms") / 1000,
        in_disk_call=is_in_file(inspect.getfile(Disk)),
    )
    connect = config.get_str("zookeeper.connect")
    broker = Broker(
        config=config,
        reactor=reactor,
        clock=clock,
        source=random.Random(),
        disk=Disk(),
        run_in_thread=lambda function, *arguments: deferToThreadPool(
            reactor, reactor.getThreadPool(), function, *arguments
        ),
        zk=KazooSession(
            connect,
            session_timeout_ms=config.get_int("zookeeper.session.timeout.ms"),
            connection_timeout_ms=config.zookeeper_connection_timeout_ms,
            clock=clock,
            reactor=reactor,
            log=log,
        ),
        close_session=lambda session_id, password: close_session(
            connect, session_id, password, timeout_s=SESSION_CLOSE_S_MAX, clock=clock, reactor=reactor
        ),
        watchdog=watchdog,
        log=logging.getLogger("zkbroker.broker").info,
        fatal=fatal,
        ended=ended,
        boot_id=_boot_id(),
        warmed_up=pressure.settle_memory,
    )

    def start() -> None:
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, lambda *_: reactor.callFromThread(broker.stop))
        broker.start()

    reactor.callWhenRunning(start)
    reactor.run(installSignalHandlers=False)
    return status["code"]


if __name__ == "__main__":
    sys.exit(main())
