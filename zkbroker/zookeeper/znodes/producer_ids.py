"""``/latest_producer_id_block``: the last block of producer ids that a broker claimed, by compare-and-set.

Example (both ends inclusive, and strings)::

    {"version":1,"broker":3,"block_start":"2000","block_end":"2999"}
"""

from __future__ import annotations

from typing import NamedTuple

from zkbroker.zookeeper.znodes.codec import INT64_MAX, dump, load, parse_int

PATH = "/latest_producer_id_block"

BLOCK_SIZE = 1000
"""Ids that a broker claims at a time (Kafka's ``PRODUCER_ID_BLOCK_SIZE``)."""

VERSION = 1


class ProducerIdBlock(NamedTuple):
    broker: int
    block_start: int
    block_end: int
    """The last id of the block, inclusive."""


def encode(block: ProducerIdBlock) -> bytes:
    return dump(
        {
            "version": VERSION,
            "broker": block.broker,
            "block_start": str(block.block_start),
            "block_end": str(block.block_end),
        }
    )


def decode(data: bytes) -> ProducerIdBlock:
    """Raises ZnodeError, also for a block that ends before it starts."""
    fields = load(PATH, data)
    block = ProducerIdBlock(
        fields.number("broker", minimum=-1),
        parse_int(PATH, "'block_start'", fields.text("block_start"), maximum=INT64_MAX),
        parse_int(PATH, "'block_end'", fields.text("block_end"), maximum=INT64_MAX),
    )
    if block.block_end < block.block_start:
        raise fields.fail("the block ends before it starts")
    return block
