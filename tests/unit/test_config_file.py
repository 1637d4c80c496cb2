"""Where settings come from: YAML with its lines, properties, the environment, --override."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from zkbroker.broker.config_file import (
    CONFIG_FILE_BYTES_MAX,
    environment_settings,
    load_broker_config,
    override_settings,
    parse_properties,
    parse_yaml,
    read_config_file,
)
from zkbroker.model.config import BROKER_KEYS, Setting
from zkbroker.model.config.values import LIST
from zkbroker.model.errors import StartError

CONF = Path(__file__).parent.parent.parent / "conf"


def texts(settings: list[Setting]) -> dict[str, str]:
    return {setting.name: setting.text for setting in settings}


def test_yaml_scalars_and_lists_become_kafkas_texts() -> None:
    read = parse_yaml(
        """\
broker.id: 1
log.segment.bytes: 1_073_741_824
num.partitions: '3'
auto.create.topics.enable: no
delete.topic.enable: True
auto.leader.rebalance.enable: 'false'
log.cleaner.min.cleanable.ratio: 0.5
log.dirs: [/a, "/b"]
log.cleanup.policy:
  - delete
listeners: PLAINTEXT://:9092
broker.rack: on
group.max.size: 010
""",
        "b.yaml",
    )
    assert texts(read) == {
        "broker.id": "1",
        "log.segment.bytes": "1073741824",
        "num.partitions": "3",
        "auto.create.topics.enable": "false",
        "delete.topic.enable": "true",
        "auto.leader.rebalance.enable": "false",
        "log.cleaner.min.cleanable.ratio": "0.5",
        "log.dirs": "/a,/b",
        "log.cleanup.policy": "delete",
        "listeners": "PLAINTEXT://:9092",
        "broker.rack": "on",
        "group.max.size": "010",
    }
    assert [setting.origin for setting in read][:2] == ["b.yaml:1", "b.yaml:2"]
    assert read[9].origin == "b.yaml:11"


def test_an_empty_file_has_no_settings() -> None:
    assert parse_yaml("# nothing\n", "b.yaml") == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2\n", "b.yaml:2: a is there twice, first in line 1"),
        ("broker.id: 1\nlog.dirs:\n", "b.yaml:2: log.dirs has no value (leave the line out for the default)"),
        ("broker.id: ~\n", "b.yaml:1: broker.id has no value"),
        ("log:\n  dirs: /a\n", "b.yaml:2: log is a mapping: keys are flat, for example log.dirs"),
        ("log: {}\n", "b.yaml:1: log is a mapping: keys are flat, for example log.…"),
        ("broker.id: [1]\n", "b.yaml:1: broker.id takes one value, not a list"),
        ("log.dirs:\n  - [/a]\n", "b.yaml:2: log.dirs must be a flat list"),
        ("log.dirs:\n  - /a,/b\n", "b.yaml:2: log.dirs: a list's element cannot have a comma: '/a,/b'"),
        ("log.dirs: [~]\n", "b.yaml:1: log.dirs has no value"),
        (
            "broker.id: !!binary aaaa\n",
            "b.yaml:1: broker.id has a tag that is not known here: tag:yaml.org,2002:binary",
        ),
        ("- a\n", "b.yaml:1: expected lines of the form key: value"),
        ("broker.id=1\n", "b.yaml:1: expected lines of the form key: value"),
        ("? [a]\n: 1\n", "b.yaml:1: a key must be a plain text"),
        ("'': 1\n", "b.yaml:1: a key must be a plain text"),
        ("a: 1\n  b: 2\n", "b.yaml:2: this is not YAML: mapping values are not allowed here"),
        ("a: [1\n", "b.yaml:2: this is not YAML:"),
        ("a: 1\n---\nb: 2\n", "b.yaml:2: this is not YAML: but found another document"),
        ("a: \x00\n", "b.yaml:1: this is not YAML: special characters are not allowed"),
        ("a: *b\n", "b.yaml:1: this is not YAML: found undefined alias"),
        ("\ta: 1\n", "b.yaml:1: this is not YAML:"),
        ("a: " + "[" * 5000 + "\n", "b.yaml:1: this is not YAML: it is nested too deeply for a configuration"),
    ],
)
def test_what_is_wrong_with_yaml_is_one_line_with_its_place(text: str, message: str) -> None:
    with pytest.raises(StartError) as raised:
        parse_yaml(text, "b.yaml")
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)


@given(text=st.text(max_size=60))
@settings(max_examples=80, deadline=None)
def test_any_text_is_read_or_refused(text: str) -> None:
    for parse in (parse_yaml, parse_properties):
        try:
            assert all(setting.name and setting.origin.startswith("f:") for setting in parse(text, "f"))
        except StartError as error:
            assert str(error).startswith("f:")


@given(
    values=st.dictionaries(
        st.sampled_from(sorted(name for name, key in BROKER_KEYS.items() if key.type is not LIST)),
        st.one_of(
            st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=20),
            st.integers(),
            st.booleans(),
        ),
        max_size=5,
    )
)
@settings(max_examples=50, deadline=None)
def test_what_yaml_writes_is_read(values: dict[str, object]) -> None:
    read = parse_yaml(yaml.safe_dump(values, allow_unicode=True), "f")
    expected = {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in values.items()}
    assert texts(read) == expected


def _escape(text: str) -> str:
    return "".join(
        rf"\u{ord(letter):04x}" if not letter.isalnum() or not letter.isascii() else letter for letter in text
    )


@given(values=st.dictionaries(st.text(min_size=1, max_size=8), st.text(max_size=8), max_size=4))
@settings(max_examples=50, deadline=None)
def test_what_java_writes_is_read(values: dict[str, str]) -> None:
    small = {k: v for k, v in values.items() if max(map(ord, k + v), default=0) < 0x10000}
    text = "".join(f"{_escape(name)}={_escape(value)}\n" for name, value in small.items())
    assert texts(parse_properties(text, "f")) == small


def test_properties() -> None:
    text = (
        "# c\n! c\n\nbroker.id=1\nlog.dirs = /a,\\\n   /b\nlisteners: X://h:1\nbroker.rack r 1\r\n"
        "num.partitions=\na\\=b=c\\\\\nz=\\t\\u0041\\"
    )
    read = parse_properties(text, "b.properties")
    assert texts(read) == {
        "broker.id": "1",
        "log.dirs": "/a,/b",
        "listeners": "X://h:1",
        "broker.rack": "r 1",
        "num.partitions": "",
        "a=b": "c\\",
        "z": "\tA",
    }
    assert [setting.origin for setting in read] == [f"b.properties:{line}" for line in (4, 5, 7, 8, 9, 10, 11)]


def test_properties_that_are_wrong() -> None:
    with pytest.raises(StartError, match=r"^b:1: expected key=value"):
        parse_properties("=1\n", "b")
    with pytest.raises(StartError, match=r"^b:3: a is there twice, first in line 1"):
        parse_properties("a=1\n\na=2\n", "b")


def test_environment() -> None:
    read = environment_settings(
        {
            "ZKBROKER_LOG_DIRS": "/data",
            "ZKBROKER_ZOOKEEPER_CLIENTCNXNSOCKET": "x",
            "ZKBROKER_REACTOR": "uvloop",
            "ZKBROKER_PORT": "tcp://10.0.0.1:9092",
            "ZKBROKER_PORT_9092_TCP_ADDR": "10.0.0.1",
            "ZKBROKER_SERVICE_HOST": "10.0.0.1",
            "PATH": "/bin",
        }
    )
    assert read == [
        Setting("log.dirs", "/data", "ZKBROKER_LOG_DIRS"),
        Setting("zookeeper.clientCnxnSocket", "x", "ZKBROKER_ZOOKEEPER_CLIENTCNXNSOCKET"),
    ]
    with pytest.raises(StartError) as raised:
        environment_settings({"ZKBROKER_LOG_DIRZ": "/data"})
    assert str(raised.value) == "ZKBROKER_LOG_DIRZ: unknown key 'log.dirz' (did you mean 'log.dirs'?)"


def test_every_key_has_a_variable_of_its_own() -> None:
    variables = {"ZKBROKER_" + name.upper().replace(".", "_"): name for name in BROKER_KEYS}
    assert len(variables) == len(BROKER_KEYS)
    assert {
        setting.origin: setting.name for setting in environment_settings(dict.fromkeys(variables, "1"))
    } == variables


def test_overrides() -> None:
    assert override_settings(["a=b=c", " d =", "e= f"]) == [
        Setting("a", "b=c", "--override"),
        Setting("d", "", "--override"),
        Setting("e", " f", "--override"),
    ]
    for wrong in ("a", "=b"):
        with pytest.raises(StartError, match=f"^--override {wrong}: expected key=value"):
            override_settings([wrong])


def test_overrides_beat_the_environment_which_beats_the_file(tmp_path: Path) -> None:
    path = tmp_path / "b.yaml"
    path.write_text("zookeeper.connect: h:1\nbroker.id: 1\nnum.partitions: 1\nmin.insync.replicas: 1\n")
    environment = {"ZKBROKER_NUM_PARTITIONS": "2", "ZKBROKER_BROKER_ID": "2"}
    config = load_broker_config(str(path), ["broker.id=3"], environment)
    assert (config.broker_id, config.origin("broker.id")) == (3, "--override")
    assert (config["num.partitions"], config.origin("num.partitions")) == (2, "ZKBROKER_NUM_PARTITIONS")
    assert config.origin("min.insync.replicas") == f"{path}:4"
    assert load_broker_config(str(path)).broker_id == 1


def test_a_wrong_key_names_the_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "b.yaml"
    path.write_text("zookeeper.connect: h:1\n\nlog.dirz: /a\n")
    with pytest.raises(StartError) as raised:
        load_broker_config(str(path))
    assert str(raised.value) == f"{path}:3: unknown key 'log.dirz' (did you mean 'log.dirs'?)"
    path.write_text("zookeeper.connect: h:1\n")
    with pytest.raises(StartError, match=r"^--override: num\.partitions 'x': Not a number of type INT"):
        load_broker_config(str(path), ["num.partitions=x"])


def test_a_message_is_one_line_whatever_was_written(tmp_path: Path) -> None:
    path = tmp_path / "b.yaml"
    path.write_text('"a\\nb": 1\n')
    with pytest.raises(StartError) as raised:
        load_broker_config(str(path))
    assert str(raised.value) == f"{path}:1: unknown key 'a\\nb'"
    with pytest.raises(StartError) as raised:
        load_broker_config(str(path), ["x" * 5000])
    assert len(str(raised.value)) < 1100


def test_the_format_goes_by_the_name(tmp_path: Path) -> None:
    path = tmp_path / "server.properties"
    path.write_text("zookeeper.connect=h:1/kafka\nbroker.id=4\n")
    assert load_broker_config(str(path)).zookeeper.chroot == "/kafka"


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="cannot read the configuration: No such file or directory"):
        read_config_file(str(tmp_path / "none.yaml"))
    with pytest.raises(StartError, match="cannot read the configuration: Is a directory"):
        read_config_file(str(tmp_path))
    large = tmp_path / "large.yaml"
    large.write_bytes(b"#" * (CONFIG_FILE_BYTES_MAX + 1))
    with pytest.raises(StartError, match="this is not a configuration"):
        read_config_file(str(large))
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"a: 1\nb: \xff\n")
    with pytest.raises(StartError, match=r"binary\.yaml:2: this is not UTF-8 text"):
        read_config_file(str(binary))
    marked = tmp_path / "marked.yaml"
    marked.write_bytes(b"\xef\xbb\xbfbroker.id: 1\n")
    assert texts(read_config_file(str(marked))) == {"broker.id": "1"}


@pytest.mark.parametrize("number", [1, 2, 3])
def test_the_brokers_of_conf(number: int) -> None:
    config = load_broker_config(str(CONF / f"broker-{number}.yaml"))
    assert config.broker_id == number
    assert [str(endpoint) for endpoint in config.listeners] == [
        f"PLAINTEXT://127.0.0.1:{9091 + number}",
        f"REPLICATION://127.0.0.1:{19091 + number}",
    ]
    assert config.zookeeper == (("127.0.0.1:2181", "127.0.0.1:2182", "127.0.0.1:2183"), "")
    assert config.log_dirs == (f"data/broker-{number}",)
    assert (config.warnings, config.without_effect()) == ((), ())


def test_the_ensemble_of_conf_agrees_with_the_brokers() -> None:
    for number in (1, 2, 3):
        servers = texts(parse_properties((CONF / f"zookeeper-{number}.cfg").read_text(), "z"))
        assert servers["clientPort"] == str(2180 + number)
        assert servers["dataDir"] == f"data/zookeeper-{number}"
        tick_ms = int(servers["tickTime"])
        session_ms = load_broker_config(str(CONF / f"broker-{number}.yaml")).get_int("zookeeper.session.timeout.ms")
        assert 2 * tick_ms <= session_ms <= 20 * tick_ms
        assert [servers[f"server.{other}"] for other in (1, 2, 3)] == [
            "127.0.0.1:2888:3888",
            "127.0.0.1:2889:3889",
            "127.0.0.1:2890:3890",
        ]
