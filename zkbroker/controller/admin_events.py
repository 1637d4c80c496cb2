"""The controller's events in which administrators ask for something: elections and reassignments."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping

from zkbroker.controller.cluster_image import ClusterImage
from zkbroker.controller.deletions import Deletions
from zkbroker.controller.effects import Effect, Log
from zkbroker.controller.explaining import declined_lines
from zkbroker.controller.settling import Settling
from zkbroker.controller.waits import Wait, WaitKind
from zkbroker.model.errors import ErrorCode
from zkbroker.model.reassignments import DONE, ElectionKind, PartitionOutcome
from zkbroker.model.topics import NO_LEADER, TopicPartition

NO_PARTITION = PartitionOutcome(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "The partition does not exist.")
NOT_MOVING = PartitionOutcome(ErrorCode.NO_REASSIGNMENT_IN_PROGRESS, "No partition reassignment is in progress.")
NOT_NEEDED = PartitionOutcome(ErrorCode.ELECTION_NOT_NEEDED, "Leader election not needed for topic partition.")

Target = tuple[int, ...] | None
"""Where a partition shall move to; None: back to where it came from."""


class AdminEvents:
    """Part of ``Controller``, which has what is declared here."""

    image: ClusterImage
    deletions: Deletions
    settling: Settling

    # Elections

    def preferred_election_requested(self, partitions: Iterable[TopicPartition]) -> list[Effect]:
        """The preferred leaders of these partitions are wanted; the log says where they are not elected, since whoever
        asked by znode gets no answer."""
        unknown = []
        for partition in partitions:
            if partition in self.image.states:
                self.settling.preferred[partition] = None
                self.settling.unsettle([partition])
            else:
                unknown.append((partition, "there is no such partition"))
        self.settling.effects += [Log(line) for line in declined_lines(unknown)]
        return self.settling.settle()

    def elections_requested(
        self, token: int, kind: ElectionKind, partitions: Iterable[TopicPartition] | None
    ) -> list[Effect]:
        """ElectLeaders (KIP-183, KIP-460) of these partitions, of all for None. Answered with the outcome of each; of
        all only where there was something to elect."""
        is_all = partitions is None
        if partitions is None:
            partitions = [partition for topic in self.image.topics for partition in self.image.partitions(topic)]
        outcomes: dict[TopicPartition, PartitionOutcome] = {}
        asked = []
        for partition in dict.fromkeys(partitions):
            refused = self._election_refusal(kind, partition)
            if refused is None:
                asked.append(partition)
            elif not is_all or refused is not NOT_NEEDED:
                outcomes[partition] = refused
        wanted = self.settling.unclean if kind is ElectionKind.UNCLEAN else self.settling.preferred
        wanted.update(dict.fromkeys(asked))
        self.settling.unsettle(asked)
        self.settling.waits.add(Wait(WaitKind.ELECTED, token, asked, outcomes=outcomes, election=kind))
        return self.settling.settle()

    def _election_refusal(self, kind: ElectionKind, partition: TopicPartition) -> PartitionOutcome | None:
        if self.image.placement(partition) is None:
            return NO_PARTITION
        if partition.topic in self.deletions:
            return PartitionOutcome(ErrorCode.INVALID_TOPIC_EXCEPTION, "The topic is being deleted")
        state = self.image.states.get(partition)
        if state is None:
            error = ErrorCode.PREFERRED_LEADER_NOT_AVAILABLE
            if kind is ElectionKind.UNCLEAN:
                error = ErrorCode.ELIGIBLE_LEADERS_NOT_AVAILABLE
            return PartitionOutcome(error, "No replica was online yet.")
        if kind is ElectionKind.UNCLEAN:
            is_led = state.leader != NO_LEADER and state.leader in self.image.brokers
        else:
            is_led = state.leader == state.replicas[0]
        return NOT_NEEDED if is_led else None

    # Reassignments

    def reassignments_requested(self, token: int, wanted: Mapping[TopicPartition, Target]) -> list[Effect]:
        """AlterPartitionReassignments (KIP-455). Answered with the outcome of each partition once it is begun, or
        cancelled; how far it has come ``settling.moves.ongoing`` tells."""
        brokers = self.image.usable_brokers()
        outcomes = {
            partition: self._move_refusal(partition, target, brokers) or DONE for partition, target in wanted.items()
        }
        begun = [partition for partition, outcome in outcomes.items() if outcome is DONE]
        moves = self.settling.moves
        # What came last counts: an older entry of the znode must not bring its own target back after a change of
        # controllers.
        overridden = tuple((p, moves.by_znode[p]) for p in begun if p in moves.by_znode)
        if overridden:
            self.settling.effects.append(moves.dropped(overridden))
        for partition in begun:
            moves.wish(partition, wanted[partition])
        self.settling.unsettle(begun)
        self.settling.waits.add(Wait(WaitKind.MOVED, token, begun, outcomes=outcomes))
        return self.settling.settle()

    def reassignments_read(self, wanted: Mapping[TopicPartition, tuple[int, ...]]) -> list[Effect]:
        """The content of ``/admin/reassign_partitions``: an entry goes when it is done, or cannot be. As in Kafka it
        may name brokers that are not there yet."""
        moves = self.settling.moves
        refused = []
        for partition, target in wanted.items():
            if moves.by_znode.get(partition) == target or moves.is_being_edited(partition, target):
                continue
            outcome = None
            if self.image.placement(partition) is None or partition.topic in self.deletions:
                outcome = NO_PARTITION
            else:
                outcome = moves.refusal(partition, target, target)
            if outcome is not None:
                self.settling.effects.append(Log(f"{partition} cannot be reassigned: {outcome.message}"))
                refused.append((partition, target))
                continue
            moves.by_znode[partition] = target
            moves.wish(partition, target)
            self.settling.unsettle([partition])
        for partition in [partition for partition in moves.by_znode if partition not in wanted]:
            del moves.by_znode[partition]  # taken out by hand: what is under way goes on
        if refused or not wanted:
            self.settling.effects.append(moves.dropped(tuple(refused)))
        return self.settling.settle()

    def _move_refusal(
        self, partition: TopicPartition, target: Target, brokers: Container[int]
    ) -> PartitionOutcome | None:
        settling = self.settling
        write = settling.writes.get(partition)
        written = None if write is None or write.move is None else write.move.placement
        if target is None:
            if not settling.moves.is_moving(partition, written):
                return NOT_MOVING
            return None
        refused = settling.moves.refusal(partition, target, brokers)
        if refused is not None:
            return refused
        if self.image.placement(partition) is None or partition.topic in self.deletions:
            return NO_PARTITION
        if partition.topic in settling.moves.unreadable:
            return PartitionOutcome(ErrorCode.INVALID_REPLICA_ASSIGNMENT, "The topic's znode cannot be written.")
        return None
