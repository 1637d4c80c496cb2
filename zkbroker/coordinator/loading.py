"""The groups of a partition, put together from the records of its log."""

from __future__ import annotations

from sys import intern

from zkbroker.coordinator.fields import shown
from zkbroker.coordinator.group import Group
from zkbroker.coordinator.offsets import GroupOffsets
from zkbroker.coordinator.records import (
    GroupKey,
    MalformedRecord,
    OffsetKey,
    StoredOffset,
    read_group_value,
    read_key,
    read_offset_value,
)


class Loading:
    """What was replayed so far. Of each group only its last record is parsed, when it is taken."""

    def __init__(self) -> None:
        self.malformed = 0
        """Records that could not be understood and were passed over."""
        self.complaint = ""
        """About the first of them."""
        self.foreign = 0
        """Records of kinds that later Kafkas write."""
        self._groups: dict[str, bytes] = {}
        self._offsets: dict[str, GroupOffsets] = {}
        self._by_producer: dict[int, set[str]] = {}

    def replay(self, key: bytes | None, value: bytes | None, producer_id: int, order: int) -> None:
        try:
            found = read_key(key or b"")
            if isinstance(found, OffsetKey):
                stored = None if value is None else read_offset_value(value)
                self._replay_offset(found, stored, producer_id, order)
            elif not isinstance(found, GroupKey):
                self.foreign += 1
            elif value is None:
                self._groups.pop(found.group_id, None)
            else:
                self._groups[found.group_id] = value
        except MalformedRecord as error:
            self._pass_over(str(error))

    def _replay_offset(self, key: OffsetKey, stored: StoredOffset | None, producer_id: int, order: int) -> None:
        offsets = self._offsets.get(key.group_id)
        if offsets is None:
            offsets = self._offsets[key.group_id] = GroupOffsets()
        place = (intern(key.topic), key.partition)
        if producer_id >= 0:
            offsets.commit_in_transaction(producer_id, place, stored, order)
            self._by_producer.setdefault(producer_id, set()).add(key.group_id)
        elif stored is None:
            offsets.committed.pop(place, None)
        else:
            offsets.commit(place, stored, order)

    def transaction_ended(self, producer_id: int, *, is_committed: bool) -> None:
        for group_id in self._by_producer.pop(producer_id, ()):
            self._offsets[group_id].transaction_ended(producer_id, is_committed=is_committed)

    def take(self) -> Group | None:
        """One group after the other, until None. Of groups without a record there are offsets only."""
        while self._groups or self._offsets:
            if self._groups:
                group_id, value = self._groups.popitem()
                group = self._loaded(group_id, value) or Group(group_id)
                group.offsets = self._offsets.pop(group_id, group.offsets)
            else:
                group_id, offsets = self._offsets.popitem()
                group = Group(group_id)
                group.offsets = offsets
            if not group.is_hollow:
                return group
        return None

    def _loaded(self, group_id: str, value: bytes) -> Group | None:
        try:
            return Group.loaded(group_id, read_group_value(value))
        except MalformedRecord as error:
            self._pass_over(f"{error} ({shown(group_id)})")
            return None

    def _pass_over(self, complaint: str) -> None:
        self.malformed += 1
        self.complaint = self.complaint or complaint
