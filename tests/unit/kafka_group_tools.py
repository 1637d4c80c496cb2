"""What the tests of the APIs of consumer groups share: a listener whose coordinator is a fake."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fakes.groups import FakeGroups
from tests.fakes.kafka_client import Listener, request_schemas
from tests.harness.differential import build
from zkbroker.kafka import versions as v
from zkbroker.model.errors import ErrorCode

RANGES = v.BY_KEY
GROUP_KEYS = (
    *(v.OFFSET_COMMIT, v.OFFSET_FETCH, v.JOIN_GROUP, v.HEARTBEAT, v.LEAVE_GROUP, v.SYNC_GROUP),
    *(v.DESCRIBE_GROUPS, v.LIST_GROUPS, v.DELETE_GROUPS, v.OFFSET_DELETE),
)


def served(key: int, lowest: int = 0) -> range:
    api = RANGES[key]
    return range(max(lowest, api.lowest), api.maximum + 1)


def code(row: Any) -> ErrorCode:
    return ErrorCode(row.error_code.value)


@pytest.fixture
def listener() -> Listener:
    """With topics t (two partitions) and u (one)."""
    listener = Listener()
    listener.broker.add_topic("t", 2)
    listener.broker.add_topic("u", 1)
    return listener


@pytest.fixture
def groups(listener: Listener) -> FakeGroups:
    return listener.groups


def request(key: int, version: int, /, **fields: Any) -> Any:
    """A request with these of kio's fields, so far as the version has them."""
    class_name = "".join(part.capitalize() for part in RANGES[key].name.split("_")) + "Request"
    return build(getattr(request_schemas(key, version), class_name), fields)


def ask(listener: Listener, key: int, version: int, /, **fields: Any) -> Any:
    """The answer to it."""
    return listener.ask(request(key, version, **fields))


def commit_rows(*rows: tuple[str, int]) -> list[dict[str, Any]]:
    """Topics of an OffsetCommit, each partition with an offset of its own."""
    return [
        {
            "name": name,
            "partitions": [
                {
                    "partition_index": partition,
                    "committed_offset": 40 + partition,
                    "committed_leader_epoch": 6,
                    "committed_metadata": None if partition else "note",
                }
                for one, partition in rows
                if one == name
            ],
        }
        for name in dict.fromkeys(name for name, _ in rows)
    ]
