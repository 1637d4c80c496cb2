"""``zkbroker-get-offsets``: first, last or timed offsets of partitions; Kafka's GetOffsetShell in flags and output."""

from __future__ import annotations

import argparse
import re
import sys
from typing import Any

from confluent_kafka import TopicPartition

from zkbroker.cli import _common as common
from zkbroker.cli._common import kafka_admin as admin
from zkbroker.cli.topics import INTERNAL_TOPICS

PROG = "zkbroker-get-offsets"
EXAMPLES = """\
  the end of every partition of a topic, as topic:partition:offset (the offset that the next record will get):
    zkbroker-get-offsets --bootstrap-server localhost:9092 --topic orders
  the first offset that still exists:
    zkbroker-get-offsets --bootstrap-server localhost:9092 --topic orders --time earliest
  the first record at or after a time (milliseconds since 1970):
    zkbroker-get-offsets --bootstrap-server localhost:9092 --topic orders --time 1767225600000
  some partitions of several topics:
    zkbroker-get-offsets --bootstrap-server localhost:9092 --topic-partitions orders:0,orders:2-4,audit.*
"""


def make_parser() -> argparse.ArgumentParser:
    parser = common.make_parser(PROG, "Print offsets of partitions as topic:partition:offset.", EXAMPLES)
    common.add_bootstrap(parser, "--broker-list")
    parser.add_argument("--topic", metavar="REGEX", help="topics to look at (default: all)")
    parser.add_argument("--partitions", metavar="P,P...", help="partition ids (default: all)")
    parser.add_argument(
        "--topic-partitions",
        metavar="RULE,RULE...",
        help="instead of the two above: topic regex, topic:id, topic:from-to (without to), topic:from-, :id",
    )
    parser.add_argument(
        "--time",
        default="latest",
        metavar="T",
        help="-1 or latest (default), -2 or earliest, -3 or max-timestamp, or milliseconds since 1970",
    )
    parser.add_argument("--command-config", metavar="FILE", help="property file for the admin client")
    parser.add_argument(
        "--exclude-internal-topics", action="store_true", help="leave out __consumer_offsets and its like"
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    return common.run(PROG, _run, make_parser(), argv)


def _run(arguments: argparse.Namespace) -> int:
    spec = parse_time(arguments.time)
    wants = PartitionFilter(arguments.topic, arguments.partitions, arguments.topic_partitions)
    client = admin.AdminClient(
        common.client_config(arguments.bootstrap_server, common.read_properties(arguments.command_config), defaults={})
    )
    metadata = client.list_topics(timeout=common.DEFAULT_TIMEOUT_S)
    chosen = [
        (name, partition)
        for name, topic in sorted(metadata.topics.items())
        for partition in sorted(topic.partitions)
        if wants(name, partition) and not (arguments.exclude_internal_topics and name in INTERNAL_TOPICS)
    ]
    if not chosen:
        raise common.CommandError("Could not match any topic-partitions with the specified filters")
    # A partition without a leader is reported and left out, as Kafka's tool does: asking for it would only wait.
    led = []
    for name, partition in chosen:
        if metadata.topics[name].partitions[partition].leader < 0:
            common.complain(f"Skip getting offsets for topic-partition {name}-{partition}: it has no leader", 0)
        else:
            led.append((name, partition))
    if not led:
        return 1
    futures = client.list_offsets(
        {TopicPartition(name, partition): spec for name, partition in led}, request_timeout=common.DEFAULT_TIMEOUT_S
    )
    answers = {
        (asked.topic, asked.partition): future.result(common.DEFAULT_TIMEOUT_S + 5) for asked, future in futures.items()
    }
    for name, partition in led:
        offset = answers[name, partition].offset
        print(f"{name}:{partition}:{offset if offset >= 0 else ''}")
    return 0


def parse_time(text: str) -> Any:
    """Kafka's words and numbers for --time. Raises UsageError."""
    if text in ("-1", "latest"):
        return admin.OffsetSpec.latest()
    if text in ("-2", "earliest"):
        return admin.OffsetSpec.earliest()
    if text in ("-3", "max-timestamp"):
        return admin.OffsetSpec.max_timestamp()
    try:
        timestamp_ms = int(text)
    except ValueError:
        timestamp_ms = -1
    if timestamp_ms < 0:
        raise common.UsageError(
            f"Malformed time argument {text}. Please use -1 or latest / -2 or earliest / -3 or max-timestamp, "
            "or a specified long format timestamp"
        )
    return admin.OffsetSpec.for_timestamp(timestamp_ms)


class PartitionFilter:
    """Predicate over (topic, partition) from Kafka's three flags. Raises UsageError for malformed rules."""

    def __init__(self, topic: str | None, partitions: str | None, topic_partitions: str | None) -> None:
        if topic_partitions is not None and (topic is not None or partitions is not None):
            raise common.UsageError("--topic-partitions cannot be used with --topic or --partitions")
        if topic_partitions is not None:
            self._rules = [_parse_rule(rule) for rule in topic_partitions.split(",")]
            return
        pattern = _regex(topic) if topic is not None else None
        if partitions is None:
            self._rules = [(pattern, 0, None)]
        else:
            try:
                ids = [int(part) for part in partitions.split(",")]
            except ValueError:
                raise common.UsageError(f"--partitions wants numbers as in 0,1,2, not {partitions!r}") from None
            self._rules = [(pattern, number, number + 1) for number in ids]

    def __call__(self, topic: str, partition: int) -> bool:
        return any(
            (pattern is None or pattern.fullmatch(topic) is not None)
            and first <= partition
            and (end is None or partition < end)
            for pattern, first, end in self._rules
        )


def _regex(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise common.UsageError(f"{text!r} is not a regular expression: {error}") from None


def _parse_rule(rule: str) -> tuple[re.Pattern[str] | None, int, int | None]:
    match = re.fullmatch(r"([^:,]*)(?::(?:(\d+)|(\d+)?-(\d+)?))?", rule.strip())
    if match is None:
        raise common.UsageError(f"Invalid rule specification: {rule}")
    name, single, first, end = match.groups()
    pattern = _regex(name) if name else None
    if single is not None:
        return pattern, int(single), int(single) + 1
    return pattern, int(first) if first else 0, int(end) if end else None


if __name__ == "__main__":
    sys.exit(main())
