"""``/brokers/ids/N``: the ephemeral registration of a live broker; its czxid is the broker epoch.

Example::

    {"features":{},"listener_security_protocol_map":{"PLAINTEXT":"PLAINTEXT","REPLICATION":"PLAINTEXT"},
     "endpoints":["PLAINTEXT://h1:9092","REPLICATION://h1:9192"],"jmx_port":-1,"port":9092,"host":"h1",
     "version":5,"timestamp":"1795337114141"}

and ``"rack":"r1"`` where it is set; zkbroker adds ``lossy`` (``model/lossy.py``) while replicas of the broker may lack
records that they are counted for, ``true`` where the list would be too long. Versions 1 to 5 are read, as Kafka reads
them: 1 has host and port only, 2 adds endpoints, 3 the rack, 4 the protocol map, 5 the features.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from zkbroker.model.cluster import ALL_LOSSY, REPLICATION_LISTENER, BrokerRegistration, Endpoint, LossyReplica
from zkbroker.model.lossy import lossy_from_json, lossy_to_json
from zkbroker.zookeeper.znodes.codec import Fields, dump, last_part, load, parse_int

ROOT_PATH = "/brokers"
IDS_PATH = "/brokers/ids"
SEQID_PATH = "/brokers/seqid"
"""Set by a broker that wants a generated id: its version after the set is the number."""

VERSION = 5
PORT_MAX = 65_535
LOSSY_BYTES_MAX = 256 * 1024
"""A znode holds 1 MiB at most (``jute.maxbuffer``)."""

SECURITY_PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")

_ENDPOINT = re.compile(r"(.*)://\[?([0-9a-zA-Z\-%._:]*)\]?:([0-9]{1,5})\Z", re.ASCII)


def broker_path(broker_id: int) -> str:
    return f"{IDS_PATH}/{broker_id}"


def broker_id_from_name(name: str) -> int:
    """The id in the name of a child of ``/brokers/ids``. Raises ZnodeError."""
    return parse_int(f"{IDS_PATH}/{name}", "the broker id", name)


def encode(
    registration: BrokerRegistration,
    *,
    timestamp_ms: int,
    jmx_port: int = -1,
    features: Mapping[str, Any] | None = None,
) -> bytes:
    """``host`` and ``port``, which only old clients read, are those of the first plaintext Kafka listener."""
    protocols = {endpoint.listener: _default_protocol(endpoint.listener) for endpoint in registration.endpoints}
    protocols.update(registration.security_protocols)
    host: str | None = None
    port = -1
    for endpoint in registration.endpoints:
        if protocols[endpoint.listener] == "PLAINTEXT" and endpoint.listener != REPLICATION_LISTENER:
            host, port = endpoint.host, endpoint.port
            break
    value: dict[str, Any] = {
        "features": dict(features or {}),
        "listener_security_protocol_map": protocols,
        "endpoints": [str(endpoint) for endpoint in registration.endpoints],
        "jmx_port": jmx_port,
        "port": port,
        "host": host,
        "version": VERSION,
        "timestamp": str(timestamp_ms),
    }
    if registration.rack is not None:
        value["rack"] = registration.rack
    if registration.lossy:
        listed = lossy_to_json(registration.lossy)
        is_short = ALL_LOSSY not in registration.lossy and len(dump({"lossy": listed})) <= LOSSY_BYTES_MAX
        value["lossy"] = listed if is_short else True
    return dump(value)


def decode(path: str, data: bytes, czxid: int) -> BrokerRegistration:
    """``czxid`` is that of the znode's stat. Raises ZnodeError."""
    broker_id = parse_int(path, "the broker id", last_part(path))
    fields = load(path, data)
    version = fields.number("version", minimum=1)
    if version == 1:
        endpoint = Endpoint("PLAINTEXT", fields.text("host"), fields.number("port", maximum=PORT_MAX))
        return BrokerRegistration(broker_id, czxid, (endpoint,), (("PLAINTEXT", "PLAINTEXT"),))
    names = fields.text_map("listener_security_protocol_map", required=False)
    protocols = {name.upper(): protocol for name, protocol in names.items()}
    for name, protocol in protocols.items():
        if protocol not in SECURITY_PROTOCOLS:
            raise fields.fail(f"listener {name!r} has the unknown security protocol {protocol!r}")
    endpoints = tuple(_endpoint(fields, text) for text in fields.texts("endpoints"))
    listeners = [endpoint.listener for endpoint in endpoints]
    if len(set(listeners)) != len(listeners):
        raise fields.fail("two endpoints of one listener")
    for listener in listeners:
        if listener in protocols:
            continue
        # Before version 4 there was no map: a listener was named like its protocol.
        if protocols or listener not in SECURITY_PROTOCOLS:
            raise fields.fail(f"listener {listener!r} is not in the security protocol map")
    if not protocols:
        protocols = {listener: listener for listener in listeners}
    rack = fields.text("rack") if fields.has("rack") else None
    return BrokerRegistration(broker_id, czxid, endpoints, tuple(protocols.items()), rack, _lossy(fields))


def _lossy(fields: Fields) -> tuple[LossyReplica, ...]:
    """What is not understood stands for the worst, so that nobody is elected who should not be."""
    if not fields.has("lossy"):
        return ()
    try:
        return lossy_from_json(fields.values["lossy"])
    except ValueError:
        return (ALL_LOSSY,)


def _default_protocol(listener: str) -> str:
    return listener if listener in SECURITY_PROTOCOLS else "PLAINTEXT"


def _endpoint(fields: Fields, text: str) -> Endpoint:
    match = _ENDPOINT.match(text)
    if match is None or not match[1] or int(match[3]) > PORT_MAX:
        raise fields.fail(f"endpoint {text[:80]!r} is not NAME://host:port")
    return Endpoint(match[1].upper(), match[2], int(match[3]))
