"""zkbroker-configs and zkbroker-log-dirs: flags, and what they print of the answers of a broker in memory."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.broker import FakeBroker
from tests.fakes.kafka_client import Listener
from zkbroker.cli import configs, log_dirs
from zkbroker.cli._config_entities import DEFAULT, Entity, Wish, parse_added, parse_entity, parse_wish
from zkbroker.kafka.config_ports import LogDescription, LogDirDescription, Quota, ResourceChanges, ScramUser
from zkbroker.kafka.ports import BrokerView
from zkbroker.model.config.changes import ConfigChange
from zkbroker.model.errors import ErrorCode

BOOTSTRAP = ["--bootstrap-server", "127.0.0.1:1"]
T = ["--topic", "t"]


class Served:
    """A listener in memory behind a real socket: one connection at a time is enough for these tools."""

    def __init__(self) -> None:
        self.listener = Listener()
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.broker: FakeBroker = self.listener.broker
        self.broker.views = {"PLAINTEXT": [BrokerView(1, "127.0.0.1", self.port, None)]}
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client:
            connection, transport = self.listener.connect()
            while head := client.recv(4, socket.MSG_WAITALL):
                body = client.recv(struct.unpack(">i", head)[0], socket.MSG_WAITALL)
                with self._lock:
                    connection.dataReceived(head + body)
                    answer = transport.take()
                client.sendall(answer)


@pytest.fixture
def served() -> Iterator[Served]:
    served = Served()
    yield served
    served.socket.close()


def run(tool: Any, served: Served, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = tool.main(["--bootstrap-server", f"127.0.0.1:{served.port}", *arguments])
    out, err = capsys.readouterr()
    return status, out, err


@pytest.mark.parametrize("tool", [configs, log_dirs])
def test_help_teaches_by_examples(tool: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert tool.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert "examples:" in text and tool.PROG in text.partition("examples:")[2]


@pytest.mark.parametrize(
    "arguments",
    [
        T,
        ["--describe"],
        ["--describe", "--alter", *T],
        ["--describe", "--entity-type", "bogus"],
        ["--describe", *T, "--add-config", "a=1"],
        ["--describe", "--entity-type", "topics", "--entity-default"],
        ["--describe", "--entity-type", "topics", "--entity-type", "brokers"],
        ["--describe", "--entity-type", "topics", "--entity-name", "a", "--entity-name", "b"],
        ["--describe", "--entity-type", "topics", *T],
        ["--describe", "--broker", "x"],
        ["--describe", "--entity-type", "broker-loggers"],
        ["--alter", *T],
        ["--alter", "--entity-type", "topics", "--add-config", "a=1"],
        ["--alter", *T, "--add-config", "a"],
        ["--alter", *T, "--add-config", "=1"],
        ["--alter", *T, "--add-config", "a=1", "--add-config-file", "f"],
        ["--alter", *T, "--all", "--add-config", "a=1"],
    ],
)
def test_wrong_usage_is_one_line_and_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert configs.main([*BOOTSTRAP, *arguments]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "added"),
    [
        ("a=1", {"a": "1"}),
        ("a=1,b=[2,3],c=", {"a": "1", "b": "2,3", "c": ""}),
        (" a = [x=1,y=2] , b=2", {"a": "x=1,y=2", "b": "2"}),
        ("a=[1]", {"a": "1"}),
    ],
)
def test_brackets_hold_values_together(text: str, added: dict[str, str]) -> None:
    assert parse_added(text) == added


@pytest.mark.parametrize(
    ("arguments", "entity"),
    [
        (["--entity-type", "topics"], Entity("topics", None)),
        (["--entity-type", "topics", "--entity-name", "t"], Entity("topics", "t")),
        (T, Entity("topics", "t")),
        (["--broker", "1"], Entity("brokers", "1")),
        (["--entity-type", "brokers", "--entity-default"], Entity("brokers", DEFAULT)),
        (["--broker-defaults"], Entity("brokers", DEFAULT)),
        (["--user", "u", "--client", "c"], Entity("users", "u", Entity("clients", "c"))),
        (["--user", "u", "--client-defaults"], Entity("users", "u", Entity("clients", DEFAULT))),
        (
            ["--entity-type", "clients", "--entity-name", "c", "--entity-type", "users", "--entity-default"],
            Entity("users", DEFAULT, Entity("clients", "c")),
        ),
    ],
)
def test_whose_settings(arguments: list[str], entity: Entity) -> None:
    parsed = configs.make_parser().parse_args([*BOOTSTRAP, "--describe", *arguments])
    assert parse_entity(parsed) == entity
    assert parse_wish(parsed, entity) is None


def test_wishes_from_flags_and_files(tmp_path: Path) -> None:
    file = tmp_path / "added.properties"
    file.write_text("# kept\nretention.ms = 5\ncleanup.policy=compact,delete\n")
    parsed = configs.make_parser().parse_args(
        [*BOOTSTRAP, "--alter", *T, "--add-config-file", str(file), "--delete-config", "a, b"]
    )
    added = {"retention.ms": "5", "cleanup.policy": "compact,delete"}
    assert parse_wish(parsed, parse_entity(parsed)) == Wish(added, ("a", "b"))


def test_topics_are_described_as_by_kafkas_tool(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    served.broker.add_topic("t")
    assert run(configs, served, capsys, "--describe", *T) == (0, "Dynamic configs for topic t are:\n", "")
    line = "  retention.ms=604800000 sensitive=false synonyms={DEFAULT_CONFIG:log.retention.ms=604800000}\n"
    other = "  cleanup.policy=delete sensitive=false synonyms={}\n"
    expected = f"All configs for topic t are:\n{other}{line}"
    assert run(configs, served, capsys, "--describe", "--all", "--entity-type", "topics") == (0, expected, "")
    status, out, _ = run(configs, served, capsys, "--describe", "--all", *T, "--json")
    (entity,) = json.loads(out)["entities"]
    assert (status, entity["type"], entity["name"]) == (0, "topics", "t")
    assert entity["configs"][1] == {
        "name": "retention.ms",
        "value": "604800000",
        "source": "DEFAULT_CONFIG",
        "sensitive": False,
        "readOnly": False,
        "synonyms": [{"name": "log.retention.ms", "value": "604800000", "source": "DEFAULT_CONFIG"}],
    }


def test_a_topic_is_altered(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    served.broker.add_topic("t")
    done = "Completed updating config for topic t.\n"
    assert run(configs, served, capsys, "--alter", *T, "--add-config", "a=1,b=[2,3]") == (0, done, "")
    changes = (ConfigChange("a", 0, "1"), ConfigChange("b", 0, "2,3"))
    assert served.broker.settings.asked == [([ResourceChanges(2, "t", changes)], True, False)]
    status, _, err = run(configs, served, capsys, "--alter", *T, "--delete-config", "a,b")
    assert (status, err) == (1, "Invalid config(s): a,b\n")
    served.broker.settings.errors = {"t": ErrorCode.INVALID_CONFIG}
    status, _, err = run(configs, served, capsys, "--alter", *T, "--add-config", "a=1")
    assert (status, err) == (1, "Error while executing config command : INVALID_CONFIG\n")
    status, _, err = run(configs, served, capsys, "--describe", "--topic", "nope")
    assert (status, err) == (1, "Error while executing config command : The topic 'nope' does not exist.\n")


def test_brokers_and_loggers(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    described = "Dynamic configs for broker 1 are:\nDefault configs for brokers in the cluster are:\n"
    assert run(configs, served, capsys, "--describe", "--entity-type", "brokers") == (0, described, "")
    done = "Completed updating default config for brokers in the cluster.\n"
    assert run(configs, served, capsys, "--alter", "--broker-defaults", "--add-config", "a=1") == (0, done, "")
    loggers = "Dynamic configs for broker-logger 1 are:\n  root=INFO sensitive=false synonyms={}\n"
    assert run(configs, served, capsys, "--describe", "--broker-logger", "1") == (0, loggers, "")
    status, _, err = run(configs, served, capsys, "--alter", "--broker-logger", "1", "--add-config", "no.such=INFO")
    assert (status, err) == (1, "Invalid broker logger(s): no.such\n")
    status, _, err = run(configs, served, capsys, "--describe", "--broker", "7")
    assert (status, err) == (1, "there is no broker 7; there are 1\n")


def test_quotas(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    served.broker.settings.quotas = [
        Quota((("client-id", None), ("user", "a")), {"request_percentage": 5.5, "consumer_byte_rate": 2000.0})
    ]
    line = (
        "Quota configs for user-principal 'a', the default client-id are "
        "consumer_byte_rate=2000.0, request_percentage=5.5\n"
    )
    assert run(configs, served, capsys, "--describe", "--user", "a", "--client-defaults") == (0, line, "")
    served.broker.settings.scram_users = [ScramUser("b", ((1, 4096), (2, 5000)))]
    both = "SCRAM-SHA-256=iterations=4096, SCRAM-SHA-512=iterations=5000"
    line = f"SCRAM credential configs for user-principal 'b' are {both}\n"
    served.broker.settings.quotas = []
    assert run(configs, served, capsys, "--describe", "--entity-type", "users") == (0, line, "")
    assert run(configs, served, capsys, "--describe", "--user", "nope") == (0, "", "")
    status, _, err = run(configs, served, capsys, "--alter", "--user", "a", "--add-config", "x=1")
    assert status == 1 and err.startswith("users cannot be altered: ")


def test_log_folders_are_printed_as_by_kafkas_tool(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    served.broker.settings.folders = [
        LogDirDescription("/a", ErrorCode.NONE, (LogDescription("t", 1, 7, 0), LogDescription("u", 0, 5, -1)), 100, 40),
        LogDirDescription("/b", ErrorCode.KAFKA_STORAGE_ERROR),
    ]
    status, out, _ = run(log_dirs, served, capsys, "--describe", "--topic-list", "t", "--broker-list", "1")
    assert (status, out.splitlines()) == (
        0,
        [
            "Querying brokers for log directories information",
            "Received log directory information from brokers 1",
            '{"brokers":[{"broker":1,"logDirs":[{"partitions":[{"partition":"t-1","size":7,"offsetLag":0,'
            '"isFuture":false}],"error":null,"logDir":"/a"},{"partitions":[],'
            '"error":"org.apache.kafka.common.errors.KafkaStorageException","logDir":"/b"}]}],"version":1}',
        ],
    )
    status, out, _ = run(log_dirs, served, capsys, "--describe", "--json")
    folder = json.loads(out)["brokers"][0]["logDirs"][0]
    assert (status, len(folder["partitions"]), folder["totalBytes"], folder["usableBytes"]) == (0, 2, 100, 40)
    status, _, err = run(log_dirs, served, capsys, "--describe", "--broker-list", "1,9")
    text = "ERROR: The given brokers do not exist from --broker-list: 9. Current existent brokers: 1\n"
    assert (status, err) == (1, text)
    assert log_dirs.main([*BOOTSTRAP, "--describe", "--broker-list", "x"]) == 2


def test_nobody_answers(capsys: pytest.CaptureFixture[str]) -> None:
    assert configs.main([*BOOTSTRAP, "--describe", *T]) == 1
    assert capsys.readouterr().err.startswith("no broker answered (127.0.0.1:1: ")


def test_protocols_that_are_not_spoken_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "client.properties"
    file.write_text("security.protocol=SSL\n")
    assert log_dirs.main([*BOOTSTRAP, "--describe", "--command-config", str(file)]) == 1
    assert "only PLAINTEXT" in capsys.readouterr().err
