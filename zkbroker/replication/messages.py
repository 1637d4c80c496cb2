"""HELLO and FETCH: their words and rows. Pure. PROTOCOL.md shows each as it stands on the wire."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from zkbroker.model.errors import BrokerError, ErrorCode
from zkbroker.model.topics import TopicPartition
from zkbroker.replication.codec import (
    Message,
    encode_line,
    encode_request,
    error_code,
    integer,
    parse_words,
    quote,
    quote_argument,
    row_partition,
)
from zkbroker.replication.ports import FetchedRow, FetchRow, Identity

VERSION_MIN = 1
"""The lowest protocol version this broker speaks."""

VERSION_MAX = 1
"""The highest. What is only added (keys, verbs) needs no new version: see PROTOCOL.md."""


class Fetch(NamedTuple):
    """The header of a FETCH."""

    session: int
    seq: int
    max_wait_ms: int
    min_bytes: int
    max_bytes: int
    partition_max_bytes: int


def encode_hello(correlation: int, identity: Identity, expected_broker: int | None = None) -> bytes:
    """HELLO as the caller sends it; ``expected_broker`` is the id it means to reach."""
    values = {"version": VERSION_MAX, **_identity_words(identity), "to": expected_broker}
    return encode_request("HELLO", correlation, values)


def encode_hello_answer(correlation: int, version: int, identity: Identity) -> bytes:
    """OK to a HELLO: the version that is spoken from now on, and who answers."""
    return encode_line(f"OK {correlation}", {"version": version, **_identity_words(identity)})


def _identity_words(identity: Identity) -> dict[str, str | int | None]:
    return {
        "cluster": identity.cluster_id,
        "broker": identity.broker_id,
        "epoch": identity.broker_epoch,
        "incarnation": identity.incarnation,
    }


def decode_identity(message: Message) -> Identity:
    """Who says HELLO, or answers it. Raises BrokerError."""
    return Identity(
        cluster_id=message.text("cluster"),
        broker_id=message.integer("broker"),
        broker_epoch=message.integer("epoch"),
        incarnation=message.values.get("incarnation", ""),
    )


def negotiate(message: Message) -> int:
    """The version to speak with the sender of this HELLO. Raises BrokerError UNSUPPORTED_VERSION."""
    version = min(message.integer("version"), VERSION_MAX)
    if version < VERSION_MIN:
        raise BrokerError(
            ErrorCode.UNSUPPORTED_VERSION,
            f"version {message.integer('version')} is not spoken here: {VERSION_MIN} to {VERSION_MAX} are",
        )
    return version


def encode_fetch(
    correlation: int,
    fetch: Fetch,
    rows: Iterable[tuple[FetchRow, bool]],
    forgotten: Iterable[TopicPartition] = (),
) -> bytes:
    """A FETCH with its changed rows. The flag of a row says whether the topic id goes along, which it must when the
    partition is new to the session."""
    lines = []
    for row, with_topic_id in rows:
        named = f" topic_id={quote(row.topic_id)}" if with_topic_id else ""
        flushed = f" flushed={row.flushed_offset}" if row.flushed_offset >= 0 else ""
        lines.append(
            f"{quote_argument(row.topic)} {row.partition}{named} leader_epoch={row.leader_epoch} offset={row.offset}"
            f" last_epoch={row.last_epoch} log_start={row.log_start}{flushed}\n"
        )
    lines.extend(f"{quote_argument(partition.topic)} {partition.partition} forget=1\n" for partition in forgotten)
    body = "".join(lines).encode()
    line = (
        f"FETCH {correlation} session={fetch.session} seq={fetch.seq} max_wait_ms={fetch.max_wait_ms}"
        f" min_bytes={fetch.min_bytes} max_bytes={fetch.max_bytes} partition_max_bytes={fetch.partition_max_bytes}"
    )
    return f"{line} body={len(body)}\n".encode() + body if body else f"{line}\n".encode()


def decode_fetch(message: Message) -> Fetch:
    """The header of a FETCH. Raises BrokerError."""
    values = message.values
    max_bytes = integer(values, "max_bytes")
    fetch = Fetch(
        session=integer(values, "session"),
        seq=integer(values, "seq"),
        max_wait_ms=integer(values, "max_wait_ms", 0),
        min_bytes=integer(values, "min_bytes", 1),
        max_bytes=max_bytes,
        partition_max_bytes=integer(values, "partition_max_bytes", max_bytes),
    )
    if min(fetch.session, fetch.seq, fetch.max_wait_ms, fetch.max_bytes, fetch.partition_max_bytes) < 0:
        raise BrokerError(ErrorCode.INVALID_REQUEST, "a number of this FETCH is negative")
    return fetch


def decode_fetch_rows(
    message: Message, topic_id_of: Callable[[TopicPartition], str | None]
) -> list[tuple[TopicPartition, FetchRow | None]]:
    """The rows of a FETCH, None for a partition to forget. ``topic_id_of`` knows the ids of those already in the
    session. Raises BrokerError."""
    try:
        lines = message.body.decode("utf-8").split("\n")
    except UnicodeDecodeError:
        raise BrokerError(ErrorCode.INVALID_REQUEST, "the rows are not UTF-8") from None
    rows: list[tuple[TopicPartition, FetchRow | None]] = []
    for line in lines:
        if not line:
            continue
        row = parse_words(line)
        partition = TopicPartition(*row_partition(row))
        values = row.values
        if "forget" in values:
            rows.append((partition, None))
            continue
        topic_id = values.get("topic_id") or topic_id_of(partition)
        if topic_id is None:
            raise BrokerError(ErrorCode.INVALID_REQUEST, f"{partition} is new to this session: topic_id= is missing")
        offset = integer(values, "offset")
        if offset < 0:
            raise BrokerError(ErrorCode.INVALID_REQUEST, f"offset {offset} of {partition} is negative")
        rows.append(
            (
                partition,
                FetchRow(
                    partition.topic,
                    partition.partition,
                    topic_id,
                    integer(values, "leader_epoch"),
                    offset,
                    integer(values, "last_epoch", -1),
                    integer(values, "log_start", 0),
                    integer(values, "flushed", -1),
                ),
            )
        )
    return rows


def encode_fetched(correlation: int, fetch: Fetch, rows: Sequence[tuple[FetchedRow, bool]]) -> list[bytes]:
    """The answer to a FETCH as pieces to be written one after the other: payloads are not copied. The flag of a row
    says whether its topic id goes along, which it does when it is not the request's."""
    pieces: list[bytes] = [b""]
    size = 0
    for row, with_topic_id in rows:
        line = _fetched_line(row, with_topic_id)
        pieces.append(line)
        size += len(line)
        if row.records:
            pieces.append(bytes(row.records))  # what is bytes already is not copied
            size += len(row.records)
    start = f"OK {correlation} session={fetch.session} seq={fetch.seq} partitions={len(rows)}"
    pieces[0] = f"{start} body={size}\n".encode() if size else f"{start}\n".encode()
    return pieces


