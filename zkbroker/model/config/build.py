"""From settings to a ``BrokerConfig``: what the keys say together, as Kafka's ``KafkaConfig.validateValues`` has it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from types import MappingProxyType

from zkbroker.model.cluster import REPLICATION_LISTENER, Endpoint
from zkbroker.model.config.broker import BrokerConfig, Setting, ZooKeeperConnect, freeze, parse_settings
from zkbroker.model.config.dynamic_keys import limits_problem
from zkbroker.model.config.listeners import (
    ListenerProblem,
    advertise_replication,
    parse_endpoints,
    parse_protocol_map,
    port_clash,
    protocol_of,
    with_replication,
)
from zkbroker.model.config.topic_table import TOPIC_KEYS, inherited_value
from zkbroker.model.config.values import Value, split_list
from zkbroker.model.errors import StartError

ZOOKEEPER_PORT = 2181
"""The port of a ZooKeeper server where ``zookeeper.connect`` names none."""

_ZOOKEEPER_HOST = re.compile(r"(\[[0-9A-Fa-f:.%a-z]+\]|[^\[\]:/,\s]+)(?::([0-9]{1,5}))?", re.ASCII)


def build_broker_config(settings: Iterable[Setting]) -> BrokerConfig:
    """The broker's configuration; a later setting of a key takes the place of an earlier one.

    Raises StartError, one line that names the key and where it stands.
    """
    values, chosen = parse_settings(settings)
    return _Build(values, chosen).config()


class _Build:
    """The cross-checks of one configuration, in the order in which a person would want to hear of them."""

    def __init__(self, values: dict[str, Value], chosen: dict[str, Setting]) -> None:
        self._values = values
        self._chosen = chosen
        self._warnings: list[str] = []

    def config(self) -> BrokerConfig:
        broker_id = self._broker_id()
        listeners, protocols = self._listeners()
        advertised = self._advertised(listeners)
        self._check_named_listeners(listeners, advertised, protocols)
        log_dirs = self._log_dirs()
        zookeeper = self._zookeeper()
        self._check_log()
        self._check_replication()
        self._check_requests()
        return BrokerConfig(
            values=freeze(self._values),
            settings=MappingProxyType(self._chosen),
            broker_id=broker_id,
            listeners=listeners,
            advertised_listeners=advertised,
            protocols=MappingProxyType({e.listener: protocol_of(e.listener, protocols) or "" for e in listeners}),
            log_dirs=log_dirs,
            zookeeper=zookeeper,
            topic_defaults=freeze({name: inherited_value(name, self._values.__getitem__) for name in TOPIC_KEYS}),
            warnings=tuple(self._warnings),
        )

    def _refuse(self, name: str, problem: str) -> StartError:
        """The error about a key: with the place of its setting, if it was set."""
        setting = self._chosen.get(name)
        return StartError(f"{name}: {problem}" if setting is None else f"{setting.origin}: {name}: {problem}")

    def _int(self, name: str) -> int:
        value = self._values[name]
        return value if isinstance(value, int) else 0

    def _text(self, name: str) -> str | None:
        value = self._values[name]
        return value if isinstance(value, str) else None

    def _broker_id(self) -> int:
        broker_id, node_id = self._int("broker.id"), self._int("node.id")
        if "node.id" in self._chosen and "broker.id" in self._chosen and broker_id != node_id:
            raise self._refuse("node.id", f"{node_id} is not broker.id, which is {broker_id}")
        name = "node.id" if "node.id" in self._chosen and "broker.id" not in self._chosen else "broker.id"
        chosen = self._int(name)
        if chosen < -1:
            raise self._refuse(name, f"{chosen} is not a broker id: it must be 0 or more, or -1 to have one generated")
        if not self._values["broker.id.generation.enable"]:
            if chosen < 0:
                raise self._refuse(name, "it must be set, since broker.id.generation.enable is false")
        elif chosen > self._int("reserved.broker.max.id"):
            limit = self._int("reserved.broker.max.id")
            raise self._refuse(name, f"{chosen} is above reserved.broker.max.id ({limit}), where ids are generated")
        self._values["broker.id"] = self._values["node.id"] = chosen
        return chosen

    def _listeners(self) -> tuple[tuple[Endpoint, ...], dict[str, str]]:
        try:
            protocols = parse_protocol_map(self._text("listener.security.protocol.map") or "")
        except ListenerProblem as problem:
            raise self._refuse("listener.security.protocol.map", str(problem)) from None
        try:
            written = parse_endpoints(self._text("listeners") or "")
            if not written:
                raise ListenerProblem("it is empty")
            if all(endpoint.listener == REPLICATION_LISTENER for endpoint in written):
                raise ListenerProblem("there is no listener for clients, for example PLAINTEXT://:9092")
            listeners = with_replication(written)
            clash = port_clash(listeners)
            if clash is not None:
                raise ListenerProblem(clash)
        except ListenerProblem as problem:
            raise self._refuse("listeners", str(problem)) from None
        for endpoint in listeners:
            protocol = protocol_of(endpoint.listener, protocols)
            if protocol is None:
                raise self._refuse("listeners", f"{endpoint.listener} is not in listener.security.protocol.map")
            if protocol != "PLAINTEXT":
                raise self._refuse("listeners", f"{endpoint}: {protocol} is not supported yet, only PLAINTEXT")
        return listeners, protocols

    def _advertised(self, listeners: tuple[Endpoint, ...]) -> tuple[Endpoint, ...]:
        text = self._text("advertised.listeners")
        if not text:
            for endpoint in listeners:
                if endpoint.host in ("0.0.0.0", "::"):
                    problem = f"{endpoint} listens everywhere: say in advertised.listeners where clients find it"
                    raise self._refuse("listeners", problem)
            return listeners
        try:
            written = parse_endpoints(text)
        except ListenerProblem as problem:
            raise self._refuse("advertised.listeners", str(problem)) from None
        names = [endpoint.listener for endpoint in listeners]
        for endpoint in written:
            if endpoint.listener not in names:
                raise self._refuse("advertised.listeners", f"{endpoint.listener} is not among listeners")
            if endpoint.host in ("0.0.0.0", "::"):
                raise self._refuse("advertised.listeners", f"nobody can connect to {endpoint}")
        bound = self._values["inter.broker.listener.name"]
        advertised = advertise_replication(written, listeners, str(bound) if bound else None)
        ports = {endpoint.listener: endpoint.port for endpoint in listeners}
        for endpoint in advertised:
            if endpoint.port == 0 and ports[endpoint.listener] != 0:
                raise self._refuse("advertised.listeners", f"nobody can connect to port 0 of {endpoint}")
        return advertised

    def _check_named_listeners(
        self, listeners: tuple[Endpoint, ...], advertised: tuple[Endpoint, ...], protocols: dict[str, str]
    ) -> None:
        inter_broker = self._text("inter.broker.listener.name")
        names = [endpoint.listener for endpoint in advertised]
        if inter_broker and "security.inter.broker.protocol" in self._chosen:
            raise self._refuse(
                "inter.broker.listener.name", "security.inter.broker.protocol is set too; set one of them"
            )
        if inter_broker and inter_broker.upper() not in names:
            raise self._refuse("inter.broker.listener.name", f"{inter_broker} is not among the advertised listeners")
        protocol = self._text("security.inter.broker.protocol")
        if protocol != "PLAINTEXT":
            raise self._refuse("security.inter.broker.protocol", f"{protocol} is not supported yet, only PLAINTEXT")
        control = self._text("control.plane.listener.name")
        if control and control.upper() not in [endpoint.listener for endpoint in listeners]:
            raise self._refuse("control.plane.listener.name", f"{control} is not among listeners")
        if control and inter_broker and control.upper() == inter_broker.upper():
            raise self._refuse("control.plane.listener.name", "it must not be inter.broker.listener.name")
        early = self._text("early.start.listeners")
        for name in split_list(early or ""):
            if name.upper() not in [endpoint.listener for endpoint in listeners]:
                raise self._refuse("early.start.listeners", f"{name} is not among listeners")

    def _log_dirs(self) -> tuple[str, ...]:
        name = "log.dir" if self._values["log.dirs"] is None else "log.dirs"
        log_dirs = split_list(self._text(name) or "")
        if not log_dirs or not all(log_dirs):
            raise self._refuse(name, "a folder's name is empty")
        for index, log_dir in enumerate(log_dirs):
            if log_dir.rstrip("/") in [earlier.rstrip("/") for earlier in log_dirs[:index]]:
                raise self._refuse(name, f"{log_dir} is there twice")
        return log_dirs

    def _zookeeper(self) -> ZooKeeperConnect:
        text = (self._text("zookeeper.connect") or "").strip()
        if not text:
            raise self._refuse("zookeeper.connect", "it must be set, for example 127.0.0.1:2181")
        servers, slash, path = text.partition("/")
        hosts = []
        for server in split_list(servers):
            match = _ZOOKEEPER_HOST.fullmatch(server)
            if match is None or int(match.group(2) or ZOOKEEPER_PORT) not in range(1, 65_536):
                raise self._refuse("zookeeper.connect", f"'{server}' is not host:port")
            hosts.append(server if match.group(2) else f"{server}:{ZOOKEEPER_PORT}")
        if not hosts:
            raise self._refuse("zookeeper.connect", "it names no server")
        chroot = (slash + path).rstrip("/")
        if "," in chroot or (chroot and any(part in ("", ".", "..") for part in chroot[1:].split("/"))):
            problem = f"'{chroot}' is not a path of ZooKeeper (the chroot comes once, after the last server)"
            raise self._refuse("zookeeper.connect", problem)
        return ZooKeeperConnect(tuple(hosts), chroot)

    def _check_log(self) -> None:
        for name in ("log.retention.minutes", "log.retention.hours"):
            if self._values[name] == 0:
                raise self._refuse(name, "it must be 1 or more, or -1 for no limit")
        for name, value in self._values.items():
            problem = limits_problem(name, value)
            if problem is not None:
                raise self._refuse(name, problem)
        least, most = self._int("log.cleaner.min.compaction.lag.ms"), self._int("log.cleaner.max.compaction.lag.ms")
        if least > most:
            problem = f"{least} is above log.cleaner.max.compaction.lag.ms ({most})"
            raise self._refuse("log.cleaner.min.compaction.lag.ms", problem)

    def _check_replication(self) -> None:
        wait_ms = self._int("replica.fetch.wait.max.ms")
        for limit in ("replica.socket.timeout.ms", "replica.lag.time.max.ms"):
            if wait_ms > self._int(limit):
                raise self._refuse(limit, f"{self._int(limit)} is below replica.fetch.wait.max.ms ({wait_ms})")
        factor, least = self._int("default.replication.factor"), self._int("min.insync.replicas")
        if least > factor:
            self._warnings.append(
                f"min.insync.replicas ({least}) is above default.replication.factor ({factor}):"
                " for topics with fewer replicas, all of them must be in sync"
            )

    def _check_requests(self) -> None:
        queued, largest = self._int("queued.max.request.bytes"), self._int("socket.request.max.bytes")
        if 0 < queued < largest:
            raise self._refuse("queued.max.request.bytes", f"{queued} is below socket.request.max.bytes ({largest})")
        if self._int("message.max.bytes") > largest:
            self._warnings.append(
                f"message.max.bytes ({self._int('message.max.bytes')}) is above socket.request.max.bytes ({largest}):"
                " batches that large cannot be sent"
            )
