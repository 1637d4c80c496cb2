"""Creating, deleting and enlarging topics for clients: only the broker in office does it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, fail, inlineCallbacks

from zkbroker.broker.controller_reading import image_of, rules_of
from zkbroker.broker.controller_term import Term
from zkbroker.broker.controller_zookeeper import gather
from zkbroker.controller.assignment import Assignment
from zkbroker.controller.requests import plan_partitions, plan_topic
from zkbroker.kafka.ports import PartitionsToAdd, TopicToDelete
from zkbroker.model.channel import NewTopic, TopicResult
from zkbroker.model.errors import BrokerError, ErrorCode
from zkbroker.model.limits import PARTITIONS_CREATED_MAX
from zkbroker.zookeeper.client import (
    BadVersionError,
    ConnectionLossError,
    Create,
    MultiError,
    NodeExistsError,
    NoNodeError,
    Op,
    SetData,
)
from zkbroker.zookeeper.znodes import admin as admin_znode
from zkbroker.zookeeper.znodes import config as config_znode
from zkbroker.zookeeper.znodes import topics as topic_znode

TopicOverridesError = Callable[[Mapping[str, str]], str | None]


class TopicAdmin:
    """The admin requests of one term. Every answer names one topic; the answers keep the order of the request."""

    def __init__(self, term: Term, topic_overrides_error: TopicOverridesError) -> None:
        self._term = term
        self._overrides_error = topic_overrides_error

    def create_topics(
        self, topics: Sequence[NewTopic], timeout_ms: int, validate_only: bool
    ) -> Deferred[list[TopicResult]]:
        times = Counter(topic.name for topic in topics)
        defaults = self._term.context.settings.topic_defaults()
        asked = sum(
            len(topic.assignment) or (defaults.partitions if topic.partitions == -1 else max(0, topic.partitions))
            for topic in topics
        )

        def begin(topic: NewTopic) -> Deferred[TopicResult]:
            if times[topic.name] > 1:
                return _refuse(ErrorCode.INVALID_REQUEST, "Duplicate topic name.")
            return _too_many(asked) or self._create(topic, validate_only)

        return gather([self._answered(topic.name, partial(begin, topic), timeout_ms) for topic in topics])

    def delete_topics(self, topics: Sequence[TopicToDelete], timeout_ms: int) -> Deferred[list[TopicResult]]:
        return gather([self._answered(topic.name or "", partial(self._delete, topic), timeout_ms) for topic in topics])

    def create_partitions(
        self, topics: Sequence[PartitionsToAdd], timeout_ms: int, validate_only: bool
    ) -> Deferred[list[TopicResult]]:
        known = self._term.controller.image.topics
        asked = sum(
            max(0, topic.total - len(known[topic.name].partitions)) if topic.name in known else 0 for topic in topics
        )

        def begin(topic: PartitionsToAdd) -> Deferred[TopicResult]:
            return _too_many(asked) or self._add(topic, validate_only)

        return gather([self._answered(topic.name, partial(begin, topic), timeout_ms) for topic in topics])

    def _answered(
        self, name: str, begin: Callable[[], Deferred[TopicResult]], timeout_ms: int
    ) -> Deferred[TopicResult]:
        """The result in time, or REQUEST_TIMED_OUT while the work goes on; errors become results."""
        answer: Deferred[TopicResult] = Deferred()

        def done(result: Any) -> None:
            if timer.active():
                timer.cancel()
            if answer.called:
                return
            if isinstance(result, TopicResult):
                answer.callback(result)
                return
            error = result.value
            if isinstance(error, BrokerError):
                answer.callback(TopicResult(name, error.error, str(error)))
                return
            self._term.context.log(f"request for topic {name} failed: {type(error).__name__}: {error}")
            if not isinstance(error, ConnectionLossError):
                self._term.fail(error)
            answer.callback(TopicResult(name, ErrorCode.NOT_CONTROLLER, str(error)))

        def timed_out() -> None:
            if not answer.called:
                answer.callback(TopicResult(name, ErrorCode.REQUEST_TIMED_OUT, "not done in time; it goes on"))

        timer = self._term.context.reactor.callLater(max(0.0, timeout_ms / 1000), timed_out)
        begin().addBoth(done)
        return answer

    @inlineCallbacks
    def _create(self, topic: NewTopic, validate_only: bool) -> Generator[Deferred[Any], Any, TopicResult]:
        term, settings = self._term, self._term.context.settings
        yield term.when_ready()
        random_below = term.context.random.randrange
        assignment = plan_topic(term.controller.image, topic, settings.topic_defaults(), random_below)
        config = dict(topic.configs)
        problem = self._overrides_error(config)
        if problem is not None:
            raise BrokerError(ErrorCode.INVALID_CONFIG, problem)
        factor = len(assignment[0])
        if validate_only:
            return TopicResult(topic.name, ErrorCode.NONE, None, "", len(assignment), factor)
        topic_id = term.looks.new_topic_id()
        content = topic_znode.TopicAssignment(topic_id, assignment)
        yield self._create_znodes(topic.name, content, config)
        term.event(lambda: term.controller.topic_read(image_of(topic.name, content), rules_of(config)))
        yield term.ask(lambda token: term.controller.topic_awaited(token, topic.name))
        return TopicResult(topic.name, ErrorCode.NONE, None, topic_id, len(assignment), factor)

    @inlineCallbacks
    def _create_znodes(
        self, name: str, content: topic_znode.TopicAssignment, config: Mapping[str, str]
    ) -> Generator[Deferred[Any], Any, None]:
        """The configuration's znode comes first in the one multi: whoever sees the topic can read its settings."""
        path = topic_znode.topic_path(name)
        topic_ops: list[Op] = [
            Create(path, topic_znode.encode(content)),
            Create(topic_znode.partitions_path(name), b""),
        ]
        config_path, config_data = config_znode.topic_path(name), config_znode.encode(config)
        config_op: Op = Create(config_path, config_data)
        while True:
            try:
                yield self._term.writer.write([config_op, *topic_ops])
                return
            except MultiError as error:
                if error.index == 0 and isinstance(error.error, NodeExistsError):
                    config_op = SetData(config_path, config_data)  # left over from a topic before
                elif error.index == 0 and isinstance(error.error, NoNodeError):
                    config_op = Create(config_path, config_data)
                elif isinstance(error.error, NodeExistsError):
                    raise BrokerError(ErrorCode.TOPIC_ALREADY_EXISTS, f"Topic '{name}' already exists.") from error
                else:
                    raise
            except ConnectionLossError:
                if (yield self._is_mine(path, content.topic_id)):
                    return

    @inlineCallbacks
    def _is_mine(self, path: str, topic_id: str) -> Generator[Deferred[Any], Any, bool]:
        """Did the write whose answer was lost happen?"""
        yield self._term.writer.connected()
        found = yield self._term.reader.get_all([path])
        return path in found and topic_id.encode() in found[path][0]

    @inlineCallbacks
    def _delete(self, topic: TopicToDelete) -> Generator[Deferred[Any], Any, TopicResult]:
        term = self._term
        yield term.when_ready()
        if not term.context.settings.delete_topic_enable:
            raise BrokerError(ErrorCode.TOPIC_DELETION_DISABLED, "Topic deletion is disabled.")
        topics = term.controller.image.topics
        name, topic_id = topic.name, topic.topic_id or ""
        if name is None:
            name = next((known.name for known in topics.values() if known.topic_id == topic_id), None)
            if name is None:
                raise BrokerError(ErrorCode.UNKNOWN_TOPIC_ID, "This server does not host this topic ID.")
        if name not in topics:
            raise BrokerError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "This server does not host this topic-partition.")
        if topic_id and topics[name].topic_id != topic_id:
            raise BrokerError(ErrorCode.UNKNOWN_TOPIC_ID, "This server does not host this topic ID.")
        topic_id = topics[name].topic_id
        yield term.writer.write_all([Create(admin_znode.delete_topic_path(name), b"")])
        term.event(lambda: term.controller.deletions_requested([name]))
        yield term.ask(lambda token: term.controller.deletion_awaited(token, name))
        return TopicResult(name, ErrorCode.NONE, None, topic_id)

    @inlineCallbacks
    def _add(self, wish: PartitionsToAdd, validate_only: bool) -> Generator[Deferred[Any], Any, TopicResult]:
        term, name = self._term, wish.name
        yield term.when_ready()
        while True:
            if name in term.controller.deletions:
                raise BrokerError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"The topic '{name}' is marked for deletion.")
            added: Assignment = plan_partitions(term.controller.image, name, wish.total, wish.assignments)
            if validate_only:
                break
            try:
                yield self._write_partitions(name, added)
                break
            except (BadVersionError, ConnectionLossError):
                term.looks.again()
                yield term.writer.connected()
                content = yield self._read(name)
                term.event(partial(term.controller.topic_read, image_of(name, content)))
                if all(content.partitions.get(number) == added[number] for number in added):
                    break
        if not validate_only:
            yield term.ask(lambda token: term.controller.topic_awaited(token, name))
        return TopicResult(name, ErrorCode.NONE, None, "", wish.total, len(next(iter(added.values()))))

    @inlineCallbacks
    def _write_partitions(self, name: str, added: Assignment) -> Generator[Deferred[Any], Any, None]:
        path = topic_znode.topic_path(name)
        found = yield self._term.reader.get_all([path])
        if path not in found:
            raise BrokerError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"The topic '{name}' does not exist.")
        data, stat = found[path]
        before = topic_znode.decode(path, data)
        if any(number in before.partitions for number in added):
            raise BadVersionError(path)
        content = before._replace(partitions={**before.partitions, **added})
        try:
            [written] = yield self._term.writer.write([SetData(path, topic_znode.encode(content), stat.version)])
        except MultiError as error:
            raise error.error from error
        self._term.event(lambda: self._term.controller.topic_read(image_of(name, content, written.mzxid)))

    @inlineCallbacks
    def _read(self, name: str) -> Generator[Deferred[Any], Any, topic_znode.TopicAssignment]:
        path = topic_znode.topic_path(name)
        found = yield self._term.reader.get_all([path])
        if path not in found:
            raise BrokerError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"The topic '{name}' does not exist.")
        return topic_znode.decode(path, found[path][0])


def _too_many(partitions_count: int) -> Deferred[TopicResult] | None:
    """The refusal of a request that would create so many partitions together; None if they are not too many."""
    if partitions_count <= PARTITIONS_CREATED_MAX:
        return None
    return _refuse(
        ErrorCode.POLICY_VIOLATION,
        f"{partitions_count} partitions in one request: at most {PARTITIONS_CREATED_MAX} are created at once",
    )


def _refuse(error: ErrorCode, message: str) -> Deferred[TopicResult]:
    return fail(BrokerError(error, message))
