"""Invariants 1, 2, 3, 12 and 14 as far as they are about what is written to ZooKeeper."""

from __future__ import annotations

import json
import re

from tests.simulation.checkers.ghost import Ghost, Partition, State, decode_state
from tests.simulation.checkers.observer import Commit
from tests.simulation.violation import Violation

_STATE = re.compile(r"/brokers/topics/([^/]+)/partitions/([0-9]+)/state")
_TOPIC = re.compile(r"/brokers/topics/([^/]+)")
_BROKER = re.compile(r"/brokers/ids/([0-9]+)")
_CONFIG = re.compile(r"/config/topics/([^/]+)")
_DELETION = re.compile(r"/admin/delete_topics/([^/]+)")
NO_LEADER = -1
JOIN_GRACE_S = 4.0
"""A join that was decided while the joiner was registered may be written so much later than its registration ended: the
session of the controller that wrote it ends by then."""


class ZnodeChecker:
    """Reads each committed write with decoders of its own and keeps the ghost's picture of ZooKeeper."""

    def __init__(self, ghost: Ghost) -> None:
        self._ghost = ghost
        self._min_isr: dict[str, int] = {}
        """Of the topics whose configuration says."""
        self._broker_epoch_max: dict[int, int] = {}
        self._says_lossy: dict[int, bool] = {}
        """Broker → whether its latest registration says that replicas of it may lack records."""
        self._left: dict[int, dict[tuple[str, str], int]] = {}
        """Broker → (topic, partition) of each replica that it registered as lossy → the end of what is left of it, -1
        for nothing. (The list may be shorter by the time an election is written.)"""
        self._rows_to_check: tuple[int, dict[tuple[str, int], Partition]] = (-1, {})
        """zxid of the last write of a topic's znode, and its partitions: the same multi may hold their states."""
        self.moves_count = 0
        """Reassignments that ended."""
        self.elections_count = 0
        self.isr_shrinks_count = 0
        self.isr_expansions_count = 0
        self.elr_members_count = 0

    def committed(self, commit: Commit) -> None:
        path = commit.path
        if commit.zxid != self._rows_to_check[0]:
            self._check_rows()
        match = _STATE.fullmatch(path)
        if match is not None:
            self._state(match[1], int(match[2]), commit)
        elif path == "/controller_epoch":
            self._controller_epoch(commit)
        elif (match := _BROKER.fullmatch(path)) is not None:
            self._registration(int(match[1]), commit)
        elif (match := _TOPIC.fullmatch(path)) is not None:
            self._topic(match[1], commit)
        elif (match := _CONFIG.fullmatch(path)) is not None:
            self._config(match[1], commit)
        elif (match := _DELETION.fullmatch(path)) is not None and commit.op == "create":
            self._deletion(match[1])

    # 1: epochs

    def _controller_epoch(self, commit: Commit) -> None:
        if commit.op == "delete":
            raise Violation(1, "/controller_epoch was deleted")
        ghost = self._ghost
        epoch = int(commit.data or b"0")
        if commit.op == "set" and epoch <= ghost.controller_epoch:
            raise Violation(1, f"the controller epoch went from {ghost.controller_epoch} to {epoch}")
        ghost.controller_epoch = epoch
        ghost.controller_session = commit.session

    def says_lossy(self, broker_id: int) -> bool:
        """Does its registration name replicas that lost something?"""
        return self._says_lossy.get(broker_id, False)

    def _registration(self, broker_id: int, commit: Commit) -> None:
        ghost = self._ghost
        if commit.op == "delete":
            known = ghost.registered.pop(broker_id, None)
            if known is not None:
                ghost.unregistered[broker_id] = (known[0], ghost.now)
                ghost.gone_at[broker_id, known[0]] = ghost.now
            return
        self._says_lossy[broker_id] = b'"lossy"' in commit.data
        left = _left_of(commit.data)
        if commit.op == "set":
            self._left[broker_id].update(left)
            return
        self._left[broker_id] = left
        if commit.zxid <= self._broker_epoch_max.get(broker_id, -1):
            raise Violation(
                1, f"broker {broker_id} registered with epoch {commit.zxid}, not above {self._broker_epoch_max}"
            )
        self._broker_epoch_max[broker_id] = commit.zxid
        ghost.registered[broker_id] = (commit.zxid, ghost.now)

    # The states of partitions

    def _state(self, topic: str, number: int, commit: Commit) -> None:
        ghost = self._ghost
        topic_id = ghost.topics.get(topic)
        if topic_id is None:
            if commit.op != "delete":
                raise Violation(3, f"a state for {topic}-{number}, a topic that does not exist")
            return
        partition = ghost.of(topic, (topic_id, number))
        partition.min_isr = self._lowest_min_isr(topic)
        if commit.op == "delete":
            partition.state = None
            partition.deleting = True
            return
        try:
            new = decode_state(commit.data, commit.version)
        except (ValueError, KeyError, TypeError) as error:
            raise Violation(3, f"{partition!r}: its state does not decode: {commit.data!r}: {error}") from None
        old = partition.state
        self._check_epochs(partition, old, new, commit)
        self._check_members(partition, new)
        partition.state = new
        partition.state_at = ghost.now
        if not partition.counted and len(new.isr) >= partition.effective_min_isr:
            # So many hold all that was ever committed: what was committed with fewer is no weaker any more.
            partition.fewest_replicas = len(partition.replicas)
        if old is None:
            partition.leaders[new.leader_epoch] = new.leader
            return
        if new.leader_epoch != old.leader_epoch:
            partition.superseded_at[old.leader_epoch] = ghost.now
            partition.leaders[new.leader_epoch] = new.leader
            self._check_election(partition, old, new)
        else:
            self._check_joiners(partition, old, new)
        self._check_retained(partition, old, new)
        self._check_removed(partition, old, new)

    def _check_epochs(self, partition: Partition, old: State | None, new: State, commit: Commit) -> None:
        ghost = self._ghost
        if new.controller_epoch != ghost.controller_epoch or commit.session != ghost.controller_session:
            raise Violation(
                2,
                f"{partition!r}: state of controller epoch {new.controller_epoch} written by session "
                f"0x{commit.session:x}; the controller is 0x{ghost.controller_session:x} in epoch "
                f"{ghost.controller_epoch}",
            )
        if old is None:
            return
        if new.version <= old.version:
            raise Violation(1, f"{partition!r}: partition epoch {new.version} after {old.version}")
        if new.leader_epoch < old.leader_epoch:
            raise Violation(1, f"{partition!r}: leader epoch {new.leader_epoch} after {old.leader_epoch}")
        if new.controller_epoch < old.controller_epoch:
            raise Violation(1, f"{partition!r}: controller epoch {new.controller_epoch} after {old.controller_epoch}")
        if new.leader != old.leader and new.leader_epoch == old.leader_epoch:
            raise Violation(
                2, f"{partition!r}: leaders {old.leader} and {new.leader} in leader epoch {new.leader_epoch}"
            )

    def _check_members(self, partition: Partition, new: State) -> None:
        isr, elr = new.isr, new.elr
        if not isr or len(set(isr)) != len(isr):
            raise Violation(3, f"{partition!r}: ISR {list(isr)}")
        if partition.replicas and not set(isr + elr) <= set(partition.replicas):
            raise Violation(
                3, f"{partition!r}: ISR {list(isr)} and ELR {list(elr)} of replicas {list(partition.replicas)}"
            )
        if len(set(elr)) != len(elr) or set(elr) & set(isr):
            raise Violation(3, f"{partition!r}: ELR {list(elr)} beside ISR {list(isr)}")
        if new.leader != NO_LEADER and new.leader not in isr:
            raise Violation(3, f"{partition!r}: leader {new.leader} is not in ISR {list(isr)}")
        if new.recovering and len(isr) != 1:
            raise Violation(3, f"{partition!r}: recovering with ISR {list(isr)}")

    def _check_retained(self, partition: Partition, old: State, new: State) -> None:
        """6: below the minimum ISR whoever leaves the ISR and lost nothing may lead still: it holds all there is."""
        if new.recovering or old.recovering or len(new.isr) >= partition.effective_min_isr:
            return
        for member in old.members:
            is_whole = member not in partition.lossy and not self.says_lossy(member)
            # whom a reassignment took out is no replica any more: see _check_removed
            if member not in new.members and member in partition.replicas and is_whole:
                raise Violation(
                    6,
                    f"{partition!r}: {member} lost nothing and may not lead any more: ISR {list(old.isr)} ELR "
                    f"{list(old.elr)} became ISR {list(new.isr)} ELR {list(new.elr)}",
                )

    def _check_removed(self, partition: Partition, old: State, new: State) -> None:
        """14: a reassignment takes out nobody whom the rest cannot spare."""
        removed = set(old.members) - set(partition.replicas)
        if removed and not new.recovering and len(new.isr) < partition.effective_min_isr:
            raise Violation(
                14,
                f"{partition!r}: {sorted(removed)} are no replicas any more, and ISR {list(old.isr)} ELR "
                f"{list(old.elr)} became ISR {list(new.isr)}: less than the minimum",
            )

    def _check_election(self, partition: Partition, old: State, new: State) -> None:
        if new.recovering and not old.recovering and not self._may_be_unclean(partition, new.leader):
            raise Violation(6, f"{partition!r}: an unclean election of {new.leader}, which nobody allowed")
        if new.leader != NO_LEADER and new.leader != old.leader:
            self.elections_count += 1
            if new.leader not in old.members and not new.recovering:
                raise Violation(
                    3,
                    f"{partition!r}: {new.leader} was elected from outside of ISR {list(old.isr)} and ELR "
                    f"{list(old.elr)}",
                )
        if set(new.isr) - set(old.members) and not new.recovering:
            raise Violation(
                12, f"{partition!r}: an election took ISR {list(old.isr)} ELR {list(old.elr)} to ISR {list(new.isr)}"
            )
        if set(new.elr) - set(old.members):
            raise Violation(
                12, f"{partition!r}: ELR {list(new.elr)} has more than ISR {list(old.isr)} and ELR {list(old.elr)}"
            )
        self._count_members(old, new)

    def _may_be_unclean(self, partition: Partition, leader: int) -> bool:
        """A person allowed it, or the only replica there is says that it lost something, but not its log."""
        if self._ghost.unclean_elections:
            return True
        left = self._left.get(leader, {}).get((partition.topic, str(partition.partition)), -1)
        return partition.replicas == (leader,) and left >= 0

    def _count_members(self, old: State, new: State) -> None:
        self.isr_shrinks_count += bool(set(old.isr) - set(new.isr))
        self.isr_expansions_count += bool(set(new.isr) - set(old.isr))
        self.elr_members_count += len(set(new.elr) - set(old.elr))

    # 12: who joins

    def _check_joiners(self, partition: Partition, old: State, new: State) -> None:
        ghost = self._ghost
        self._count_members(old, new)
        if set(new.elr) - set(old.members):
            raise Violation(
                12, f"{partition!r}: ELR {list(new.elr)} has more than ISR {list(old.isr)} and ELR {list(old.elr)}"
            )
        for joiner in new.isr:
            if joiner in old.isr or joiner in ghost.registered:
                continue
            gone = ghost.unregistered.get(joiner)
            if gone is None or ghost.now - gone[1] > JOIN_GRACE_S:
                raise Violation(12, f"{partition!r}: broker {joiner} joined ISR {list(old.isr)} without a registration")

    # Topics

    def _topic(self, topic: str, commit: Commit) -> None:
        ghost = self._ghost
        if commit.op == "delete":
            topic_id = ghost.topics.pop(topic, None)
            for partition in ghost.partitions.values():
                if partition.key[0] == topic_id:
                    partition.deleting = True
            self._min_isr.pop(topic, None)
            return
        found = json.loads(commit.data)
        topic_id = str(found["topic_id"])
        known = ghost.topics.get(topic)
        if known is not None and known != topic_id:
            raise Violation(14, f"topic {topic} changed its id from {known} to {topic_id}")
        ghost.topics[topic] = topic_id
        adding, removing = found.get("adding_replicas", {}), found.get("removing_replicas", {})
        for name, listed in found["partitions"].items():
            replicas = tuple(int(replica) for replica in listed)
            added, removed = set(adding.get(name, ())), set(removing.get(name, ()))
            partition = ghost.of(topic, (topic_id, int(name)))
            if len(set(replicas)) != len(replicas) or not replicas:
                raise Violation(14, f"{partition!r}: replicas {list(replicas)}")
            if not added | removed <= set(replicas):
                raise Violation(
                    14, f"{partition!r}: adding {sorted(added)}, removing {sorted(removed)} of {list(replicas)}"
                )
            was_moving, partition.is_moving = partition.is_moving, bool(added | removed)
            self.moves_count += was_moving and not partition.is_moving
            if len(replicas) < (partition.fewest_replicas or len(replicas) + 1):
                partition.fewest_replicas = len(replicas)
            partition.replicas = replicas
            partition.min_isr = self._lowest_min_isr(topic)
            if self._rows_to_check[0] != commit.zxid:
                self._rows_to_check = commit.zxid, {}
            self._rows_to_check[1][partition.key] = partition

    def _check_rows(self) -> None:
        """The multi that wrote a topic's znode is over: members are replicas."""
        zxid, partitions = self._rows_to_check
        self._rows_to_check = -1, {}
        for partition in partitions.values():
            state = partition.state
            if state is not None and not set(state.members) <= set(partition.replicas):
                raise Violation(
                    14,
                    f"{partition!r}: replicas {list(partition.replicas)} without members {list(state.members)} (by the "
                    f"transaction {zxid:x})",
                )

    def _config(self, topic: str, commit: Commit) -> None:
        if commit.op == "delete":
            self._min_isr.pop(topic, None)
            return
        config = json.loads(commit.data).get("config", {}) if commit.data else {}
        if "min.insync.replicas" in config:
            lowest = min(self._lowest_min_isr(topic), int(config["min.insync.replicas"]))
            self._min_isr[topic] = lowest
            for partition in self._ghost.partitions.values():
                if partition.topic == topic:
                    partition.min_isr = min(partition.min_isr, lowest)

    def _lowest_min_isr(self, topic: str) -> int:
        return self._min_isr.get(topic, self._ghost.min_insync_replicas)

    def _deletion(self, topic: str) -> None:
        topic_id = self._ghost.topics.get(topic)
        for partition in self._ghost.partitions.values():
            if partition.key[0] == topic_id:
                partition.deleting = True


def _left_of(registration: bytes) -> dict[tuple[str, str], int]:
    """What a registration says of its lossy replicas; nothing of each where the list was too long for it."""
    lossy = json.loads(registration or b"{}").get("lossy", ())
    if lossy is True:
        return {}
    return {(one["topic"], number): int(end) for one in lossy for number, (_, end) in one["partitions"].items()}
