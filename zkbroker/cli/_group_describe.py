"""``zkbroker-consumer-groups --describe``: offsets, members or states of groups, as Kafka's tool prints them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from zkbroker.cli._group_admin import DEAD, EMPTY, REBALANCING, Description, GroupAdmin, Member, Partition

MISSING = "-"


class OffsetLine(NamedTuple):
    """A partition that the group has committed an offset of, or that one of its members consumes."""

    topic: str
    partition: int
    offset: int | None
    end_offset: int | None
    member: Member | None

    @property
    def lag(self) -> int | None:
        if self.offset is None or self.end_offset is None:
            return None
        return self.end_offset - self.offset


def offset_lines(
    group: Description, committed: Mapping[Partition, int], ends: Mapping[Partition, int]
) -> list[OffsetLine]:
    """Members with the most partitions first, then what nobody consumes."""

    def line(partition: Partition, member: Member | None) -> OffsetLine:
        return OffsetLine(*partition, committed.get(partition), ends.get(partition), member)

    members = sorted(group.members, key=lambda member: -len(member.partitions))
    lines = [line(partition, member) for member in members for partition in member.partitions]
    consumed = {(one.topic, one.partition) for one in lines}
    return lines + [line(partition, None) for partition in sorted(committed) if partition not in consumed]


class Describe:
    """One run of --describe. ``run`` returns the exit status: 1 when a group does not exist."""

    def __init__(self, groups: GroupAdmin, as_json: bool) -> None:
        self._groups = groups
        self._as_json = as_json
        self._documents: list[dict[str, Any]] = []

    def run(self, group_ids: Iterable[str], what: str, verbose: bool) -> int:
        """``what`` is offsets, members or state."""
        described = self._groups.describe(group_ids)
        for group in described:
            if self._as_json:
                self._documents.append(self._document(group, what))
            elif what == "offsets":
                self._print_offsets(group)
            elif what == "members":
                self._print_members(group, verbose)
            else:
                self._print_state(group)
        if self._as_json:
            print(json.dumps(self._documents))
        return 1 if any(group.state == DEAD for group in described) else 0

    def _say_state(self, group: Description) -> bool:
        """False when there is nothing to print of the group."""
        if group.state == DEAD:
            print(f"\nError: Consumer group '{group.group_id}' does not exist.")
            return False
        sys.stdout.flush()  # both streams often end in one terminal
        if group.state == EMPTY:
            print(f"\nConsumer group '{group.group_id}' has no active members.", file=sys.stderr)
        elif group.state in REBALANCING:
            print(f"\nWarning: Consumer group '{group.group_id}' is rebalancing.", file=sys.stderr)
        return True

    # Offsets

    def _offset_lines(self, group: Description) -> list[OffsetLine]:
        committed = self._groups.committed(group.group_id)
        consumed = (partition for member in group.members for partition in member.partitions)
        return offset_lines(group, committed, self._groups.known_ends(dict.fromkeys((*consumed, *committed))))

    def _print_offsets(self, group: Description) -> None:
        if group.state == DEAD:
            self._say_state(group)
            return
        lines = self._offset_lines(group)
        self._say_state(group)
        if lines:
            print("\n" + "\n".join(offsets_table(group.group_id, lines)))

    # Members

    def _print_members(self, group: Description, verbose: bool) -> None:
        if self._say_state(group):
            print("\n" + "\n".join(members_table(group, verbose)))

    # State

    def _print_state(self, group: Description) -> None:
        if self._say_state(group):
            print("\n" + "\n".join(state_table(group)))

    # For machines

    def _document(self, group: Description, what: str) -> dict[str, Any]:
        document: dict[str, Any] = {"group": group.group_id, "state": group.state}
        if what == "offsets":
            lines = self._offset_lines(group) if group.state != DEAD else []
            document["offsets"] = [
                {
                    "topic": line.topic,
                    "partition": line.partition,
                    "current_offset": line.offset,
                    "log_end_offset": line.end_offset,
                    "lag": line.lag,
                    "consumer_id": line.member.member_id if line.member else None,
                    "host": line.member.host if line.member else None,
                    "client_id": line.member.client_id if line.member else None,
                }
                for line in lines
            ]
        elif what == "members":
            document["members"] = [
                {
                    "consumer_id": member.member_id,
                    "group_instance_id": member.group_instance_id,
                    "host": member.host,
                    "client_id": member.client_id,
                    "partitions": [{"topic": topic, "partition": number} for topic, number in member.partitions],
                }
                for member in group.members
            ]
        else:
            document["coordinator"] = {
                "id": group.coordinator_id,
                "host": group.coordinator_host,
                "port": group.coordinator_port,
            }
            document["assignment_strategy"] = group.assignor
            document["members"] = len(group.members)
        return document


def _text(value: object | None) -> str:
    return MISSING if value is None else str(value)


def _width(least: int, texts: Iterable[str]) -> int:
    return max(least, *map(len, texts), 0)


def offsets_table(group_id: str, lines: Sequence[OffsetLine]) -> list[str]:
    """A heading and a line for each; columns are as wide as Kafka's tool makes them."""
    rows = [
        ("GROUP", "TOPIC", "PARTITION", "CURRENT-OFFSET", "LOG-END-OFFSET", "LAG", "CONSUMER-ID", "HOST", "CLIENT-ID")
    ]
    for line in lines:
        member = line.member
        rows.append(
            (
                group_id,
                line.topic,
                str(line.partition),
                _text(line.offset),
                _text(line.end_offset),
                _text(line.lag),
                member.member_id if member else MISSING,
                member.host if member else MISSING,
                member.client_id if member else MISSING,
            )
        )
    widths = [15, 15, 10, 15, 15, 15, 15, 15]
    for column in (0, 1, 6, 7):
        widths[column] = _width(15, (row[column] for row in rows))
    return [" ".join([*map(str.ljust, row, widths), row[-1]]) for row in rows]