def _fetched_line(row: FetchedRow, with_topic_id: bool) -> bytes:
    line = f"{quote_argument(row.topic)} {row.partition} error={row.error.name} leader_epoch={row.leader_epoch}"
    if with_topic_id:
        line += f" topic_id={quote(row.topic_id)}"
    if row.high_watermark >= 0:
        line += f" high_watermark={row.high_watermark}"
    if row.log_start >= 0:
        line += f" log_start={row.log_start}"
    if row.diverging_epoch >= 0 or row.diverging_end >= 0:
        line += f" diverging_epoch={row.diverging_epoch} diverging_end={row.diverging_end}"
    if row.log_end >= 0:
        line += f" log_end={row.log_end}"
    return f"{line} bytes={len(row.records)}\n".encode()


def _payload(records: memoryview, body_bytes: int) -> bytes | memoryview:
    """What fills most of a body stays in it; a smaller part is copied, so that it does not keep a large body alive."""
    return records if 2 * len(records) > body_bytes else bytes(records)


def decode_fetched(message: Message, topic_id_of: Callable[[TopicPartition], str]) -> list[FetchedRow]:
    """The rows of an answer to FETCH; ``topic_id_of`` gives the id that was asked for. Raises BrokerError."""
    body = message.body
    view = memoryview(body)
    at, end = 0, len(body)
    rows = []
    while at < end:
        newline = body.find(b"\n", at)
        if newline < 0:
            raise BrokerError(ErrorCode.INVALID_REQUEST, "the answer ends within a row")
        try:
            row = parse_words(str(view[at:newline], "utf-8"))
        except UnicodeDecodeError:
            raise BrokerError(ErrorCode.INVALID_REQUEST, "a row is not UTF-8") from None
        partition = TopicPartition(*row_partition(row))
        values = row.values
        size = integer(values, "bytes", 0)
        at = newline + 1 + size
        if size < 0 or at > end:
            raise BrokerError(ErrorCode.INVALID_REQUEST, f"bytes={size} of {partition} reach past the body")
        rows.append(
            FetchedRow(
                partition.topic,
                partition.partition,
                values.get("topic_id") or topic_id_of(partition),
                error_code(values),
                integer(values, "leader_epoch", -1),
                integer(values, "high_watermark", -1),
                integer(values, "log_start", -1),
                integer(values, "diverging_epoch", -1),
                integer(values, "diverging_end", -1),
                integer(values, "log_end", -1),
                _payload(view[newline + 1 : at], end),
            )
        )
    return rows
