"""What a feature asks of any client, whatever its language: an adapter for each fills these methods.

A method that a client cannot serve raises DoesNotApply with what it lacks. Whatever else is raised is a failure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

__all__ = ["Client", "DoesNotApply", "Got", "Member", "Record", "Start", "TopicSeen", "Where"]

BEGINNING = "beginning"


class DoesNotApply(Exception):
    """The client has no such thing; the text says what it lacks."""


class Record(NamedTuple):
    value: bytes | None
    key: bytes | None = None
    headers: tuple[tuple[str, bytes | None], ...] = ()
    timestamp_ms: int | None = None
    """None: the client's clock."""


class Got(NamedTuple):
    """A record as a client read it; its timestamp is never None."""

    partition: int
    offset: int
    record: Record


class Start(NamedTuple):
    """Where to begin reading: the beginning, an offset, or the first record at or after a time."""

    offset: int | None = None
    time_ms: int | None = None


class Where(NamedTuple):
    """How records are to be sent."""

    codec: str = "none"
    acks: str = "all"
    is_idempotent: bool = False


class TopicSeen(NamedTuple):
    """A topic as an administrator sees it."""

    partitions: Sequence[tuple[int, Sequence[int]]]
    """(leader, replicas) by partition."""
    topic_id: str | None = None
    """22 characters; None where the client does not tell."""


class Member(Protocol):
    """One consumer of a group that reads one topic, polled in the background."""

    def assigned(self) -> set[int]: ...

    def received(self) -> list[Got]: ...

    def leave(self) -> None:
        """Commit what was read, and go. Raises what failed in the background."""
        ...


class Client:
    """One client. Every operation opens what it needs and closes it again."""

    name = ""
    library = ""
    """Which library and version, for the table."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name})"

    def close(self) -> None:
        """End what serves this adapter."""

    def _lacks(self, what: str) -> DoesNotApply:
        return DoesNotApply(f"{self.name} has no {what}")

    # Data

    def produce(self, topic: str, records: Sequence[Record], where: Where = Where(), partition: int = 0) -> None:
        """Write all, and wait until all are acknowledged."""
        raise self._lacks("producer")

    def read(self, topic: str, count: int, start: Start = Start(), partition: int = 0) -> list[Got]:
        """The first ``count`` records from there on, fewer if there are no more after a minute."""
        raise self._lacks("consumer")

    def join(self, group: str, topic: str, *, is_cooperative: bool = False, instance_id: str | None = None) -> Member:
        raise self._lacks("consumer groups")

    # Administration; each is done when it returns, as far as the client can know

    def cluster(self) -> tuple[int, list[int]]:
        """(controller, brokers)."""
        raise self._lacks("way to describe the cluster")

    def topics(self) -> list[str]:
        raise self._lacks("way to list topics")

    def create_topic(self, name: str, partitions: int, replicas: int, configs: Mapping[str, str]) -> None:
        raise self._lacks("way to create topics")

    def describe_topic(self, name: str) -> TopicSeen:
        raise self._lacks("way to describe topics")

    def add_partitions(self, name: str, total: int) -> None:
        raise self._lacks("way to add partitions")

    def delete_topic(self, name: str) -> None:
        raise self._lacks("way to delete topics")

    def topic_config(self, name: str) -> dict[str, str | None]:
        raise self._lacks("way to read settings")

    def set_topic_config(self, name: str, configs: Mapping[str, str]) -> None:
        raise self._lacks("way to change settings")

    def groups(self) -> list[str]:
        raise self._lacks("way to list groups")

    def describe_group(self, name: str) -> tuple[str, int]:
        """(state in lower case without separators, number of members)."""
        raise self._lacks("way to describe groups")

    def group_offsets(self, name: str, topic: str, partitions: Sequence[int]) -> dict[int, int]:
        raise self._lacks("way to read a group's offsets")

    def delete_group(self, name: str) -> None:
        raise self._lacks("way to delete groups")

    def delete_records(self, topic: str, before: int) -> None:
        raise self._lacks("way to delete records")

    def max_timestamp_offset(self, topic: str) -> int:
        raise self._lacks("way to ask for the largest timestamp")

    def reassign(self, topic: str, replicas: Sequence[int]) -> None:
        raise self._lacks("way to reassign partitions")

    def reassignments_count(self, topic: str) -> int:
        """How many reassignments of this topic's first partition go on."""
        raise self._lacks("way to list reassignments")

    def elect_preferred(self, topic: str) -> None:
        raise self._lacks("way to elect leaders")

    def log_sizes(self, topic: str, brokers: Sequence[int]) -> dict[int, int]:
        """Bytes of the first partition's log by broker."""
        raise self._lacks("way to describe log folders")

    def producers_count(self, topic: str) -> int:
        raise self._lacks("way to describe producers")
