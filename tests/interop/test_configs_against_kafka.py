"""Settings, log folders, producers and quotas: the same requests to a Kafka 3.9.1 broker and to zkbroker, then Kafka's
own commands beside zkbroker's. See test_against_kafka.py."""

from __future__ import annotations

import os
import re
import subprocess
from typing import Any

import pytest

from tests.harness.brokers import kafka_class_path, wait_until
from tests.harness.differential import Accepted, Comparison, Peer, batch
from tests.harness.kafka_differences import ACCEPTED, create, produce, served
from tests.interop.test_against_kafka import peers
from zkbroker.cli import configs, log_dirs
from zkbroker.kafka import versions as v

__all__ = ["peers"]
pytestmark = [
    pytest.mark.timeout(400),
    pytest.mark.skipif("ZKBROKER_KAFKA_LIBS" not in os.environ, reason="ZKBROKER_KAFKA_LIBS is not set"),
]
SET, DELETE, APPEND, SUBTRACT = range(4)
THROTTLED = "leader.replication.throttled.replicas"


DIFFERENT = (
    Accepted("leader.replication.throttled.rate", "read_only: True", "it can be altered: Kafka forgot it"),
    Accepted("loggers", "documentation: ''", "nothing is nothing"),
)


@pytest.fixture
def run(peers: tuple[Peer, Peer]) -> Comparison:
    return Comparison(peers, (*ACCEPTED, *DIFFERENT))


def resource(kind: int, name: str, *configs: tuple[str, int, str | None]) -> dict[str, Any]:
    rows = [{"name": key, "config_operation": operation, "value": value} for key, operation, value in configs]
    return {"resource_type": kind, "resource_name": name, "configs": rows}


def described(run: Comparison, case: str, kind: int, name: str, keys: list[str] | None, version: int = 4) -> None:
    rows = [{"resource_type": kind, "resource_name": name, "configuration_keys": keys}]
    run.ask(f"configs {case}", v.DESCRIBE_CONFIGS, version, resources=rows, include_synonyms=True)


def obeyed(run: Comparison, name: str, key: str, value: str, *peers: Peer) -> None:
    """Kafka's brokers hear of their settings some time after the answer."""
    rows = [{"resource_type": 4, "resource_name": name, "configuration_keys": [key]}]

    def is_obeyed(peer: Peer) -> bool:
        (result,) = peer.ask(v.DESCRIBE_CONFIGS, 4, resources=rows)["results"]
        return [entry["value"] for entry in result["configs"]] == [value]

    for peer in peers or run.peers:
        wait_until(lambda peer=peer: is_obeyed(peer), f"{peer} obeys {key}", 20)  # type: ignore[misc]


@pytest.mark.parametrize("version", served(v.INCREMENTAL_ALTER_CONFIGS))
def test_incremental_changes(run: Comparison, version: int) -> None:
    t = create(run, retention_ms="5")

    def alter(case: str, *resources: dict[str, Any], validate_only: bool = False) -> None:
        fields = {"resources": list(resources), "validate_only": validate_only}
        run.ask(f"alter {case}", v.INCREMENTAL_ALTER_CONFIGS, version, **fields)

    for case, change in {
        "set": ("flush.ms", SET, "7"),
        "delete": ("retention.ms", DELETE, None),
        "delete what is not set": ("segment.ms", DELETE, "x"),
        "delete what is unknown": ("foo", DELETE, None),
        "unknown": ("foo", SET, "1"),
        "not a number": ("retention.ms", SET, "abc"),
        "too small": ("retention.ms", SET, "-5"),
        "null": ("retention.ms", SET, None),
        "append to a number": ("retention.ms", APPEND, "1"),
        "append": ("cleanup.policy", APPEND, "compact"),
        "append again": ("cleanup.policy", APPEND, "compact"),
        "append garbage": ("cleanup.policy", APPEND, "bogus"),
        "subtract": ("cleanup.policy", SUBTRACT, "delete"),
        "append to nothing": (THROTTLED, APPEND, "0:1,1:2"),
        "subtract from several": (THROTTLED, SUBTRACT, "1:2"),
        "no pairs": (THROTTLED, SET, "zz"),
        "lags in conflict": ("min.compaction.lag.ms", SET, str(2**63 - 1)),
        "tiered": ("remote.storage.enable", SET, "true"),
    }.items():
        alter(case, resource(2, t, change))
        described(run, f"after {case}", 2, t, ["flush.ms", "retention.ms", "cleanup.policy", THROTTLED])
    alter("conflict", resource(2, t, ("min.compaction.lag.ms", SET, "9"), ("max.compaction.lag.ms", SET, "8")))
    alter("checked", resource(2, t, ("flush.ms", SET, "9")), validate_only=True)
    alter("nothing", resource(2, t))
    alter("twice", resource(2, t, ("flush.ms", SET, "9")), resource(2, t, ("flush.ms", SET, "8")))
    alter("a key twice", resource(2, t, ("flush.ms", SET, "9"), ("flush.ms", SET, "8")))
    alter("one of two", resource(2, "nowhere", ("flush.ms", SET, "9")), resource(2, t, ("flush.ms", SET, "9")))
    for name in ("nowhere", "a b", ""):
        alter(f"topic {name!r}", resource(2, name, ("flush.ms", SET, "9")))
    for kind in (0, 16, 32, 99):
        alter(f"kind {kind}", resource(kind, t, ("flush.ms", SET, "9")))
    for name in ("2", "x", "1", ""):
        alter(f"broker {name!r}", resource(4, name, ("log.flush.interval.ms", SET, "99")))
        for key, operation, value in (
            ("num.partitions", SET, "3"),
            ("log.retention.ms", SET, "abc"),
            ("log.retention.ms", SET, "0"),
            ("log.retention.ms", APPEND, "1"),
            ("log.segment.bytes", SET, "1"),
            ("max.connections.per.ip", SET, "-1"),
            ("leader.replication.throttled.rate", SET, "-1"),
            ("leader.replication.throttled.rate", SET, "5"),
            ("log.cleanup.policy", APPEND, "delete"),
        ):
            alter(f"broker {name!r} {key} {operation} {value}", resource(4, name, (key, operation, value)))
        alter(f"broker {name!r} back", resource(4, name, ("log.cleanup.policy", DELETE, None)))
    alter("all brokers' listeners", resource(4, "", ("listeners", SET, "PLAINTEXT://:1")))
    for key, value in (("log.flush.interval.ms", "99"), ("leader.replication.throttled.rate", "5")):
        obeyed(run, "1", key, value)
        obeyed(run, "", key, value)
        described(run, f"of the broker {key}", 4, "1", [key])
        described(run, f"of all brokers {key}", 4, "", [key])
    described(run, "of the topic then", 2, t, ["flush.ms"])
    for name in ("1", ""):
        for key in ("log.flush.interval.ms", "leader.replication.throttled.rate"):
            alter(f"broker {name!r} {key} taken away", resource(4, name, (key, DELETE, None)))
    run.check()


