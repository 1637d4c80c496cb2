"""``zkbroker-dump-log``: what is in the files of a log, printed as Kafka's ``DumpLogSegments`` prints it."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import TextIO

from zkbroker.log.checkpoints import MalformedFile, decode_snapshot
from zkbroker.log.disk import Disk
from zkbroker.log.indexes import OFFSET_ENTRY_BYTES, TIME_ENTRY_BYTES, OffsetIndex, TimeIndex, TransactionIndex
from zkbroker.model.errors import BrokerError
from zkbroker.partition.producer_state import AppendedBatch
from zkbroker.records.batch import CODEC_NAMES, DELETE_HORIZON_BIT, HEADER_BYTES, BatchHeader, crc_of, read_header
from zkbroker.records.record import Record, end_transaction_of, records_of


def main(argv: Sequence[str] | None = None, out: TextIO | None = None) -> int:
    """Exit status: 0 all is well, 1 a file is damaged or cannot be read, 2 wrong usage."""
    options = _parser().parse_args(argv)
    out = sys.stdout if out is None else out
    status = 0
    for path in options.files.split(","):
        print(f"Dumping {path}", file=out)
        try:
            problems = _dump_for(path)(path, options, out)
        except OSError as error:
            problems = [f"{path}: {error.strerror or error}"]
        except (MalformedFile, BrokerError, ValueError) as error:
            problems = [f"{path}: {error}"]
        for problem in problems:
            print(problem, file=sys.stderr)
            status = 1
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="zkbroker-dump-log",
        description="Print the content of log segments (.log), indexes (.index, .timeindex, .txnindex) and producer "
        "snapshots (.snapshot). The files are only read; a running broker may be writing them.",
        epilog="example: zkbroker-dump-log --print-data-log --files data/orders-0/00000000000000000000.log",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--files", required=True, metavar="FILE,FILE…", help="the files to print, separated by commas")
    add("--print-data-log", action="store_true", help="print each record's key and value too")
    add("--deep-iteration", action="store_true", help="print a line for each record, not only for each batch")
    add("--skip-record-metadata", action="store_true", help="with --print-data-log: only key and value of each record")
    add("--max-bytes", type=int, default=2**31 - 1, metavar="SIZE", help="stop after this many bytes of a .log file")
    add("--verify-index-only", action="store_true", help="check an index against its log, print only what is wrong")
    add("--index-sanity-check", action="store_true", help="only check whether a broker would rebuild the index")
    return parser


def _dump_for(path: str) -> Callable[[str, argparse.Namespace, TextIO], list[str]]:
    suffix = os.path.splitext(path)[1]
    dumps = {
        ".log": _dump_log,
        ".index": _dump_index,
        ".timeindex": _dump_time_index,
        ".txnindex": _dump_transactions,
        ".snapshot": _dump_snapshot,
    }
    if suffix not in dumps:
        raise ValueError(f"a file that ends in {suffix or 'nothing'} is none of {', '.join(dumps)}")
    return dumps[suffix]


def _base_offset(path: str) -> int:
    stem = os.path.basename(path).partition(".")[0]
    if not stem.isdigit():
        raise ValueError("the name of the file does not begin with an offset")
    return int(stem)


def _dump_log(path: str, options: argparse.Namespace, out: TextIO) -> list[str]:
    print(f"Log starting offset: {_base_offset(path)}", file=out)
    problems: list[str] = []
    position = 0
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        while position < size and position < options.max_bytes:
            file.seek(position)
            head = file.read(HEADER_BYTES)
            header = read_header(head) if len(head) == HEADER_BYTES else None
            if header is None or header.magic != 2 or header.size < HEADER_BYTES or position + header.size > size:
                problems.append(f"{path}: {size - position} bytes at position {position} are no record batch")
                break
            batch = head + file.read(header.size - HEADER_BYTES)
            is_valid = crc_of(batch, 0, len(batch)) == header.crc
            print(_batch_line(header, position, is_valid), file=out)
            if not is_valid:
                problems.append(f"{path}: the CRC of the batch at position {position} does not match")
            elif options.deep_iteration or options.print_data_log:
                _dump_records(batch, header, options, out)
            position += header.size
    return problems


def _batch_line(header: BatchHeader, position: int, is_valid: bool) -> str:
    horizon = "OptionalLong.empty"
    if header.attributes & DELETE_HORIZON_BIT:
        horizon = f"OptionalLong[{header.base_timestamp}]"
    codec = CODEC_NAMES[header.codec] if header.codec < len(CODEC_NAMES) else f"unknown({header.codec})"
    return (
        f"baseOffset: {header.base_offset} lastOffset: {header.last_offset} count: {header.records_count} "
        f"baseSequence: {header.base_sequence} lastSequence: {header.last_sequence} "
        f"producerId: {header.producer_id} producerEpoch: {header.producer_epoch} "
        f"partitionLeaderEpoch: {header.leader_epoch} isTransactional: {_bool(header.is_transactional)} "
        f"isControl: {_bool(header.is_control)} deleteHorizonMs: {horizon} position: {position} "
        f"{_time_name(header)}: {header.max_timestamp} size: {header.size} magic: {header.magic} "
        f"compresscodec: {codec} crc: {header.crc} isvalid: {_bool(is_valid)}"
    )


def _dump_records(batch: bytes, header: BatchHeader, options: argparse.Namespace, out: TextIO) -> None:
    for record in records_of(batch, header):
        parts = ["|"]
        if not options.skip_record_metadata:
            parts.append(_record_metadata(record, header))
            if header.is_control:
                marker = end_transaction_of(batch, header)
                if marker is not None:
                    kind = "COMMIT" if marker.committed else "ABORT"
                    parts.append(f"endTxnMarker: {kind} coordinatorEpoch: {marker.coordinator_epoch}")
        if options.print_data_log and not header.is_control:
            if record.key is not None:
                parts.append(f"key: {_text(record.key)}")
            parts.append(f"payload: {_text(record.value) if record.value is not None else ''}")
        print(" ".join(parts), file=out)


def _record_metadata(record: Record, header: BatchHeader) -> str:
    sequence = -1
    if header.base_sequence >= 0:
        sequence = (header.base_sequence + record.offset - header.base_offset) % 2**31
    names = ",".join(name for name, _ in record.headers)
    return (
        f"offset: {record.offset} {_time_name(header)}: {record.timestamp} "
        f"keySize: {-1 if record.key is None else len(record.key)} "
        f"valueSize: {-1 if record.value is None else len(record.value)} "
        f"sequence: {sequence} headerKeys: [{names}]"
    )


def _dump_index(path: str, options: argparse.Namespace, out: TextIO) -> list[str]:
    base = _base_offset(path)
    log_path = os.path.splitext(path)[0] + ".log"
    index = OffsetIndex(Disk(), path, base)
    if os.path.getsize(path) % OFFSET_ENTRY_BYTES or not index.is_sane(os.path.getsize(log_path)):
        return [f"{path} fails its sanity check: a broker rebuilds it"]
    if options.index_sanity_check:
        print(f"{path} passed sanity check.", file=out)
        return []
    problems = []
    with open(log_path, "rb") as log:
        for offset, position in index.entries():
            log.seek(position)
            head = log.read(HEADER_BYTES)
            found = read_header(head).last_offset if len(head) == HEADER_BYTES else None
            if found != offset:
                problems.append(f"{path}: offset {offset} at position {position}, where the log has {found}")
            if not options.verify_index_only:
                print(f"offset: {offset} position: {position}", file=out)
    return problems


def _dump_time_index(path: str, options: argparse.Namespace, out: TextIO) -> list[str]:
    index = TimeIndex(Disk(), path, _base_offset(path))
    if os.path.getsize(path) % TIME_ENTRY_BYTES or not index.is_sane():
        return [f"{path} fails its sanity check: a broker rebuilds it"]
    if options.index_sanity_check:
        print(f"{path} passed sanity check.", file=out)
        return []
    largest = _largest_timestamps(os.path.splitext(path)[0] + ".log")
    problems = []
    for timestamp, offset in index.entries():
        if largest.get(offset) != timestamp:
            problems.append(
                f"{path}: timestamp {timestamp} at offset {offset}, where the log has {largest.get(offset)}"
            )
        if not options.verify_index_only:
            print(f"timestamp: {timestamp} offset: {offset}", file=out)
    return problems


def _largest_timestamps(log_path: str) -> dict[int, int]:
    """Last offset of each batch → its largest timestamp."""
    found = {}
    with open(log_path, "rb") as log:
        while len(head := log.read(HEADER_BYTES)) == HEADER_BYTES:
            header = read_header(head)
            if header.size < HEADER_BYTES:
                break
            found[header.last_offset] = header.max_timestamp
            log.seek(header.size - HEADER_BYTES, os.SEEK_CUR)
    return found


def _dump_transactions(path: str, options: argparse.Namespace, out: TextIO) -> list[str]:
    for entry in TransactionIndex(Disk(), path, exists=True).entries():
        print(
            f"version: 0 producerId: {entry.producer_id} firstOffset: {entry.first_offset} "
            f"lastOffset: {entry.last_offset} lastStableOffset: {entry.last_stable_offset}",
            file=out,
        )
    return []


def _dump_snapshot(path: str, options: argparse.Namespace, out: TextIO) -> list[str]:
    for entry in decode_snapshot(Disk().read_file(path)):
        start = f"OptionalLong[{entry.transaction_start}]" if entry.transaction_start >= 0 else "OptionalLong.empty"
        line = (
            f"producerId: {entry.producer_id} producerEpoch: {entry.epoch} "
            f"coordinatorEpoch: {entry.coordinator_epoch} currentTxnFirstOffset: {start} "
            f"lastTimestamp: {entry.timestamp} "
        )
        if entry.last_offset >= 0:
            batch = AppendedBatch(entry.last_sequence, entry.last_offset, entry.offset_delta, entry.timestamp)
            line += (
                f"firstSequence: {batch.base_sequence} lastSequence: {batch.last_sequence} "
                f"lastOffset: {batch.last_offset} offsetDelta: {batch.offset_delta} timestamp: {batch.timestamp}"
            )
        print(line, file=out)
    return []


def _time_name(header: BatchHeader) -> str:
    return "LogAppendTime" if header.is_log_append_time else "CreateTime"


def _bool(value: bool) -> str:
    return "true" if value else "false"


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


if __name__ == "__main__":
    sys.exit(main())
