"""FindCoordinator: which broker looks after a group or a transactional id (from version 4 on several, KIP-699)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from zkbroker.kafka.group_ports import KEY_OF_GROUP, KEY_OF_TRANSACTION
from zkbroker.kafka.messages import decode_request, encode_response
from zkbroker.kafka.request import Api, Request, Services
from zkbroker.kafka.versions import FIND_COORDINATOR
from zkbroker.model.errors import ErrorCode

_BATCHED_FROM = 4


def decode(request: Request) -> SimpleNamespace:
    return decode_request(FIND_COORDINATOR, request.version, request.reader())


def _keys(request: Request, message: SimpleNamespace) -> list[str]:
    keys: list[str] = message.coordinator_keys if request.version >= _BATCHED_FROM else [message.key]
    return keys


def serve(services: Services, request: Request, message: SimpleNamespace) -> None:
    key_type = getattr(message, "key_type", KEY_OF_GROUP)
    if key_type not in (KEY_OF_GROUP, KEY_OF_TRANSACTION):
        refuse(request, message, ErrorCode.INVALID_REQUEST, f"unknown coordinator type {key_type}")
        return
    brokers = {view.broker_id: view for view in services.metadata.brokers(services.listener)}
    rows = []
    for key in _keys(request, message):
        found = services.coordinators.find(key_type, key)
        view = brokers.get(found.broker_id)
        if found.error != ErrorCode.NONE:
            rows.append(_nowhere(key, found.error, found.message))
        elif view is None:
            text = f"broker {found.broker_id} cannot be reached through this listener"
            rows.append(_nowhere(key, ErrorCode.COORDINATOR_NOT_AVAILABLE, text))
        else:
            rows.append(_row(key, ErrorCode.NONE, None, view.broker_id, view.host, view.port))
    _answer(request, rows)


def _row(key: str, error: ErrorCode, text: str | None, node_id: int, host: str, port: int) -> dict[str, Any]:
    return {"key": key, "error_code": error, "error_message": text, "node_id": node_id, "host": host, "port": port}


def _nowhere(key: str, error: ErrorCode, text: str | None) -> dict[str, Any]:
    return _row(key, error, text or error.name, -1, "", -1)


def _answer(request: Request, rows: list[dict[str, Any]]) -> None:
    fields = {"coordinators": rows} if request.version >= _BATCHED_FROM else rows[0]
    request.answer(encode_response(FIND_COORDINATOR, request.version, fields))


def refuse(request: Request, message: SimpleNamespace, error: ErrorCode, text: str | None) -> None:
    _answer(request, [_nowhere(key, error, text) for key in _keys(request, message)])


API = Api(decode, serve, refuse)