@pytest.mark.parametrize("version", served(v.ALTER_CONFIGS))
def test_changes_of_the_old_kind(run: Comparison, version: int) -> None:
    t = create(run, retention_ms="5")

    def alter(case: str, kind: int, name: str, *configs: tuple[str, str | None], validate_only: bool = False) -> None:
        rows = [resource(kind, name, *((key, SET, value) for key, value in configs))]
        run.ask(f"alter {case}", v.ALTER_CONFIGS, version, resources=rows, validate_only=validate_only)

    alter("checked", 2, t, ("flush.ms", "7"), validate_only=True)
    described(run, "after a check", 2, t, ["flush.ms", "retention.ms"])
    alter("replaced", 2, t, ("flush.ms", "7"))
    described(run, "replaced", 2, t, ["flush.ms", "retention.ms"])
    alter("unknown", 2, t, ("foo", "7"))
    alter("not a number", 2, t, ("flush.ms", "x"))
    alter("null", 2, t, ("flush.ms", None))
    alter("a key twice", 2, t, ("flush.ms", "7"), ("flush.ms", "8"))
    alter("emptied", 2, t)
    described(run, "emptied", 2, t, ["flush.ms"])
    for name in ("nowhere", "a b"):
        alter(f"topic {name!r}", 2, name, ("flush.ms", "7"))
    for name in ("1", ""):
        alter(f"broker {name!r}", 4, name, ("log.flush.interval.ms", "98"))
        obeyed(run, name, "log.flush.interval.ms", "98")
        described(run, f"of broker {name!r}", 4, name, ["log.flush.interval.ms"])
        alter(f"broker {name!r} read-only", 4, name, ("num.partitions", "98"))
        alter(f"broker {name!r} emptied", 4, name)
    for name in ("2", "x"):
        alter(f"broker {name!r}", 4, name, ("log.flush.interval.ms", "98"))
    alter("loggers", 8, "1", ("root", "INFO"))
    alter("kind 0", 0, t)
    run.check()


def test_loggers(run: Comparison) -> None:
    for name, change in {
        "1": ("root", SET, "INFO"),
        "2": ("root", SET, "INFO"),
        "x": ("root", SET, "INFO"),
        "": ("root", SET, "INFO"),
    }.items():
        rows = [resource(8, name, change)]
        run.ask(f"alter loggers {name!r}", v.INCREMENTAL_ALTER_CONFIGS, 1, resources=rows)
    for change in (
        ("root", SET, "LOUD"),
        ("root", DELETE, None),
        ("root", APPEND, "INFO"),
        ("no.such.logger", SET, "INFO"),
    ):
        rows = [resource(8, "1", change)]
        run.ask(f"alter loggers {change}", v.INCREMENTAL_ALTER_CONFIGS, 1, resources=rows)
    for name in ("1", "", "x", "2"):
        described(run, f"of loggers {name!r}", 8, name, ["root"])
    run.check()


