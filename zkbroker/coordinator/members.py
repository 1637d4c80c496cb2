"""A member of a group, as its coordinator knows it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from zkbroker.coordinator.records import StoredMember
from zkbroker.model.groups import DescribedMember, JoinedMember, JoinGroup, Protocol


class Member:
    """Parked requests are kept as the tickets that will be answered: at most one JoinGroup and one SyncGroup."""

    __slots__ = (
        "assignment",
        "client_host",
        "client_id",
        "group_instance_id",
        "is_new",
        "join_ticket",
        "member_id",
        "protocols",
        "rebalance_timeout_ms",
        "session_timeout_ms",
        "sync_ticket",
    )

    def __init__(
        self,
        member_id: str,
        group_instance_id: str | None,
        client_id: str,
        client_host: str,
        rebalance_timeout_ms: int,
        session_timeout_ms: int,
        protocols: Mapping[str, bytes],
        assignment: bytes = b"",
    ) -> None:
        self.member_id = member_id
        self.group_instance_id = group_instance_id
        """Static membership: changes hands with a restart of the process, while this member stays."""
        self.client_id = client_id
        self.client_host = client_host
        self.rebalance_timeout_ms = rebalance_timeout_ms
        self.session_timeout_ms = session_timeout_ms
        self.protocols = protocols
        """Name → metadata, in order of preference. After loading only the protocol that was chosen is known."""
        self.assignment = assignment
        """Of the generation that is or was stable last; empty once another one began."""
        self.join_ticket: int | None = None
        self.sync_ticket: int | None = None
        self.is_new = False
        """Its first JoinGroup is parked: it does not know its member id yet, cannot send heartbeats, and may be gone.
        Others who wait for a rebalance need not be heard of."""

    @property
    def is_waiting(self) -> bool:
        """A request of it is parked."""
        return self.join_ticket is not None or self.sync_ticket is not None

    def vote(self, candidates: set[str]) -> str | None:
        return next((name for name in self.protocols if name in candidates), None)

    def joined(self, protocol_name: str | None) -> JoinedMember:
        return JoinedMember(self.member_id, self.group_instance_id, self.metadata(protocol_name))

    def metadata(self, protocol_name: str | None) -> bytes:
        return self.protocols.get(protocol_name, b"") if protocol_name is not None else b""

    def stored(self, protocol_name: str | None, assignment: bytes) -> StoredMember:
        return StoredMember(
            self.member_id,
            self.group_instance_id,
            self.client_id,
            self.client_host,
            self.rebalance_timeout_ms,
            self.session_timeout_ms,
            self.metadata(protocol_name),
            assignment,
        )

    def described(self, protocol_name: str | None) -> DescribedMember:
        """Without a protocol, as for a group that is not stable, only who it is."""
        return DescribedMember(
            self.member_id,
            self.group_instance_id,
            self.client_id,
            self.client_host,
            self.metadata(protocol_name),
            self.assignment if protocol_name is not None else b"",
        )

    def __repr__(self) -> str:
        waits = "".join((" joining" * (self.join_ticket is not None), " syncing" * (self.sync_ticket is not None)))
        return f"{self.member_id}{' new' * self.is_new}{waits}"


def protocols_of(protocols: Iterable[Protocol]) -> dict[str, bytes]:
    """By name; of a name that comes twice, the first counts."""
    found: dict[str, bytes] = {}
    for protocol in protocols:
        found.setdefault(protocol.name, protocol.metadata)
    return found


def member_of(request: JoinGroup, member_id: str) -> Member:
    return Member(
        member_id,
        request.group_instance_id,
        request.client.client_id,
        request.client.host,
        request.rebalance_timeout_ms,
        request.session_timeout_ms,
        protocols_of(request.protocols),
    )


def loaded_member(stored: StoredMember, protocol_name: str) -> Member:
    return Member(
        stored.member_id,
        stored.group_instance_id,
        stored.client_id,
        stored.client_host,
        stored.rebalance_timeout_ms,
        stored.session_timeout_ms,
        {protocol_name: stored.subscription},
        stored.assignment,
    )
