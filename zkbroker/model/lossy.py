"""Lossy replicas as JSON: in ``/brokers/ids/N`` and in the boot file of a log folder.

::

    [{"topic":"t","topic_id":"HUZdS2QlRPWWZBLZPv1EaQ","partitions":{"0":[5,1042],"3":[-1,-1]}}]

Per partition: the newest leader epoch and the end of what is left of the log, -1 for a log that is gone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from zkbroker.model.cluster import LossyReplica

_NUMBER_MIN, _NUMBER_MAX = -1, 2**63 - 1


def lossy_to_json(lossy: Iterable[LossyReplica]) -> list[dict[str, Any]]:
    topics: dict[tuple[str, str], dict[str, list[int]]] = {}
    for replica in sorted(lossy):
        ends = [replica.last_epoch, replica.log_end_offset]
        topics.setdefault((replica.topic, replica.topic_id), {})[str(replica.partition)] = ends
    return [
        {"topic": topic, "topic_id": topic_id, "partitions": partitions}
        for (topic, topic_id), partitions in topics.items()
    ]


def lossy_from_json(value: object) -> tuple[LossyReplica, ...]:
    """Raises ValueError for anything that ``lossy_to_json`` would not write."""
    found = []
    for entry in _checked(list, value):
        entry = _checked(dict, entry)
        topic, topic_id = _checked(str, entry.get("topic")), _checked(str, entry.get("topic_id"))
        for name, ends in _checked(dict, entry.get("partitions")).items():
            if not (name.isascii() and name.isdigit()) or len(_checked(list, ends)) != 2:
                raise ValueError(f"partition {name!r} of {topic!r} is not described by two numbers")
            epoch, end = (_checked(int, number) for number in ends)
            if not (_NUMBER_MIN <= epoch <= _NUMBER_MAX and _NUMBER_MIN <= end <= _NUMBER_MAX):
                raise ValueError(f"partition {name} of {topic!r} is out of range")
            found.append(LossyReplica(topic, int(name), topic_id, epoch, end))
    return tuple(sorted(found))


def _checked(kind: type, value: object) -> Any:
    if type(value) is not kind:
        raise ValueError(f"{str(value)[:40]!r} is no {kind.__name__}")
    return value
