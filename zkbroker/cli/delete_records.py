"""``zkbroker-delete-records``: delete the records below an offset; kafka-delete-records.sh in flags and output."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from zkbroker.cli import _common as common
from zkbroker.cli._common import kafka_admin as admin
from zkbroker.model.errors import ErrorCode

PROG = "zkbroker-delete-records"
EXAMPLES = """\
  delete everything below offset 500 of one partition, and all records of another (-1 is the high watermark):
    cat > offsets.json <<END
    {"partitions": [{"topic": "orders", "partition": 0, "offset": 500},
                    {"topic": "orders", "partition": 1, "offset": -1}],
     "version": 1}
    END
    zkbroker-delete-records --bootstrap-server localhost:9092 --offset-json-file offsets.json
"""


def make_parser() -> argparse.ArgumentParser:
    parser = common.make_parser(PROG, "Delete the records of partitions below the given offsets.", EXAMPLES)
    common.add_bootstrap(parser)
    parser.add_argument("--offset-json-file", metavar="FILE", required=True, help="which offsets; see the example")
    parser.add_argument("--command-config", metavar="FILE", help="property file for the admin client")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of lines")
    return parser


def main(argv: list[str] | None = None) -> int:
    return common.run(PROG, _run, make_parser(), argv)


def _run(arguments: argparse.Namespace) -> int:
    wanted = parse_offsets(_read(arguments.offset_json_file))
    client = admin.AdminClient(
        common.client_config(arguments.bootstrap_server, common.read_properties(arguments.command_config), defaults={})
    )
    if not arguments.json:
        print("Executing records delete operation", flush=True)
    futures = client.delete_records(
        [TopicPartition(topic, partition, offset) for topic, partition, offset in wanted],
        request_timeout=common.DEFAULT_TIMEOUT_S,
        operation_timeout=common.DEFAULT_TIMEOUT_S,
    )
    found = {(asked.topic, asked.partition): _outcome(future) for asked, future in futures.items()}
    rows = [(topic, partition, found[topic, partition]) for topic, partition, _ in wanted]
    if arguments.json:
        partitions = [
            {
                "topic": topic,
                "partition": partition,
                ("error" if isinstance(outcome, str) else "low_watermark"): outcome,
            }
            for topic, partition, outcome in rows
        ]
        print(json.dumps({"version": 1, "partitions": partitions}))
        return 0
    print("Records delete operation completed:")
    for topic, partition, outcome in rows:
        what = f"error: {outcome}" if isinstance(outcome, str) else f"low_watermark: {outcome}"
        print(f"partition: {topic}-{partition}\t{what}")
    return 0


def _outcome(future: Any) -> int | str:
    """The low watermark, or what went wrong, as Kafka's tool names it."""
    try:
        return int(future.result(common.DEFAULT_TIMEOUT_S + 5).low_watermark)
    except KafkaException as error:
        return java_name(error)


def java_name(error: KafkaException) -> str:
    """The exception that a Java client would have thrown: scripts look for it."""
    code = error.args[0].code()
    text = common.kafka_error_text(error)
    if code == KafkaError._NOENT:  # the client knows no leader to ask
        return f"{common.java_class(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)}: no such partition, or it has no leader"
    return f"{common.java_class(ErrorCode(code))}: {text}" if code > 0 and code in set(ErrorCode) else text


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError as error:
        raise common.CommandError(f"cannot read {path}: {error.strerror}") from None


def parse_offsets(text: str) -> list[tuple[str, int, int]]:
    """(topic, partition, offset) from Kafka's JSON. Raises CommandError."""
    try:
        found = json.loads(text)
        if not isinstance(found, dict):
            raise TypeError
        if found.get("version", 1) != 1:
            raise common.CommandError(f"Not supported version field value {found['version']}")
        rows = [(str(row["topic"]), int(row["partition"]), int(row["offset"])) for row in found["partitions"]]
    except (ValueError, TypeError, KeyError):
        raise common.CommandError(
            'The offsets must look like {"partitions": [{"topic": "t", "partition": 0, "offset": 5}], "version": 1}'
        ) from None
    if not rows:
        raise common.CommandError("Missing partitions field")
    twice = sorted(
        f"{name}-{number}" for (name, number), count in Counter(row[:2] for row in rows).items() if count > 1
    )
    if twice:
        raise common.CommandError(f"Offset json file contains duplicate topic partitions: {','.join(twice)}")
    return rows


if __name__ == "__main__":
    sys.exit(main())
