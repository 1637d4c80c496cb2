"""The controller's decisions: each event, with the time, gives the effects to run. See ``effects`` for their order.

A partition is *settled* by comparing its committed state with what brokers, folders and requests say it should be.
At most one write per partition is under way; what happens meanwhile is judged when its outcome is known. So an
event never needs to know what else is going on: it marks partitions, and settling does the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from zkbroker.controller.admin_events import AdminEvents
from zkbroker.controller.balance import misplaced_leaders
from zkbroker.controller.changes import Changes
from zkbroker.controller.cluster_image import ClusterImage, FoundStates, TopicImage, TopicRules
from zkbroker.controller.deletions import Deletions, full_snapshot
from zkbroker.controller.effects import (
    Answer,
    DropDeletionMarker,
    Effect,
    FenceBroker,
    Log,
    PushDelta,
    PushSnapshot,
    WriteStates,
)
from zkbroker.controller.explaining import leaderless_lines
from zkbroker.controller.fencing import Fenced
from zkbroker.controller.office import ControllerRules
from zkbroker.controller.settling import Settling
from zkbroker.controller.suspicion import Condemned
from zkbroker.controller.waits import AlterWait, QueuedProposal, Wait, WaitKind
from zkbroker.model.channel import AlterPartitionRequest, AlterPartitionResponse, Applied
from zkbroker.model.cluster import ALL_LOSSY, BrokerRegistration, ClusterDelta
from zkbroker.model.complaints import Word
from zkbroker.model.errors import BrokerError, ErrorCode
from zkbroker.model.topics import NO_LEADER, PartitionState, TopicPartition

FIRST_BALANCE_AFTER_S = 5.0
"""After taking office, as in Kafka: long enough that brokers of a starting cluster have come."""


class Controller(AdminEvents):
    """One term of office. Every public method in the past tense is an event; ``AdminEvents`` has those in which
    administrators ask for something."""

    def __init__(self, controller_id: int, controller_epoch: int, rules: ControllerRules) -> None:
        self.controller_id = controller_id
        self.controller_epoch = controller_epoch
        self.rules = rules
        self.image = ClusterImage()
        self.image.min_insync_replicas_default = rules.min_insync_replicas
        self._changes = Changes()
        self.deletions = Deletions(self.image, self._changes, is_allowed=rules.delete_topics)
        self.settling = Settling(self.image, self._changes, self.deletions, controller_epoch, rules)
        self._balance_at: float | None = None

    def __repr__(self) -> str:
        return (
            f"Controller({self.controller_id}, epoch={self.controller_epoch}, {self.image}, "
            f"writes={len(self.settling.writes)}, deletions={len(self.deletions)})"
        )

    def next_deadline(self) -> float | None:
        """When ``time_passed`` wants to be called, in the seconds of ``now``."""
        brokers = self.image.brokers
        waiting = [fenced.held_until for broker_id, fenced in self.image.fenced.items() if broker_id not in brokers]
        others = (self._balance_at, self.settling.complaints.next_deadline())
        return min((at for at in (*waiting, *others) if at is not None), default=None)

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
        self.settling.effects += self.deletions.requested(deletions)
        effects = self.settling.settle()
        return [*(Log(line) for line in leaderless_lines(self.image, self.settling.writes)), *effects]

    def brokers_changed(self, brokers: Sequence[BrokerRegistration], now: float) -> list[Effect]:
        """All live brokers, read again: finds who is new, dead, bounced or changed."""
        present = {broker.broker_id: broker for broker in brokers if not self._is_fenced_one(broker)}
        for broker_id in sorted(self.settling.returning.keys() - present.keys()):
            del self.settling.returning[broker_id]
            self.settling.unsettle(self.image.partitions_of(broker_id))
        for broker_id in sorted(self.image.brokers.keys() - present.keys()):
            self._broker_gone(broker_id)
        for broker_id, broker in sorted(present.items()):
            known = self.image.brokers.get(broker_id)
            if broker_id in self.settling.returning:
                self.settling.returning[broker_id] = broker
            elif known is None and self.image.fenced.pop(broker_id, None) is not None:
                # partitions that were not moved still count on its former incarnation
                self.settling.unsettle(self.image.partitions_of(broker_id))
                self._return(broker, self.image.partitions_of(broker_id))
            elif known is None:
                # a write that was decided while its last incarnation lived may still be under way
                self._return(broker, [p for p, write in self.settling.writes.items() if write.names(broker_id)])
            elif broker.epoch > known.epoch:
                self.image.fenced.pop(broker_id, None)
                self._broker_gone(broker_id)
                self._return(broker, self.image.partitions_of(broker_id))
            elif broker != known and broker.epoch == known.epoch:
                self.image.brokers[broker_id] = broker
                self._changes.broker(broker_id)
                self.settling.unsettle(self._settled_losses(broker, known))
        return self.settling.settle()

    def _settled_losses(self, broker: BrokerRegistration, known: BrokerRegistration) -> list[TopicPartition]:
        """What came off a broker's list of lossy replicas. A thousand come off one after the other."""
        changed = sorted({*broker.lossy} ^ {*known.lossy})
        if ALL_LOSSY in changed:
            return self.image.partitions_of(broker.broker_id)
        named = (TopicPartition(lossy.topic, lossy.partition) for lossy in changed)
        return [partition for partition in named if self.image.placement(partition) is not None]

    def broker_condemned(self, verdict: Condemned, now: float) -> list[Effect]:
        """Its peers agree that it is dead: fence it now, as the end of its session would (rule 3), if any partition is
        better off (rule 2). Said again and again while the evidence lasts."""
        broker_id, epoch = verdict.suspect.broker_id, verdict.suspect.broker_epoch
        if self.image.broker_epoch(broker_id) != epoch or broker_id in self.image.fenced:
            return []
        held_until = now if verdict.is_certain else now + self.rules.session_timeout_s
        self.image.fenced[broker_id] = Fenced(epoch, verdict.reason, held_until, verdict.is_certain)
        if not verdict.is_certain and not self.settling.gains(broker_id):
            del self.image.fenced[broker_id]
            return []
        # Partitions that nobody leads now come first; the others when those are led again.
        hosted = self.image.partitions_of(broker_id)
        leaderless = [partition for partition in hosted if self._led_by(partition) == broker_id]
        self.settling.unsettle(leaderless or hosted)
        effects = [Log(f"fencing broker {broker_id} (epoch {epoch}): {verdict.reason}"), *self.settling.settle()]
        writes = tuple(write for effect in effects if isinstance(effect, WriteStates) for write in effect.writes)
        effects = [effect for effect in effects if not isinstance(effect, WriteStates)]
        return [*effects, FenceBroker(broker_id, epoch, writes)]

    def _is_fenced_one(self, broker: BrokerRegistration) -> bool:
        """It was read before its registration was deleted, and is told of after."""
        fenced = self.image.fenced.get(broker.broker_id)
        return fenced is not None and broker.epoch <= fenced.broker_epoch and broker.broker_id not in self.image.brokers

    def _led_by(self, partition: TopicPartition) -> int:
        state = self.image.states.get(partition)
        return NO_LEADER if state is None else state.leader

    def broker_fenced(
        self,
        broker_id: int,
        broker_epoch: int,
        is_gone: bool,
        found: Sequence[tuple[TopicPartition, PartitionState | None]],
    ) -> list[Effect]:
        """``FenceBroker`` ended, and ZooKeeper holds that. Not ``is_gone``: the registration is still there, nothing
        was written."""
        self.settling.states_found(found)
        if self.image.broker_epoch(broker_id) == broker_epoch:
            if is_gone:
                self._forget_broker(broker_id)
            elif self.image.fenced.pop(broker_id, None) is not None:
                self.settling.effects.append(Log(f"broker {broker_id} (epoch {broker_epoch}) could not be fenced"))
                self.settling.unsettle(self.image.partitions_of(broker_id))
        return self.settling.settle()

    def fence_followed_up(self, broker_id: int) -> list[Effect]:
        """Brokers were told who leads now what the fenced one led: settle what it followed."""
        self.settling.unsettle(self.image.partitions_of(broker_id))
        self.settling.effects += self.deletions.broker_gone()
        return self.settling.settle()

    def _forget_broker(self, broker_id: int) -> None:
        del self.image.brokers[broker_id]
        self.image.shutting_down.pop(broker_id, None)
        self.image.offline_replicas.pop(broker_id, None)
        self.settling.complaints.broker_gone(broker_id)
        self._changes.broker_gone(broker_id)

    def _broker_gone(self, broker_id: int) -> None:
        self._forget_broker(broker_id)
        self.settling.unsettle(self.image.partitions_of(broker_id))
        self.settling.effects += self.deletions.broker_gone()

    def _return(self, broker: BrokerRegistration, partitions: Iterable[TopicPartition]) -> None:
        """It arrives when each of ``partitions`` is settled without its former incarnation."""
        self.settling.returning[broker.broker_id] = broker
        self.settling.waits.add(Wait(WaitKind.RETURN, broker.broker_id, partitions))

    def complained(self, broker_id: int, broker_epoch: int, word: Word, now: float) -> list[Effect]:
        """All that a broker has to complain of at this moment; said again while it lasts."""
        self.settling.unsettle(self.settling.complaints.said(broker_id, broker_epoch, word, now))
        return self.settling.settle()

    def log_dir_failed(self, broker_id: int, partitions: Iterable[TopicPartition], reason: str) -> list[Effect]:
        """These replicas of a live broker lost their folder."""
        if broker_id in self.image.brokers:
            failed = dict.fromkeys(partitions, reason)
            self.image.offline_replicas.setdefault(broker_id, {}).update(failed)
            self.settling.unsettle(failed)
        return self.settling.settle()

    def log_dir_event_noted(self, broker_id: int) -> list[Effect]:
        """A broker told through ``/log_dir_event_notification`` that a folder failed, not which replicas it held:
        a new snapshot makes it say so in its receipt."""
        return [PushSnapshot(broker_id)] if broker_id in self.image.brokers else []

    def delta_applied(self, broker_id: int, broker_epoch: int, applied: Applied) -> list[Effect]:
        """A broker's receipt. That of a snapshot names all replicas that cannot be served, others only new ones."""
        if self.image.broker_epoch(broker_id) != broker_epoch or applied.controller_epoch != self.controller_epoch:
            return []
        if applied.number == 0:
            self.settling.unsettle(self.image.offline_replicas.pop(broker_id, {}))
        if not applied.failures:
            return self.settling.settle()
        failed = self.image.offline_replicas.setdefault(broker_id, {})
        for partition, reason in applied.failures:
            if failed.get(partition) != reason:  # a folder that is offline is reported with every state of its replicas
                failed[partition] = reason
                self.settling.effects.append(Log(f"broker {broker_id} cannot serve {partition}: {reason}"))
        self.settling.unsettle(failed)
        return self.settling.settle()

    def shutdown_requested(self, token: int, broker_id: int, broker_epoch: int) -> list[Effect]:
        """A broker wants to stop: its leaderships move, it leaves ISRs. Answered with what it still leads (of the
        partitions with more than one replica). Raises BrokerError STALE_BROKER_EPOCH."""
        if self.image.broker_epoch(broker_id) != broker_epoch:
            raise BrokerError(ErrorCode.STALE_BROKER_EPOCH, f"broker {broker_id} is not registered as {broker_epoch}")
        self.image.shutting_down[broker_id] = broker_epoch
        hosted = self.image.partitions_of(broker_id)
        partitions = [tp for tp in hosted if (place := self.image.placement(tp)) and len(place.replicas) > 1]
        self.settling.unsettle(partitions)
        self.settling.waits.add(Wait(WaitKind.SHUTDOWN, token, partitions, broker_id))
        return self.settling.settle()

    # Topics

    def topic_read(
        self, topic: TopicImage, rules: TopicRules | None = None, states: FoundStates | None = None
    ) -> list[Effect]:
        """A topic znode appeared or changed. Partitions are only ever added to; other edits by hand are ignored."""
        if rules is not None:
            self.image.rules[topic.name] = rules
        if topic.name in self.settling.moves.unreadable:
            del self.settling.moves.unreadable[topic.name]
            self.settling.unsettle(self.image.partitions(topic.name))
        known = self.image.topics.get(topic.name)
        if known is not None and known.topic_id != topic.topic_id:
            self._remove_topic(topic.name)
            known = None
        if known is None:
            self._take_topic(topic, states or {})
            return self.settling.settle()
        if topic.name in self.deletions or 0 <= topic.mzxid <= known.mzxid:
            return []
        added = {number: topic.partitions[number] for number in topic.partitions if number not in known.partitions}
        is_written = any(partition.topic == topic.name for partition in self.settling.writes)
        if not is_written and any(topic.partitions.get(number) != row for number, row in known.partitions.items()):
            self.settling.effects.append(
                Log(f"topic {topic.name}: its znode moves or drops partitions; only additions are followed")
            )
        mzxid = max(known.mzxid, topic.mzxid)
        self.image.topics[topic.name] = known._replace(partitions={**known.partitions, **added}, mzxid=mzxid)
        self.settling.unsettle(TopicPartition(topic.name, number) for number in sorted(added))
        return self.settling.settle()

    def _take_topic(self, topic: TopicImage, states: FoundStates) -> None:
        self.image.topics[topic.name] = topic
        for partition in self.image.partitions(topic.name):
            self.settling.unsettle([partition])
            if partition in states:
                self.settling.adopt(partition, states[partition][0])
                self.image.suspect_restarted(partition, states[partition][1])

    def topic_unreadable(self, topic: str) -> list[Effect]:
        """A state of it does not decode: all is left as it is, and nobody hears that it is gone."""
        self._remove_topic(topic, is_gone=False)
        return self.settling.settle()

    def topic_removed(self, topic: str) -> list[Effect]:
        """The topic znode is gone: deleted by this controller, or by hand (then no data is deleted)."""
        if topic in self.deletions and not self.deletions.is_clearing(topic):
            self.settling.effects.append(DropDeletionMarker(topic, "the topic's znode is gone"))
        self._remove_topic(topic)
        return self.settling.settle()

    def topic_deleted(self, topic: str) -> list[Effect]:
        """``DeleteTopicNodes`` is done."""
        if topic in self.deletions:
            self._remove_topic(topic)
        return self.settling.settle()

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
            for failed in self.image.offline_replicas.values():
                failed.pop(partition, None)
            self.settling.forget(partition)
        self.settling.effects += self.deletions.finished(topic)

    def topic_rules_changed(self, topic: str, rules: TopicRules) -> list[Effect]:
        """The topic's configuration was read again. Allowing unclean elections holds one at once, as in Kafka."""
        if topic not in self.image.topics:
            return []
        self.image.rules[topic] = rules
        self.settling.unsettle(self.image.partitions(topic))
        return self.settling.settle()

    def rules_changed(self, rules: ControllerRules) -> list[Effect]:
        """The broker's settings changed. What all topics inherit holds at once, unclean elections too."""
        if rules == self.rules:
            return []
        self.rules = self.settling.rules = rules
        self.image.min_insync_replicas_default = rules.min_insync_replicas
        self.settling.unsettle(list(self.image.states))
        return self.settling.settle()

    def topic_awaited(self, token: int, topic: str) -> list[Effect]:
        """Answer when every partition of the topic has a state (or the topic is gone)."""
        missing = [partition for partition in self.image.partitions(topic) if partition not in self.image.states]
        self.settling.waits.add(Wait(WaitKind.CREATED, token, missing))
        return self.settling.settle()

    # Deletion

    def deletions_requested(self, topics: Sequence[str]) -> list[Effect]:
        """The children of ``/admin/delete_topics``."""
        self.settling.effects += self.deletions.requested(topics, self.settling.is_being_moved)
        for topic in topics:
            self.settling.unsettle(self.image.partitions(topic))
        return self.settling.settle()

    def deletion_awaited(self, token: int, topic: str) -> list[Effect]:
        """Answer when the topic is gone, or when only replicas on dead brokers are left to delete."""
        self.settling.effects += self.deletions.awaited(token, topic)
        return self.settling.settle()

    def replica_deleted(
        self, broker_id: int, broker_epoch: int, partition: TopicPartition, topic_id: str
    ) -> list[Effect]:
        """A broker deleted the data it was ordered to delete."""
        if self.image.broker_epoch(broker_id) == broker_epoch:
            self.settling.effects += self.deletions.replica_deleted(broker_id, partition, topic_id)
            self.settling.removals.deleted(broker_id, partition, topic_id)
        return self.settling.settle()

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
            self.settling.propose(partition, QueuedProposal(wait, index, proposal))
        return self.settling.settle()

    def states_found(self, found: Sequence[tuple[TopicPartition, PartitionState | None]]) -> list[Effect]:
        """What ZooKeeper holds after a write was tried, whether it was this write or another's; None: no znode.

        Raises Deposed for a state written by a later controller.
        """
        self.settling.states_found(found)
        return self.settling.settle()

    def moves_found(
        self,
        name: str,
        topic: TopicImage | None,
        found: Sequence[tuple[TopicPartition, PartitionState | None]],
        refusal: str = "",
    ) -> list[Effect]:
        """What ZooKeeper holds after ``WriteMoves`` was tried; ``refusal``: why it was not. Raises Deposed as
        ``states_found`` does."""
        self.settling.moves_found(name, topic, found, refusal)
        return self.settling.settle()

    def time_passed(self, now: float) -> list[Effect]:
        """``next_deadline`` is reached: settle what waited for the end of a session, forget complaints that were
        not renewed, balance leaders."""
        self.settling.unsettle(self.settling.complaints.time_passed(now))
        for broker_id, fenced in list(self.image.fenced.items()):
            if fenced.held_until <= now and broker_id not in self.image.brokers:
                del self.image.fenced[broker_id]
                self.settling.unsettle(self.image.partitions_of(broker_id))
        if self._balance_at is None or now < self._balance_at:
            return self.settling.settle()
        self._balance_at = now + self.rules.imbalance_interval_s
        return self.preferred_election_requested(misplaced_leaders(self.image, self.rules.imbalance_percentage))

    def snapshot(self, broker_id: int) -> ClusterDelta:
        """Everything, for a broker that subscribes: with what it has still to delete."""
        told = full_snapshot(self.image, self.controller_id, self.controller_epoch, self.deletions, broker_id)
        left_over = self.settling.removals.orders_for(broker_id)
        return told._replace(deleted_replicas=(*told.deleted_replicas, *left_over)) if left_over else told

    def turn_ended(self) -> list[Effect]:
        """What changed since the last call, as one delta; the shell calls it once per turn."""
        if not self._changes:
            return []
        delta, orders = self._changes.take(self.image, self.controller_id, self.controller_epoch, self.deletions.hides)
        return [PushDelta(delta, orders)]
