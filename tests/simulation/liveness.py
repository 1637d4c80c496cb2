"""Invariant 17: once faults have healed, there is one controller, every partition is led and its ISR full, every client
is answered, and a new consumer reads every acknowledged record."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.simulation.checkers.ghost import Key, Partition
from tests.simulation.consumers import Consumer
from tests.simulation.history import values_at
from tests.simulation.violation import Violation

if TYPE_CHECKING:
    from tests.simulation.workload import Workload

CONVERGENCE_S_MAX = 60.0
READ_S_MAX = 30.0
STEPS_BETWEEN_LOOKS = 50


class _LastReader(Consumer):
    """Keeps what it reads."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        self.values: dict[tuple[str, int], dict[int, bytes]] = {}
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]

    def read(self, place: tuple[str, int], data: bytes) -> None:
        self.values.setdefault(place, {}).update(values_at(data))


class Liveness:
    def __init__(self, workload: Workload) -> None:
        self._workload = workload
        self._world = workload.world
        self._ghost = workload.checkers.ghost

    def check(self) -> None:
        workload, world = self._workload, self._world
        began = world.now
        workload.stop_producing()
        self._wait(self._missing, CONVERGENCE_S_MAX)
        world.counts["convergence_ms"] += int((world.now - began) * 1000)
        # Whoever converged answers everybody.
        before = {client.name: client.answers_count for client in workload.clients}
        self._wait(
            lambda: [
                f"{client.name} gets no answers"
                for client in workload.clients
                if client.answers_count == before[client.name] and not self._needs_nothing(client.name)
            ],
            CONVERGENCE_S_MAX,
        )
        self._read_everything()
        workload.checkers.at_end()

    def _wait(self, missing: object, seconds_max: float) -> None:
        world = self._world
        looks = 0
        problems: list[str] = []

        def is_done() -> bool:
            nonlocal looks, problems
            looks += 1
            if looks % STEPS_BETWEEN_LOOKS:
                return False
            problems = missing()  # type: ignore[operator]
            return not problems

        if not world.run_until(is_done, seconds_max):
            problems = missing()  # type: ignore[operator]
            if problems:
                raise Violation(17, f"{seconds_max:.0f} s after all healed: " + "; ".join(problems[:8]))

    def _needs_nothing(self, name: str) -> bool:
        """Producers that have settled everything ask nobody any more."""
        return any(producer.name == name and producer.is_idle for producer in self._workload.producers)

    # What is missing

    def _missing(self) -> list[str]:
        world, workload = self._world, self._workload
        for node in world.nodes.values():
            if not node.is_running:
                # Somebody who stopped it before all healed: whoever supervises it starts it again.
                world.start(node.broker_id)
        missing = [f"broker {node.broker_id} is not ready" for node in world.nodes.values() if not node.is_ready]
        if missing:
            return missing
        active = [
            node.broker_id
            for node in world.nodes.values()
            if node.parts is not None and node.parts.controller.is_controller
        ]
        if len(active) != 1:
            missing.append(f"controllers: {active}")
        marked = [path for path in world.zookeeper.tree.znodes if path.startswith("/admin/delete_topics/")]
        # A deletion waits for the end of a reassignment, and that perhaps for a person.
        stuck = {
            partition.topic for partition in self._partitions() if partition.is_moving and self._is_excused(partition)
        }
        missing += [f"{path} is still there" for path in marked if path.rpartition("/")[2] not in stuck]
        is_waiting = any(self._is_excused(partition) for partition in self._partitions())
        if "/admin/reassign_partitions" in world.zookeeper.tree.znodes and not is_waiting:
            missing.append("/admin/reassign_partitions is still there")
        if workload.admin is not None and not workload.admin.is_content:
            missing.append(f"the administrator's topics: {workload.admin.partition_counts}")
        for partition in self._partitions():
            missing += self._missing_of(partition)
        excused = {
            (partition.topic, partition.partition) for partition in self._partitions() if self._is_excused(partition)
        }
        for producer in workload.producers:
            for place, queue in producer.queues.items():
                if queue.batches and place not in excused:
                    missing.append(
                        f"{producer.name} has {len(queue.batches)} batches for {queue.topic}-{queue.partition}"
                    )
        return missing

    def _partitions(self) -> list[Partition]:
        """Those of topics that exist."""
        topics = self._ghost.topics
        return [
            partition
            for partition in self._ghost.partitions.values()
            if topics.get(partition.topic) == partition.key[0] and partition.replicas
        ]

    def _is_excused(self, partition: Partition) -> bool:
        """Without a leader, because all who might hold what is committed may lack some of it: a person must decide."""
        state = partition.state
        if state is None or state.leader >= 0:
            return False
        if state.recovering and partition.is_moving:
            # Of an only replica the loss is accepted without a person; not while others are being added, which may hold
            # more than is left. Its broker says that it lost something until it has led for a moment.
            return all(self._workload.checkers.znodes.says_lossy(member) for member in state.members)
        return all(member in partition.lossy or member in partition.unsettled for member in state.members)

    def _holds(self, node: Any, partition: Partition) -> bool:
        """Has that broker its log, or was it set aside there instead of deleted?"""
        log = node.parts._logs.logs.get((partition.topic, partition.partition))
        if log is not None and log.topic_id == partition.key[0]:
            return True
        # The rename that began a deletion may be undone by a loss of power: then it is set aside.
        looks = self._workload.mover is not None and not node.losses
        names = node.disk._folder("/data").entries if looks else ()
        return any(
            name.startswith(f"{partition!r}.")
            and name.endswith("-stray")
            and node.disk.exists(metadata := f"/data/{name}/partition.metadata")
            and partition.key[0].encode() in node.disk.read_file(metadata)
            for name in names
        )

    def _missing_of(self, partition: Partition) -> list[str]:
        state, world = partition.state, self._world
        if state is None:
            return [f"{partition!r} has no state"]
        if self._is_excused(partition):
            return []
        if state.leader < 0:
            return [f"{partition!r} has no leader: {state}, lossy {list(partition.lossy)} {list(partition.unsettled)}"]
        view = partition.views.get(state.leader)
        leader = None if view is None else view.replica.leader
        if leader is None or leader.leader_epoch != state.leader_epoch:
            return [f"{partition!r}: broker {state.leader} does not lead in epoch {state.leader_epoch}: {leader!r}"]
        # The leader says that it recovered with its first ISR change, which the only replica there is never has.
        is_recovering = state.recovering and len(partition.replicas) > 1
        if set(state.isr) != set(partition.replicas) or state.elr or is_recovering:
            return [f"{partition!r}: {state} of replicas {list(partition.replicas)}"]
        if partition.is_moving:
            return [f"{partition!r} is still being reassigned: {list(partition.replicas)}"]
        left_over = [
            node.broker_id
            for node in world.nodes.values()
            if node.broker_id not in partition.replicas and self._holds(node, partition)
        ]
        if left_over:
            return [f"{partition!r}: brokers {left_over} are no replicas of {list(partition.replicas)} and have data"]
        ends = {broker_id: view.content.end for broker_id, view in partition.views.items()}
        marks = {broker_id: view.replica.high_watermark for broker_id, view in partition.views.items()}
        if len(set(ends.values()) | set(marks.values())) != 1 or len(ends) < len(partition.replicas):
            return [f"{partition!r}: ends {ends}, high watermarks {marks}"]
        return []

    # Reading all

    def _read_everything(self) -> None:
        workload, world = self._workload, self._world
        if not workload.settings.topics:
            return
        reader = _LastReader(
            world,
            workload.history,
            "last",
            delay_s_max=0.001,
            loss_share=0.0,
            topics=tuple(workload.settings.topics),
            again_share=0.0,
        )
        partitions = [partition for partition in self._partitions() if not self._is_excused(partition)]

        def unread() -> list[str]:
            return [
                f"{partition!r} is read up to {reader.positions.get((partition.topic, partition.partition), 0)} of "
                f"{partition.true_hw}"
                for partition in partitions
                if reader.positions.get((partition.topic, partition.partition), 0) < partition.true_hw
            ]

        self._wait(unread, READ_S_MAX)
        reader.stop()
        for partition in partitions:
            self._check_read(partition, reader.values.get((partition.topic, partition.partition), {}))

    def _check_read(self, partition: Partition, read: dict[int, bytes]) -> None:
        key: Key = partition.key
        for value, offset in self._workload.history.acked.get(key, {}).items():
            if offset < partition.log_start:
                continue
            if read.get(offset) != value:
                raise Violation(
                    6, f"{partition!r}: {value!r} was acknowledged at offset {offset}; read there: {read.get(offset)!r}"
                )
            self._world.counts["acked_and_read"] += 1
