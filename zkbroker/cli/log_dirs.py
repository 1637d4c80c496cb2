"""``zkbroker-log-dirs``: which replica lies where and how large it is; kafka-log-dirs.sh in flags and output."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from zkbroker.cli import _common as common
from zkbroker.cli._broker_client import Brokers
from zkbroker.kafka.versions import DESCRIBE_LOG_DIRS
from zkbroker.model.errors import ErrorCode

PROG = "zkbroker-log-dirs"
EXAMPLES = """\
  all replicas of all brokers, with their folders and bytes, as one JSON line:
    zkbroker-log-dirs --bootstrap-server localhost:9092 --describe
  some topics on some brokers:
    zkbroker-log-dirs --bootstrap-server localhost:9092 --describe --broker-list 1,2 --topic-list orders,audit
  how full are the disks? (--json prints nothing else, and their sizes too)
    zkbroker-log-dirs --bootstrap-server localhost:9092 --describe --json \\
        | jq '.brokers[].logDirs[] | .logDir, .usableBytes'
"""


def make_parser() -> argparse.ArgumentParser:
    parser = common.make_parser(PROG, "Show the log folders of brokers and the replicas in them.", EXAMPLES)
    common.add_bootstrap(parser)
    parser.add_argument("--command-config", metavar="FILE", help="property file for the admin client")
    parser.add_argument("--describe", action="store_true", required=True, help="show them")
    parser.add_argument("--broker-list", metavar="ID,ID...", help="brokers to ask (default: all)")
    parser.add_argument("--topic-list", metavar="NAME,NAME...", help="topics to show (default: all)")
    parser.add_argument(
        "--json", action="store_true", help="print the JSON document alone, with the disks' totalBytes and usableBytes"
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    return common.run(PROG, _run, make_parser(), argv)


def _run(arguments: argparse.Namespace) -> int:
    wanted = parse_ids(arguments.broker_list)
    topics = [name for name in (arguments.topic_list or "").split(",") if name]
    with Brokers(arguments.bootstrap_server, arguments.command_config) as brokers:
        known = sorted(brokers.addresses)
        missing = [broker for broker in wanted if broker not in known]
        if missing:
            raise common.CommandError(
                f"ERROR: The given brokers do not exist from --broker-list: {_joined(missing)}. "
                f"Current existent brokers: {_joined(known)}"
            )
        asked = wanted or known
        if not arguments.json:
            print("Querying brokers for log directories information", flush=True)
        rows = [_broker(broker, brokers.of(broker, DESCRIBE_LOG_DIRS, {"topics": None}), topics) for broker in asked]
    if not arguments.json:
        print(f"Received log directory information from brokers {_joined(asked)}")
        for row in rows:
            for folder in row["logDirs"]:
                del folder["totalBytes"], folder["usableBytes"]
    # Without blanks, as Kafka's tool writes it: scripts cut it up.
    print(json.dumps({"brokers": rows, "version": 1}, separators=(",", ":")))
    return 0


def parse_ids(text: str | None) -> list[int]:
    """``1,2`` → [1, 2], each once. Raises UsageError."""
    try:
        return sorted({int(part) for part in (text or "").split(",") if part.strip()})
    except ValueError:
        raise common.UsageError(f"--broker-list wants broker ids as in 1,2, not {text!r}") from None


def _joined(ids: Sequence[int]) -> str:
    return ",".join(map(str, ids))


def _broker(broker_id: int, answer: SimpleNamespace, topics: Sequence[str]) -> dict[str, Any]:
    error = getattr(answer, "error_code", ErrorCode.NONE)
    if error != ErrorCode.NONE:
        raise common.CommandError(f"broker {broker_id} refused: {_error_name(error)}")
    return {"broker": broker_id, "logDirs": [_folder(folder, topics) for folder in answer.results]}


def _folder(folder: SimpleNamespace, topics: Sequence[str]) -> dict[str, Any]:
    partitions = [
        {
            "partition": f"{topic.name}-{row.partition_index}",
            "size": row.partition_size,
            "offsetLag": row.offset_lag,
            "isFuture": row.is_future_key,
        }
        for topic in folder.topics
        for row in topic.partitions
        if not topics or topic.name in topics
    ]
    return {
        "partitions": partitions,
        "error": None if folder.error_code == ErrorCode.NONE else _error_name(folder.error_code),
        "logDir": folder.log_dir,
        "totalBytes": getattr(folder, "total_bytes", -1),
        "usableBytes": getattr(folder, "usable_bytes", -1),
    }


def _error_name(code: int) -> str:
    """Java's class of the error, as Kafka's tool prints it."""
    return common.java_class(ErrorCode(code)) if code in set(ErrorCode) else f"error {code}"


if __name__ == "__main__":
    sys.exit(main())
