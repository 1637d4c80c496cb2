"""``zkbroker-console-producer``: each line of stdin becomes a record; Kafka's kafka-console-producer.sh in flags."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from confluent_kafka import Producer

from zkbroker.cli import _common as common

PROG = "zkbroker-console-producer"
CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
EXAMPLES = """\
  type records, one a line, Ctrl-D ends:
    zkbroker-console-producer --bootstrap-server localhost:9092 --topic orders
  keys before a colon (equal keys go to the same partition):
    printf 'alice:3 apples\\nbob:1 pear\\n' | zkbroker-console-producer --bootstrap-server localhost:9092 \\
        --topic orders --property parse.key=true --property key.separator=:
  a file, compressed, acknowledged by the leader alone:
    zkbroker-console-producer --bootstrap-server localhost:9092 --topic lines \\
        --compression-codec zstd --request-required-acks 1 < lines.txt
"""


class Record(NamedTuple):
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, str | bytes | None]]


class LineReader:
    """Kafka's LineMessageReader: splits a line into headers, key and value by the --property settings."""

    def __init__(self, properties: dict[str, str]) -> None:
        self._parses_key = common.is_true(properties, "parse.key")
        self._parses_headers = common.is_true(properties, "parse.headers")
        self._key_separator = common.separator(properties, "key.separator", "\t")
        self._headers_delimiter = common.separator(properties, "headers.delimiter", "\t")
        self._headers_separator = common.separator(properties, "headers.separator", ",")
        self._header_key_separator = common.separator(properties, "headers.key.separator", ":")
        self._ignores_errors = common.is_true(properties, "ignore.error")
        marker = properties.get("null.marker")
        self._null_marker = None if marker is None else marker.encode()

    def parse(self, line: bytes, number: int) -> Record:
        """Raises CommandError when a separator is missing and ignore.error is not set."""
        headers: list[tuple[str, str | bytes | None]] = []
        rest = line
        if self._parses_headers:
            text, found, rest_after = rest.partition(self._headers_delimiter)
            if found:
                headers, rest = self._headers(text, number), rest_after
            elif not self._ignores_errors:
                raise common.CommandError(f"No headers delimiter found on line number {number}: '{_shown(line)}'")
        key: bytes | None = None
        if self._parses_key:
            text, found, rest_after = rest.partition(self._key_separator)
            if found:
                key, rest = self._nullable(text), rest_after
            elif not self._ignores_errors:
                raise common.CommandError(f"No key separator found on line number {number}: '{_shown(line)}'")
        return Record(key, self._nullable(rest), headers)

    def _nullable(self, text: bytes) -> bytes | None:
        return None if self._null_marker is not None and text == self._null_marker else text

    def _headers(self, text: bytes, number: int) -> list[tuple[str, str | bytes | None]]:
        headers: list[tuple[str, str | bytes | None]] = []
        for pair in text.split(self._headers_separator):
            name, found, value = pair.partition(self._header_key_separator)
            if not found and not self._ignores_errors:
                raise common.CommandError(
                    f"No header key separator found in pair '{_shown(pair)}' on line number {number}"
                )
            headers.append((name.decode(errors="replace"), self._nullable(value) if found else None))
        return headers


def _shown(line: bytes) -> str:
    return line[:80].decode(errors="replace")


def make_parser() -> argparse.ArgumentParser:
    parser = common.make_parser(PROG, "Write each line of standard input to a topic as one record.", EXAMPLES)
    common.add_bootstrap(parser, "--broker-list")
    parser.add_argument("--topic", required=True)
    parser.add_argument(
        "--property",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="how lines are read: parse.key, key.separator, parse.headers, headers.delimiter, headers.separator, "
        "headers.key.separator, null.marker, ignore.error",
    )
    parser.add_argument("--reader-config", metavar="FILE", help="property file with the settings of --property")
    parser.add_argument(
        "--producer-property", action="append", default=[], metavar="NAME=VALUE", help="a setting of the Kafka client"
    )
    parser.add_argument("--producer.config", dest="producer_config", metavar="FILE", help="property file of the client")
    parser.add_argument(
        "--request-required-acks", default="-1", choices=["0", "1", "-1", "all"], help="who must have it (default: all)"
    )
    parser.add_argument(
        "--compression-codec", nargs="?", const="gzip", default="none", choices=CODECS, help="gzip if no codec is named"
    )
    parser.add_argument("--sync", action="store_true", help="wait for each record before the next is read")
    parser.add_argument("--batch-size", type=common.positive, metavar="BYTES", help="largest batch")
    parser.add_argument("--timeout", type=int, default=5, metavar="MS", help="how long a batch waits to fill (linger)")
    parser.add_argument("--request-timeout-ms", type=common.positive, metavar="MS")
    parser.add_argument("--message-send-max-retries", type=int, metavar="N")
    parser.add_argument("--retry-backoff-ms", type=common.positive, metavar="MS")
    parser.add_argument("--max-block-ms", type=common.positive, default=60_000, help="wait for room in the buffer")
    parser.add_argument("--max-memory-bytes", type=common.positive, metavar="BYTES", help="size of the client's buffer")
    return parser


