"""A follower's fetch session, alone: nothing that the leader tells is lost."""

from __future__ import annotations

from zkbroker.model.channel import FollowerContact
from zkbroker.model.errors import ErrorCode
from zkbroker.model.topics import TopicPartition
from zkbroker.replication.fetch_session import FetchSession, HeldFetch
from zkbroker.replication.messages import Fetch
from zkbroker.replication.ports import FetchedRow, FetchRow, FetchSessionListener

PARTITION = TopicPartition("t", 0)
TOPIC_ID = "A" * 22
ROW = FetchRow("t", 0, TOPIC_ID, 3, 0, -1, 0, -1)
FETCH = Fetch(2, 0, 500, 1, 1_000_000, 1_000_000)


class ReadWhileAsked:
    """A leader whose bytes must come from the disk, and are there before it has answered that."""

    def __init__(self) -> None:
        self.listener: FetchSessionListener | None = None
        self.reads = 0

    def follower_fetched(self, contact: FollowerContact, row: FetchRow, listener: FetchSessionListener) -> None:
        self.listener = listener

    def read_for_follower(self, contact: FollowerContact, row: FetchRow, max_bytes: int) -> FetchedRow | None:
        self.reads += 1
        if self.reads == 1:
            assert self.listener is not None
            self.listener.partition_changed(PARTITION)
            return None
        return FetchedRow("t", 0, TOPIC_ID, ErrorCode.NONE, 3, 0, 0, records=b"bytes")

    def forget(self, listener: FetchSessionListener, partition: TopicPartition) -> None: ...


def test_bytes_that_come_from_the_disk_while_they_are_asked_for_are_looked_at_again() -> None:
    """What the simulator found (seed 8026 of profile default, with disks that are not always read from memory): another
    follower's read had brought the bytes into the page cache, the wake-up was lost, and nobody fetched them ever again.
    """
    leader = ReadWhileAsked()
    woken: list[FetchSession] = []
    session = FetchSession(leader, FollowerContact(1, 7, 0.0), 2, woken.append)
    session.take(HeldFetch(1, FETCH, 10.0), [(PARTITION, ROW)], 0.0)
    assert session.collect(FETCH, 0.0, False) is None
    assert woken == [session]
    rows = session.collect(FETCH, 0.0, False)
    assert rows is not None
    assert [answer.records for answer, _ in rows] == [b"bytes"]
