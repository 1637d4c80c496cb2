"""Where zkbroker's answers differ from Kafka 3.9.1's on purpose, and what its differential tests share."""

from __future__ import annotations

import itertools
from typing import Any

from tests.harness.brokers import wait_until
from tests.harness.differential import Accepted, Comparison, Peer
from zkbroker.kafka import versions as v

SETTINGS = {
    "auto.create.topics.enable": "true",
    "message.max.bytes": 100_000,
    "log.retention.ms": -1,  # the records that are sent are years old
    "default.replication.factor": 1,
    "min.insync.replicas": 1,
    "offsets.topic.replication.factor": 1,
    "offsets.topic.num.partitions": 3,
    "group.initial.rebalance.delay.ms": 0,
}
ACCEPTED = (
    Accepted(
        "", r"error_message: None \| '<text>'", "zkbroker says in words what was wrong, also where Kafka is silent"
    ),
    Accepted("", r"error_message: '<text>' \| None", "Kafka's empty text for success, or a text that the code says"),
    Accepted("^produce", r"log_start_offset: 0 \| -1", "a refused batch tells nothing of the log"),
    Accepted("^produce null records", "no answer", "Kafka never answers; INVALID_RECORD does"),
    Accepted("^produce a duplicate", r"log_append_time: 1700", "Kafka tells a CreateTime duplicate its own time"),
    Accepted("^produce codec [567]", "unknown_server_error", "UNSUPPORTED_COMPRESSION_TYPE says what is wrong"),
    Accepted("^produce LogAppendTime claimed", "", "nobody else may claim the broker's time; Kafka rewrites it"),
    Accepted(
        "^produce length 2147483647", "unknown_server_error", "no whole batch: INVALID_RECORD, as for shorter ones"
    ),
    Accepted("^produce bytes after", "", "Kafka cuts a torn end off, zkbroker takes what is whole only"),
    Accepted("^produce opaque", "", "the default path reads headers, not records (record.validation=full does)"),
    Accepted("^produce id of a transaction", "", "no coordinator yet: INVALID_TXN_STATE, Kafka asks its coordinator"),
    Accepted(
        "^produce nonsense",
        "'(unknown_server_error|invalid_record)' [|] 'corrupt_message'",
        "what its codec cannot unpack is corrupt; Kafka says so, INVALID_RECORD or nothing, by the byte",
    ),
    Accepted(
        "^produce nonsense",
        "'none' [|] 'invalid_record'|base_offset",
        "records that contradict their header; Kafka counts offsets and times anew",
    ),
    Accepted("^produce no partitions", "responses", "Kafka leaves the topic out"),
    Accepted("^produce producer", r"invalid_record|base_offset|log_append|log_start", "impossible producer fields"),
    Accepted("^metadata id and name", "", "a wish list with both: zkbroker answers each, Kafka drops the names"),
    Accepted("^metadata nothing", "", "Kafka fails with UNKNOWN_SERVER_ERROR"),
    Accepted("^fetch", r"(high_watermark|last_stable_offset|log_start_offset): -1", "told with an error, too"),
    Accepted("^fetch", r"aborted_transactions: \[\] \| None", "nothing is nothing"),
    Accepted("^fetch two batches and a bit", "records", "whole batches only; Kafka sends a torn one at the end"),
    Accepted("^fetch negative bytes", "", "Kafka fails with UNKNOWN_SERVER_ERROR; one batch goes out"),
    Accepted("^fetch isolation 2", "", "Kafka fails with UNKNOWN_SERVER_ERROR"),
    Accepted("^fetch a follower", "", "followers speak the line protocol: INVALID_REQUEST"),
    Accepted("^offsets isolation 2", "", "Kafka fails with UNKNOWN_SERVER_ERROR"),
    Accepted("^offsets twice", "", "Kafka refuses a partition asked for twice; both are answered"),
    Accepted("^offsets .*at -3 .after a deletion", "", "Kafka names the deleted record that had the largest timestamp"),
    Accepted("^delete records .*twice", "", "Kafka answers once for a partition that is named twice"),
    Accepted("^offsets untimed -3", "", "without any timestamp there is no largest one; Kafka says the first record"),
    Accepted("^epochs -5|^epochs current -3", "", "negative epochs that no client sends"),
    Accepted("^create named twice", "topics", "one row for a name, Kafka repeats it"),
    Accepted("^create", "record.validation", "a setting of zkbroker's own"),
    Accepted("^create bad assignment", "", "Kafka makes topics on brokers that are not there, or fails"),
    Accepted("^create .*timeout", "topic_id|configs", "Kafka tells what goes on being made"),
    Accepted("^partitions of ''", "unknown_server_error", "there is no such topic"),
    Accepted("^delete", r"topic_id: None \|", "the id of a topic deleted by name"),
    Accepted(r"^delete \[\(None, ", "", "an id whose topic is gone is unknown; Kafka remembers its name a while"),
    Accepted("^delete neither", "topic_auth", "INVALID_REQUEST: neither name nor id"),
    Accepted("^groups .* commits twice", "partitions", "a partition that is named twice is answered twice"),
    Accepted("^configs", "record.validation|synonyms", "a setting of its own; hours among the synonyms of a default"),
    Accepted("^configs 4 .*ssl.key", r"read_only: False \| True", "listeners and TLS are read at start only"),
    Accepted("^raw unserved", "", "authentication, groups and formats before 2 are not served"),
)
"""(case, line, reason): the first two are patterns that are searched for."""

