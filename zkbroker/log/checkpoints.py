"""The small files beside the segments, in Kafka's formats. Text and bytes only: ``disk`` reads and writes them."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping, Sequence

from crc32c import crc32c

from zkbroker.model.topics import TopicPartition
from zkbroker.partition.producer_state import ProducerEntry

HIGH_WATERMARK_FILE = "replication-offset-checkpoint"
RECOVERY_POINT_FILE = "recovery-point-offset-checkpoint"
LOG_START_FILE = "log-start-offset-checkpoint"
EPOCH_FILE = "leader-epoch-checkpoint"
METADATA_FILE = "partition.metadata"
FLUSH_POLICY_FILE = "flush-policy"
"""zkbroker's own, in the folder of a log of which only what is on the disk was ever acknowledged."""
META_PROPERTIES_FILE = "meta.properties"
CLEAN_SHUTDOWN_FILE = ".kafka_cleanshutdown"
LOCK_FILE = ".lock"

_TOPIC_ID = re.compile(r"[0-9A-Za-z_-]{22}")
_SNAPSHOT_HEAD = struct.Struct(">hIi")
_SNAPSHOT_ENTRY = struct.Struct(">qhiqiqiq")


class MalformedFile(ValueError):
    """A file that is not what its name says."""


def encode_offsets(offsets: Mapping[TopicPartition, int]) -> bytes:
    """One of the three ``*-offset-checkpoint`` files."""
    lines = ["0", str(len(offsets))]
    lines.extend(f"{topic} {partition} {offset}" for (topic, partition), offset in sorted(offsets.items()))
    return ("\n".join(lines) + "\n").encode()


def decode_offsets(data: bytes) -> dict[TopicPartition, int]:
    """The reverse of ``encode_offsets``; an empty file is legal. Raises MalformedFile."""
    return {TopicPartition(topic, _int(partition)): _int(offset) for topic, partition, offset in _rows(data, 3)}


def encode_epochs(entries: Sequence[tuple[int, int]]) -> bytes:
    """``leader-epoch-checkpoint``."""
    lines = ["0", str(len(entries))]
    lines.extend(f"{epoch} {start}" for epoch, start in entries)
    return ("\n".join(lines) + "\n").encode()


def decode_epochs(data: bytes) -> list[tuple[int, int]]:
    """Raises MalformedFile."""
    return [(_int(epoch), _int(start)) for epoch, start in _rows(data, 2)]


def encode_partition_metadata(topic_id: str) -> bytes:
    return f"version: 0\ntopic_id: {topic_id}".encode()


def decode_partition_metadata(data: bytes) -> str:
    """The topic id. Raises MalformedFile."""
    for line in data.decode("utf-8", "replace").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "topic_id" and _TOPIC_ID.fullmatch(value.strip()):
            return value.strip()
    raise MalformedFile("no topic_id in it")


def encode_meta_properties(broker_id: int, cluster_id: str) -> bytes:
    return f"#\nbroker.id={broker_id}\nversion=0\ncluster.id={cluster_id}\n".encode()


def decode_meta_properties(data: bytes) -> dict[str, str]:
    """All properties of the file; the caller looks for ``broker.id`` and ``cluster.id``."""
    properties = {}
    for line in data.decode("utf-8", "replace").splitlines():
        name, equals, value = line.strip().partition("=")
        if equals and not name.startswith(("#", "!")):
            properties[name.strip()] = value.strip()
    return properties


def encode_clean_shutdown(broker_epoch: int) -> bytes:
    return json.dumps({"version": 0, "brokerEpoch": broker_epoch}, separators=(",", ":")).encode()


def decode_clean_shutdown(data: bytes) -> int:
    """The broker epoch that ended cleanly, -1 if the file does not say (older Kafkas wrote an empty one)."""
    try:
        return int(json.loads(data)["brokerEpoch"])
    except (ValueError, KeyError, TypeError):
        return -1


def encode_snapshot(entries: Sequence[ProducerEntry]) -> bytes:
    """A ``%020d.snapshot``: version 1, CRC-32C of all from the number of entries on, the entries."""
    body = len(entries).to_bytes(4, "big") + b"".join(_SNAPSHOT_ENTRY.pack(*entry) for entry in entries)
    return b"\x00\x01" + int(crc32c(body)).to_bytes(4, "big") + body


def decode_snapshot(data: bytes) -> list[ProducerEntry]:
    """Raises MalformedFile: an older snapshot, or the log itself, is used instead."""
    if len(data) < _SNAPSHOT_HEAD.size:
        raise MalformedFile("shorter than its header")
    version, crc, count = _SNAPSHOT_HEAD.unpack_from(data)
    if version != 1:
        raise MalformedFile(f"version {version}")
    if crc32c(memoryview(data)[6:]) != crc:
        raise MalformedFile("the CRC does not match")
    body = data[_SNAPSHOT_HEAD.size :]
    if count < 0 or len(body) != count * _SNAPSHOT_ENTRY.size:
        raise MalformedFile(f"{count} entries in {len(body)} bytes")
    return [ProducerEntry._make(fields) for fields in _SNAPSHOT_ENTRY.iter_unpack(body)]


def _rows(data: bytes, width: int) -> list[list[str]]:
    lines = data.decode("utf-8", "replace").split("\n")
    if not data.strip():
        return []
    if lines[0].strip() != "0":
        raise MalformedFile(f"version {lines[0]!r}")
    rows = [line.split() for line in lines[2:] if line.strip()]
    if len(lines) < 2 or _int(lines[1]) != len(rows):
        raise MalformedFile(f"{len(rows)} lines where {lines[1] if len(lines) > 1 else 'no'} are announced")
    for row in rows:
        if len(row) != width:
            raise MalformedFile(f"line {' '.join(row)!r}")
    return rows


def _int(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise MalformedFile(f"{text!r} is not a number") from None
