"""The controller's decisions: each event, with the time, gives the effects to run. See ``effects`` for their order.

A partition is *settled* by comparing its committed state with what brokers, folders and requests say it should be.
At most one write per partition is under way; what happens meanwhile is judged when its outcome is known. So an
event never needs to know what else is going on: it marks partitions, and settling does the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from zkbroker.controller.balance import can_move, misplaced_leaders
from zkbroker.controller.changes import Changes
from zkbroker.controller.cluster_image import ClusterImage, FoundStates, TopicImage, TopicRules
from zkbroker.controller.deletions import Deletions, full_snapshot
from zkbroker.controller.effects import (
    Answer,
    DropDeletionMarker,
    Effect,
    Log,
    PushDelta,
    PushSnapshot,
    StateWrite,
    WriteStates,
    show_state,
)
from zkbroker.controller.elections import Election, elected, first_state, is_same_write, settled_state
from zkbroker.controller.isr_changes import judge_proposal
from zkbroker.controller.office import ControllerRules, Deposed, TopicFailed
from zkbroker.controller.waits import AlterWait, QueuedProposal, StateWriting, Wait, WaitKind, Waits
from zkbroker.model.channel import AlterPartitionRequest, AlterPartitionResponse, Applied
from zkbroker.model.cluster import BrokerRegistration, ClusterDelta
from zkbroker.model.errors import BrokerError, ErrorCode
from zkbroker.model.topics import PartitionState, TopicPartition

FIRST_BALANCE_AFTER_S = 5.0
"""After taking office, as in Kafka: long enough that brokers of a starting cluster have come."""


class Controller:
    """One term of office. Every public method in the past tense is an event."""

    def __init__(self, controller_id: int, controller_epoch: int, rules: ControllerRules) -> None:
        self.controller_id = controller_id
        self.controller_epoch = controller_epoch
        self.rules = rules
        self.image = ClusterImage()
        self._changes = Changes()
        self.deletions = Deletions(self.image, self._changes, is_allowed=rules.delete_topics)
        self._writes: dict[TopicPartition, StateWriting] = {}
        """Under way, at most one per partition; its outcome comes with ``states_found``."""
        self._unsettled: dict[TopicPartition, None] = {}
        self._preferred: dict[TopicPartition, None] = {}
        """The preferred leader was asked for; forgotten when the partition is next settled."""
        self._proposals: dict[TopicPartition, list[QueuedProposal]] = {}
        self._returning: dict[int, BrokerRegistration] = {}
        """Brokers that restarted: dead until every partition of theirs is settled without them, then new."""
        self._waits = Waits()
        self._effects: list[Effect] = []
        self._balance_at: float | None = None

    def __repr__(self) -> str:
        return (
            f"Controller({self.controller_id}, epoch={self.controller_epoch}, {self.image}, "
            f"writes={len(self._writes)}, deletions={len(self.deletions)})"
        )

    def next_deadline(self) -> float | None:
        """When ``time_passed`` wants to be called, in the seconds of ``now``."""
        return self._balance_at

    # Brokers

    def cluster_read(
        self,
        brokers: Sequence[BrokerRegistration],
        topics: Sequence[TopicImage],
        states: FoundStates,
        rules: Mapping[str, TopicRules],
        deletions: Sequence[str],
        now: float,
    ) -> list[Effect]:
        """The first event of a term: everything in ZooKeeper; ``states`` with the mzxid of their znodes.

        An ISR member whose registration is younger than the state has restarted since and nobody noticed. It is
        treated as bounced, so that no leadership is resumed in a leader epoch from before the restart.
        """
        for broker in sorted(brokers):
            self.image.brokers[broker.broker_id] = broker
        self.image.rules.update(rules)
        for topic in topics:
            self._take_topic(topic, states)
        self._changes.clear()  # snapshots tell it all
        if self.rules.auto_rebalance:
            self._balance_at = now + FIRST_BALANCE_AFTER_S
        self._effects += self.deletions.requested(deletions)
        return self._settle()

    def brokers_changed(self, brokers: Sequence[BrokerRegistration], now: float) -> list[Effect]:
        """All live brokers, read again: finds who is new, dead, bounced or changed."""
        present = {broker.broker_id: broker for broker in brokers}
        for broker_id in sorted(self._returning.keys() - present.keys()):
            del self._returning[broker_id]
            self._unsettle(self.image.partitions_of(broker_id))
        for broker_id in sorted(self.image.brokers.keys() - present.keys()):
            self._broker_gone(broker_id)
        for broker_id, broker in sorted(present.items()):
            known = self.image.brokers.get(broker_id)
            if broker_id in self._returning:
                self._returning[broker_id] = broker
            elif known is None:
                # a write that was decided while its last incarnation lived may still be under way
                self._return(broker, [p for p, write in self._writes.items() if broker_id in write.state.isr])
            elif broker.epoch > known.epoch:
                self._broker_gone(broker_id)
                self._return(broker, self.image.partitions_of(broker_id))
            elif broker != known and broker.epoch == known.epoch:
                self.image.brokers[broker_id] = broker
                self._changes.broker(broker_id)
        return self._settle()

    def _broker_gone(self, broker_id: int) -> None:
        del self.image.brokers[broker_id]
        self.image.shutting_down.pop(broker_id, None)
        self.image.offline_replicas.pop(broker_id, None)
        self._changes.broker_gone(broker_id)
        self._unsettle(self.image.partitions_of(broker_id))
        self._effects += self.deletions.broker_gone()

    def _return(self, broker: BrokerRegistration, partitions: Iterable[TopicPartition]) -> None:
        """It arrives when each of ``partitions`` is settled without its former incarnation."""
        self._returning[broker.broker_id] = broker
        self._waits.add(Wait(WaitKind.RETURN, broker.broker_id, partitions))

    def _broker_arrived(self, broker: BrokerRegistration) -> None:
        self.image.brokers[broker.broker_id] = broker
        self._changes.broker(broker.broker_id)
        self._unsettle(self.image.partitions_of(broker.broker_id))

    def log_dir_failed(self, broker_id: int, partitions: Iterable[TopicPartition], reason: str) -> list[Effect]:
        """These replicas of a live broker lost their folder."""
        if broker_id in self.image.brokers:
            failed = dict.fromkeys(partitions, reason)
            self.image.offline_replicas.setdefault(broker_id, {}).update(failed)
            self._unsettle(failed)
        return self._settle()

    def log_dir_event_noted(self, broker_id: int) -> list[Effect]:
        """A broker told through ``/log_dir_event_notification`` that a folder failed, not which replicas it held:
        a new snapshot makes it say so in its receipt."""
        return [PushSnapshot(broker_id)] if broker_id in self.image.brokers else []

    def delta_applied(self, broker_id: int, broker_epoch: int, applied: Applied) -> list[Effect]:
        """A broker's receipt. That of a snapshot names all replicas that cannot be served, others only new ones."""
        if self.image.broker_epoch(broker_id) != broker_epoch or applied.controller_epoch != self.controller_epoch:
            return []
        if applied.number == 0:
            self._unsettle(self.image.offline_replicas.pop(broker_id, {}))
        if not applied.failures:
            return self._settle()
        failed = self.image.offline_replicas.setdefault(broker_id, {})
        for partition, reason in applied.failures:
            if failed.get(partition) != reason:  # a folder that is offline is reported with every state of its replicas
                failed[partition] = reason
                self._effects.append(Log(f"broker {broker_id} cannot serve {partition}: {reason}"))
        self._unsettle(failed)
        return self._settle()

    def shutdown_requested(self, token: int, broker_id: int, broker_epoch: int) -> list[Effect]:
        """A broker wants to stop: its leaderships move, it leaves ISRs. Answered with what it still leads (of the
        partitions with more than one replica). Raises BrokerError STALE_BROKER_EPOCH."""
        if self.image.broker_epoch(broker_id) != broker_epoch:
            raise BrokerError(ErrorCode.STALE_BROKER_EPOCH, f"broker {broker_id} is not registered as {broker_epoch}")
        self.image.shutting_down[broker_id] = broker_epoch
        hosted = self.image.partitions_of(broker_id)
        partitions = [tp for tp in hosted if (place := self.image.placement(tp)) and len(place.replicas) > 1]
        self._unsettle(partitions)
        self._waits.add(Wait(WaitKind.SHUTDOWN, token, partitions, broker_id))
        return self._settle()

    # Topics

    def topic_read(
        self, topic: TopicImage, rules: TopicRules | None = None, states: FoundStates | None = None
    ) -> list[Effect]:
        """A topic znode appeared or changed. Partitions are only ever added to; other edits by hand are ignored."""
        if rules is not None:
            self.image.rules[topic.name] = rules
        known = self.image.topics.get(topic.name)
        if known is not None and known.topic_id != topic.topic_id:
            self._remove_topic(topic.name)
            known = None
        if known is None:
            self._take_topic(topic, states or {})
            return self._settle()
        if topic.name in self.deletions:
            return []
        added = {number: topic.partitions[number] for number in topic.partitions if number not in known.partitions}
        if any(topic.partitions.get(number) != placement for number, placement in known.partitions.items()):
            self._effects.append(
                Log(f"topic {topic.name}: its znode moves or drops partitions; only additions are followed")
            )
        self.image.topics[topic.name] = known._replace(partitions={**known.partitions, **added})
        self._unsettle(TopicPartition(topic.name, number) for number in sorted(added))
        return self._settle()

    def _take_topic(self, topic: TopicImage, states: FoundStates) -> None:
        self.image.topics[topic.name] = topic
        for partition in self.image.partitions(topic.name):
            self._unsettled[partition] = None
            if partition in states:
                self._adopt(partition, states[partition][0])
                self.image.suspect_restarted(partition, states[partition][1])

    def topic_unreadable(self, topic: str) -> list[Effect]:
        """A state of it does not decode: all is left as it is, and nobody hears that it is gone."""
        self._remove_topic(topic, is_gone=False)
        return self._settle()

    def topic_removed(self, topic: str) -> list[Effect]:
        """The topic znode is gone: deleted by this controller, or by hand (then no data is deleted)."""
        if topic in self.deletions and not self.deletions.is_clearing(topic):
            self._effects.append(DropDeletionMarker(topic, "the topic's znode is gone"))
        self._remove_topic(topic)
        return self._settle()

    def topic_deleted(self, topic: str) -> list[Effect]:
        """``DeleteTopicNodes`` is done."""
        if topic in self.deletions:
            self._remove_topic(topic)
        return self._settle()

    def _remove_topic(self, topic: str, *, is_gone: bool = True) -> None:
        image = self.image.topics.get(topic)
        if image is None:
            return
        partitions = self.image.partitions(topic)
        del self.image.topics[topic]
        self.image.rules.pop(topic, None)
        if is_gone and not self.deletions.hides(topic):
            self._changes.topic_gone(topic, image.topic_id)
        for partition in partitions:
            self.image.states.pop(partition, None)
            for failed in self.image.offline_replicas.values():
                failed.pop(partition, None)
            write = self._writes.pop(partition, None)
            if write is not None and write.proposal is not None:
                self._answer_proposal(write.proposal, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
            self._unsettled[partition] = None
        self._effects += self.deletions.finished(topic)

    def topic_rules_changed(self, topic: str, rules: TopicRules) -> list[Effect]:
        """The topic's configuration was read again. Allowing unclean elections holds one at once, as in Kafka."""
        if topic not in self.image.topics:
            return []
        self.image.rules[topic] = rules
        self._unsettle(self.image.partitions(topic))
        return self._settle()

    def topic_awaited(self, token: int, topic: str) -> list[Effect]:
        """Answer when every partition of the topic has a state (or the topic is gone)."""
        missing = [partition for partition in self.image.partitions(topic) if partition not in self.image.states]
        self._waits.add(Wait(WaitKind.CREATED, token, missing))
        return self._settle()

    # Deletion

    def deletions_requested(self, topics: Sequence[str]) -> list[Effect]:
        """The children of ``/admin/delete_topics``."""
        self._effects += self.deletions.requested(topics)
        for topic in topics:
            self._unsettle(self.image.partitions(topic))
        return self._settle()

    def deletion_awaited(self, token: int, topic: str) -> list[Effect]:
        """Answer when the topic is gone, or when only replicas on dead brokers are left to delete."""
        self._effects += self.deletions.awaited(token, topic)
        return self._settle()

    def replica_deleted(
        self, broker_id: int, broker_epoch: int, partition: TopicPartition, topic_id: str
    ) -> list[Effect]:
        """A broker deleted the data it was ordered to delete."""
        if self.image.broker_epoch(broker_id) == broker_epoch:
            self._effects += self.deletions.replica_deleted(broker_id, partition, topic_id)
        return self._settle()

    # ISR changes and writes

    def isr_change_requested(self, token: int, request: AlterPartitionRequest) -> list[Effect]:
        """AlterPartition: every proposal is judged on its own, the answer comes when all are decided."""
        if self.image.broker_epoch(request.broker_id) != request.broker_epoch:
            return [Answer(token, AlterPartitionResponse(ErrorCode.STALE_BROKER_EPOCH))]
        if not request.proposals:
            return [Answer(token, AlterPartitionResponse(ErrorCode.NONE))]
        wait = AlterWait(token, request.broker_id, request.broker_epoch, len(request.proposals))
        for index, proposal in enumerate(request.proposals):
            partition = TopicPartition(proposal.topic, proposal.partition)
            self._proposals.setdefault(partition, []).append(QueuedProposal(wait, index, proposal))
            self._unsettled[partition] = None
        return self._settle()

    def states_found(self, found: Sequence[tuple[TopicPartition, PartitionState | None]]) -> list[Effect]:
        """What ZooKeeper holds after a write was tried, whether it was this write or another's; None: no znode.

        Raises Deposed for a state written by a later controller.
        """
        for partition, state in found:
            topic = self.image.topics.get(partition.topic)
            if topic is None or (state is not None and state.topic_id != topic.topic_id):
                continue  # of a topic that is gone; its writes were forgotten with it
            write = self._writes.pop(partition, None)
            self._unsettled[partition] = None
            if state is not None and state.controller_epoch > self.controller_epoch:
                raise Deposed(f"{partition} was written by controller epoch {state.controller_epoch}")
            if state is None:
                known = self.image.states.get(partition)
                if known is not None:
                    self.image.states[partition] = known._replace(partition_epoch=-1)  # to be created again
            else:
                self._adopt(partition, state)
            if write is None:
                continue
            if state is not None and is_same_write(write.state, state):
                self.image.suspects.pop(partition, None)
                if write.proposal is not None:
                    self._answer_proposal(write.proposal, ErrorCode.NONE)
                else:
                    self._effects.append(Log(f"{partition} {show_state(write.state)}"))
            elif write.proposal is not None:
                self._proposals.setdefault(partition, []).insert(0, write.proposal)
        return self._settle()

    def _adopt(self, partition: TopicPartition, state: PartitionState) -> None:
        """Take a state as it was found in ZooKeeper into the image; the assignment is the topic znode's."""
        placement = self.image.placement(partition)
        if placement is None:
            return
        topic_id = self.image.topics[partition.topic].topic_id
        state = state._replace(
            topic_id=topic_id,
            replicas=placement.replicas,
            adding=placement.adding,
            removing=placement.removing,
        )
        if self.image.states.get(partition) != state:
            self.image.states[partition] = state
            self._changes.partition(partition)

    def _answer_proposal(self, queued: QueuedProposal, error: ErrorCode) -> None:
        proposal = queued.proposal
        state = self.image.states.get(TopicPartition(proposal.topic, proposal.partition))
        response = queued.answer(error, state if error is ErrorCode.NONE else None)
        if response is not None:
            self._effects.append(Answer(queued.wait.token, response))

    # Preferred leaders

    def preferred_election_requested(self, partitions: Iterable[TopicPartition]) -> list[Effect]:
        """An admin asks for the preferred leaders of these partitions."""
        for partition in partitions:
            if partition in self.image.states:
                self._preferred[partition] = None
                self._unsettled[partition] = None
        return self._settle()

    def time_passed(self, now: float) -> list[Effect]:
        """``next_deadline`` is reached: balance leaders."""
        if self._balance_at is None or now < self._balance_at:
            return []
        self._balance_at = now + self.rules.imbalance_interval_s
        return self.preferred_election_requested(misplaced_leaders(self.image, self.rules.imbalance_percentage))

    def snapshot(self, broker_id: int) -> ClusterDelta:
        """Everything, for a broker that subscribes: with what it has still to delete."""
        return full_snapshot(self.image, self.controller_id, self.controller_epoch, self.deletions, broker_id)

    def turn_ended(self) -> list[Effect]:
        """What changed since the last call, as one delta; the shell calls it once per turn."""
        if not self._changes:
            return []
        delta, orders = self._changes.take(self.image, self.controller_id, self.controller_epoch, self.deletions.hides)
        return [PushDelta(delta, orders)]

    # Settling

    def _unsettle(self, partitions: Iterable[TopicPartition]) -> None:
        for partition in partitions:
            self._unsettled[partition] = None

    def _settle(self) -> list[Effect]:
        """Decide about every marked partition without a write under way, until nothing is left to decide."""
        writes: list[StateWrite] = []
        while True:
            unsettled, self._unsettled = self._unsettled, {}
            for partition in unsettled:
                if partition in self._writes:
                    continue  # its outcome marks the partition again
                try:
                    write = self._decide(partition)
                except Exception as error:
                    raise TopicFailed(partition.topic, error) from error
                if write is not None:
                    writes.append(write)
                elif self.image.placement(partition) is None:
                    self._waits.removed(partition)
                else:
                    self._waits.settled(partition, partition in self.image.states)
            for wait in self._waits.take_finished():
                self._finish(wait)
            if not self._unsettled:
                break
        effects, self._effects = self._effects, []
        if writes:
            effects.append(WriteStates(tuple(writes)))
        return effects

    def _finish(self, wait: Wait) -> None:
        if wait.kind is WaitKind.RETURN:
            broker = self._returning.pop(wait.token, None)
            if broker is not None:
                self._broker_arrived(broker)
        elif wait.kind is WaitKind.SHUTDOWN:
            led = tuple(
                partition
                for partition in wait.asked
                if (state := self.image.states.get(partition)) is not None and state.leader == wait.broker_id
            )
            self._effects.append(Answer(wait.token, led))
        else:
            self._effects.append(Answer(wait.token, None))

    def _decide(self, partition: TopicPartition) -> StateWrite | None:
        """The next write of this partition, put under way; None when its state is right."""
        placement = self.image.placement(partition)
        if placement is None or self.deletions.hides(partition.topic):
            self.image.suspects.pop(partition, None)
            self._preferred.pop(partition, None)
            for queued in self._proposals.pop(partition, ()):
                self._answer_proposal(queued, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
            return None
        state = self.image.states.get(partition)
        if state is None:
            first = first_state(
                self.image.topics[partition.topic].topic_id,
                placement.replicas,
                self.controller_epoch,
                lambda broker: self.image.is_online(broker, partition),
                adding=placement.adding,
                removing=placement.removing,
            )
            if first is not None:
                return self._write(partition, first, -1)
        else:
            after = self._settled(partition, state)
            if after is not None:
                return self._write(partition, after, state.partition_epoch)
        queue = self._proposals.get(partition, [])
        while queue:
            queued = queue.pop(0)
            verdict = judge_proposal(self.image, queued.wait.broker_id, queued.proposal, self.controller_epoch)
            if isinstance(verdict, PartitionState) and state is not None:
                return self._write(partition, verdict, state.partition_epoch, queued)
            if isinstance(verdict, ErrorCode):
                self._answer_proposal(queued, verdict)
        self._proposals.pop(partition, None)
        return None

    def _settled(self, partition: TopicPartition, state: PartitionState) -> PartitionState | None:
        suspects = self.image.suspects.get(partition, ())
        after = settled_state(
            state,
            controller_epoch=self.controller_epoch,
            alive=lambda broker: broker not in suspects and self.image.is_alive(broker, partition),
            shutting_down=self.image.shutting_down.__contains__,
            # a member that restarted is about to be back: it must not cost its records
            unclean=not suspects
            and self._returning.keys().isdisjoint(state.isr)
            and self.image.unclean(partition.topic, self.rules.unclean),
        )
        if after is None and suspects:
            del self.image.suspects[partition]
            self._changes.unsuspected(partition)
            return self._settled(partition, state)
        if after is None and partition in self._preferred and can_move(self.image, partition):
            election = Election(state.replicas[0], state.isr, state.recovering)
            after = elected(state, election, self.controller_epoch, "preferred leader")
        if after is None:
            self._preferred.pop(partition, None)
        return after

    def _write(
        self,
        partition: TopicPartition,
        state: PartitionState,
        expected_version: int,
        proposal: QueuedProposal | None = None,
    ) -> StateWrite:
        self._writes[partition] = StateWriting(state, proposal)
        return StateWrite(partition, state, expected_version)
