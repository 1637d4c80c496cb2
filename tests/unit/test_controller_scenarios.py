"""The controller's decisions as text: commands, and below each what the controller wanted done.

``pytest --rewrite`` writes the output anew; read the diff. A file is a list of blocks: a command, ``----``, output.
Writes succeed at once unless ``hold`` was said; ``release`` lets them happen.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from zkbroker.controller.cluster_image import Placement, TopicImage, TopicRules
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
    show_placement,
    show_state,
)
from zkbroker.controller.office import ControllerRules, Deposed
from zkbroker.controller.suspicion import Condemned
from zkbroker.model.channel import AlterPartitionRequest, AlterPartitionResponse, IsrProposal
from zkbroker.model.cluster import BrokerRegistration, Endpoint, LossyReplica
from zkbroker.model.complaints import StalledDir, Unreachable, Word
from zkbroker.model.errors import BrokerError
from zkbroker.model.reassignments import ElectionKind
from zkbroker.model.suspicion import Suspect
from zkbroker.model.topics import PartitionState, TopicPartition

SCENARIOS = sorted((Path(__file__).parent.parent / "scenarios" / "controller").glob("*.txt"))
Output = Iterator[str]


def partition_of(text: str) -> TopicPartition:
    topic, _, number = text.rpartition("-")
    return TopicPartition(topic, int(number))


def ids(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(",") if part)


class Stage:
    """A controller and a ZooKeeper that consists of states."""

    def __init__(self) -> None:
        self.now = 0.0
        self.token = 0
        self.brokers: dict[int, BrokerRegistration] = {}
        self.topics: dict[str, TopicImage] = {}
        self.states: dict[TopicPartition, PartitionState] = {}
        self.mzxids: dict[TopicPartition, int] = {}
        self.zxid = 1000
        self.held: list[StateWrite] | None = None
        self.held_moves: list[WriteMoves] = []
        self.fence_fails = False
        self.controller = Controller(9, 1, ControllerRules())

    def run(self, line: str) -> Output:
        command, *words = line.split()
        plain = [word for word in words if "=" not in word]
        named = dict(word.split("=", 1) for word in words if "=" in word)
        try:
            yield from getattr(self, f"do_{command}")(plain, named)
        except (BrokerError, Deposed) as error:
            yield f"{type(error).__name__}: {error}"
            return
        yield from self.perform(self.controller.turn_ended())

    def do_office(self, plain: list[str], named: dict[str, str]) -> Output:
        """A new term: ``office epoch=2 [unclean=true] [min=2] [deletions=t]`` reads all there is."""
        rules = ControllerRules(unclean=named.get("unclean") == "true", min_insync_replicas=int(named.get("min", 1)))
        self.controller = Controller(9, int(named["epoch"]), rules)
        states = {tp: (state, self.mzxids[tp]) for tp, state in self.states.items()}
        deletions = [topic for topic in named.get("deletions", "").split(",") if topic]
        yield from self.perform(
            self.controller.cluster_read(
                list(self.brokers.values()), list(self.topics.values()), states, {}, deletions, self.now
            )
        )

    def do_broker(self, plain: list[str], named: dict[str, str]) -> Output:
        """``broker 1 up epoch=10 [kafka=true] [lossy=t-0@3:10]``, ``broker 1 down``; ``quietly=true``: nobody notices.

        ``lossy``: what is left of its log of that partition ends in leader epoch 3 at offset 10; ``@-1:-1`` nothing."""
        broker_id = int(plain[0])
        if plain[1] == "up":
            listener = "PLAINTEXT" if named.get("kafka") else "REPLICATION"
            lossy = tuple(
                LossyReplica(topic, int(number), f"id-of-{topic}", int(epoch), int(end))
                for topic, number, epoch, end in re.findall(r"(\w+)-(\d+)@(-?\d+):(-?\d+)", named.get("lossy", ""))
            )
            self.brokers[broker_id] = BrokerRegistration(
                broker_id, int(named["epoch"]), (Endpoint(listener, f"h{broker_id}", 9093),), lossy=lossy
            )
            self.zxid = max(self.zxid, int(named["epoch"]))
        else:
            del self.brokers[broker_id]
        if not named.get("quietly"):
            yield from self.perform(self.controller.brokers_changed(list(self.brokers.values()), self.now))

    def do_topic(self, plain: list[str], named: dict[str, str]) -> Output:
        """``topic t 0=1,2,3 1=2,3,1 [adding=3]``: its znode is there, or changed."""
        adding = ids(named.pop("adding", ""))
        partitions = {int(number): Placement(ids(replicas), adding) for number, replicas in named.items()}
        self.topics[plain[0]] = TopicImage(plain[0], f"id-of-{plain[0]}", partitions)
        yield from self.perform(self.controller.topic_read(self.topics[plain[0]]))

    def do_config(self, plain: list[str], named: dict[str, str]) -> Output:
        minimum = named.get("min")
        rules = TopicRules(None if minimum is None else int(minimum), named.get("unclean") == "true")
        yield from self.perform(self.controller.topic_rules_changed(plain[0], rules))

    def do_isr(self, plain: list[str], named: dict[str, str]) -> Output:
        """``isr t-0 by=1@10 le=0 pe=0 isr=1@10,2@20 [recovering=true]``: AlterPartition."""
        topic, number = partition_of(plain[0])
        sender, epoch = (int(part) for part in named["by"].split("@"))
        members = tuple(
            (int(member), int(member_epoch)) for member, member_epoch in re.findall(r"(\d+)@(-?\d+)", named["isr"])
        )
        proposal = IsrProposal(
            topic,
            number,
            named.get("id", f"id-of-{topic}"),
            1,
            int(named["le"]),
            int(named["pe"]),
            members,
            named.get("recovering") == "true",
        )
        self.token += 1
        request = AlterPartitionRequest(sender, epoch, (proposal,))
        yield from self.perform(self.controller.isr_change_requested(self.token, request))

    def do_shutdown(self, plain: list[str], named: dict[str, str]) -> Output:
        self.token += 1
        broker, epoch = (int(part) for part in plain[0].split("@"))
        yield from self.perform(self.controller.shutdown_requested(self.token, broker, epoch))

    def do_folder(self, plain: list[str], named: dict[str, str]) -> Output:
        """``folder 2 t-0 t-1``: broker 2 lost the folder of these."""
        failed = [partition_of(text) for text in plain[1:]]
        yield from self.perform(self.controller.log_dir_failed(int(plain[0]), failed, "I/O error"))

    def do_complain(self, plain: list[str], named: dict[str, str]) -> Output:
        """``complain 2@20 unreachable=1@10 for=2.5``, ``silent=3@30``, ``stalled=t-0,t-1 waiting=t-0``, or nothing."""
        broker, epoch = (int(part) for part in plain[0].split("@"))
        seconds = float(named.get("for", "2"))

        def peers(key: str) -> tuple[Unreachable, ...]:
            found = re.findall(r"(\d+)@(\d+)", named.get(key, ""))
            return tuple(Unreachable(int(peer), int(peer_epoch), seconds) for peer, peer_epoch in found)

        def partitions(key: str) -> tuple[TopicPartition, ...]:
            return tuple(partition_of(text) for text in named.get(key, "").split(",") if text)

        replicas = partitions("stalled")
        stalled = (StalledDir("/data", seconds, replicas, partitions("waiting")),) if replicas else ()
        word = Word(peers("unreachable"), stalled, peers("silent"))
        yield from self.perform(self.controller.complained(broker, epoch, word, self.now))

    def do_condemn(self, plain: list[str], named: dict[str, str]) -> Output:
        """``condemn 2@20 [certain=true]``: its peers agree that it is dead; ``fence=fails``: that is not written."""
        broker, epoch = (int(part) for part in plain[0].split("@"))
        reason = f"broker {broker} refused connections"
        verdict = Condemned(Suspect(broker, epoch, "there"), reason, named.get("certain") == "true")
        self.fence_fails = named.get("fence") == "fails"
        yield from self.perform(self.controller.broker_condemned(verdict, self.now))

    def fence(self, effect: FenceBroker) -> Output:
        yield f"fence broker {effect.broker_id} of epoch {effect.broker_epoch}"
        yield from (f"  with {write!r}" for write in effect.writes)
        if not self.fence_fails:
            del self.brokers[effect.broker_id]
            for write in effect.writes:
                self.zxid += 1
                self.states[write.partition] = write.state
                self.mzxids[write.partition] = self.zxid
        found = [(write.partition, self.states.get(write.partition)) for write in effect.writes]
        fenced = self.controller.broker_fenced(effect.broker_id, effect.broker_epoch, not self.fence_fails, found)
        yield from self.perform(fenced)
        if not self.fence_fails:
            yield from self.perform(self.controller.turn_ended())
            yield from self.perform(self.controller.fence_followed_up(effect.broker_id))

    def do_delete(self, plain: list[str], named: dict[str, str]) -> Output:
        yield from self.perform(self.controller.deletions_requested(plain))

    def do_deleted(self, plain: list[str], named: dict[str, str]) -> Output:
        """``deleted t-0 by=1@10``: the broker's data is gone."""
        partition = partition_of(plain[0])
        broker, epoch = (int(part) for part in named["by"].split("@"))
        topic_id = f"id-of-{partition.topic}"
        yield from self.perform(self.controller.replica_deleted(broker, epoch, partition, topic_id))

    def do_preferred(self, plain: list[str], named: dict[str, str]) -> Output:
        partitions = [partition_of(text) for text in plain]
        yield from self.perform(self.controller.preferred_election_requested(partitions))

    def do_move(self, plain: list[str], named: dict[str, str]) -> Output:
        """``move t-0=3,4 t-1=cancel``: AlterPartitionReassignments."""
        self.token += 1
        wanted = {partition_of(key): None if to == "cancel" else ids(to) for key, to in named.items()}
        yield from self.perform(self.controller.reassignments_requested(self.token, wanted))

    def do_moves(self, plain: list[str], named: dict[str, str]) -> Output:
        """What is under way."""
        for move in self.controller.settling.moves.ongoing(None):
            yield f"{move.partition} on {show_placement(Placement(*move[1:]))}"

    def do_znode(self, plain: list[str], named: dict[str, str]) -> Output:
        """``znode t-0=3,4``: what stands in /admin/reassign_partitions."""
        wanted = {partition_of(key): ids(to) for key, to in named.items()}
        yield from self.perform(self.controller.reassignments_read(wanted))

    def do_elect(self, plain: list[str], named: dict[str, str]) -> Output:
        """``elect preferred t-0 t-1``, ``elect unclean all``: ElectLeaders."""
        self.token += 1
        kind = ElectionKind[plain[0].upper()]
        partitions = None if plain[1] == "all" else [partition_of(text) for text in plain[1:]]
        yield from self.perform(self.controller.elections_requested(self.token, kind, partitions))

    def do_wait(self, plain: list[str], named: dict[str, str]) -> Output:
        """``wait 300``: seconds pass."""
        self.now += float(plain[0])
        yield from self.perform(self.controller.time_passed(self.now))

    def do_snapshot(self, plain: list[str], named: dict[str, str]) -> Output:
        snapshot = self.controller.snapshot(int(plain[0]))
        yield from self.show_delta("snapshot", PushDelta(snapshot))

    def do_told(self, plain: list[str], named: dict[str, str]) -> Output:
        """``told 1``: the epoch in which broker 1 may subscribe."""
        yield f"{self.controller.image.settled_epoch(int(plain[0]))}"

    def do_hold(self, plain: list[str], named: dict[str, str]) -> Output:
        self.held = []
        yield from ()

    def do_release(self, plain: list[str], named: dict[str, str]) -> Output:
        held, self.held = self.held or [], None
        moves, self.held_moves = self.held_moves, []
        if held:
            yield from self.write(held)
        for move in moves:
            yield from self.write_moves(move)

    def do_edit(self, plain: list[str], named: dict[str, str]) -> Output:
        """``edit t-0 leader=2 isr=2``: somebody else writes the state znode, with controller epoch ``ce``."""
        partition = partition_of(plain[0])
        before = self.states[partition]
        self.states[partition] = before._replace(
            leader=int(named["leader"]),
            isr=ids(named["isr"]),
            leader_epoch=before.leader_epoch + 1,
            partition_epoch=before.partition_epoch + 1,
            controller_epoch=int(named.get("ce", before.controller_epoch)),
            reason="by hand",
        )
        yield from ()

    def perform(self, effects: list[Effect]) -> Output:
        for effect in effects:
            match effect:
                case WriteStates():
                    yield from (f"write {write!r}" for write in effect.writes)
                    if self.held is None:
                        yield from self.write(list(effect.writes))
                    else:
                        self.held += effect.writes
                case WriteMoves():
                    yield from (f"move {write!r}" for write in effect.writes)
                    if self.held is None:
                        yield from self.write_moves(effect)
                    else:
                        self.held_moves.append(effect)
                case EditReassignments():
                    done = [f"{partition}={','.join(map(str, target))}" for partition, target in effect.done]
                    yield f"take out of the znode: {' '.join(done) or 'nothing, it is empty'}"
                case FenceBroker():
                    yield from self.fence(effect)
                case PushDelta():
                    yield from self.show_delta("delta", effect)
                case Answer():
                    yield f"answer {effect.token}: {self.show_result(effect)}"
                case DeleteTopicNodes():
                    yield f"delete the znodes of {effect.topic}"
                    del self.topics[effect.topic]
                    self.states = {tp: state for tp, state in self.states.items() if tp.topic != effect.topic}
                    yield from self.perform(self.controller.topic_deleted(effect.topic))
                case DropDeletionMarker():
                    yield f"drop the marker of {effect.topic}: {effect.reason}"
                case PushSnapshot():
                    yield f"snapshot to {effect.broker_id}"
                case Log():
                    pass

    def write(self, writes: list[StateWrite]) -> Output:
        found: list[tuple[TopicPartition, PartitionState | None]] = []
        for write in writes:
            before = self.states.get(write.partition)
            if (-1 if before is None else before.partition_epoch) == write.expected_version:
                self.zxid += 1
                self.states[write.partition] = write.state
                self.mzxids[write.partition] = self.zxid
            else:
                yield f"BADVERSION {write.partition}"
            found.append((write.partition, self.states.get(write.partition)))
        yield from self.perform(self.controller.states_found(found))

    def write_moves(self, effect: WriteMoves) -> Output:
        """Each partition's two writes happen, or none of them."""
        found: list[tuple[TopicPartition, PartitionState | None]] = []
        for write in effect.writes:
            before = self.states.get(write.partition)
            expected = write.state and write.state.expected_version
            if expected in (None, -1 if before is None else before.partition_epoch):
                topic = self.topics[effect.topic]
                rows = {**topic.partitions, write.partition.partition: write.placement}
                self.topics[effect.topic] = topic._replace(partitions=rows)
                if write.state is not None:
                    self.zxid += 1
                    self.states[write.partition] = write.state.state
                    self.mzxids[write.partition] = self.zxid
            else:
                yield f"BADVERSION {write.partition}"
            found.append((write.partition, self.states.get(write.partition)))
        yield from self.perform(self.controller.moves_found(effect.topic, self.topics[effect.topic], found))

    def show_delta(self, kind: str, effect: PushDelta) -> Output:
        delta = effect.delta
        parts = [f"up={broker.broker_id}@{broker.epoch}" for broker in delta.brokers]
        parts += [f"down={broker}" for broker in delta.removed_brokers]
        parts += [f"gone={topic}" for topic, _ in delta.deleted_topics]
        orders = [(broker, order) for broker, some in effect.orders for order in some]
        parts += [f"order={broker}:delete:{order.topic}-{order.partition}" for broker, order in orders]
        parts += [f"order=delete:{order.topic}-{order.partition}" for order in delta.deleted_replicas]
        yield " ".join([kind, *parts])
        for partition, state in delta.partitions:
            yield f"  {partition} {show_state(state._replace(reason=''))}"

    def show_result(self, answer: Answer) -> str:
        result = answer.result
        if isinstance(result, AlterPartitionResponse):
            rows = [
                row.error.name + (f" isr={','.join(map(str, row.state.isr))}" if row.state else "")
                for row in result.answers
            ]
            return " ".join([result.error.name, *rows])
        if isinstance(result, Mapping):
            return " ".join(f"{partition}={outcome.error.name}" for partition, outcome in result.items()) or "nothing"
        return "done" if result is None else f"still leads {[str(partition) for partition in result]}"


@pytest.mark.parametrize("path", SCENARIOS, ids=[path.stem for path in SCENARIOS])
def test_scenario(path: Path, rewrite: bool) -> None:
    stage = Stage()
    text = path.read_text()
    blocks = []
    for block in re.split(r"\n\n+", text.strip()):
        lines = block.split("\n")
        asked = lines[: lines.index("----")] if "----" in lines else lines
        output = []
        for line in asked:
            if not line.startswith("#"):
                output += list(stage.run(line))
        blocks.append("\n".join([*asked, "----", *output]))
    actual = "\n\n".join(blocks) + "\n"
    if rewrite:
        path.write_text(actual)
    assert actual == text


def test_there_are_scenarios() -> None:
    assert len(SCENARIOS) >= 8
