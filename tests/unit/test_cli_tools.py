"""What the command-line tools decide without a broker: flags, formats, and the count after a run."""

from __future__ import annotations

import io
import os
import re
import socket
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest

from zkbroker.cli import _common as common
from zkbroker.cli import bench, console_consumer, console_producer, delete_records, get_offsets, server_stop, topics
from zkbroker.cli._broker_client import Brokers
from zkbroker.cli._traffic import Verdict, judge

TOOLS: dict[str, Any] = {
    "topics": topics,
    "delete_records": delete_records,
    "get_offsets": get_offsets,
    "console_producer": console_producer,
    "console_consumer": console_consumer,
    "server_stop": server_stop,
    "bench": bench,
}
BOOTSTRAP = ["--bootstrap-server", "127.0.0.1:1"]


@pytest.mark.parametrize("name", sorted(TOOLS))
def test_help_teaches_by_examples(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert TOOLS[name].main(["--help"]) == 0
    text = capsys.readouterr().out
    assert "examples:" in text and TOOLS[name].PROG in text.partition("examples:")[2]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("topics", []),
        ("topics", [*BOOTSTRAP]),
        ("topics", [*BOOTSTRAP, "--create"]),
        ("topics", [*BOOTSTRAP, "--alter", "--topic", "t"]),
        ("topics", [*BOOTSTRAP, "--alter", "--topic", "t", "--partitions", "2", "--config", "retention.ms=1"]),
        ("topics", [*BOOTSTRAP, "--list", "--under-replicated-partitions"]),
        ("topics", [*BOOTSTRAP, "--create", "--topic", "t", "--partitions", "0"]),
        ("topics", [*BOOTSTRAP, "--create", "--topic", "t", "--replica-assignment", "1:2", "--partitions", "1"]),
        ("topics", [*BOOTSTRAP, "--create", "--list"]),
        ("delete_records", [*BOOTSTRAP]),
        ("get_offsets", [*BOOTSTRAP, "--time", "yesterday"]),
        ("get_offsets", [*BOOTSTRAP, "--topic-partitions", "t:0", "--topic", "t"]),
        ("get_offsets", [*BOOTSTRAP, "--topic-partitions", "t:a"]),
        ("get_offsets", [*BOOTSTRAP, "--partitions", "one"]),
        ("console_consumer", [*BOOTSTRAP, "--topic", "t", "--offset", "3"]),
        ("console_consumer", [*BOOTSTRAP, "--topic", "t", "--partition", "0", "--offset", "soon"]),
        ("console_consumer", [*BOOTSTRAP]),
        ("console_consumer", [*BOOTSTRAP, "--topic", "t", "--partition", "0", "--group", "g"]),
        ("console_producer", [*BOOTSTRAP]),
        ("console_producer", [*BOOTSTRAP, "--topic", "t", "--property", "parse.key"]),
        ("server_stop", ["--all", "conf/broker-1.yaml"]),
        ("bench", []),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(
    name: str, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert TOOLS[name].main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and len(captured.err.splitlines()) == 1, captured


def test_a_pattern_of_partitions() -> None:
    wants = get_offsets.PartitionFilter(None, None, "a:0,b:1-3,c:2-,:7,d.*")
    chosen = [(topic, number) for topic in ("a", "b", "c", "dd") for number in (0, 1, 2, 3, 7) if wants(topic, number)]
    assert chosen == [
        *(("a", 0), ("a", 7), ("b", 1), ("b", 2), ("b", 7), ("c", 2), ("c", 3), ("c", 7)),
        *(("dd", 0), ("dd", 1), ("dd", 2), ("dd", 3), ("dd", 7)),
    ]
    assert get_offsets.PartitionFilter("t", "1,2", None)("t", 2)
    assert not get_offsets.PartitionFilter("t", "1,2", None)("tt", 2)


def test_manual_assignments() -> None:
    assert topics.parse_assignment("1:2,2:3") == [[1, 2], [2, 3]]
    with pytest.raises(common.CommandError, match="duplicate"):
        topics.parse_assignment("1:1")
    with pytest.raises(common.CommandError, match="different replication factor"):
        topics.parse_assignment("1:2,3")
    with pytest.raises(common.UsageError):
        topics.parse_assignment("one")


def test_lines_become_records() -> None:
    plain = console_producer.LineReader({})
    assert plain.parse(b"a\tb", 1) == (None, b"a\tb", [])
    properties = {"parse.key": "true", "parse.headers": "true", "key.separator": "|", "null.marker": "NULL"}
    reader = console_producer.LineReader(properties)
    assert reader.parse(b"h:1,g:\tk|v|w", 1) == (b"k", b"v|w", [("h", b"1"), ("g", b"")])
    assert reader.parse(b"h:NULL\tNULL|NULL", 1) == (None, None, [("h", None)])
    with pytest.raises(common.CommandError, match="No headers delimiter found on line number 3"):
        reader.parse(b"no tab", 3)
    with pytest.raises(common.CommandError, match="No key separator found on line number 4"):
        reader.parse(b"h:1\tno bar", 4)


class FakeMessage:
    def timestamp(self) -> tuple[int, int]:
        return 1, 1700000000000

    def partition(self) -> int:
        return 2

    def offset(self) -> int:
        return 9

    def leader_epoch(self) -> int | None:
        return None

    def headers(self) -> list[tuple[str, bytes | None]]:
        return [("a", b"1"), ("b", None)]

    def key(self) -> bytes | None:
        return None

    def value(self) -> bytes:
        return b"v"


def test_records_are_printed_as_kafka_prints_them() -> None:
    def printed(**properties: str) -> bytes:
        out = io.BytesIO()
        settings = {name.replace("_", "."): value for name, value in properties.items()}
        message: Any = FakeMessage()
        console_consumer.Formatter(settings).write(message, out)
        return out.getvalue()

    assert printed() == b"v\n"
    everything = dict.fromkeys(
        ("print_timestamp", "print_partition", "print_offset", "print_headers", "print_key"), "true"
    )
    assert printed(**everything) == b"CreateTime:1700000000000\tPartition:2\tOffset:9\ta:1,b:null\tnull\tv\n"
    assert printed(print_key="true", key_separator="|", null_literal="-", line_separator=";") == b"-|v;"


def test_java_names_become_librdkafkas() -> None:
    config = common.client_config("b:1", {"fetch.max.wait.ms": "7", "key.serializer": "x"}, defaults={"acks": "all"})
    assert config["fetch.wait.max.ms"] == "7" and config["acks"] == "all" and "key.serializer" not in config


def test_a_closed_pipe_ends_quietly(monkeypatch: pytest.MonkeyPatch) -> None:
    def body(_: Any) -> int:
        raise BrokenPipeError

    pointed: list[int] = []
    monkeypatch.setattr(os, "dup2", lambda source, target: pointed.append(target))
    assert common.run("x", body, common.make_parser("x", "x", "x"), []) == 0
    assert pointed == [1]


def test_ctrl_c_is_130_and_an_error_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(_: Any) -> int:
        raise KeyboardInterrupt

    def failed(_: Any) -> int:
        raise common.CommandError("first\nsecond")

    parser = common.make_parser("x", "x", "x")
    assert common.run("x", interrupted, parser, []) == 130
    assert common.run("x", failed, parser, []) == 1
    assert capsys.readouterr().err == "first second\n"


def test_the_count_after_a_run() -> None:
    acknowledged = {0: 0, 1: 1, 2: 2}
    assert judge([(0, 0), (1, 1), (2, 2), (3, 3)], acknowledged) == Verdict(4, 0, 0, 0)
    assert judge([(0, 0), (2, 2)], acknowledged) == Verdict(2, 1, 0, 0)
    assert judge([(0, 0), (1, 1), (2, 2), (3, 1)], acknowledged) == Verdict(4, 0, 1, 0)
    assert judge([(0, 0), (1, 2), (2, 1)], acknowledged).misplaced_count == 2
    assert not judge([(0, 0)], acknowledged).is_whole


def test_percentiles() -> None:
    ordered = [float(number) for number in range(1, 1001)]
    assert [bench.percentile(ordered, share) for share in (0.5, 0.99, 0.999)] == [500.0, 990.0, 999.0]
    assert bench.percentile([3.0], 0.5) == 3.0


def test_brokers_are_found_by_their_command_line(tmp_path: Any) -> None:
    def process(pid: int, *words: str) -> None:
        folder = tmp_path / str(pid)
        folder.mkdir()
        (folder / "cmdline").write_bytes("\0".join(words).encode() + b"\0")
        (folder / "cwd").symlink_to(tmp_path)

    process(11, "python", "-m", "zkbroker.cli.server_start", "conf/b.yaml", "--override", "a=b")
    process(12, "/venv/bin/python3", "/venv/bin/zkbroker-server-start", "/etc/b.yaml")
    process(13, "grep", "zkbroker.cli.server_start")
    process(14, "vim", "x", "zkbroker-server-start")
    (tmp_path / "self").mkdir()
    found = server_stop.find_brokers(tmp_path)
    assert [broker.pid for broker in found] == [11, 12]
    assert found[0].config_path == os.path.realpath(tmp_path / "conf/b.yaml")
    assert re.fullmatch(r"/etc/b\.yaml", found[1].config_path)


def test_arguments_are_utf8(capsys: pytest.CaptureFixture[str]) -> None:
    assert topics.main([*BOOTSTRAP, "--describe", "--topic", os.fsdecode(b"t\xff")]) == 2
    assert capsys.readouterr().err == "zkbroker-topics: b't\\xff' is not UTF-8 (see --help)\n"


def test_a_group_has_one_name() -> None:
    assert console_consumer.group_of(None, {}, {"client.id": "c"}) is None
    assert console_consumer.group_of("g", {"group.id": "g"}, {}) == "g"
    assert console_consumer.group_of(None, {}, {"group.id": "h"}) == "h"
    with pytest.raises(common.CommandError, match="Detected group ids: 'g', 'h'"):
        console_consumer.group_of("g", {"group.id": "h"}, {})
    with pytest.raises(common.CommandError, match="should not be an empty string"):
        console_consumer.group_of("", {}, {})


def test_configs_of_a_topic_are_all_that_somebody_made() -> None:
    """As in Kafka's tool: those of the brokers' files, too."""

    class Admin:
        def describe_configs(self, resources: list[Any], **_: Any) -> dict[Any, Future[Any]]:
            source = common.kafka_admin.ConfigSource
            made = [
                ("min.insync.replicas", "2", source.STATIC_BROKER_CONFIG),
                ("retention.ms", "1", source.DEFAULT_CONFIG),
                ("segment.ms", "5", source.DYNAMIC_TOPIC_CONFIG),
            ]
            future: Future[Any] = Future()
            future.set_result({row[0]: SimpleNamespace(name=row[0], value=row[1], source=row[2].value) for row in made})
            return {resources[0]: future}

    command = topics._Command(Admin(), topics.make_parser().parse_args([*BOOTSTRAP, "--describe"]))
    assert command._configs(["t"]) == {"t": (["min.insync.replicas=2", "segment.ms=5"], 2)}


def test_a_broker_that_is_not_reached_is_named() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        brokers = Brokers.__new__(Brokers)
        brokers.addresses, brokers._open, brokers._timeout_s = {7: ("127.0.0.1", port)}, {}, 5.0
        with pytest.raises(OSError, match=rf"^broker 7 at 127\.0\.0\.1:{port}: Connection refused$"):
            brokers.of(7, 18, {})
