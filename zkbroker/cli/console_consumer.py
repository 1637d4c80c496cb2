"""``zkbroker-console-consumer``: print a topic's records; Kafka's kafka-console-consumer.sh in flags and output.

Without a group it reads all partitions itself and joins, stores and commits nothing; with one it shares the topic's
partitions with the group's other members and commits what it has printed.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Mapping
from typing import Any, BinaryIO

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    TIMESTAMP_CREATE_TIME,
    TIMESTAMP_LOG_APPEND_TIME,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from zkbroker.cli import _common as common

PROG = "zkbroker-console-consumer"
NEW_PARTITIONS_CHECK_S = 10.0
POLL_S = 0.2
BATCH_RECORDS = 1000
EXAMPLES = """\
  everything so far, then what comes (Ctrl-C ends):
    zkbroker-console-consumer --bootstrap-server localhost:9092 --topic orders --from-beginning
  ten records with key, partition and offset:
    zkbroker-console-consumer --bootstrap-server localhost:9092 --topic orders --from-beginning --max-messages 10 \\
        --property print.key=true --property print.partition=true --property print.offset=true
  one partition from an offset on, until nothing has come for three seconds:
    zkbroker-console-consumer --bootstrap-server localhost:9092 --topic orders --partition 0 --offset 1000 \\
        --timeout-ms 3000
  as a member of a group, which goes on where it was when it is started again:
    zkbroker-console-consumer --bootstrap-server localhost:9092 --topic orders --group billing --from-beginning
"""


class Formatter:
    """Kafka's DefaultMessageFormatter: which parts of a record are printed, and what between them."""

    def __init__(self, properties: dict[str, str]) -> None:
        self._timestamp = common.is_true(properties, "print.timestamp")
        self._partition = common.is_true(properties, "print.partition")
        self._offset = common.is_true(properties, "print.offset")
        self._epoch = common.is_true(properties, "print.epoch")
        self._headers = common.is_true(properties, "print.headers")
        self._key = common.is_true(properties, "print.key")
        self._value = common.is_true(properties, "print.value", True)
        self._separator = common.separator(properties, "key.separator", "\t")
        self._line_separator = common.separator(properties, "line.separator", "\n")
        self._headers_separator = common.separator(properties, "headers.separator", ",")
        self._null = common.separator(properties, "null.literal", "null")

    def write(self, message: Message, out: BinaryIO) -> None:
        parts = []
        if self._timestamp:
            kind, timestamp_ms = message.timestamp()[0], message.timestamp()[1]
            names = {TIMESTAMP_CREATE_TIME: "CreateTime", TIMESTAMP_LOG_APPEND_TIME: "LogAppendTime"}
            parts.append(f"{names[kind]}:{timestamp_ms}".encode() if kind in names else b"NO_TIMESTAMP")
        if self._partition:
            parts.append(f"Partition:{message.partition()}".encode())
        if self._offset:
            parts.append(f"Offset:{message.offset()}".encode())
        if self._epoch:
            epoch = message.leader_epoch()
            parts.append(f"Epoch:{-1 if epoch is None else epoch}".encode())
        if self._headers:
            headers: Any = message.headers() or []
            shown = [name.encode() + b":" + self._bytes(value) for name, value in headers]
            parts.append(self._headers_separator.join(shown) or b"NO_HEADERS")
        if self._key:
            parts.append(self._bytes(message.key()))
        if self._value:
            parts.append(self._bytes(message.value()))
        out.write(self._separator.join(parts) + self._line_separator)

    def _bytes(self, value: bytes | str | None) -> bytes:
        if value is None:
            return self._null
        return value.encode() if isinstance(value, str) else value


