"""``zkbroker-server-stop``: send SIGTERM to brokers of this machine, as Kafka's kafka-server-stop.sh does."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from pathlib import Path
from typing import NamedTuple

from zkbroker.cli import _common as common

PROG = "zkbroker-server-stop"
EXAMPLES = """\
  the broker that was started with this file:
    zkbroker-server-stop conf/broker-1.yaml
  every broker on this machine that is yours, and wait until they are gone:
    zkbroker-server-stop --all --wait 30
"""


class BrokerProcess(NamedTuple):
    pid: int
    config_path: str


def make_parser() -> argparse.ArgumentParser:
    parser = common.make_parser(
        PROG,
        "Stop brokers on this machine with a controlled shutdown (SIGTERM): their partitions get other leaders first.",
        EXAMPLES,
    )
    parser.add_argument("configs", nargs="*", metavar="CONF", help="configuration files of the brokers to stop")
    parser.add_argument(
        "--all", action="store_true", help="every broker process (the default without CONF, as in Kafka)"
    )
    parser.add_argument("--pid", type=int, action="append", default=[], help="a broker by its process id")
    parser.add_argument("--wait", type=float, metavar="SECONDS", help="wait so long until they have ended")
    return parser


def main(argv: list[str] | None = None) -> int:
    return common.run(PROG, _run, make_parser(), argv)


def find_brokers(proc: Path = Path("/proc")) -> list[BrokerProcess]:
    """The zkbroker-server-start processes of this machine, by process id."""
    found: list[BrokerProcess] = []
    if not proc.is_dir():
        return found
    for folder in sorted((path for path in proc.iterdir() if path.name.isdigit()), key=lambda path: int(path.name)):
        try:
            words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
            directory = os.readlink(folder / "cwd")
        except OSError:
            continue  # it has ended, or it is another user's: not ours to stop
        position = _start_position(words)
        if position is None or int(folder.name) == os.getpid():
            continue
        config = next((word for word in words[position + 1 :] if word and not word.startswith("--")), "")
        found.append(BrokerProcess(int(folder.name), os.path.realpath(os.path.join(directory, config))))
    return found


def _start_position(words: list[str]) -> int | None:
    """Where the start command stands in the words of a Python process: the module after ``-m``, or the script."""
    for position, word in enumerate(words[:4]):
        if position > 0 and words[position - 1] == "-m" and word == "zkbroker.cli.server_start":
            return position
        if position <= 1 and os.path.basename(word) == "zkbroker-server-start":
            return position
    return None


def _run(arguments: argparse.Namespace) -> int:
    if arguments.all and (arguments.configs or arguments.pid):
        raise common.UsageError("--all does not go with CONF or --pid")
    brokers = find_brokers()
    if arguments.configs or arguments.pid:
        wanted = {os.path.realpath(path) for path in arguments.configs}
        chosen = [broker for broker in brokers if broker.config_path in wanted or broker.pid in arguments.pid]
        for path in arguments.configs:
            if os.path.realpath(path) not in {broker.config_path for broker in chosen}:
                raise common.CommandError(f"No broker to stop that was started with {path}")
        for pid in arguments.pid:
            if pid not in {broker.pid for broker in chosen}:
                raise common.CommandError(f"Process {pid} is no broker")
    else:
        chosen = brokers
    if not chosen:
        raise common.CommandError("No zkbroker server to stop")
    for broker in chosen:
        try:
            os.kill(broker.pid, signal.SIGTERM)
        except ProcessLookupError:
            continue
        print(f"Stopping broker process {broker.pid} ({broker.config_path})")
    if arguments.wait is None:
        return 0
    deadline = time.monotonic() + arguments.wait
    while left := [broker for broker in chosen if broker in find_brokers()]:
        if time.monotonic() > deadline:
            raise common.CommandError(
                f"still running after {arguments.wait:g} s: {', '.join(str(broker.pid) for broker in left)}"
            )
        time.sleep(0.05)
    return 0


if __name__ == "__main__":
    sys.exit(main())