_names = (f"t{number}" for number in itertools.count())


def new_name() -> str:
    return next(_names)


def can_create(peer: Peer) -> bool:
    topic = {"name": "x", "num_partitions": 1, "replication_factor": 1}
    answer = peer.ask(v.CREATE_TOPICS, 7, topics=[topic], validate_only=True)
    return bool(answer["topics"][0]["error_code"] == "none")


def served(key: int) -> range:
    api = v.BY_KEY[key]
    return range(api.lowest, api.maximum + 1)


def create(run: Comparison, partitions: int = 1, **configs: str) -> str:
    """A topic at both, whose leaders answer."""
    name = new_name()
    rows = [{"name": key.replace("_", "."), "value": value} for key, value in configs.items()]
    topic = {"name": name, "num_partitions": partitions, "replication_factor": 1, "configs": rows}
    for peer in run.peers:
        (answer,) = peer.ask_exactly(v.CREATE_TOPICS, 7, timeout=20_000, topics=[topic]).topics
        assert answer.error_code.name == "none", (peer, answer)
        peer.words[answer.topic_id] = f"<id of {name}>"
        peer.ids[name] = answer.topic_id
        wanted = [{"partition_index": number, "timestamp": -1} for number in range(partitions)]
        request = {"replica_id": -1, "topics": [{"name": name, "partitions": wanted}]}

        def led(peer: Peer = peer, request: dict[str, Any] = request) -> bool:
            rows = peer.ask(v.LIST_OFFSETS, 4, **request)["topics"][0]["partitions"]
            return all(row["error_code"] == "none" for row in rows)

        wait_until(led, f"{peer} leads {name}", 90)
    return name


def gives_ids(peer: Peer) -> bool:
    """Kafka has no producer ids to give until its controller has sent the first block."""
    answer = peer.ask(v.INIT_PRODUCER_ID, 0, transactional_id=None)
    return bool(answer["error_code"] == "none")


def produce(
    run: Comparison, case: str, topic: str, records: bytes | None, version: int = 9, partition: int = 0, **fields: Any
) -> None:
    data = [{"name": topic, "partition_data": [{"index": partition, "records": records}]}]
    fields = {"acks": -1, "timeout": 5000, "topic_data": data, **fields}
    run.ask(f"produce {case}", v.PRODUCE, version, **fields)
