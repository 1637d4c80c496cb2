"""DescribeUserScramCredentials (KIP-554): the users that may authenticate by SCRAM, once listeners ask for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from zkbroker.kafka.config_ports import ScramUser
from zkbroker.kafka.messages import decode_request, encode_response
from zkbroker.kafka.request import Api, Request, Services, when_done
from zkbroker.kafka.versions import DESCRIBE_USER_SCRAM_CREDENTIALS
from zkbroker.model.errors import ErrorCode


def decode(request: Request) -> SimpleNamespace:
    return decode_request(DESCRIBE_USER_SCRAM_CREDENTIALS, request.version, request.reader())


def serve(services: Services, request: Request, message: SimpleNamespace) -> None:
    times = Counter(user.name for user in message.users or ())
    wanted = [name for name, count in times.items() if name and count == 1]

    def answer(found: Sequence[ScramUser]) -> None:
        known = {user.name: user for user in found}
        names = times or sorted(known)
        _answer(request, ErrorCode.NONE, None, [_result(name, times[name], known.get(name)) for name in names])

    if times and not wanted:
        answer([])
        return
    when_done(request, message, services.admin.settings.describe_scram_users(wanted or None), answer, refuse)


def _result(name: str, times: int, user: ScramUser | None) -> dict[str, Any]:
    if times > 1:
        text = f"Cannot describe SCRAM credentials for the same user twice in a single request: {name}"
        return _failed(name, ErrorCode.DUPLICATE_RESOURCE, text)
    if not name:
        return _failed(name, ErrorCode.RESOURCE_NOT_FOUND, "Username must not be empty")
    if user is None:
        text = f"Attempt to describe a user credential that does not exist: {name}"
        return _failed(name, ErrorCode.RESOURCE_NOT_FOUND, text)
    infos = [{"mechanism": mechanism, "iterations": iterations} for mechanism, iterations in user.credentials]
    return {"user": name, "error_code": ErrorCode.NONE, "error_message": None, "credential_infos": infos}


def _failed(name: str, error: ErrorCode, text: str) -> dict[str, Any]:
    return {"user": name, "error_code": error, "error_message": text, "credential_infos": ()}


def _answer(request: Request, error: ErrorCode, text: str | None, results: Sequence[dict[str, Any]]) -> None:
    fields = {"error_code": error, "error_message": text, "results": results}
    request.answer(encode_response(DESCRIBE_USER_SCRAM_CREDENTIALS, request.version, fields))


def refuse(request: Request, message: SimpleNamespace, error: ErrorCode, text: str | None) -> None:
    _answer(request, error, text or error.name, ())


API = Api(decode, serve, refuse)
