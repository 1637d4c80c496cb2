"""One run: clients work, faults come and go, and what the clients saw is judged in the end."""

from __future__ import annotations

import contextlib
import json
import random
import signal
import time
import traceback
from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeVar

from kazoo.exceptions import NodeExistsError

from tests.faults.arena import PATIENCE_S, Arena
from tests.faults.checker import Verdict, check
from tests.faults.clients import RecordingReader, Traffic
from tests.faults.durations import Stopwatch
from tests.faults.history import Fault, Full, Healed, Recorder, Replica, Stuck
from tests.harness.brokers import LocalBroker, LocalFailure, wait_until

T = TypeVar("T")

LOOK_INTERVAL_S = 0.1
"""Between looks at ZooKeeper: they are to cost the machine little."""
CALM_S = 0.5
"""Of undisturbed traffic before each fault."""


class TortureSettings(NamedTuple):
    seed: int
    per_second: float = 150
    partitions: int = 6
    away_s: float = 60
    """How long whole ensembles and networks are away."""
    topic: str = "torture"


class FaultKind(NamedTuple):
    name: str
    meaning: str
    strike: Callable[[Torture], None]
    needs: str = ""
    """``network`` or ``disk`` where this machine must allow one to be made."""


class Torture:
    """What faults act through. ``say`` is told what happens, for people."""

    def __init__(self, arena: Arena, settings: TortureSettings, recorder: Recorder, say: Callable[[str], None]) -> None:
        self.arena = arena
        self.cluster = arena.cluster
        self.settings = settings
        self.dice = random.Random(settings.seed)
        self.topic = settings.topic
        self.recorder = recorder
        self._say = say
        self.stopwatch = Stopwatch(arena, recorder, say)
        self._fault = ""
        self._detail = ""
        ids = sorted(self.cluster.brokers)
        order = [ids[number % len(ids) :] + ids[: number % len(ids)] for number in range(settings.partitions)]
        self.replicas = {number: replicas[:3] for number, replicas in enumerate(order)}
        self.cluster.create_topic(
            self.topic, assignment=list(self.replicas.values()), config={"min.insync.replicas": "2"}
        )
        self.traffic = Traffic(
            self.cluster, recorder, self.topic, settings.partitions, settings.per_second, settings.seed
        )

    # -- the run

    def run(self, faults: Iterable[FaultKind]) -> Verdict:
        """Strike each, and judge. The clients' threads have ended afterwards, whatever happens."""
        try:
            self.wait(self.is_full, "all replicas of the new topic are in sync")
            self.traffic.start()
            self.wait_progress("at first")
            for fault in faults:
                if not self._strike(fault):
                    break
            self._read_all()
        finally:
            self.traffic.stop()
        return check(self.recorder.events)

    def _strike(self, fault: FaultKind) -> bool:
        """False if the cluster did not come back: nothing more can be learned."""
        self._fault, self._detail = fault.name, ""
        try:
            self._prefer_first_replicas()
            time.sleep(CALM_S)
            fault.strike(self)
            self.healed()
            self._wait_recovered()
        except Exception as error:
            self._stuck(error)
            try:
                self.arena.heal()
                self._wait_recovered()
            except Exception as worse:
                self._stuck(worse)
                return False
        return True

    def _wait_recovered(self) -> None:
        self.wait(self.is_full, "all replicas are in sync again")
        self.wait_progress("after it")
        self.recorder.add(Full(self.recorder.now(), self._fault))

    def _stuck(self, error: Exception) -> None:
        what = str(error) if isinstance(error, LocalFailure) else traceback.format_exc()
        self.recorder.add(Stuck(self.recorder.now(), self._fault, f"{self._detail}: {what}"))
        self._say(f"{self.recorder.now():8.2f} s {self._fault}: {what}")

    def _prefer_first_replicas(self) -> None:
        """Ask for the leaderships to be spread as at first. They may not be, for a while: who was found unreachable or
        was suspected falsely is not trusted at once."""
        if all(self.leader(number) == replicas[0] for number, replicas in self.replicas.items()):
            return
        names = [{"topic": self.topic, "partition": number} for number in self.replicas]
        body = json.dumps({"version": 1, "partitions": names}).encode()
        with contextlib.suppress(NodeExistsError):
            self.cluster.zookeeper.create("/admin/preferred_replica_election", body, makepath=True)
        self.wait(
            lambda: self.cluster.zookeeper.exists("/admin/preferred_replica_election") is None,
            "the preferred election is over",
        )

    def _read_all(self) -> None:
        """Stop writing, and read everything there is, from clients' side and on the disks."""
        self._fault = "the end"
        try:
            self.arena.heal()
            self.traffic.stop_writers(PATIENCE_S)
            self.wait(self.is_full, "all replicas are in sync in the end")
            reader = self.traffic.reader("final")
            for partition in self.replicas:
                self.wait(lambda number=partition: self._read_whole(reader, number), f"{partition} is read")  # type: ignore[misc]
            self.wait(self._are_equal, "all replicas hold the same bytes")
        except LocalFailure as error:
            self._stuck(error)
        for partition, replicas in self.replicas.items():
            for number in replicas:
                digest, size = self.arena.digest(number, self.topic, partition)
                self.recorder.add(Replica(self.recorder.now(), f"{self.topic}-{partition}", number, digest, size))

    def _read_whole(self, reader: RecordingReader, partition: int) -> bool:
        end = reader.end_of(partition)
        return end is not None and reader.scan(partition, 0, end, is_final=True)

    def _are_equal(self) -> bool:
        return all(
            len({self.arena.digest(number, self.topic, partition) for number in replicas}) == 1
            for partition, replicas in self.replicas.items()
        )

    # -- what faults see

    def leader(self, partition: int) -> int:
        return self.cluster.leader(self.topic, partition) or -1

    def controller(self) -> int:
        return self.wait(self.cluster.controller_id, "there is a controller")

    def led_by(self, number: int) -> list[int]:
        """The partitions that it leads."""
        return [partition for partition in self.replicas if self.leader(partition) == number]

    def leading_controller(self) -> int:
        """The controller, as soon as it leads a partition too."""

        def looked() -> int | None:
            controller = self.cluster.controller_id()
            if controller is not None and self.led_by(controller):
                return controller
            self._prefer_first_replicas()
            return None

        return self.wait(looked, "the controller leads a partition")

    def some_partition(self) -> int:
        return self.dice.randrange(self.settings.partitions)

    def some_broker(self, but: int | None = None) -> int:
        return self.dice.choice([number for number in self.cluster.brokers if number != but])

    def others(self, number: int) -> list[int]:
        return [other for other in self.cluster.brokers if other != number]

    def leads_nothing(self, number: int) -> bool:
        """It is registered, and others lead."""
        return number in self.cluster.live_ids() and not self.led_by(number)

    def is_full(self) -> bool:
        if self.cluster.live_ids() != sorted(self.cluster.brokers) or self.cluster.controller_id() is None:
            return False
        return all(
            sorted(self.cluster.isr(self.topic, number)) == sorted(replicas) and self.leader(number) in replicas
            for number, replicas in self.replicas.items()
        )

    def wait(self, condition: Callable[[], T | None], what: str, timeout_s: float = PATIENCE_S) -> T:
        def looked() -> T | None:
            result = condition()
            if not result:
                time.sleep(LOOK_INTERVAL_S)
            return result

        found = wait_until(looked, what, timeout_s, self.cluster.explain)
        if found is None:
            raise LocalFailure(f"{what}: nothing")
        return found

    def wait_progress(self, when: str, timeout_s: float = PATIENCE_S) -> None:
        """Until every partition has acknowledged more records with acks=all. It says what must be possible."""
        if not self.hope_progress(timeout_s):
            raise LocalFailure(f"no acknowledgements {when} within {timeout_s:g} s\n{self.cluster.explain()}")

    def hope_progress(self, timeout_s: float) -> bool:
        """Whether every partition acknowledged more records within that time."""
        before = self.traffic.acknowledged()
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            # Two each: one may have been acknowledged by the brokers before this began.
            if all(now > then + 1 for then, now in zip(before, self.traffic.acknowledged(), strict=True)):
                return True
            time.sleep(0.02)
        return False

    # -- what faults do

    def begin(self, detail: str, victim: int | None = None) -> None:
        """Tell the history that the fault strikes now. What a fault needs to know is found out before. ``victim``:
        promises are made about how soon the others go on without it."""
        self._detail = detail
        self.stopwatch.began(self._fault, victim)
        self.recorder.add(Fault(self.recorder.now(), self._fault, detail))
        self._say(f"{self.recorder.now():8.2f} s {self._fault}: {detail}")

    def healed(self) -> None:
        """The fault is over. Said by the driver, or before by a fault that looks at what follows."""
        self.recorder.add(Healed(self.recorder.now(), self._fault))

    def broker(self, number: int) -> LocalBroker:
        return self.cluster.brokers[number]

    def kill(self, *numbers: int) -> None:
        """kill -9, all at once."""
        for number in numbers:
            self.broker(number).send(signal.SIGKILL)
        for number in numbers:
            self.broker(number).wait(30)

    def start(self, *numbers: int) -> None:
        """Start brokers, all at once, and wait until they serve."""
        for number in numbers:
            self.broker(number).start()
        for number in numbers:
            self.broker(number).wait_started(PATIENCE_S, self.cluster.explain)

    def hold(self, seconds: float) -> None:
        """Let the fault last."""
        time.sleep(seconds)
