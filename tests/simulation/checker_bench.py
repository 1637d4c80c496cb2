"""A cluster of hand-made replicas for tests of the checkers: whatever is wrong can be put there."""

from __future__ import annotations

import json
from collections import Counter
from types import SimpleNamespace
from typing import Any

from tests.fakes.crash_disk import CrashDisk
from tests.simulation.checkers import Checkers
from tests.simulation.violation import Violation
from zkbroker.records.batch import read_header, stamp
from zkbroker.records.record import Record, build_batch

TOPIC_ID = "AAAAAAAAAAAAAAAAAAAAAA"
SESSION = 7


def batch_of(*values: bytes, pid: int = -1, epoch: int = -1, sequence: int = -1) -> bytes:
    """As a producer sends it."""
    records = [Record(number, 1_000, None, value) for number, value in enumerate(values)]
    return build_batch(records, producer_id=pid, producer_epoch=epoch, base_sequence=sequence)


class Epochs:
    def __init__(self) -> None:
        self.entries: tuple[tuple[int, int], ...] = ()
        self.version = 0

    def assign(self, epoch: int, start: int) -> None:
        if not self.entries or self.entries[-1][0] < epoch:
            self.entries = (*(entry for entry in self.entries if entry[1] < start), (epoch, start))
            self.version += 1


class Replica:
    """One replica with a file of its own; producers are kept as the real log keeps them."""

    def __init__(self, disk: CrashDisk, partition: int) -> None:
        self.disk = disk
        folder = f"/data/t-{partition}"
        disk.make_dirs(folder)
        self.path = f"{folder}/{0:020d}.log"
        disk.write_file(self.path, b"")
        self.state: Any = None
        self.leader: Any = None
        self.follower: Any = None
        self.high_watermark = 0
        self.last_stable_offset: int | None = None
        index = SimpleNamespace(base_offset=0, _offsets=[], _positions=[], _timestamps=[])
        self.log = SimpleNamespace(
            log_end_offset=0,
            generation=0,
            log_start_offset=0,
            epochs=Epochs(),
            folder=folder,
            topic_id=TOPIC_ID,
            is_offline=False,
            producers=SimpleNamespace(_producers={}),
            segments=[SimpleNamespace(index=index, time_index=index)],
        )

    def append(self, epoch: int, data: bytes) -> None:
        header = read_header(data)
        base = self.log.log_end_offset
        self.append_bytes(bytes(stamp(data, 0, header, base, epoch)))
        self.log.log_end_offset = base + header.records_count
        self.log.epochs.assign(epoch, base)
        if header.producer_id >= 0:
            kept = SimpleNamespace(last_sequence=header.last_sequence, last_offset=self.log.log_end_offset - 1)
            known = self.log.producers._producers.setdefault(
                header.producer_id, SimpleNamespace(epoch=header.producer_epoch, batches=[])
            )
            known.epoch = header.producer_epoch
            known.batches.append(kept)

    def append_bytes(self, data: bytes) -> None:
        handle = self.disk.open_data(self.path)
        self.disk.write(handle, self.disk.size(handle), data)
        self.disk.close(handle)

    def truncate(self, offset: int) -> None:
        """Drop the batches from ``offset`` on; each test's batches have one record."""
        content = self.disk.read_file(self.path)
        position = 0
        for _ in range(offset):
            position += read_header(content, position).size
        self.disk.write_file(self.path, content[:position])
        log = self.log
        log.log_end_offset = offset
        log.generation += 1
        log.epochs.entries = tuple(entry for entry in log.epochs.entries if entry[1] < offset)
        log.epochs.version += 1
        self.high_watermark = min(self.high_watermark, offset)

    def mark(self, offset: int) -> None:
        self.high_watermark = offset
        if self.leader is not None:
            self.leader.high_watermark = offset


