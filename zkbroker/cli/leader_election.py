"""``zkbroker-leader-election``: elect preferred leaders, or such as lack records; kafka-leader-election.sh in flags and
output."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from zkbroker.cli import _common as common
from zkbroker.cli._broker_client import Brokers, error_text
from zkbroker.kafka.versions import ELECT_LEADERS
from zkbroker.model.errors import ErrorCode
from zkbroker.model.reassignments import ElectionKind
from zkbroker.model.topics import TopicPartition

PROG = "zkbroker-leader-election"
EXAMPLES = """\
  after a broker came back: give every partition its preferred leader
    zkbroker-leader-election --bootstrap-server localhost:9092 --election-type preferred --all-topic-partitions
  of one partition:
    zkbroker-leader-election --bootstrap-server localhost:9092 --election-type preferred --topic orders --partition 0
  nobody who has all records will ever come back: lead with what is left, and lose the rest
    zkbroker-leader-election --bootstrap-server localhost:9092 --election-type unclean --topic orders --partition 0
"""


def make_parser() -> argparse.ArgumentParser:
    parser = common.make_parser(PROG, "Elect leaders of partitions.", EXAMPLES)
    common.add_bootstrap(parser)
    parser.add_argument(
        "--election-type",
        required=True,
        type=str.lower,
        choices=("preferred", "unclean"),
        help="preferred: the first replica, if it is in sync. unclean: any that is there, where nobody in sync is",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--all-topic-partitions", action="store_true", help="wherever an election is needed")
    what.add_argument("--topic", metavar="TOPIC", help="with --partition: that partition")
    what.add_argument("--path-to-json-file", metavar="FILE", help='{"partitions": [{"topic": "t", "partition": 1}]}')
    parser.add_argument("--partition", type=int, metavar="N", help="with --topic")
    parser.add_argument("--admin.config", dest="command_config", metavar="FILE", help="property file for the client")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of lines")
    return parser


def main(argv: list[str] | None = None) -> int:
    return common.run(PROG, _run, make_parser(), argv)


def parse_partitions(text: str) -> list[TopicPartition]:
    """``--path-to-json-file``. Raises CommandError."""
    try:
        document = json.loads(text)
    except ValueError:
        raise common.CommandError("Replica election data is empty") from None
    if not isinstance(document, dict) or "partitions" not in document:
        raise common.CommandError('Replica election data is missing "partitions" field')
    try:
        named = [TopicPartition(str(row["topic"]), int(row["partition"])) for row in document["partitions"]]
    except (KeyError, TypeError, ValueError):
        raise common.CommandError("a row of the JSON wants topic and partition") from None
    twice = [partition for partition in dict.fromkeys(named) if named.count(partition) > 1]
    if twice:
        raise common.CommandError(f"Replica election data contains duplicate partitions: {','.join(map(str, twice))}")
    return named


def _asked(arguments: argparse.Namespace) -> list[TopicPartition] | None:
    if (arguments.topic is None) != (arguments.partition is None):
        given, missing = ("topic", "partition") if arguments.partition is None else ("partition", "topic")
        raise common.UsageError(f"--{given} goes with --{missing}")
    if arguments.all_topic_partitions:
        return None
    if arguments.topic is not None:
        return [TopicPartition(arguments.topic, arguments.partition)]
    try:
        return parse_partitions(Path(arguments.path_to_json_file).read_text())
    except OSError as error:
        raise common.CommandError(f"cannot read {arguments.path_to_json_file}: {error.strerror}") from None


def _run(arguments: argparse.Namespace) -> int:
    kind = ElectionKind[arguments.election_type.upper()]
    asked = _asked(arguments)
    topics: list[dict[str, Any]] | None = None
    if asked is not None:
        topics = [
            {"topic": name, "partitions": [partition.partition for partition in asked if partition.topic == name]}
            for name in dict.fromkeys(partition.topic for partition in asked)
        ]
    fields = {
        "election_type": kind.value,
        "topic_partitions": topics,
        "timeout": int(common.DEFAULT_TIMEOUT_S * 1000),
    }
    with Brokers(arguments.bootstrap_server, arguments.command_config) as brokers:
        answer = brokers.controller(ELECT_LEADERS, fields)
    error = getattr(answer, "error_code", ErrorCode.NONE)
    if error != ErrorCode.NONE:
        raise common.CommandError(error_text(error, None))
    elected: list[TopicPartition] = []
    valid: list[TopicPartition] = []
    failed: dict[TopicPartition, str] = {}
    for topic in answer.replica_election_results:
        for row in topic.partition_result:
            partition = TopicPartition(topic.topic, row.partition_id)
            if row.error_code == ErrorCode.NONE:
                elected.append(partition)
            elif row.error_code == ErrorCode.ELECTION_NOT_NEEDED:
                valid.append(partition)
            else:
                failed[partition] = error_text(row.error_code, row.error_message)
    _tell(arguments, kind, sorted(elected), sorted(valid), dict(sorted(failed.items())))
    if failed:
        raise common.CommandError(f"{len(failed)} replica(s) could not be elected")
    return 0


def _tell(
    arguments: argparse.Namespace,
    kind: ElectionKind,
    elected: list[TopicPartition],
    valid: list[TopicPartition],
    failed: dict[TopicPartition, str],
) -> None:
    if arguments.json:
        rows = [
            *({**partition._asdict(), "outcome": "elected"} for partition in elected),
            *({**partition._asdict(), "outcome": "not needed"} for partition in valid),
            *({**partition._asdict(), "outcome": "failed", "message": text} for partition, text in failed.items()),
        ]
        print(json.dumps({"partitions": rows, "version": 1}, separators=(",", ":")))
        return
    if elected:
        named = ", ".join(map(str, elected))
        print(f"Successfully completed leader election ({kind.name}) for partitions {named}")
    if valid:
        print(f"Valid replica already elected for partitions {', '.join(map(str, valid))}")
    for partition, text in failed.items():
        print(f"Error completing leader election ({kind.name}) for partition: {partition}: {text}")


if __name__ == "__main__":
    sys.exit(main())