def make_parser() -> argparse.ArgumentParser:
    parser = common.make_parser(PROG, "Print the records of a topic to standard output.", EXAMPLES)
    common.add_bootstrap(parser)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--topic")
    source.add_argument("--include", "--whitelist", metavar="REGEX", help="all topics that match")
    parser.add_argument("--from-beginning", action="store_true", help="start at the earliest record, not at the end")
    parser.add_argument("--partition", type=int, metavar="P", help="only this partition")
    parser.add_argument("--offset", metavar="O", help="earliest, latest (default) or a number; needs --partition")
    parser.add_argument("--max-messages", type=int, default=-1, metavar="N", help="end after N records")
    parser.add_argument("--timeout-ms", type=int, default=-1, metavar="MS", help="end when no record came for so long")
    parser.add_argument(
        "--property",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="what is printed: print.timestamp, print.partition, print.offset, print.epoch, print.headers, print.key, "
        "print.value (true or false); key.separator, line.separator, headers.separator, null.literal",
    )
    parser.add_argument("--formatter-config", metavar="FILE", help="property file with the settings of --property")
    parser.add_argument(
        "--consumer-property", action="append", default=[], metavar="NAME=VALUE", help="a setting of the Kafka client"
    )
    parser.add_argument("--consumer.config", dest="consumer_config", metavar="FILE", help="property file of the client")
    parser.add_argument("--isolation-level", default="read_uncommitted", choices=["read_uncommitted", "read_committed"])
    parser.add_argument("--group", metavar="ID", help="consume as a member of this group, and commit what is printed")
    parser.add_argument("--skip-message-on-error", action="store_true", help="go on after a record that cannot be read")
    return parser


def main(argv: list[str] | None = None) -> int:
    return common.run(PROG, _run, make_parser(), argv)


def _run(arguments: argparse.Namespace) -> int:
    start = _start_offset(arguments)
    properties = common.read_properties(arguments.formatter_config)
    properties.update(common.key_values(arguments.property, "--property"))
    formatter = Formatter(properties)
    layers = (
        common.read_properties(arguments.consumer_config),
        common.key_values(arguments.consumer_property, "--consumer-property"),
    )
    arguments.group = group_of(arguments.group, *layers)
    if arguments.group is not None and arguments.partition is not None:
        raise common.UsageError("options group and partition cannot be specified together")
    config = common.client_config(
        arguments.bootstrap_server,
        *layers,
        defaults={
            # Without a group librdkafka wants the name of one all the same.
            "group.id": "console-consumer" if arguments.group is None else arguments.group,
            "enable.auto.commit": arguments.group is not None,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "earliest" if arguments.from_beginning else "latest",
            "enable.partition.eof": False,
            "isolation.level": arguments.isolation_level,
            "allow.auto.create.topics": False,
        },
    )
    consumer = Consumer(config)
    common.raise_on_signals()
    printed = 0
    try:
        printed = _Loop(consumer, arguments, start, formatter).run()
        return 0
    finally:
        consumer.close()
        print(f"Processed a total of {printed} messages", file=sys.stderr)


def group_of(flag: str | None, *layers: Mapping[str, str]) -> str | None:
    """The group's id, which may be given by the flag or as a property. Raises CommandError when they do not agree.

    A name of nothing is refused here: librdkafka would end the process.
    """
    named = [flag, *(layer.get("group.id") for layer in layers)]
    found = list(dict.fromkeys(name for name in named if name is not None))
    if len(found) > 1:
        raise common.CommandError(
            "The group ids provided in different places (directly using '--group', via '--consumer-property', or via "
            f"'--consumer.config') do not match. Detected group ids: {', '.join(map(repr, found))}"
        )
    if found and not found[0].strip():
        raise common.CommandError("The configured group.id should not be an empty string or whitespace.")
    return found[0] if found else None


def _start_offset(arguments: argparse.Namespace) -> int:
    """Raises UsageError for flags that exclude each other."""
    if arguments.partition is not None and arguments.topic is None:
        raise common.UsageError("--topic is needed when --partition is given")
    if arguments.offset is not None and arguments.partition is None:
        raise common.UsageError("--partition is needed when --offset is given")
    if arguments.offset is not None and arguments.from_beginning:
        raise common.UsageError("--from-beginning and --offset cannot stand together")
    words: dict[str | None, int] = {None: OFFSET_BEGINNING if arguments.from_beginning else OFFSET_END}
    words |= {"earliest": OFFSET_BEGINNING, "latest": OFFSET_END}
    if arguments.offset in words:
        return words[arguments.offset]
    try:
        offset = int(arguments.offset)
    except ValueError:
        offset = -1
    if offset < 0:
        raise common.UsageError(f"--offset is earliest, latest or a number from 0, not {arguments.offset!r}")
    return offset


