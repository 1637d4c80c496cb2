"""The four compression codecs of record batches, as Kafka's clients frame them."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import cramjam

from zkbroker.model.errors import BrokerError, ErrorCode
from zkbroker.records.batch import CODEC_NAMES

_XERIAL_MAGIC = b"\x82SNAPPY\x00"
_XERIAL_HEADER = _XERIAL_MAGIC + (1).to_bytes(4, "big") + (1).to_bytes(4, "big")
_XERIAL_BLOCK_BYTES = 32 * 1024
_LZ4_HEADER = b"\x04\x22\x4d\x18\x60\x40\x82"
"""Frame of independent blocks of up to 64 KiB without checksums; the last byte checks the two before it."""
_LZ4_BLOCK_BYTES = 64 * 1024
_LZ4_PLAIN_BLOCK = 1 << 31
_LZ4_FRAME_HEADER_BYTES = 7
_LZ4_HAS_CONTENT_SIZE = 0x08
_LZ4_LEVEL_MAX = 12
"""The C library's; Kafka's Java library has more, and takes what is above for the highest."""

LEVEL_DEFAULTS = {1: -1, 3: 9, 4: 3}
"""By codec, the default of Kafka's ``compression.(gzip|lz4|zstd).level``. lz4's is the quick compressor, every
other number the thorough one with that level."""
_GZIP_LEVEL = 6
"""zlib's own default, which gzip's -1 stands for."""


def codec_number(name: str) -> int:
    """The number of ``compression.type`` ``name`` (``uncompressed`` is none). Raises ValueError for others."""
    return 0 if name == "uncompressed" else CODEC_NAMES.index(name)


def compress(codec: int, payload: bytes, level: int | None = None) -> bytes:
    """``payload`` as the records field of a batch with that codec; ``level`` None is the codec's default."""
    if level is None:
        level = LEVEL_DEFAULTS.get(codec)
    if codec == 0:
        return payload
    if codec == 1:
        return bytes(cramjam.gzip.compress(payload, _GZIP_LEVEL if level == -1 else level))
    if codec == 2:
        parts = [_XERIAL_HEADER]
        for start in range(0, len(payload), _XERIAL_BLOCK_BYTES):
            block = bytes(cramjam.snappy.compress_raw(payload[start : start + _XERIAL_BLOCK_BYTES]))
            parts.append(len(block).to_bytes(4, "big"))
            parts.append(block)
        return b"".join(parts)
    if codec == 3:
        return _lz4_frame(payload, None if level == LEVEL_DEFAULTS[3] else level)
    return bytes(cramjam.zstd.compress(payload, level))


def decompress(codec: int, payload: bytes | memoryview, bytes_max: int) -> bytes:
    """The records of a batch as plain bytes.

    ``bytes_max`` bounds what a small malicious batch may grow to. Raises BrokerError: CORRUPT_MESSAGE if it is not
    that codec's, MESSAGE_TOO_LARGE beyond the bound, UNSUPPORTED_COMPRESSION_TYPE for an unknown number.
    """
    data = bytes(payload)
    try:
        if codec == 0:
            return data
        if codec == 1:
            return _gunzip(data, bytes_max)
        if codec == 2:
            return _unsnappy(data, bytes_max)
        if codec == 3:
            return _bounded(cramjam.lz4.decompress_into, data, bytes_max)
        if codec == 4:
            return _bounded(cramjam.zstd.decompress_into, data, bytes_max)
    except (cramjam.DecompressionError, zlib.error, ValueError, OSError) as error:
        raise BrokerError(ErrorCode.CORRUPT_MESSAGE, f"records are not {CODEC_NAMES[codec]}: {error}") from None
    raise BrokerError(ErrorCode.UNSUPPORTED_COMPRESSION_TYPE, f"unknown compression codec {codec}")


def _lz4_frame(payload: bytes, level: int | None) -> bytes:
    # Made by hand: the library links the blocks of a frame, which Kafka's Java reader refuses.
    parts = [_LZ4_HEADER]
    for start in range(0, len(payload), _LZ4_BLOCK_BYTES):
        plain = payload[start : start + _LZ4_BLOCK_BYTES]
        block = _lz4_block(plain, level)
        if len(block) < len(plain):
            parts.append(len(block).to_bytes(4, "little"))
            parts.append(block)
        else:
            parts.append((len(plain) | _LZ4_PLAIN_BLOCK).to_bytes(4, "little"))
            parts.append(plain)
    parts.append(bytes(4))
    return b"".join(parts)


def _lz4_block(plain: bytes, level: int | None) -> bytes:
    """One block. The library has levels only for whole frames: of one with a single block that block is taken."""
    if level is None:
        return bytes(cramjam.lz4.compress_block(plain, store_size=False))
    frame = bytes(cramjam.lz4.compress(plain, min(level, _LZ4_LEVEL_MAX)))
    start = _LZ4_FRAME_HEADER_BYTES + (8 if frame[4] & _LZ4_HAS_CONTENT_SIZE else 0)
    size = int.from_bytes(frame[start : start + 4], "little")
    if size & _LZ4_PLAIN_BLOCK or start + 4 + size > len(frame):
        return plain
    return frame[start + 4 : start + 4 + size]


def _gunzip(data: bytes, bytes_max: int) -> bytes:
    unpacker = zlib.decompressobj(wbits=31)
    plain = unpacker.decompress(data, bytes_max + 1)
    if len(plain) > bytes_max:
        raise _too_large(bytes_max)
    if not unpacker.eof:
        raise ValueError("the stream ends early")
    return plain


def _unsnappy(data: bytes, bytes_max: int) -> bytes:
    if data[:8] != _XERIAL_MAGIC:
        if cramjam.snappy.decompress_raw_len(data) > bytes_max:
            raise _too_large(bytes_max)
        return bytes(cramjam.snappy.decompress_raw(data))
    parts = []
    total = 0
    position = len(_XERIAL_HEADER)
    while position < len(data):
        size = int.from_bytes(data[position : position + 4], "big")
        position += 4
        block = data[position : position + size]
        if len(block) != size or size == 0:
            raise ValueError("a block ends early")
        total += cramjam.snappy.decompress_raw_len(block)
        if total > bytes_max:
            raise _too_large(bytes_max)
        parts.append(bytes(cramjam.snappy.decompress_raw(block)))
        position += size
    return b"".join(parts)


def _bounded(into: Callable[[bytes, bytearray], int], data: bytes, bytes_max: int) -> bytes:
    # The library knows no bound of its own, so it writes into a buffer of ours that grows up to the bound.
    room = min(max(len(data) * 4, 4096), bytes_max)
    while True:
        plain = bytearray(room)
        try:
            written = int(into(data, plain))
        except cramjam.DecompressionError as error:
            if "write whole buffer" not in str(error):
                raise
            if room >= bytes_max:
                raise _too_large(bytes_max) from None
            room = min(room * 4, bytes_max)
            continue
        del plain[written:]
        return bytes(plain)


def _too_large(bytes_max: int) -> BrokerError:
    return BrokerError(ErrorCode.MESSAGE_TOO_LARGE, f"records grow beyond {bytes_max} bytes when decompressed")