def test_log_folders_producers_and_quotas(run: Comparison) -> None:
    t = create(run, partitions=2)
    produce(run, "for the folders", t, batch(b"v", producer_id=4711, producer_epoch=2, sequence=0))

    def folders(peer: Peer, version: int, topics: list[dict[str, Any]] | None) -> Any:
        answer = peer.ask(v.DESCRIBE_LOG_DIRS, version, topics=topics)
        for folder in answer["results"]:
            assert folder.pop("log_dir").startswith("/")
            assert folder.pop("total_bytes", 2) > folder.pop("usable_bytes", 1) > 0
            for topic in folder["topics"]:
                topic["partitions"].sort(key=lambda row: row["partition_index"])
            folder["topics"].sort(key=lambda topic: topic["name"])
            if topics is None:
                # What other tests made, and the topics that each broker makes for itself.
                folder["topics"] = [topic for topic in folder["topics"] if topic["name"] == t]
        return answer

    wanted = [{"topic": t, "partitions": [1]}, {"topic": "nowhere", "partitions": [0]}]
    for version in served(v.DESCRIBE_LOG_DIRS):
        for case, topics in {"all": None, "some": wanted, "none": [], "without partitions": [{"topic": t}]}.items():
            run.both(f"log folders {case} v{version}", lambda peer, v=version, t=topics: folders(peer, v, t))  # type: ignore[misc]
    rows = [{"name": name, "partition_indexes": [0, 1, 9]} for name in (t, "nowhere", "a b")]
    run.ask("producers", v.DESCRIBE_PRODUCERS, 0, topics=rows)
    for version in served(v.DESCRIBE_CLIENT_QUOTAS):
        for strict in (False, True):
            for components in (
                [],
                [("user", 2, None)],
                [("user", 0, "a"), ("client-id", 1, None)],
                [("ip", 2, None)],
                [("ip", 2, None), ("user", 2, None)],
                [("user", 2, None), ("user", 2, None)],
                [("foo", 2, None)],
                [("", 2, None)],
            ):
                parts = [{"entity_type": kind, "match_type": how, "match": name} for kind, how, name in components]
                fields = {"components": parts, "strict": strict}
                run.ask(f"quotas {components} {strict}", v.DESCRIBE_CLIENT_QUOTAS, version, **fields)
    for users in (None, [], ["nobody"], ["nobody", "nobody"], [""]):
        rows = None if users is None else [{"name": name} for name in users]
        run.ask(f"scram users {users}", v.DESCRIBE_USER_SCRAM_CREDENTIALS, 0, users=rows)
    run.check()


def kafkas(tool: str, *arguments: str) -> str:
    command = [
        "java",
        "-Xmx128m",
        "-XX:TieredStopAtLevel=1",
        "-XX:+UseSerialGC",
        "-cp",
        kafka_class_path("ERROR"),
        tool,
    ]
    return subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=120, check=True).stdout


def ours(capsys: pytest.CaptureFixture[str], tool: Any, *arguments: str) -> str:
    assert tool.main(list(arguments)) == 0
    return capsys.readouterr().out


def test_commands_print_the_same(run: Comparison, capsys: pytest.CaptureFixture[str]) -> None:
    """Kafka's commands at zkbroker print what zkbroker's do, there and at Kafka's broker; what is altered by one is
    described by the other."""
    t = create(run)
    alter = ("--alter", "--topic", t, "--add-config", "retention.ms=86400000,cleanup.policy=[compact,delete]")
    everything = ("--describe", "--topic", t, "--all")
    brokers = ("--alter", "--broker-defaults", "--add-config", "log.flush.interval.messages=12345")
    described_brokers = ("--describe", "--entity-type", "brokers")
    back = ("--alter", "--broker-defaults", "--delete-config", "log.flush.interval.messages")
    folders = ("--describe", "--topic-list", t)
    theirs = {configs: "kafka.admin.ConfigCommand", log_dirs: "org.apache.kafka.tools.LogDirsCommand"}
    printed: list[list[str]] = []
    for peer in run.peers:
        at = ("--bootstrap-server", f"127.0.0.1:{peer.port}")
        lines = []
        for tool, arguments in (
            (configs, alter),
            (configs, everything),
            (configs, brokers),
            (configs, described_brokers),
            (configs, back),
            (log_dirs, folders),
        ):
            if arguments == described_brokers:
                obeyed(run, "", "log.flush.interval.messages", "12345", peer)
            is_kafkas_turn = peer.name == "zkbroker" and arguments not in (brokers, back)
            lines.append(
                kafkas(theirs[tool], *at, *arguments) if is_kafkas_turn else ours(capsys, tool, *at, *arguments)
            )
            if is_kafkas_turn and "--describe" in arguments:
                assert ours(capsys, tool, *at, *arguments) == lines[-1]
        # Where each keeps its data, a key of zkbroker's own, keys whose hours are not among Kafka's synonyms.
        other = r'"logDir":"[^"]*"|  (record\.validation|flush\.ms|segment\.ms|segment\.jitter\.ms)=.*\n'
        printed.append([re.sub(other, "", text) for text in lines])
    assert printed[0] == printed[1]
    assert "log.flush.interval.messages=12345" in printed[0][3]
