"""FindCoordinator: there are no coordinators yet, so every key gets COORDINATOR_NOT_AVAILABLE.

It is advertised because librdkafka (to 2.0.2 at least) uses lz4 only with a broker that has FindCoordinator 0.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from zkbroker.kafka.messages import decode_request, encode_response
from zkbroker.kafka.request import Api, Request, Services
from zkbroker.kafka.versions import FIND_COORDINATOR
from zkbroker.model.errors import ErrorCode


def decode(request: Request) -> SimpleNamespace:
    return decode_request(FIND_COORDINATOR, request.version, request.reader())


def serve(services: Services, request: Request, message: SimpleNamespace) -> None:
    refuse(request, message, ErrorCode.COORDINATOR_NOT_AVAILABLE, "there are no group or transaction coordinators yet")


def refuse(request: Request, message: SimpleNamespace, error: ErrorCode, text: str | None) -> None:
    nowhere: dict[str, Any] = {"node_id": -1, "host": "", "port": -1, "error_code": error, "error_message": text}
    keys = getattr(message, "coordinator_keys", ())  # from version 4 on several at once
    fields = {**nowhere, "coordinators": [{"key": key, **nowhere} for key in keys]}
    request.answer(encode_response(FIND_COORDINATOR, request.version, fields))


API = Api(decode, serve, refuse)
