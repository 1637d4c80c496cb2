"""Every cap on a line, buffer or queue, with its reason. Configuration keys of Kafka are not here: these are ours."""

from __future__ import annotations

# --- the line protocol between brokers (replication/PROTOCOL.md) -----------------------------------------------------

LINE_BYTES_MAX = 16 * 1024
"""One header line. The longest honest one holds a log folder's path: 4,096 bytes, each escaped as ``\\xHH``."""

REQUEST_BODY_BYTES_MAX = 16 * 1024 * 1024
"""Body of a request. The largest honest one is a FETCH of FETCH_PARTITIONS_MAX rows of less than 400 bytes."""

ANSWER_BODY_BYTES_MAX = 256 * 1024 * 1024
"""Body of an answer or push: ``replica.fetch.response.max.bytes`` plus one oversized batch, or a snapshot of a million
partitions. The sender is the leader or controller that was called, but a wrong byte must not eat the memory."""

FETCH_PARTITIONS_MAX = 20_000
"""Rows in one FETCH: some 60 ms of parsing at the leader. A follower sends FETCH_PARTITIONS_SENT at a time."""

FETCH_PARTITIONS_SENT = 1_000
"""Rows a follower puts in one FETCH, and a leader in one answer: some 10 ms of work; the rest follows in the next."""

FETCH_SESSIONS_MAX = 4
"""Sessions on one connection. A follower uses two: in-sync and catch-up."""

FETCHES_IN_FLIGHT_MAX = 2
"""Unanswered FETCHes of one session: the held one, and the one that replaces it."""

REQUESTS_IN_FLIGHT_MAX = 1_000
"""Unanswered requests of one connection. A broker that shuts down reports at most some hundred deletions at once."""

REPLICATION_CONNECTIONS_MAX = 1_000
"""Connections at the REPLICATION listener: two for each of 100 brokers, the rest for people and their loops."""

PUSH_BACKLOG_BYTES_MAX = 64 * 1024 * 1024
"""Pushes that wait for a subscriber which does not read. Past it it is dropped: a new snapshot is smaller."""

MESSAGE_TEXT_LENGTH_MAX = 1_000
"""Characters of a ``message=`` or ``reason=``, so that a header line never passes LINE_BYTES_MAX on account of it."""

# --- what administrators may ask -------------------------------------------------------------------------------------

PARTITIONS_CREATED_MAX = 10_000
"""Partitions that one request may create, as in KRaft. They are planned on the controller's reactor (10,000 take some
30 ms, a million would end it by its watchdog), and a topic's assignment must fit in ZooKeeper's 1 MiB znode."""

# --- consumer groups -------------------------------------------------------------------------------------------------

GROUP_PENDING_MEMBERS_MAX = 4_000
"""Member ids that the groups of one partition gave out and that are not used yet. A client uses its own one round trip
later; past this the oldest is taken back (its client asks for another), so that whoever asks for ids in a loop, in one
group or in ever new ones, does not eat the memory until they time out, half an hour later."""

GROUP_MEMBER_NAME_LENGTH_MAX = 1_000
"""Characters of a client id or instance id that go into a member id, which must fit in 32,767 bytes."""

PARTITIONS_MOVED_MAX = 20_000
"""Partitions that one request may name to be reassigned, listed or led by others: a broker's frame has room for
millions, and each costs the controller some 50 µs of a turn of its reactor."""