def main(argv: list[str] | None = None) -> int:
    return common.run(PROG, _run, make_parser(), argv)


def producer_config(arguments: argparse.Namespace) -> dict[str, Any]:
    acks = "all" if arguments.request_required_acks == "-1" else arguments.request_required_acks
    flags = {
        "batch.size": arguments.batch_size,
        "request.timeout.ms": arguments.request_timeout_ms,
        "message.send.max.retries": arguments.message_send_max_retries,
        "retry.backoff.ms": arguments.retry_backoff_ms,
        "queue.buffering.max.kbytes": arguments.max_memory_bytes and max(1, arguments.max_memory_bytes // 1024),
    }
    # As in Java's producer: idempotent unless the flags exclude it.
    idempotent = acks == "all" and arguments.message_send_max_retries != 0
    return common.client_config(
        arguments.bootstrap_server,
        common.read_properties(arguments.producer_config),
        common.key_values(arguments.producer_property, "--producer-property"),
        defaults={
            "acks": acks,
            "enable.idempotence": idempotent,
            "compression.type": arguments.compression_codec,
            "linger.ms": max(0, arguments.timeout),
            **{name: value for name, value in flags.items() if value is not None},
        },
    )


class _Deliveries:
    """Counts what came back; shows the first failure of each kind, so that a broken cluster does not scroll by."""

    def __init__(self) -> None:
        self.failures_count = 0
        self._shown: set[int] = set()

    def __call__(self, error: Any, message: Any) -> None:
        if error is None:
            return
        self.failures_count += 1
        if error.code() not in self._shown:
            self._shown.add(error.code())
            common.complain(f"{PROG}: a record for {message.topic()} was not written: {error.str()}", 1)


def _run(arguments: argparse.Namespace) -> int:
    properties = common.read_properties(arguments.reader_config)
    properties.update(common.key_values(arguments.property, "--property"))
    reader = LineReader(properties)
    producer = Producer(producer_config(arguments))
    deliveries = _Deliveries()
    common.raise_on_signals()
    try:
        for number, line in enumerate(_lines(sys.stdin.buffer, prompt=sys.stdin.isatty()), start=1):
            record = reader.parse(line, number)
            _send(producer, arguments, record, deliveries)
            if arguments.sync:
                producer.flush()
    finally:
        try:
            left = producer.flush()
        except KeyboardInterrupt:
            left = len(producer)
    if deliveries.failures_count or left:
        return common.complain(f"{PROG}: {deliveries.failures_count + left} records were not written", 1)
    return 0


def _send(producer: Producer, arguments: argparse.Namespace, record: Record, deliveries: _Deliveries) -> None:
    waited_ms = 0
    while True:
        try:
            producer.produce(
                arguments.topic, record.value, record.key, headers=record.headers or None, on_delivery=deliveries
            )
            producer.poll(0)
            return
        except BufferError:
            if waited_ms >= arguments.max_block_ms:
                raise common.CommandError(f"{PROG}: no room in the buffer for {arguments.max_block_ms} ms") from None
            producer.poll(0.1)
            waited_ms += 100


def _lines(stream: Iterable[bytes], prompt: bool) -> Iterator[bytes]:
    def show_prompt() -> None:
        if prompt:
            print(">", end="", flush=True)

    show_prompt()
    for line in stream:
        yield line.removesuffix(b"\n").removesuffix(b"\r")
        show_prompt()


if __name__ == "__main__":
    sys.exit(main())
