"""COMPLAINTS: what a broker suffers from, as words and rows. Pure."""

from __future__ import annotations

from zkbroker.model.complaints import StalledDir, Unreachable, Word
from zkbroker.model.errors import BrokerError, ErrorCode
from zkbroker.model.topics import TopicPartition
from zkbroker.replication.codec import Message, Words, body_rows, encode_request, integer, quote_argument

UNREACHABLE = "UNREACHABLE"
SILENT = "SILENT"
STALLED = "STALLED"
REPLICA = "REPLICA"


def encode_complaints(correlation: int, word: Word) -> bytes:
    """All that the sender complains of now; without rows everything is withdrawn."""
    rows = [
        f"{UNREACHABLE} {one.broker_id} epoch={one.broker_epoch} for_ms={_ms(one.seconds)}" for one in word.unreachable
    ]
    rows += [f"{SILENT} {one.broker_id} epoch={one.broker_epoch} for_ms={_ms(one.seconds)}" for one in word.silent]
    for stalled in word.stalled:
        rows.append(f"{STALLED} {quote_argument(stalled.log_dir)} for_ms={_ms(stalled.seconds)}")
        waiting = frozenset(stalled.waiting)
        rows.extend(
            f"{REPLICA} {quote_argument(partition.topic)} {partition.partition}"
            f"{' waiting=1' if partition in waiting else ''}"
            for partition in stalled.replicas
        )
    return encode_request("COMPLAINTS", correlation, None, "".join([f"{row}\n" for row in rows]).encode())


def decode_complaints(message: Message) -> Word:
    """Raises BrokerError INVALID_REQUEST. Rows of other kinds are skipped."""
    unreachable: list[Unreachable] = []
    silent: list[Unreachable] = []
    stalled: list[tuple[str, float, list[TopicPartition], list[TopicPartition]]] = []
    for row in body_rows(message.body):
        kind = row.arguments[0] if row.arguments else ""
        if kind in (UNREACHABLE, SILENT):
            peer = Unreachable(_number(_argument(row, 1)), integer(row.values, "epoch"), _seconds(row))
            (unreachable if kind == UNREACHABLE else silent).append(peer)
        elif kind == STALLED:
            stalled.append((_argument(row, 1), _seconds(row), [], []))
        elif kind == REPLICA:
            if not stalled:
                raise BrokerError(ErrorCode.INVALID_REQUEST, "REPLICA comes after the STALLED folder it lies in")
            partition = TopicPartition(_argument(row, 1), _number(_argument(row, 2)))
            stalled[-1][2].append(partition)
            if row.values.get("waiting") == "1":
                stalled[-1][3].append(partition)
    return Word(
        tuple(unreachable),
        tuple([StalledDir(folder, seconds, tuple(all_), tuple(waiting)) for folder, seconds, all_, waiting in stalled]),
        tuple(silent),
    )


def _ms(seconds: float) -> int:
    return max(0, round(seconds * 1000))


def _seconds(row: Words) -> float:
    return max(0, integer(row.values, "for_ms")) / 1000


def _argument(row: Words, index: int) -> str:
    if len(row.arguments) <= index:
        raise BrokerError(ErrorCode.INVALID_REQUEST, f"a row of COMPLAINTS lacks a word: {row.arguments}")
    return row.arguments[index]


def _number(word: str) -> int:
    if not (word.isascii() and word.isdigit()) or len(word) > 10 or int(word) >= 2**31:
        raise BrokerError(ErrorCode.INVALID_REQUEST, f"{word[:40]!r} is not a number of a broker or partition")
    return int(word)
