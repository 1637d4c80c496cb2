"""Settling partitions: what each one's state has to become, and the one write per partition that is under way.

Whoever changes what a decision depends on marks the partitions (``unsettle``), then ``settle`` decides about all that
are marked and have no write under way; an outcome marks its partition again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from zkbroker.controller.balance import can_lead_preferred
from zkbroker.controller.changes import Changes
from zkbroker.controller.cluster_image import ClusterImage, TopicImage
from zkbroker.controller.complaints import Complaints
from zkbroker.controller.deletions import Deletions
from zkbroker.controller.effects import (
    Answer,
    Effect,
    Log,
    MoveWrite,
    StateWrite,
    WriteMoves,
    WriteStates,
    show_placement,
    show_state,
)
from zkbroker.controller.elections import Election, elected, first_state, is_same_write, settled_state
from zkbroker.controller.eligible import effective_min_isr
from zkbroker.controller.explaining import declined, declined_lines, elections_ended, leaderless
from zkbroker.controller.fencing import involved, is_better
from zkbroker.controller.isr_changes import judge_proposal
from zkbroker.controller.moves import Moves, Step
from zkbroker.controller.office import ControllerRules, Deposed, TopicFailed
from zkbroker.controller.removals import Removals
from zkbroker.controller.waits import QueuedProposal, StateWriting, Wait, WaitKind, Waits
from zkbroker.model.cluster import BrokerRegistration
from zkbroker.model.errors import ErrorCode
from zkbroker.model.reassignments import PartitionOutcome
from zkbroker.model.topics import NO_LEADER, PartitionState, TopicPartition


class Settling:
    """The partitions of one term of office, between what is committed and what has to be."""

    def __init__(
        self,
        image: ClusterImage,
        changes: Changes,
        deletions: Deletions,
        controller_epoch: int,
        rules: ControllerRules,
    ) -> None:
        self._image = image
        self._changes = changes
        self._deletions = deletions
        self._controller_epoch = controller_epoch
        self.rules = rules
        self.writes: dict[TopicPartition, StateWriting] = {}
        """Under way, at most one per partition; its outcome comes with ``states_found``."""
        self._unsettled: dict[TopicPartition, None] = {}
        self.preferred: dict[TopicPartition, None] = {}
        """The preferred leader was asked for; forgotten when the partition is next settled."""
        self.unclean: dict[TopicPartition, None] = {}
        """A person allows an unclean election of these, once; forgotten like ``preferred``."""
        self._declined: list[tuple[TopicPartition, str]] = []
        """Where it was not elected, and why: people are told when all is settled."""
        self._proposals: dict[TopicPartition, list[QueuedProposal]] = {}
        self.returning: dict[int, BrokerRegistration] = {}
        """Brokers that restarted: dead until every partition of theirs is settled without them, then new."""
        self.complaints = Complaints(image, session_timeout_s=rules.session_timeout_s)
        self.moves = Moves(image, self.complaints, controller_epoch)
        self.removals = Removals(image, changes)
        self.waits = Waits()
        self.effects: list[Effect] = []
        """To be run with what the next ``settle`` gives, before its writes."""

    def propose(self, partition: TopicPartition, queued: QueuedProposal) -> None:
        """A leader's wish, judged when the partition is next settled."""
        self._proposals.setdefault(partition, []).append(queued)
        self._unsettled[partition] = None

    def gains(self, broker_id: int) -> bool:
        """Would any partition be better off without that broker, which ``image.fenced`` names already? (``is_better``
        in short: asked four times a second while a broker is condemned that cannot be fenced.)"""
        image = self._image
        for partition in image.partitions_of(broker_id):
            state = image.states.get(partition)
            if state is not None and broker_id in state.isr:
                left = sum(image.is_electable(member, partition) for member in state.isr)
                if left >= effective_min_isr(state, image.min_insync_replicas(partition.topic)):
                    return True
        return False

    def forget(self, partition: TopicPartition) -> None:
        """Its topic is gone: so is the write under way, and who waited for it is told."""
        self._image.states.pop(partition, None)
        self.moves.wishes.pop(partition, None)
        self.moves.unreadable.pop(partition.topic, None)
        self.removals.forget(partition)
        write = self.writes.pop(partition, None)
        if write is not None and write.proposal is not None:
            self._answer_proposal(write.proposal, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
        self._unsettled[partition] = None

    def states_found(self, found: Sequence[tuple[TopicPartition, PartitionState | None]]) -> None:
        """What ZooKeeper holds after a write was tried, whether it was this write or another's; None: no znode.

        Raises Deposed for a state written by a later controller.
        """
        for partition, state in found:
            topic = self._image.topics.get(partition.topic)
            if topic is None or (state is not None and state.topic_id != topic.topic_id):
                continue  # of a topic that is gone; its writes were forgotten with it
            write = self.writes.pop(partition, None)
            self._unsettled[partition] = None
            if state is not None and state.controller_epoch > self._controller_epoch:
                raise Deposed(f"{partition} was written by controller epoch {state.controller_epoch}")
            known = self._image.states.get(partition)
            if state is None:
                if known is not None:
                    self._image.states[partition] = known._replace(partition_epoch=-1)  # to be created again
            else:
                self.adopt(partition, state)
            if write is None:
                continue
            if write.move is not None:
                self._move_found(partition, write.move, state)
            elif state is not None and write.state is not None and is_same_write(write.state, state):
                self._image.suspects.pop(partition, None)
                if write.proposal is not None:
                    for member in state.isr:
                        if known is not None and member not in known.isr:
                            self.complaints.joined(member, state.leader)
                    self._answer_proposal(write.proposal, ErrorCode.NONE)
                else:
                    line = f"{partition} {show_state(write.state)}"
                    if state.leader == NO_LEADER:
                        line += f"; {leaderless(self._image, partition, write.state)}"
                    self.effects.append(Log(line))
            elif write.proposal is not None:
                self._proposals.setdefault(partition, []).insert(0, write.proposal)

    def is_being_moved(self, topic: str) -> bool:
        """Is a step of a reassignment of it being written?"""
        return any(write.move is not None and partition.topic == topic for partition, write in self.writes.items())

    def moves_found(
        self,
        name: str,
        topic: TopicImage | None,
        found: Sequence[tuple[TopicPartition, PartitionState | None]],
        refusal: str = "",
    ) -> None:
        """What ZooKeeper holds after ``WriteMoves`` was tried: the topic's rows (None: no znode, or none that decodes)
        and the states. Rows of other partitions are not looked at: ``topic_read`` tells of those that are added, and so
        what it is told has to stay news. ``refusal``: why the rows cannot be written."""
        if refusal or topic is None:
            self._refuse_moves(name, found, refusal or f"the znode of topic {name} does not decode")
        known = self._image.topics.get(name)
        if topic is not None and known is not None and known.topic_id == topic.topic_id:
            mzxid = known.mzxid
            if topic.partitions.keys() <= known.partitions.keys():
                mzxid = max(mzxid, topic.mzxid)
            rows = {
                partition.partition: topic.partitions[partition.partition]
                for partition, _ in found
                if partition.partition in topic.partitions and partition.partition in known.partitions
            }
            self._image.topics[name] = known._replace(partitions={**known.partitions, **rows}, mzxid=mzxid)
        elif topic is None:
            self.moves.unreadable[name] = None
        self.states_found(found)
        if not self.is_being_moved(name):
            self.effects += self._deletions.moved(name)

    def _refuse_moves(
        self, topic: str, found: Sequence[tuple[TopicPartition, PartitionState | None]], why: str
    ) -> None:
        """What was asked for and is in these writes is not tried again. Steps that nobody asked for would be, without
        end: if there is nothing else the topic is left alone until its znode changes."""
        wished = False
        for partition, _ in found:
            write = self.writes.get(partition)
            if write is not None and write.move is not None and write.move.wish is not None:
                wished = True
                self.writes[partition] = write._replace(move=write.move._replace(wish=None))
                self.waits.refused(partition, PartitionOutcome(ErrorCode.INVALID_REPLICA_ASSIGNMENT, why))
        if not wished:
            self.moves.unreadable[topic] = None

    def _move_found(self, partition: TopicPartition, step: Step, state: PartitionState | None) -> None:
        is_written = self._image.placement(partition) == step.placement and (
            step.state is None or (state is not None and is_same_write(step.state, state))
        )
        if not is_written:
            if step.wish is not None:
                self.moves.wishes.setdefault(partition, step.wish)
            return
        line = f"{partition} on {show_placement(step.placement)}"
        self.effects.append(Log(line if step.state is None else f"{line}: {show_state(step.state)}"))

    def adopt(self, partition: TopicPartition, state: PartitionState) -> None:
        """Take a state as it was found in ZooKeeper into the image; the assignment is the topic znode's."""
        placement = self._image.placement(partition)
        if placement is None:
            return
        topic_id = self._image.topics[partition.topic].topic_id
        state = state._replace(
            topic_id=topic_id,
            replicas=placement.replicas,
            adding=placement.adding,
            removing=placement.removing,
        )
        if self._image.states.get(partition) != state:
            self._image.states[partition] = state
            self._changes.partition(partition)
            self.removals.noted(partition, state)

    def _answer_proposal(self, queued: QueuedProposal, error: ErrorCode) -> None:
        proposal = queued.proposal
        state = self._image.states.get(TopicPartition(proposal.topic, proposal.partition))
        response = queued.answer(error, state if error is ErrorCode.NONE else None)
        if response is not None:
            self.effects.append(Answer(queued.wait.token, response))

    def unsettle(self, partitions: Iterable[TopicPartition]) -> None:
        for partition in partitions:
            self._unsettled[partition] = None

    def settle(self) -> list[Effect]:
        """Decide about every marked partition without a write under way, until nothing is left to decide."""
        writes: list[StateWrite] = []
        moves: dict[str, list[MoveWrite]] = {}
        while True:
            unsettled, self._unsettled = self._unsettled, {}
            for partition in unsettled:
                if partition in self.writes:
                    continue  # its outcome marks the partition again
                try:
                    write = self._decide(partition)
                except Exception as error:
                    raise TopicFailed(partition.topic, error) from error
                if isinstance(write, MoveWrite):
                    moves.setdefault(partition.topic, []).append(write)
                elif write is not None:
                    writes.append(write)
                elif self._image.placement(partition) is None:
                    self.waits.removed(partition)
                else:
                    has_wish = partition in self.moves.wishes
                    self.waits.settled(partition, partition in self._image.states, has_wish)
            for wait in self.waits.take_finished():
                self._finish(wait)
            if not self._unsettled:
                break
        effects, self.effects = self.effects, []
        effects += [Log(line) for line in declined_lines(self._declined)]
        self._declined.clear()
        if self.moves.by_znode:
            effects += self.moves.finished(self.writes)
        effects += [WriteMoves(topic, tuple(some)) for topic, some in moves.items()]
        if writes:
            effects.append(WriteStates(tuple(writes)))
        return effects

    def _finish(self, wait: Wait) -> None:
        if wait.kind is WaitKind.RETURN:
            broker = self.returning.pop(wait.token, None)
            if broker is not None:
                self.broker_arrived(broker)
        elif wait.kind is WaitKind.SHUTDOWN:
            led = tuple(
                partition
                for partition in wait.asked
                if (state := self._image.states.get(partition)) is not None and state.leader == wait.broker_id
            )
            self.effects.append(Answer(wait.token, led))
        elif wait.kind is WaitKind.MOVED:
            self.effects.append(Answer(wait.token, wait.outcomes))
        elif wait.kind is WaitKind.ELECTED:
            self.effects.append(Answer(wait.token, elections_ended(self._image, self.complaints, wait)))
        else:
            self.effects.append(Answer(wait.token, None))

    def broker_arrived(self, broker: BrokerRegistration) -> None:
        self._image.brokers[broker.broker_id] = broker
        self._changes.broker(broker.broker_id)
        self.unsettle(self._image.partitions_of(broker.broker_id))

    def _decide(self, partition: TopicPartition) -> StateWrite | MoveWrite | None:
        """The next write of this partition, put under way; None when its state is right."""
        placement = self._image.placement(partition)
        if placement is None or self._deletions.hides(partition.topic):
            self._image.suspects.pop(partition, None)
            self.preferred.pop(partition, None)
            self.unclean.pop(partition, None)
            self.moves.wishes.pop(partition, None)
            for queued in self._proposals.pop(partition, ()):
                self._answer_proposal(queued, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
            return None
        state = self._image.states.get(partition)
        if state is None:
            first = first_state(
                self._image.topics[partition.topic].topic_id,
                placement.replicas,
                self._controller_epoch,
                lambda broker: self._image.is_online(broker, partition),
                adding=placement.adding,
                removing=placement.removing,
            )
            if first is not None:
                return self._write(partition, self.complaints.trusted(partition, first), -1)
        else:
            after = self._settled(partition, state)
            if after is not None:
                return self._write(partition, after, state.partition_epoch)
        step = self.moves.step(partition, placement, state)
        if step is not None:
            self.writes[partition] = StateWriting(step.state, None, step)
            before = -1 if state is None else state.partition_epoch
            written = None if step.state is None else StateWrite(partition, step.state, before)
            return MoveWrite(partition, step.placement, written)
        queue = self._proposals.get(partition, [])
        while queue:
            queued = queue.pop(0)
            verdict = judge_proposal(self._image, queued.wait.broker_id, queued.proposal, self._controller_epoch)
            if isinstance(verdict, PartitionState) and state is not None:
                return self._write(partition, verdict, state.partition_epoch, queued)
            if isinstance(verdict, ErrorCode):
                self._answer_proposal(queued, verdict)
        self._proposals.pop(partition, None)
        return None

    def _settled(self, partition: TopicPartition, state: PartitionState) -> PartitionState | None:
        suspects = self._image.suspects.get(partition, ())
        after = self._wanted(partition, state, suspects, ())
        fenced = involved(state, self._image.fenced) if self._image.fenced else ()
        if after is not None and fenced:
            held = tuple(member for member in fenced if not self._image.fenced[member].is_certain)
            if held and not is_better(state, after, self._image.min_insync_replicas(partition.topic)):
                waiting = self._wanted(partition, state, suspects, held)
                if waiting is None or waiting.leader not in held or waiting.leader == state.leader:
                    after = waiting
            elif after.leader_epoch > state.leader_epoch:
                why = self._image.fenced[fenced[0]].reason
                after = after._replace(reason=why, leader_reason=why)
        if after is None and suspects:
            del self._image.suspects[partition]
            self._changes.unsuspected(partition)
            return self._settled(partition, state)
        if after is None:
            after = self.complaints.verdict(partition, state, self._controller_epoch)
        elif after.leader != state.leader:
            after = self.complaints.trusted(partition, after)
        if (
            after is None
            and partition in self.preferred
            and can_lead_preferred(self._image, partition)
            and self.complaints.is_trusted(state.replicas[0], partition)
        ):
            election = Election(state.replicas[0], state.isr, state.recovering)
            after = elected(state, election, self._controller_epoch, "preferred leader")
        if after is None and partition in self.preferred:
            del self.preferred[partition]
            reason = declined(self._image, self.complaints, partition)
            if reason is not None:
                self._declined.append((partition, reason))
        if after is None:
            self.unclean.pop(partition, None)
        return after

    def _wanted(
        self, partition: TopicPartition, state: PartitionState, suspects: tuple[int, ...], held: tuple[int, ...]
    ) -> PartitionState | None:
        """``held`` count as present: they were fenced early, and this partition waits for the end of their sessions."""
        return settled_state(
            state,
            controller_epoch=self._controller_epoch,
            alive=lambda broker: broker in held or (broker not in suspects and self._image.is_alive(broker, partition)),
            shutting_down=self._image.shutting_down.__contains__,
            # a member that restarted is about to be back: it must not cost its records
            unclean=not suspects
            and self.returning.keys().isdisjoint((*state.isr, *state.elr))
            and (partition in self.unclean or self._image.unclean(partition.topic, self.rules.unclean)),
            loss=lambda broker: self._image.loss(broker, partition),
            min_insync_replicas=self._image.min_insync_replicas(partition.topic),
        )

    def _write(
        self,
        partition: TopicPartition,
        state: PartitionState,
        expected_version: int,
        proposal: QueuedProposal | None = None,
    ) -> StateWrite:
        self.writes[partition] = StateWriting(state, proposal)
        return StateWrite(partition, state, expected_version)
