"""ApiVersions: what this broker speaks (KIP-35, KIP-511). Answered before the broker is ready for anything else."""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

from zkbroker.kafka.request import Api, Request, Services
from zkbroker.kafka.versions import API_VERSIONS, BY_KEY, RANGES, ApiRange
from zkbroker.kafka.wire import encode_size
from zkbroker.model.errors import ErrorCode

_ROW = struct.Struct(">hhh")
_I16 = struct.Struct(">h")
_SOFTWARE = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?")
"""What KIP-511 lets a client's name and version be: they may end up in logs."""


class ApiVersionsMessage(NamedTuple):
    software_name: str
    software_version: str


def decode(request: Request) -> ApiVersionsMessage:
    if request.version < 3 or request.version > BY_KEY[API_VERSIONS].maximum:
        return ApiVersionsMessage("", "")
    reader = request.reader()
    message = ApiVersionsMessage(reader.string(True), reader.string(True))
    reader.skip_tags()
    return message


def serve(services: Services, request: Request, message: ApiVersionsMessage) -> None:
    if request.version > BY_KEY[API_VERSIONS].maximum:
        request.answer(encode_unsupported())
    elif request.version >= 3 and not (
        _SOFTWARE.fullmatch(message.software_name) and _SOFTWARE.fullmatch(message.software_version)
    ):
        refuse(request, message, ErrorCode.INVALID_REQUEST, None)
    else:
        request.answer(encode_body(request.version, ErrorCode.NONE, RANGES))


def encode_unsupported() -> bytes:
    """To a client that is too new: the version 0 form with one row, our own range; the client then asks again."""
    return encode_body(0, ErrorCode.UNSUPPORTED_VERSION, (BY_KEY[API_VERSIONS],))


def encode_body(version: int, error: ErrorCode, ranges: tuple[ApiRange, ...]) -> bytes:
    flexible = version >= 3
    out = bytearray(_I16.pack(error))
    out += encode_size(len(ranges), flexible)
    for api in ranges:
        out += _ROW.pack(api.key, api.minimum, api.maximum)
        if flexible:
            out += b"\x00"
    if version >= 1:
        out += bytes(4)
    if flexible:
        out += b"\x00"
    return bytes(out)


def refuse(request: Request, message: ApiVersionsMessage, error: ErrorCode, text: str | None) -> None:
    version = min(request.version, BY_KEY[API_VERSIONS].maximum)
    request.answer(encode_body(version, error, ()))


API = Api(decode, serve, refuse)