class _Loop:
    """Reads until --max-messages, --timeout-ms or Ctrl-C; finds partitions that are added meanwhile."""

    def __init__(self, consumer: Consumer, arguments: argparse.Namespace, start: int, formatter: Formatter) -> None:
        self._consumer = consumer
        self._arguments = arguments
        self._start = start
        self._formatter = formatter
        self._assigned: dict[tuple[str, int], None] = {}
        self._printed = 0

    def run(self) -> int:
        try:
            self._read()
        except KeyboardInterrupt:
            pass  # the usual way to end it: count and close
        return self._printed

    def _read(self) -> None:
        arguments = self._arguments
        if arguments.group is None:
            self._assign_all(first=True)
        else:
            self._subscribe()
        idle_since = checked = time.monotonic()
        while arguments.max_messages < 0 or self._printed < arguments.max_messages:
            wanted = BATCH_RECORDS
            if arguments.max_messages >= 0:
                wanted = min(wanted, arguments.max_messages - self._printed)
            messages = self._consumer.consume(wanted, POLL_S)
            now = time.monotonic()
            if self._print(messages):
                idle_since = now
            elif 0 <= arguments.timeout_ms <= (now - idle_since) * 1000:
                return
            if arguments.group is None and arguments.partition is None and now - checked > NEW_PARTITIONS_CHECK_S:
                checked = now
                self._assign_all(first=False)

    def _print(self, messages: list[Message]) -> int:
        out = sys.stdout.buffer
        count = 0
        last: dict[tuple[str | None, int | None], Message] = {}
        for message in messages:
            error = message.error()
            if error is None:
                self._formatter.write(message, out)
                count += 1
                last[message.topic(), message.partition()] = message
            elif not self._arguments.skip_message_on_error and not _passes(error):
                raise KafkaException(error)
        if count:
            out.flush()
        self._printed += count
        if self._arguments.group is not None:
            for message in last.values():
                self._store(message)
        return count

    def _store(self, message: Message) -> None:
        """To be committed: what was printed, never what was only read."""
        try:
            self._consumer.store_offsets(message)
        except KafkaException as error:
            if error.args[0].code() != KafkaError._STATE:
                raise
            # The partition went to another member meanwhile, who will print the record again.

    def _subscribe(self) -> None:
        """Raises CommandError when there is no such topic."""
        if self._arguments.topic is not None:
            self._wanted_partitions(must_exist=True)
            self._consumer.subscribe([self._arguments.topic])
        else:
            expression = self._arguments.include.replace(",", "|")
            self._consumer.subscribe([f"^({expression})$"])

    def _assign_all(self, first: bool) -> None:
        """Take every wanted partition that is not read yet; those found later are read from their beginning."""
        added = []
        for name, partition in self._wanted_partitions(first):
            if (name, partition) not in self._assigned:
                self._assigned[name, partition] = None
                added.append(TopicPartition(name, partition, self._start if first else OFFSET_BEGINNING))
        if added:
            self._consumer.incremental_assign(added)

    def _wanted_partitions(self, must_exist: bool) -> list[tuple[str, int]]:
        arguments = self._arguments
        timeout_s = common.DEFAULT_TIMEOUT_S
        if arguments.topic is not None:
            names = [arguments.topic]
            topics: dict[str, Any] = self._consumer.list_topics(arguments.topic, timeout_s).topics
        else:
            topics = self._consumer.list_topics(timeout=timeout_s).topics
            names = sorted(name for name in topics if re.fullmatch(arguments.include.replace(",", "|"), name))
        found: list[tuple[str, int]] = []
        for name in names:
            topic = topics.get(name)
            if topic is None or topic.error is not None or not topic.partitions:
                if must_exist:
                    reason = "unknown topic" if topic is None or topic.error is None else topic.error.str()
                    raise common.CommandError(f"{PROG}: topic {name}: {reason}")
                continue
            if arguments.partition is not None and arguments.partition not in topic.partitions:
                raise common.CommandError(f"{PROG}: topic {name} has no partition {arguments.partition}")
            chosen = sorted(topic.partitions) if arguments.partition is None else [arguments.partition]
            found.extend((name, partition) for partition in chosen)
        return found


def _passes(error: KafkaError) -> bool:
    """True for what the client repairs itself: it asks again, perhaps another broker."""
    return bool(error.retriable()) or error.code() in (
        KafkaError._TRANSPORT,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._TIMED_OUT,
        KafkaError._RESOLVE,
    )


if __name__ == "__main__":
    sys.exit(main())
