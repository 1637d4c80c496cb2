"""Java's producer, consumer, Admin and tools, by InteropServer.java in one virtual machine for each version."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import os
import subprocess
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple

from tests.harness.brokers import LocalFailure, kafka_class_path
from tests.interop.adapters import Client, Got, Record, Start, TopicSeen, Where

SOURCES = ("InteropServer.java", "InteropClients.java", "InteropAdmin.java")
ANSWER_TIMEOUT_S = 120.0


class ToolOutput(NamedTuple):
    status: int
    out: str
    err: str


def compiled(libs: str) -> Path:
    """The folder with InteropServer's classes for these jars; compiled once and kept beside them."""
    sources = [Path(__file__).with_name(name) for name in SOURCES]
    mark = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:16]
    folder = Path(os.environ.get("TMPDIR", "/tmp")) / f"zkbroker-interop-{os.getuid()}" / Path(libs).parent.name / mark
    if not (folder / ".complete").exists():
        folder.mkdir(parents=True, exist_ok=True)
        argv = ["javac", "-nowarn", "-cp", f"{libs}/*", "-d", str(folder), *map(str, sources)]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=180, check=False)
        if done.returncode:
            raise LocalFailure(f"javac failed:\n{done.stderr}")
        (folder / ".complete").touch()
    return folder


class JavaServer:
    """The virtual machine: requests from any thread, each answered when it is done."""

    def __init__(self, libs: str) -> None:
        path = f"{kafka_class_path('WARN', libs)}:{compiled(libs)}"
        self._java = ["java", "-Xmx400m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", path]
        argv = [*self._java, "InteropServer"]
        self._process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self._waiting: dict[int, Future[Any]] = {}
        self._ids = itertools.count(1)
        self._lock = threading.Lock()
        first = self._stdout.readline()
        if not first:
            raise LocalFailure(f"InteropServer did not start: {' '.join(argv)}")
        self.version: str = json.loads(first)["version"]
        threading.Thread(target=self._receive, daemon=True).start()

    @property
    def _stdout(self) -> Any:
        return self._process.stdout

    def ask(self, op: str, **fields: Any) -> Any:
        future: Future[Any] = Future()
        number = next(self._ids)
        with self._lock:
            self._waiting[number] = future
            stdin: Any = self._process.stdin
            stdin.write(json.dumps({"id": number, "op": op, **fields}) + "\n")
            stdin.flush()
        answer = future.result(ANSWER_TIMEOUT_S)
        if "failure" in answer:
            raise LocalFailure(answer["failure"])
        return answer

    def tool(self, class_name: str, *arguments: str, stdin: str = "") -> ToolOutput:
        answer = self.ask("tool", **{"class": class_name}, args=list(arguments), stdin=stdin)
        return ToolOutput(answer["status"], answer["out"], answer["err"])

    def tool_alone(self, class_name: str, *arguments: str) -> ToolOutput:
        """A tool that needs a virtual machine of its own, because it does its work when that one ends."""
        argv = [*self._java, class_name, *arguments]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=ANSWER_TIMEOUT_S, check=False)
        return ToolOutput(done.returncode, done.stdout, done.stderr)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()

    def _receive(self) -> None:
        for line in self._stdout:
            answer = json.loads(line)
            with self._lock:
                future = self._waiting.pop(answer["id"], None)
            if future is not None:
                future.set_result(answer)
        with self._lock:
            waiting = list(self._waiting.values())
        for future in waiting:
            future.set_exception(LocalFailure("InteropServer has ended"))


def _base64(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode()


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text)


def _got(row: Mapping[str, Any]) -> Got:
    headers = tuple((name, _bytes(value)) for name, value in row["headers"])
    record = Record(_bytes(row["value"]), _bytes(row["key"]), headers, row["timestamp"])
    return Got(row["partition"], row["offset"], record)


class JavaMember:
    def __init__(self, client: JavaClient, name: str) -> None:
        self._client = client
        self._name = name
        self._last: list[Got] | None = None
        """What it had read when it left."""

    def assigned(self) -> set[int]:
        return set(self._client.ask("member", member=self._name)["assigned"])

    def received(self) -> list[Got]:
        if self._last is not None:
            return self._last
        return [_got(row) for row in self._client.ask("member", member=self._name)["records"]]

    def leave(self) -> None:
        self._last = [_got(row) for row in self._client.ask("leave", member=self._name)["records"]]


