"""FindCoordinator: which broker looks after a group or a transactional id (from version 4 on several, KIP-699)."""

from __future__ import annotations

import struct
from types import SimpleNamespace
from typing import Any, NamedTuple

from twisted.python.failure import Failure

from zkbroker.kafka.group_ports import KEY_OF_GROUP, KEY_OF_TRANSACTION
from zkbroker.kafka.messages import decode_request, encode_response
from zkbroker.kafka.ports import BrokerView
from zkbroker.kafka.request import Api, Request, Services
from zkbroker.kafka.versions import FIND_COORDINATOR
from zkbroker.kafka.wire import encode_size, encode_string
from zkbroker.model.errors import ErrorCode

KEYS_PER_TURN = 100
"""A request may name half a million keys, each of which takes some 10 µs: no turn of the reactor goes on for that."""

_BATCHED_FROM = 4
_I16 = struct.Struct(">h")
_I32 = struct.Struct(">i")


class _Row(NamedTuple):
    key: str
    error_code: ErrorCode
    error_message: str | None = None
    node_id: int = -1
    host: str = ""
    port: int = -1

    def encode(self) -> bytes:
        """As in versions 4 to 6, which are alike."""
        return b"".join(
            (
                encode_string(self.key, True),
                _I32.pack(self.node_id),
                encode_string(self.host, True),
                _I32.pack(self.port),
                _I16.pack(self.error_code),
                encode_string(self.error_message, True),
                b"\x00",
            )
        )


class _Search:
    """The work on one request of several keys: some of them in each turn. It goes on to ``cancel`` or to the answer."""

    def __init__(self, services: Services, request: Request, message: SimpleNamespace) -> None:
        self._services = services
        self._request = request
        self._message = message
        self._keys: list[str] = message.coordinator_keys
        self._chunks: list[bytes] = [bytes(4) + encode_size(len(self._keys), True)]
        self._done = 0
        self._call: Any = None

    def __repr__(self) -> str:
        return f"_Search({self._done}/{len(self._keys)})"

    def cancel(self) -> None:
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def step(self) -> None:
        self._call = None
        try:
            self._step()
        except Exception:
            self._request.connection.request_failed(self._request, self._message, Failure())

    def _step(self) -> None:
        rows = self._keys[self._done : self._done + KEYS_PER_TURN]
        brokers = _brokers(self._services)
        key_type = self._message.key_type
        self._chunks.append(b"".join([_find(self._services, brokers, key_type, key).encode() for key in rows]))
        self._done += len(rows)
        if self._done < len(self._keys):
            self._call = self._services.call_later(0, self.step)
            return
        self._chunks.append(b"\x00")
        self._request.answer_chunks(self._chunks, sum(map(len, self._chunks)))


def decode(request: Request) -> SimpleNamespace:
    return decode_request(FIND_COORDINATOR, request.version, request.reader())


def serve(services: Services, request: Request, message: SimpleNamespace) -> None:
    if request.version >= _BATCHED_FROM:
        search = _Search(services, request, message)
        search.step()
        request.waits_for(search)
        return
    key_type = getattr(message, "key_type", KEY_OF_GROUP)
    _answer_one(request, _find(services, _brokers(services), key_type, message.key))


def _brokers(services: Services) -> dict[int, BrokerView]:
    return {view.broker_id: view for view in services.metadata.brokers(services.listener)}


def _find(services: Services, brokers: dict[int, BrokerView], key_type: int, key: str) -> _Row:
    if key_type not in (KEY_OF_GROUP, KEY_OF_TRANSACTION):
        return _Row(key, ErrorCode.INVALID_REQUEST, f"unknown coordinator type {key_type}")
    found = services.coordinators.find(key_type, key)
    if found.error != ErrorCode.NONE:
        return _Row(key, found.error, found.message or found.error.name)
    view = brokers.get(found.broker_id)
    if view is None:
        text = f"broker {found.broker_id} cannot be reached through this listener"
        return _Row(key, ErrorCode.COORDINATOR_NOT_AVAILABLE, text)
    return _Row(key, ErrorCode.NONE, None, view.broker_id, view.host, view.port)


def _answer_one(request: Request, row: _Row) -> None:
    request.answer(encode_response(FIND_COORDINATOR, request.version, row._asdict()))


def refuse(request: Request, message: SimpleNamespace, error: ErrorCode, text: str | None) -> None:
    if request.version < _BATCHED_FROM:
        _answer_one(request, _Row(message.key, error, text or error.name))
        return
    rows = b"".join([_Row(key, error, text or error.name).encode() for key in message.coordinator_keys])
    request.answer(bytes(4) + encode_size(len(message.coordinator_keys), True) + rows + b"\x00")


API = Api(decode, serve, refuse)
