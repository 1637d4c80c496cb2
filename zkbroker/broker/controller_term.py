"""One term of office: feeds the pure controller with what ZooKeeper and brokers say, and runs its effects."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred, inlineCallbacks, succeed
from twisted.python.failure import Failure

from zkbroker.broker.controller_channel import Subscribers, stale
from zkbroker.broker.controller_looks import Looks
from zkbroker.broker.controller_moves import MoveWriter
from zkbroker.broker.controller_reading import ClusterReader, rules_of
from zkbroker.broker.controller_settings import ControllerSettings
from zkbroker.broker.controller_zookeeper import OPS_COUNT_MAX, FencedWriter, Found, gather
from zkbroker.controller.cluster_image import TopicImage
from zkbroker.controller.controller import Controller
from zkbroker.controller.effects import (
    Answer,
    DeleteTopicNodes,
    DropDeletionMarker,
    EditReassignments,
    Effect,
    FenceBroker,
    Log,
    PushDelta,
    PushSnapshot,
    StateWrite,
    WriteMoves,
    WriteStates,
    shortened,
)
from zkbroker.controller.suspicion import Condemned
from zkbroker.model.clock import Clock
from zkbroker.model.cluster import ClusterDelta
from zkbroker.model.errors import BrokerError, ErrorCode
from zkbroker.zookeeper.client import (
    ConnectionLossError,
    Delete,
    NodeExistsError,
    Stat,
    ZooKeeperClient,
)
from zkbroker.zookeeper.znodes import admin as admin_znode
from zkbroker.zookeeper.znodes import config as config_znode
from zkbroker.zookeeper.znodes import notifications as notification_znode
from zkbroker.zookeeper.znodes import topics as topic_znode
from zkbroker.zookeeper.znodes.paths import PERSISTENT_PATHS

FOLLOW_UP_S = 0.002
"""After a fence: time for the news to leave this process before it settles what the fenced broker followed."""


class TermContext(NamedTuple):
    """What a term works with, handed on by the controller loop."""

    broker_id: int
    zk: ZooKeeperClient
    clock: Clock
    reactor: Any
    random: Any
    settings: ControllerSettings
    log: Callable[[str], None]
    failed: Callable[[BaseException], None]
    """The term cannot go on: resign."""
    verdicts: Callable[[], Sequence[Condemned]] = tuple
    """Brokers that are condemned already: the dead controller, for one, leads partitions too."""


class Term:
    """Controller from winning ``/controller`` until ``close``; nothing of it outlives that."""

    def __init__(
        self, context: TermContext, controller_epoch: int, epoch_version: int, quarantined: Collection[str]
    ) -> None:
        self.context = context
        self.controller = Controller(context.broker_id, controller_epoch, context.settings.rules())
        self.writer = FencedWriter(
            context.zk, epoch_version, context.reactor, lambda topic: self.looks.state_unreadable(topic)
        )
        self.reader = ClusterReader(context.zk, context.log)
        self._moves = MoveWriter(self.writer, self.reader, told=self._moved, failed=self.failed, log=context.log)
        self.is_ready = False
        """True once the cluster is read: before, requests wait (see ``when_ready``)."""
        self._awaiting: list[Deferred[None]] = []
        self.is_closed = False
        self.subscribers = Subscribers(
            broker_epoch=self.controller.image.broker_epoch,
            settled_epoch=self.controller.image.settled_epoch,
            snapshot=self._snapshot,
            look_again=lambda: self.looks.brokers.again(),
        )
        self._events: deque[Callable[[], list[Effect]]] = deque()
        self._running = False
        self._turn: Any = None
        self._timer: Any = None
        self._timer_at: float | None = None
        self._answers: list[Answer] = []
        self._tokens: dict[int, Deferred[Any]] = {}
        self._last_token = 0
        self.looks = Looks(
            self,
            zk=context.zk,
            reactor=context.reactor,
            clock=context.clock,
            random=context.random,
            quarantined=quarantined,
            log=context.log,
        )

    def __repr__(self) -> str:
        return f"Term({self.controller}, {self.subscribers})"

    # Life

    @inlineCallbacks
    def start(self) -> Generator[Deferred[Any], Any, None]:
        """Read everything, decide about all of it, watch. Tried again while the connection comes and goes."""
        while not self.is_closed:
            try:
                yield self._load()
            except ConnectionLossError:
                yield self.writer.connected()
                waiting: Deferred[None] = Deferred()
                self.context.reactor.callLater(0.05, waiting.callback, None)
                yield waiting
                continue
            self.looks.again()
            return

    @inlineCallbacks
    def _load(self) -> Generator[Deferred[Any], Any, None]:
        zk, now = self.context.zk, self.context.clock.monotonic
        started = now()
        stats: list[Stat | None] = yield gather([zk.exists(path) for path in PERSISTENT_PATHS])
        for path, stat in zip(PERSISTENT_PATHS, stats, strict=True):
            if stat is None:
                try:
                    yield zk.create(path, b"", make_parents=True)
                except NodeExistsError:
                    pass  # a starting broker creates the same
        # Side by side: after a crash of the controller each round trip is time without leaders.
        reads: list[Deferred[Any]] = [
            zk.children(config_znode.CHANGES_PATH),
            zk.children(notification_znode.ISR_CHANGE_PATH),
            self.reader.brokers(self.looks.brokers.again),
            zk.children(topic_znode.TOPICS_PATH),
            zk.children(admin_znode.DELETE_TOPICS_PATH),
        ]
        changes, stale_notes, brokers, names, deletions = yield gather(reads)
        self.looks.last_config_change = changes[-1] if changes else ""
        stale = [Delete(f"{notification_znode.ISR_CHANGE_PATH}/{name}") for name in stale_notes]
        self.writer.write_all(stale).addErrback(self.failed)
        topics = yield self.looks.decoded_topics(names)
        images = list(topics.values())
        reads = [self.reader.rules(list(topics)), self.reader.states(images, self.looks.topic_watches.__getitem__)]
        rules, (states, failed) = yield gather(reads)
        topics = {name: topic for name, topic in topics.items() if name not in failed}
        states = {partition: found for partition, found in states.items() if partition.topic in topics}
        wanted = [topic for topic in deletions if topic in topics or topic not in names]
        if self.is_closed:
            return
        self.is_ready = True
        self.event(lambda: self.controller.cluster_read(brokers, list(topics.values()), states, rules, wanted, now()))
        for verdict in self.context.verdicts():
            self.broker_condemned(verdict)
        self.context.log(
            f"controller epoch {self.controller.controller_epoch}: read {len(brokers)} brokers, {len(topics)} topics, "
            f"{len(states)} partition states in {(now() - started) * 1000:.0f} ms"
        )
        while self._awaiting:
            self._awaiting.pop(0).callback(None)

    def settings_changed(self, settings: ControllerSettings) -> None:
        """The broker's settings are other ones now."""
        self.context = self.context._replace(settings=settings)
        self.event(lambda: self.controller.rules_changed(settings.rules()))

    def topic_config_changed(self, topic: str, overrides: Mapping[str, str]) -> None:
        """A topic's settings are other ones now, perhaps only those that it inherits."""
        rules = rules_of(overrides)
        if self.is_ready and self.controller.image.rules.get(topic) != rules:
            self.event(lambda: self.controller.topic_rules_changed(topic, rules))

    def when_ready(self) -> Deferred[None]:
        """Fires once the cluster is read. Fails with BrokerError NOT_CONTROLLER if the term ends before."""
        if self.is_ready:
            return succeed(None)
        self._awaiting.append(waiting := Deferred[None]())
        return waiting

    def close(self, reason: str) -> None:
        """The office is lost or given up: nothing is decided or written any more."""
        if self.is_closed:
            return
        self.is_closed = True
        self.writer.close()
        self.looks.close()
        for call in (self._turn, self._timer):
            if call is not None and call.active():
                call.cancel()
        self._events.clear()
        self.subscribers.close(reason)
        tokens, self._tokens = self._tokens, {}
        awaiting, self._awaiting = self._awaiting, []
        for deferred in [*tokens.values(), *awaiting]:
            deferred.errback(BrokerError(ErrorCode.NOT_CONTROLLER, reason))

    def fail(self, error: BaseException) -> None:
        """An exception, a failed invariant, or proof that another controller is in office."""
        if not self.is_closed:
            self.context.failed(error)

    # Events and effects

    def event(self, decide: Callable[[], list[Effect]]) -> None:
        """Run one event of the controller and its effects; those that come meanwhile wait for their turn."""
        self._events.append(decide)
        if self._running:
            return
        self._running = True
        try:
            while self._events and not self.is_closed:
                try:
                    effects = self._events.popleft()()
                    for effect in shortened(effects):
                        self._perform(effect)
                except Exception as error:
                    self.fail(error)
                    return
        finally:
            self._running = False
        self._schedule()

    def ask(self, decide: Callable[[int], list[Effect]]) -> Deferred[Any]:
        """An event with an answer: ``decide`` gets the token. A BrokerError that it raises is the answer."""
        if self.is_closed:
            raise BrokerError(ErrorCode.NOT_CONTROLLER)
        self._last_token += 1
        token = self._last_token
        answer: Deferred[Any] = Deferred()
        self._tokens[token] = answer

        def guarded() -> list[Effect]:
            try:
                return decide(token)
            except BrokerError as error:
                self._tokens.pop(token, answer).errback(error)
                return []

        self.event(guarded)
        return answer

    def _perform(self, effect: Effect) -> None:
        match effect:
            case WriteStates():
                self._write(effect.writes)
            case WriteMoves():
                self._moves.write(effect)
            case EditReassignments():
                edited = self._moves.edit(effect)
                edited.addCallbacks(lambda _: self._reassignments_edited(effect), self.failed)
            case FenceBroker():
                first, rest = effect.writes[:OPS_COUNT_MAX], effect.writes[OPS_COUNT_MAX:]
                fenced = self.writer.fence_broker(effect.broker_id, effect.broker_epoch, first)
                fenced.addCallback(self._fenced, effect.broker_id, effect.broker_epoch, rest).addErrback(self.failed)
            case PushDelta():
                self.subscribers.push(effect)
            case PushSnapshot():
                self.subscribers.push_snapshot(effect.broker_id)
            case Answer():
                self._answers.append(effect)  # after the delta of this turn
            case DeleteTopicNodes():
                numbers = sorted(self.controller.image.topics[effect.topic].partitions)
                deleted = self.writer.delete_topic(effect.topic, numbers)
                deleted.addCallbacks(partial(self._topic_deleted, effect.topic), self.failed)
            case DropDeletionMarker():
                self.context.log(f"not deleting topic {effect.topic}: {effect.reason}")
                marker = Delete(admin_znode.delete_topic_path(effect.topic))
                self.writer.write_all([marker]).addErrback(self.failed)
            case Log():
                self.context.log(effect.line)

    def _moved(self, name: str, topic: TopicImage | None, found: list[Found], refusal: str) -> None:
        if not self.is_closed:
            self.event(lambda: self.controller.moves_found(name, topic, found, refusal))

    def _reassignments_edited(self, effect: EditReassignments) -> None:
        if not self.is_closed:
            self.controller.settling.moves.edited(effect.done)

    def _written(self, found: list[Found]) -> None:
        if not self.is_closed:
            self.event(lambda: self.controller.states_found(found))

    def _fenced(
        self, outcome: tuple[bool, list[Found]], broker_id: int, broker_epoch: int, rest: Sequence[StateWrite]
    ) -> None:
        if self.is_closed:
            return
        is_gone, found = outcome
        if not is_gone:
            unwritten = gather([self.writer.read_state(write) for write in rest])
            unwritten.addCallback(
                lambda states: self._written(list(zip([write.partition for write in rest], states, strict=True)))
            ).addErrback(self.failed)
        elif rest:
            self._write(rest)
        self.event(lambda: self.controller.broker_fenced(broker_id, broker_epoch, is_gone, found))
        self.flush()
        if is_gone:
            self.context.reactor.callLater(FOLLOW_UP_S, self._follow_up, broker_id)

    def _follow_up(self, broker_id: int) -> None:
        if not self.is_closed:
            self.event(lambda: self.controller.fence_followed_up(broker_id))

    def _write(self, writes: Sequence[StateWrite]) -> None:
        """Several multis at a time; brokers are told of each as soon as it is written."""
        for chunk in self.writer.write_states(writes):
            chunk.addCallbacks(self._written, self.failed)

    def broker_condemned(self, verdict: Condemned) -> None:
        """Its peers agree that it is dead. Before the cluster is read there is nothing to decide: then ``verdicts`` of
        the context are asked for."""
        if self.is_ready and not self.is_closed:
            self.event(lambda: self.controller.broker_condemned(verdict, self.context.clock.monotonic()))

    def _topic_deleted(self, topic: str, _: None) -> None:
        if not self.is_closed:
            self.context.log(f"topic {topic} is deleted")
            self.event(lambda: self.controller.topic_deleted(topic))

    def failed(self, failure: Failure) -> None:
        """``fail`` as an errback."""
        self.fail(failure.value or RuntimeError(str(failure)))

    def _schedule(self) -> None:
        if self.is_closed:
            return
        if self._turn is None:
            self._turn = self.context.reactor.callLater(0, self._end_turn)
        deadline = self.controller.next_deadline()
        if deadline != self._timer_at:
            if self._timer is not None and self._timer.active():
                self._timer.cancel()
            self._timer_at = deadline
            if deadline is not None:
                delay = max(0.0, deadline - self.context.clock.monotonic())
                self._timer = self.context.reactor.callLater(delay, self._time_passed)

    def _time_passed(self) -> None:
        self._timer_at = None
        self.event(lambda: self.controller.time_passed(self.context.clock.monotonic()))

    def _end_turn(self) -> None:
        """Tell the brokers, then those who asked: an answer never comes before the news that it is about."""
        self._turn = None
        answers, self._answers = self._answers, []
        try:
            news = self.controller.turn_ended()
        except Exception as error:
            self.fail(error)
            return
        if news:
            # Only news is an event: an event asks for another turn, and an idle controller must not turn for ever.
            self.event(lambda: news)
        if self.is_closed:
            return
        if self.is_ready:
            self.subscribers.image_changed()
        for answer in answers:
            waiting = self._tokens.pop(answer.token, None)
            if waiting is not None:
                waiting.callback(answer.result)

    def flush(self) -> None:
        """End the turn now, so that a new subscriber's snapshot is not followed by what it contains."""
        if self._turn is not None:
            if self._turn.active():
                self._turn.cancel()
            self._end_turn()

    def checked_broker(self, broker_id: int, broker_epoch: int) -> None:
        """Raises BrokerError STALE_BROKER_EPOCH for an incarnation before the registered one; a later one is legal."""
        known = self.controller.image.broker_epoch(broker_id)
        if known is not None and known > broker_epoch:
            raise stale(broker_id, broker_epoch, known)

    def _snapshot(self, broker_id: int) -> ClusterDelta:
        return self.controller.snapshot(broker_id)._replace(unreadable_topics=self.looks.unreadable_topics())