class JavaClient(Client):
    _numbers = itertools.count(1)

    def __init__(self, name: str, bootstrap: str, libs: str) -> None:
        super().__init__(bootstrap)
        self.name = name
        self.server = JavaServer(libs)
        self.library = f"kafka-clients {self.server.version}"

    def close(self) -> None:
        self.server.close()

    def ask(self, op: str, **fields: Any) -> Any:
        return self.server.ask(op, bootstrap=self.bootstrap, **fields)

    # Data

    def produce(self, topic: str, records: Sequence[Record], where: Where = Where(), partition: int = 0) -> None:
        config = {
            "compression.type": where.codec,
            "acks": where.acks,
            "enable.idempotence": str(where.is_idempotent).lower(),
            "max.request.size": "2000000",
            "linger.ms": "20",
        }
        rows = [
            {
                "key": _base64(one.key),
                "value": _base64(one.value),
                "headers": [[name, _base64(value)] for name, value in one.headers],
                "timestamp": one.timestamp_ms,
            }
            for one in records
        ]
        self.ask("produce", topic=topic, partition=partition, config=config, records=rows)

    def read(self, topic: str, count: int, start: Start = Start(), partition: int = 0) -> list[Got]:
        where = "time" if start.time_ms is not None else "beginning" if start.offset is None else str(start.offset)
        answer = self.ask(
            "read", topic=topic, partition=partition, config={}, count=count, start=where, time=start.time_ms
        )
        return [_got(row) for row in answer["records"][:count]]

    def join(
        self, group: str, topic: str, *, is_cooperative: bool = False, instance_id: str | None = None
    ) -> JavaMember:
        strategy = "CooperativeStickyAssignor" if is_cooperative else "RangeAssignor"
        config = {
            "group.id": group,
            "auto.offset.reset": "earliest",
            "partition.assignment.strategy": f"org.apache.kafka.clients.consumer.{strategy}",
            "auto.commit.interval.ms": "500",
            "session.timeout.ms": "10000",
            "heartbeat.interval.ms": "300",
            **({} if instance_id is None else {"group.instance.id": instance_id}),
        }
        name = f"member-{next(self._numbers)}"
        self.ask("join", member=name, topic=topic, config=config)
        return JavaMember(self, name)

    # Administration

    def cluster(self) -> tuple[int, list[int]]:
        answer = self.ask("cluster")
        return answer["controller"], sorted(answer["nodes"])

    def topics(self) -> list[str]:
        return sorted(self.ask("topics")["values"])

    def create_topic(self, name: str, partitions: int, replicas: int, configs: Mapping[str, str]) -> None:
        self.ask("create_topic", name=name, partitions=partitions, replicas=replicas, configs=dict(configs))

    def describe_topic(self, name: str) -> TopicSeen:
        answer = self.ask("describe_topic", name=name)
        return TopicSeen([(one["leader"], one["replicas"]) for one in answer["partitions"]], answer["topic_id"])

    def add_partitions(self, name: str, total: int) -> None:
        self.ask("add_partitions", name=name, total=total)

    def delete_topic(self, name: str) -> None:
        self.ask("delete_topic", name=name)

    def topic_config(self, name: str) -> dict[str, str | None]:
        return dict(self.ask("topic_config", name=name)["values"])

    def set_topic_config(self, name: str, configs: Mapping[str, str]) -> None:
        self.ask("set_topic_config", name=name, configs=dict(configs))

    def groups(self) -> list[str]:
        return sorted(self.ask("groups")["values"])

    def describe_group(self, name: str) -> tuple[str, int]:
        answer = self.ask("describe_group", name=name)
        return answer["state"].lower(), answer["members"]

    def group_offsets(self, name: str, topic: str, partitions: Sequence[int]) -> dict[int, int]:
        return {int(one): offset for one, offset in self.ask("group_offsets", name=name)["values"].items()}

    def delete_group(self, name: str) -> None:
        self.ask("delete_group", name=name)

    def delete_records(self, topic: str, before: int) -> None:
        self.ask("delete_records", name=topic, before=before)

    def max_timestamp_offset(self, topic: str) -> int:
        return int(self.ask("max_timestamp_offset", name=topic)["offset"])

    def reassign(self, topic: str, replicas: Sequence[int]) -> None:
        self.ask("reassign", name=topic, replicas=list(replicas))

    def reassignments_count(self, topic: str) -> int:
        return int(self.ask("reassignments_count", name=topic)["count"])

    def elect_preferred(self, topic: str) -> None:
        self.ask("elect_preferred", name=topic)

    def log_sizes(self, topic: str, brokers: Sequence[int]) -> dict[int, int]:
        answer = self.ask("log_dirs", name=topic, brokers=list(brokers))
        return {int(broker): size for broker, size in answer["sizes"].items()}

    def producers_count(self, topic: str) -> int:
        return int(self.ask("producers", name=topic)["count"])