class Bench:
    """Brokers 1 to 3 with one replica each of partition t-0, as the world shows them to checkers."""

    def __init__(self, min_insync_replicas: int = 2) -> None:
        self.counts: Counter[str] = Counter()
        self.trace = SimpleNamespace(add=lambda kind, text: None)
        self.settings = SimpleNamespace(session_timeout_s=1.5)
        self.on_commit: list[Any] = []
        self.checkers: list[Any] = []
        self.now = 0.0
        self.ran: Any = None
        self.nodes: dict[int, Any] = {}
        self.broker_of_session = lambda session: 0
        self.zxid = 0
        self.versions: dict[str, int] = {}
        self.all = Checkers(self, min_insync_replicas=min_insync_replicas)
        for broker_id in (1, 2, 3):
            self.nodes[broker_id] = SimpleNamespace(
                broker_id=broker_id, disk=CrashDisk(), losses=0, is_running=True, parts=None, process=None
            )
            self.boot(broker_id)
        self.commit("/controller_epoch", b"0")
        self.elect_controller(1)
        self.commit(
            "/brokers/topics/t",
            json.dumps({"topic_id": TOPIC_ID, "partitions": {"0": [1, 2, 3]}, "version": 3}).encode(),
        )
        self.step()

    # ZooKeeper

    def commit(self, path: str, data: bytes | None, session: int = SESSION, zxid: int | None = None) -> None:
        self.zxid += 1
        version = self.versions[path] = self.versions.get(path, -1) + 1 if data is not None else -1
        for listener in self.on_commit:
            listener(path, data, version, session, self.zxid if zxid is None else zxid)

    def elect_controller(self, epoch: int, session: int = SESSION) -> None:
        self.commit("/controller_epoch", str(epoch).encode(), session)

    def write_state(
        self,
        leader: int,
        epoch: int,
        isr: tuple[int, ...],
        *,
        elr: tuple[int, ...] = (),
        controller_epoch: int = 1,
        session: int = SESSION,
        recovering: bool = False,
    ) -> None:
        value: dict[str, Any] = {
            "version": 1,
            "leader": leader,
            "leader_epoch": epoch,
            "isr": list(isr),
            "controller_epoch": controller_epoch,
        }
        if elr:
            value["elr"] = list(elr)
        if recovering:
            value["leader_recovery_state"] = 1
        self.commit("/brokers/topics/t/partitions/0/state", json.dumps(value).encode(), session)

    # Brokers

    def boot(self, broker_id: int) -> None:
        """A new process, registered; it has no replica until ``replica`` asks for it."""
        node = self.nodes[broker_id]
        table = SimpleNamespace(replicas={})
        node.parts = SimpleNamespace(replicas=SimpleNamespace(_table=table))
        if f"/brokers/ids/{broker_id}" in self.versions:
            self.unregister(broker_id)
        self.commit(f"/brokers/ids/{broker_id}", b"{}")

    def unregister(self, broker_id: int) -> None:
        self.commit(f"/brokers/ids/{broker_id}", None)
        del self.versions[f"/brokers/ids/{broker_id}"]

    def broker_epoch(self, broker_id: int) -> int:
        return self.all.ghost.registered[broker_id][0]

    def replica(self, broker_id: int) -> Replica:
        node = self.nodes[broker_id]
        table = node.parts.replicas._table.replicas
        found = table.get(("t", 0))
        if found is None:
            found = table["t", 0] = Replica(node.disk, 0)
        replica: Replica = found
        replica.last_stable_offset = replica.high_watermark
        return replica

    def lead(
        self, broker_id: int, epoch: int, isr: tuple[int, ...], maximal: tuple[int, ...] = (), *, enters: bool = True
    ) -> Replica:
        """Take up the role; ``enters``: its epoch is entered in its cache."""
        replica = self.replica(broker_id)
        if enters:
            replica.log.epochs.assign(epoch, replica.log.log_end_offset)
        followers = {
            other: SimpleNamespace(broker_epoch=-1, log_end_offset=0, contact=None)
            for other in (1, 2, 3)
            if other != broker_id
        }
        replica.follower = None
        replica.leader = SimpleNamespace(
            leader_epoch=epoch,
            high_watermark=replica.high_watermark,
            isr=SimpleNamespace(state=SimpleNamespace(isr=isr, maximal=maximal or isr)),
            followers=followers,
            elr=(),
        )
        return replica

    def follow(self, broker_id: int, leader: int, epoch: int) -> Replica:
        replica = self.replica(broker_id)
        replica.leader = None
        replica.follower = SimpleNamespace(leader=leader, leader_epoch=epoch)
        return replica

    def begin(self) -> tuple[Replica, Replica, Replica]:
        """Broker 1 leads in epoch 0, all are in sync, and nothing is written yet."""
        self.write_state(1, 0, (1, 2, 3))
        replicas = self.lead(1, 0, (1, 2, 3)), self.follow(2, 1, 0), self.follow(3, 1, 0)
        self.step()
        return replicas

    def append_everywhere(self, *datas: bytes, epoch: int = 0, mark: bool = True) -> None:
        """On all three, and committed unless not ``mark``."""
        replicas = [self.replica(broker_id) for broker_id in (1, 2, 3)]
        for data in datas:
            for replica in replicas:
                replica.append(epoch, data)
        self.step()
        if mark:
            for is_leader in (True, False):
                for replica in replicas:
                    if (replica.leader is not None) is is_leader:
                        replica.mark(replica.log.log_end_offset)
                self.step()

    def step(self, broker_id: int = 0) -> None:
        """The step is over: all checkers look, at one broker or at all of them."""
        self.now += 0.01
        for node in self.nodes.values():
            if node.parts is not None:
                for replica in node.parts.replicas._table.replicas.values():
                    if replica.last_stable_offset is None or replica.last_stable_offset < replica.high_watermark:
                        replica.last_stable_offset = replica.high_watermark
        self.ran = SimpleNamespace(node=self.nodes[broker_id]) if broker_id else None
        for checker in self.checkers:
            checker.after_step(self)

    def violated(self) -> int:
        """The invariant that the checkers say is broken now; 0 if they say nothing."""
        try:
            self.step()
        except Violation as violation:
            return violation.invariant
        return 0