def members_table(group: Description, verbose: bool) -> list[str]:
    """Instance ids are shown when some member has one; ``verbose`` adds the partitions."""
    has_instances = any(member.group_instance_id for member in group.members)
    rows = [("GROUP", "CONSUMER-ID", "GROUP-INSTANCE-ID", "HOST", "CLIENT-ID", "#PARTITIONS", "ASSIGNMENT")]
    rows.extend(
        (
            group.group_id,
            member.member_id,
            member.group_instance_id or "",
            member.host,
            member.client_id,
            str(len(member.partitions)),
            assignment_text(member.partitions),
        )
        for member in group.members
    )
    columns = [column for column in range(6) if has_instances or column != 2]
    least = (15, 15, 17, 15, 15, 15)
    widths = {column: _width(least[column], (row[column] for row in rows)) for column in columns}
    return [
        "".join(f"{row[column]:<{widths[column]}} " for column in columns) + (row[6] if verbose else "") for row in rows
    ]


def assignment_text(partitions: Sequence[Partition]) -> str:
    """Kafka 3.9 names the partitions of each topic, and not the topics: ``(0), (0,1,2)``."""
    if not partitions:
        return MISSING
    numbers = [
        "(" + ",".join(sorted(str(number) for _, number in rows)) + ")"
        for _, rows in groupby(sorted(partitions), lambda row: row[0])
    ]
    return ", ".join(sorted(numbers))


def state_table(group: Description) -> list[str]:
    coordinator = f"{group.coordinator_host}:{group.coordinator_port}  ({group.coordinator_id})"
    width = _width(25, (coordinator,))
    rows = (
        ("GROUP", "COORDINATOR (ID)", "ASSIGNMENT-STRATEGY", "STATE", "#MEMBERS"),
        (group.group_id, coordinator, group.assignor, group.state, str(len(group.members))),
    )
    return [" ".join([*map(str.ljust, row, (width, 25, 20, 15)), row[-1]]) for row in rows]
