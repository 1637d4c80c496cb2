"""Admin requests as any broker gets them: done by the controller that this broker is, refused where it is none."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred, succeed

from zkbroker.broker.controller_admin import TopicAdmin
from zkbroker.kafka.ports import PartitionsToAdd, TopicToDelete
from zkbroker.model.channel import NewTopic, TopicResult
from zkbroker.model.errors import ErrorCode


class OfficeRequests:
    """The admin requests of ``kafka/ports.py``, for whoever may be in office."""

    def _admin_or_none(self) -> TopicAdmin | None:
        """Who does them while this broker is in office."""
        raise NotImplementedError

    def create_topics(
        self, topics: Sequence[NewTopic], timeout_ms: int, validate_only: bool
    ) -> Deferred[list[TopicResult]]:
        admin = self._admin_or_none()
        if admin is None:
            return succeed([_not_controller(topic.name) for topic in topics])
        return admin.create_topics(topics, timeout_ms, validate_only)

    def delete_topics(self, topics: Sequence[TopicToDelete], timeout_ms: int) -> Deferred[list[TopicResult]]:
        admin = self._admin_or_none()
        if admin is None:
            return succeed([_not_controller(topic.name or "") for topic in topics])
        return admin.delete_topics(topics, timeout_ms)

    def create_partitions(
        self, topics: Sequence[PartitionsToAdd], timeout_ms: int, validate_only: bool
    ) -> Deferred[list[TopicResult]]:
        admin = self._admin_or_none()
        if admin is None:
            return succeed([_not_controller(topic.name) for topic in topics])
        return admin.create_partitions(topics, timeout_ms, validate_only)


def _not_controller(name: str) -> TopicResult:
    return TopicResult(name, ErrorCode.NOT_CONTROLLER, "This is not the correct controller for this cluster.")
